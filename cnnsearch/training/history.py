"""The epochs that a trial has trained so far, and which of them was the best."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from cnnsearch.planning.trial import EpochRow
from cnnsearch.spec.metric import DEFAULT, METRICS


@dataclass(kw_only=True)
class History:
    """What every trial's training state remembers of its epochs, whether it trains alone or in a bundle of heads."""

    rows: list[EpochRow] = field(default_factory=list)
    """One row per epoch. Row 0, where there is one, is the model as the trial started, before any training."""
    best: EpochRow | None = None
    """The best epoch by the sweep's metric on validation, the earliest on ties; None before the first finite epoch."""
    metric: str = DEFAULT
    """What decides which epoch is the best."""

    @property
    def epoch(self) -> int:
        """Epochs of training done."""
        return self.rows[-1].epoch if self.rows else 0

    def add(self, row: EpochRow) -> bool:
        """Append a row and return whether it is the best so far; one with a loss that is not finite never is."""
        self.rows.append(row)
        if row.is_finite and (self.best is None or self._worth(row) > self._worth(self.best)):
            self.best = row
            return True
        return False

    def _worth(self, row: EpochRow) -> float:
        """What epochs are ranked by: more is better. One without the metric is the worst."""
        metric = METRICS[self.metric]
        value: float | None = getattr(row, metric.measure)
        return -math.inf if value is None else metric.sign * value

    def history_dict(self) -> dict[str, Any]:
        """The rows as numbers only, for a checkpoint."""
        return {"rows": [vars(row) for row in self.rows], "best": None if self.best is None else vars(self.best)}

    def load_history(self, state: dict[str, Any]) -> None:
        """Go back to what `history_dict` gave."""
        self.rows = [EpochRow(**row) for row in state["rows"]]
        self.best = None if state["best"] is None else EpochRow(**state["best"])
