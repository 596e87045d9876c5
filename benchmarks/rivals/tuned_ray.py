"""R+, Ray Tune by someone who has read its performance notes.

Images are decoded once and lie as uint8 in Ray's object store, where every worker maps the same copy. Workers are
reused, loggers and output are off. Training is that of `careful`. The best weights stay in memory: no checkpoints. A
trial fine-tunes the whole network as it stands, frozen layers included: sharing their outputs is no part of Ray Tune.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

# Read when Ray is imported.
os.environ.update({"RAY_AIR_NEW_OUTPUT": "0", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1"})

import ray
import torch
from ray import tune

from benchmarks.rivals import careful
from benchmarks.rivals.task import Outcome, Task, answer, make_model


def run(task: Task) -> Iterator[Outcome]:
    """The grid as a Tuner."""
    ray.init(include_dashboard=False, log_to_driver=False)
    images = ray.put(careful.decode(task.images, task.trials[0].image_size))
    classes = len(task.classes)
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def train(config: dict[str, Any]) -> None:
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        number = config["trial"]
        settings = task.trials[number]
        data = careful.tensors(ray.get(images), device)
        model = make_model(settings, classes, task.weights)
        prepare = careful.pixels(settings, device)

        def report(accuracy: float) -> None:
            tune.report({"val_accuracy": accuracy})

        outcome = careful.train(number, settings, model, data, prepare, task.precision, report)
        tune.report({"val_accuracy": max(outcome.val), "outcome": asdict(outcome)})

    tuner = tune.Tuner(
        tune.with_resources(train, {"cpu": 1, "gpu": int(device == "cuda")}),
        param_space={"trial": tune.grid_search(list(range(len(task.trials))))},
        tune_config=tune.TuneConfig(metric="val_accuracy", mode="max", reuse_actors=True),
        run_config=tune.RunConfig(storage_path=str(task.scratch.absolute()), verbose=0),
    )
    for result in tuner.fit():
        yield Outcome(**result.metrics["outcome"])


if __name__ == "__main__":
    answer(run)
