"""What a rival is given, a JSON file; what it answers, another; and the models that all of them train."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cnnsearch.spec.settings import Settings
from cnnsearch.training.models.build import build

TRAINED = {"head": ("fc.",), "last-2-convs": ("fc.", "layer4.1.conv1.", "layer4.1.conv2.")}
"""Parameters of a ResNet-18 that each way to fine-tune trains."""


@dataclass(frozen=True)
class Task:
    """Trials to train on one folder of images."""

    images: Path
    """Holds train/, val/ and test/, each with a folder a class."""
    weights: Path | None
    """Of the ResNet-18, for trials that fine-tune it."""
    precision: str
    """bf16 or fp32: the faster one here. Known beforehand, so that no rival loses time finding out."""
    scratch: Path
    """For whatever a rival wants to write."""
    trials: tuple[Settings, ...]

    @property
    def classes(self) -> list[str]:
        """Their names, in order of labels."""
        return sorted(path.name for path in (self.images / "train").iterdir())

    def write(self, file: Path) -> None:
        """Write as JSON."""
        plain = {**vars(self), "trials": [settings.model_dump() for settings in self.trials]}
        file.write_text(json.dumps(plain, default=str), encoding="utf-8")

    @classmethod
    def read(cls, file: Path | str) -> Task:
        """Read what `write` wrote."""
        plain: dict[str, Any] = json.loads(Path(file).read_text(encoding="utf-8"))
        weights = Path(plain["weights"]) if plain["weights"] else None
        trials = tuple(Settings.model_validate(one) for one in plain["trials"])
        return cls(Path(plain["images"]), weights, plain["precision"], Path(plain["scratch"]), trials)


@dataclass(frozen=True)
class Outcome:
    """One trial, trained and tested."""

    trial: int
    """Its place in the task."""
    val: list[float]
    """Validation accuracy after each epoch."""
    test: float
    """Test accuracy of the epoch that did best in validation."""
    epoch_seconds: list[float]
    seconds: float
    """From the trial's start to its end, whatever is loaded for it included."""


def answer(work: Callable[[Task], Iterable[Outcome]]) -> None:
    """Do the task named on the command line, and write the answer to the file named there."""
    task = Task.read(sys.argv[1])
    start = time.perf_counter()
    outcomes = list(work(task))
    write_answer(Path(sys.argv[2]), outcomes, time.perf_counter() - start)


def write_answer(file: Path, outcomes: Sequence[Outcome], work_seconds: float) -> None:
    """Write an answer; `work_seconds` is the time that grows with the number of trials."""
    plain = {"work_seconds": work_seconds, "outcomes": [asdict(outcome) for outcome in outcomes]}
    file.write_text(json.dumps(plain), encoding="utf-8")


def make_model(settings: Settings, classes: int, weights: Path | None) -> nn.Module:
    """A trial's model as it starts; parameters that do not train do not require gradients."""
    torch.manual_seed(settings.seed)
    if settings.fine_tune == "full":
        return build(settings, classes)
    from torchvision.models import resnet18

    model: nn.Module = resnet18()
    assert weights is not None
    model.load_state_dict(torch.load(weights, weights_only=True))
    model.fc = nn.Linear(512, classes)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith(TRAINED[settings.fine_tune])
    return model


def normalisation(settings: Settings) -> tuple[list[float], list[float]]:
    """Channel means and deviations of images in [0, 1]: ImageNet's for a model pretrained there."""
    if settings.fine_tune == "full":
        return [0.5] * 3, [0.5] * 3
    return [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
