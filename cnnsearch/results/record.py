"""What the record of a trial says."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from cnnsearch.data.images import Interpolation
from cnnsearch.planning.trial import Outcome, Status, Trial
from cnnsearch.spec.metric import ADDED, METRICS, Metric
from cnnsearch.spec.settings import Settings

SCHEMA_VERSION = 4
MOST_BYTES = 2**20
"""Most bytes of a record."""

Count = Annotated[int, Field(ge=0, le=2**53)]
Share = Annotated[FiniteFloat, Field(ge=0, le=1)]
Amount = Annotated[FiniteFloat, Field(ge=0)]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*$", max_length=100)]
"""Of a file beside the record. It names no other folder."""


class Measures(BaseModel):
    """Scores on validation and test at one moment of a trial.

    The metrics after loss and accuracy are None in records of older versions, and where they make no sense."""

    model_config = ConfigDict(frozen=True)

    val_loss: FiniteFloat
    val_accuracy: Share
    test_loss: FiniteFloat | None = None
    """None where the test set was sealed."""
    test_accuracy: Share | None = None
    val_balanced_accuracy: Share | None = None
    val_macro_f1: Share | None = None
    val_auroc: Share | None = None
    val_average_precision: Share | None = None
    val_top5_accuracy: Share | None = None
    val_brier: Amount | None = None
    val_ece: Share | None = None
    test_balanced_accuracy: Share | None = None
    test_macro_f1: Share | None = None
    test_auroc: Share | None = None
    test_average_precision: Share | None = None
    test_top5_accuracy: Share | None = None
    test_brier: Amount | None = None
    test_ece: Share | None = None


Deviation = Annotated[FiniteFloat, Field(gt=0)]


class Inputs(BaseModel):
    """How decoded images become the inputs of a trial's network: what one needs to use it on other images."""

    model_config = ConfigDict(frozen=True)

    interpolation: Interpolation
    """How images are resized to `settings.image_size`."""
    mean: tuple[FiniteFloat, FiniteFloat, FiniteFloat]
    """Mean of each channel, in 0–255, which is taken off."""
    std: tuple[Deviation, Deviation, Deviation]
    """Standard deviation of each channel, in 0–255, by which the rest is divided."""


class Record(BaseModel):
    """The durable account of one trial that ended. Unknown fields are ignored: newer versions may write more."""

    model_config = ConfigDict(frozen=True)

    trial_id: str
    stage: str
    settings: Settings
    data: str
    parent_id: str | None = None
    status: Status
    error: str | None = None
    stopped_by: str | None = None
    """What ended it early: the method of `stop_early`, or `max_seconds`."""
    best_epoch: Count | None = None
    train_loss: FiniteFloat | None = None
    train_accuracy: FiniteFloat | None = None
    best: Measures | None = None
    inputs: Inputs | None = None
    """None where the trial failed or diverged, or an older version has written the record."""
    before: Measures | None = None
    """Results before any training of this trial; only for trials that start from another."""
    parameters: Count | None = None
    """Trainable parameters."""
    model_bytes: Count | None = None
    """Size of all the model's weights, trained or not."""
    epochs_done: Count = 0
    seconds: Amount | None = None
    """Time spent training and evaluating, over all attempts."""
    images_per_second: Amount | None = None
    """Training images per second, evaluation time included."""
    peak_memory_bytes: Count | None = None
    precision: str | None = None
    device: str | None = None
    threads: Count | None = None
    host: str | None = None
    started_at: datetime | None = None
    schema_version: Count = SCHEMA_VERSION
    files: dict[FileName, str] = {}
    """File name -> SHA-256 of the files that the record vouches for."""
    checksum: str = Field("", exclude=True)
    """Checksum of the record as the version that wrote it computed it."""

    @classmethod
    def of(cls, trial: Trial, status: Status, **facts: Any) -> Record:
        """Make the record of a trial; `facts` are the other fields that are known."""
        return cls(
            trial_id=trial.id,
            stage=trial.stage,
            settings=trial.settings,
            data=trial.data,
            parent_id=trial.parent_id,
            status=status,
            **facts,
        )

    @property
    def metric(self) -> Metric:
        """What chose its best epoch."""
        return METRICS[self.settings.metric]

    @property
    def reached(self) -> float | None:
        """Its metric on validation at its best epoch; None where it was not measured."""
        return self.outcome.measured(self.metric.measure)

    @property
    def worth(self) -> float:
        """Its metric on validation so that more is better; the least where it was not measured."""
        return self.outcome.worth(self.metric.measure)

    def shown(self, images: int = 0) -> str:
        """Word its metric on so many validation images: see `Metric.shown`; empty where it was not measured."""
        return "" if self.reached is None else self.metric.shown(self.reached, images)

    @property
    def lacks_test(self) -> bool:
        """Whether the test set was sealed when this trial, whose weights are kept, was evaluated."""
        return self.outcome.is_comparable and self.best is not None and self.best.test_accuracy is None

    @property
    def outcome(self) -> Outcome:
        """The part of the record that planning needs."""
        best = self.best
        return Outcome(
            self.status,
            best.val_accuracy if best else None,
            best.val_loss if best else None,
            {f"val_{name}": getattr(best, f"val_{name}") for name in ADDED} if best else {},
            seconds=self.seconds,
            parameters=self.parameters,
            bytes=self.model_bytes,
            stopped_by=self.stopped_by,
        )
