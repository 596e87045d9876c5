"""The ways of doing a sweep that this project is compared with, each a process of its own.

`notebook` is N, `plain_ray` R, `tuned_ray` R+, `loop` S. They share what a user of any of them would have: the model
definitions (`cnnsearch.training.models`) and nothing else of this package's. `usual` holds the training loop of N and
R, `careful` that of R+ and S, `task` what they are given and what they answer.

    python -m benchmarks.rivals.NAME TASK ANSWER
"""
