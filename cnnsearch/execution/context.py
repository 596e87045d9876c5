"""What every trial of a sweep shares, wherever it runs. Without torch: the process that schedules trials can do
without it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cnnsearch.data.dataset import Dataset, Form
from cnnsearch.planning.stopping_rules import rule_of
from cnnsearch.planning.trial import Trial
from cnnsearch.results.record import Record
from cnnsearch.spec.own_code import Snapshot
from cnnsearch.spec.settings import ResolvedPrecision, Settings
from cnnsearch.spec.stage import StopEarly
from cnnsearch.storage.remote import Remote
from cnnsearch.training.models.pretrained import OWN_IMAGES, Key, Preprocessing, Pretrained


@dataclass(frozen=True)
class Choices:
    """What is chosen once for a sweep on one kind of device, and kept when the sweep is continued."""

    device: str
    """cpu, cuda, xpu or mps."""
    threads: int
    """CPU threads of a trial."""
    precision: ResolvedPrecision
    """What `precision: auto` means."""


@dataclass(frozen=True)
class SharedContext:
    """What every trial of a sweep shares; small, and safe to send to another process."""

    results: Path
    """The sweep's results folder, as this process finds it."""
    datasets: Mapping[Form, Dataset]
    """The images in every form that some trial needs."""
    choices: Choices
    checkpoint_seconds: float
    """Least time between two checkpoints of a trial."""
    weights: Mapping[Key, Pretrained] = field(default_factory=dict)
    """Pretrained weights by model and name."""
    features_bytes: int = 0
    """Most memory for the outputs of frozen layers; larger outputs are computed anew in every epoch."""
    checkpoint_epochs: int | None = None
    """Epochs between two checkpoints, whatever the time."""
    rules: Mapping[str, StopEarly] = field(default_factory=dict)
    """Stage -> the rule that may stop its trials early."""
    max_seconds: float | None = None
    """Most training time of a trial."""
    keep_state: bool = False
    """Whether trials that ended keep the training state that a longer trial could continue from."""
    known_epochs: tuple[int, ...] = ()
    """Numbers of epochs of ended trials that longer ones may continue from."""
    is_sealed: bool = False
    """Whether no test image may be looked at."""
    remote: Remote | None = None
    """Where results are kept, if `results` only mirrors them."""
    code: tuple[Snapshot, ...] = ()
    """Code of the user's own that trials may run, as it was when the sweep was planned."""

    @property
    def measured(self) -> tuple[str, ...]:
        """Splits on which trials are evaluated: at their best epoch, and before training if they go on from another."""
        return ("val",) if self.is_sealed else ("val", "test")

    def dataset(self, trial: Trial | Record) -> Dataset:
        """The images that a trial is trained on, in the form that it needs."""
        form = (trial.settings.image_size, self.preprocessing(trial.settings).interpolation)
        return self.datasets[form].of(trial.data)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(next(iter(self.datasets.values())).classes)

    def compares(self, trial: Trial) -> bool:
        """Whether a rule compares a trial with others, by what each has shown."""
        rule = self.rules.get(trial.stage)
        return rule is not None and rule_of(rule).compares

    def awaits_decision(self, trial: Trial, epoch: int) -> bool:
        """Whether a trial, after this epoch, must wait for the decision whether it may continue."""
        rule = self.rules.get(trial.stage)
        return rule is not None and rule_of(rule).is_due(epoch, trial.settings.epochs)

    def preprocessing(self, settings: Settings) -> Preprocessing:
        """What a trial's pretrained weights expect of its images."""
        found = self.weights.get((settings.model, settings.weights))
        return OWN_IMAGES if found is None else found.preprocessing

    def expected_statistics(self, settings: Settings) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Channel means and deviations, in 0–255, that a trial's pretrained weights expect; None: the data's own."""
        expected = self.preprocessing(settings)
        if not expected.mean:
            return None
        return tuple(255 * value for value in expected.mean), tuple(255 * value for value in expected.std)

    def precision(self, settings: Settings) -> ResolvedPrecision:
        """The precision that a trial computes in."""
        return self.choices.precision if settings.precision == "auto" else settings.precision
