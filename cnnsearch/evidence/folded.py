"""The scores of a setting in each fold, where images are dealt into folds."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnsearch.evidence import by_fold
from cnnsearch.evidence.configurations import Configuration, is_missing
from cnnsearch.evidence.crossed import Answered
from cnnsearch.evidence.recorded import Recorded
from cnnsearch.spec.metric import Metric


class Folded(Recorded):
    """What each trial of a setting scored on its own part of validation."""

    def is_by_fold(self, split: str) -> bool:
        """Whether each trial of a setting has a score on its own part of a split."""
        return bool(self.folds) and split == "val"

    def condensed(self, table: NDArray[np.float64], worth: int = 0) -> Answered:
        """Condense answers of networks of a setting for the same images, [seeds, images]; see `by_fold.corrected`."""
        side = Answered.of(table, worth)
        return by_fold.corrected(side, self.folds) if self.folds else side

    @property
    def _fold_images(self) -> float:
        """Validation images of a fold."""
        return self.size("val") / self.folds

    def fold_scores(
        self, configuration: Configuration, moment: str = "best", metric: Metric | None = None
    ) -> dict[int, float]:
        """Seed, of which each fold has its own -> score by the metric, more is better; without those not measured."""
        metric = metric or self.metric
        column = metric.measure + ("_before" if moment == "before" else "")
        rows = [self._rows.get(trial_id, {}) for trial_id in configuration.trial_ids]
        found = zip(configuration.seeds, (row.get(column) for row in rows), strict=True)
        return {
            seed: metric.sign * float(value) for seed, value in found if value is not None and not is_missing(value)
        }

    @cached_property
    def _rows(self) -> dict[str, dict[Any, Any]]:
        """Trial -> its row."""
        return {str(row["trial_id"]): row for row in self.tables.trials.to_dict("records")}

    def _of_folds(self, scores: NDArray[np.float64], metric: Metric | None = None) -> Answered:
        """See `by_fold.condensed`."""
        return by_fold.condensed(scores, self.folds, self._fold_images if (metric or self.metric).is_share else 0)
