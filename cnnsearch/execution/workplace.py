"""What every trial of a sweep shares, wherever it runs. Torch stays out: who schedules trials need not import it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cnnsearch.data.dataset import Dataset, Form
from cnnsearch.planning.stopping_rules import rule_of
from cnnsearch.planning.trial import Trial
from cnnsearch.spec.settings import ResolvedPrecision, Settings
from cnnsearch.spec.stage import StopEarly
from cnnsearch.storage.remote import Remote
from cnnsearch.training.models.pretrained import OWN_IMAGES, Key, Preprocessing, Pretrained


@dataclass(frozen=True)
class Choices:
    """What was decided once for a sweep on one kind of device, and is used again when it goes on."""

    device: str
    """cpu or cuda."""
    threads: int
    """CPU threads of a trial."""
    precision: ResolvedPrecision
    """What `precision: auto` means."""


@dataclass(frozen=True)
class Workplace:
    """What every trial of a sweep shares; small, and safe to send to another process."""

    results: Path
    datasets: Mapping[Form, Dataset]
    """The images in every form that some trial takes."""
    choices: Choices
    checkpoint_seconds: float
    """Least time between checkpoints of a trial."""
    weights: Mapping[Key, Pretrained] = field(default_factory=dict)
    """Pretrained weights by model and name."""
    features_bytes: int = 0
    """Most that the outputs of frozen layers may take; beyond it they are computed anew in every epoch."""
    checkpoint_epochs: int | None = None
    """Epochs between checkpoints, whatever the time."""
    rules: Mapping[str, StopEarly] = field(default_factory=dict)
    """Stage -> the rule that may stop its trials."""
    max_seconds: float | None = None
    """Most training time of a trial."""
    keep_state: bool = False
    """Whether trials that ended keep what training needs to go on to more epochs."""
    known_epochs: tuple[int, ...] = ()
    """Numbers of epochs of trials that ended, from which longer ones may go on."""
    remote: Remote | None = None
    """Where trials are kept, when `results` is only a mirror of it."""

    def dataset(self, settings: Settings) -> Dataset:
        """The images in the form a trial takes."""
        return self.datasets[settings.image_size, self.preprocessing(settings).interpolation]

    def awaits_word(self, trial: Trial, epoch: int) -> bool:
        """Whether after this epoch a trial goes on only once it was decided that it may."""
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
        """What a trial computes in."""
        return self.choices.precision if settings.precision == "auto" else settings.precision


@dataclass
class CheckpointTimes:
    """Says after which epochs a checkpoint is due."""

    place: Workplace
    saved_at: float = field(default_factory=time.monotonic)

    def now(self, epoch: int) -> bool:
        """Whether one is due after this epoch; it is then taken to be made."""
        every = self.place.checkpoint_epochs
        by_epochs = every is not None and epoch % every == 0
        if not by_epochs and time.monotonic() - self.saved_at < self.place.checkpoint_seconds:
            return False
        self.saved_at = time.monotonic()
        return True
