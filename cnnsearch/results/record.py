"""What the record of a trial says."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from cnnsearch.planning.trial import Outcome, Status, Trial
from cnnsearch.spec.settings import Settings

if TYPE_CHECKING:  # torch takes seconds to import, and reading results does not need it
    pass

SCHEMA_VERSION = 3


class Measures(BaseModel):
    """Loss and accuracy of validation and test at one moment of a trial."""

    model_config = ConfigDict(frozen=True)

    val_loss: float
    val_accuracy: float
    test_loss: float | None = None
    """None where the test set was sealed."""
    test_accuracy: float | None = None


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
    best_epoch: int | None = None
    train_loss: float | None = None
    train_accuracy: float | None = None
    best: Measures | None = None
    before: Measures | None = None
    """Results before any training of this trial; only for trials that start from another."""
    parameters: int | None = None
    """Trainable parameters."""
    model_bytes: int | None = None
    """Size of all the model's weights, trained or not."""
    epochs_done: int = 0
    seconds: float | None = None
    """Time spent training and evaluating, over all attempts."""
    images_per_second: float | None = None
    """Training images per second, evaluation time included."""
    peak_memory_bytes: int | None = None
    precision: str | None = None
    device: str | None = None
    threads: int | None = None
    host: str | None = None
    started_at: datetime | None = None
    schema_version: int = SCHEMA_VERSION
    files: dict[str, str] = {}
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
            seconds=self.seconds,
            parameters=self.parameters,
            bytes=self.model_bytes,
            stopped_by=self.stopped_by,
        )
