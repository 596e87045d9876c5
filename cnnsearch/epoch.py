"""What one epoch of training gave. Torch stays out: views, records and schedulers need nothing more."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class EpochRow:
    """Results of one epoch; epoch 0 is before training and has no training numbers.

    Training loss and accuracy are means over the epoch's examples as the model met them, dropout on and weights
    changing. Validation is measured after the epoch.
    """

    epoch: int
    train_loss: float | None
    train_accuracy: float | None
    val_loss: float | None
    val_accuracy: float | None
    lr: float
    seconds: float

    @property
    def is_finite(self) -> bool:
        """Whether the losses are numbers: a trial whose losses are not has diverged."""
        return all(math.isfinite(loss) for loss in (self.train_loss, self.val_loss) if loss is not None)
