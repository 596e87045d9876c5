"""R, a plain Ray Tune script: what Ray's own PyTorch examples lead a good engineer to.

The trainable is a function that loads its data and trains as in N; it reports and saves a checkpoint every epoch. One
core (and, where there is one, a GPU) a trial, as many trials at once as there are cores (or GPUs), a fresh actor for
each; Tune's default loggers and output.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from ray import tune

from benchmarks.rivals.task import Outcome, Task, answer
from benchmarks.rivals.usual import Usual


def run(task: Task) -> Iterator[Outcome]:
    """The grid as a Tuner."""
    task_file = Path(sys.argv[1]).absolute()

    def train(config: dict[str, Any]) -> None:
        trial = Usual(Task.read(task_file), config["trial"])
        for accuracy in trial.epochs():
            with tempfile.TemporaryDirectory() as checkpoint:
                torch.save(trial.model.state_dict(), Path(checkpoint) / "model.pt")
                tune.report({"val_accuracy": accuracy}, checkpoint=tune.Checkpoint.from_directory(checkpoint))
        outcome = trial.outcome()
        tune.report({"val_accuracy": max(outcome.val), "outcome": asdict(outcome)})

    tuner = tune.Tuner(
        tune.with_resources(train, {"cpu": 1, "gpu": int(torch.cuda.is_available())}),
        param_space={"trial": tune.grid_search(list(range(len(task.trials))))},
        tune_config=tune.TuneConfig(metric="val_accuracy", mode="max"),
        run_config=tune.RunConfig(storage_path=str(task.scratch.absolute())),
    )
    for result in tuner.fit():
        yield Outcome(**result.metrics["outcome"])


if __name__ == "__main__":
    answer(run)
