"""Using what a sweep has found: the best network, or any other that was kept, on other images.

`choose` says which trial, `classifier` builds its network, `listing` finds images, `predict` classifies them, and
`told` says and writes what came of it. `opened` is all of that for notebooks, `module` a network for torch.
"""
