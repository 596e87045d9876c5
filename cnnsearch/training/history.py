"""The epochs that a trial has trained so far, and which of them was the best."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cnnsearch.planning.trial import EpochRow


@dataclass(kw_only=True)
class History:
    """What every trial's training state remembers of its epochs, whether it trains alone or in a bundle of heads."""

    rows: list[EpochRow] = field(default_factory=list)
    """One row per epoch. Row 0, where there is one, is the model as the trial started, before any training."""
    best: EpochRow | None = None
    """The epoch with the highest validation accuracy, the earliest on ties; None before the first finite epoch."""

    @property
    def epoch(self) -> int:
        """Epochs of training done."""
        return self.rows[-1].epoch if self.rows else 0

    def add(self, row: EpochRow) -> bool:
        """Append a row and return whether it is the best so far; one with a loss that is not finite never is."""
        self.rows.append(row)
        if row.is_finite and (self.best is None or (row.val_accuracy or 0.0) > (self.best.val_accuracy or 0.0)):
            self.best = row
            return True
        return False

    def history_dict(self) -> dict[str, Any]:
        """The rows as numbers only, for a checkpoint."""
        return {"rows": [vars(row) for row in self.rows], "best": None if self.best is None else vars(self.best)}

    def load_history(self, state: dict[str, Any]) -> None:
        """Go back to what `history_dict` gave."""
        self.rows = [EpochRow(**row) for row in state["rows"]]
        self.best = None if state["best"] is None else EpochRow(**state["best"])
