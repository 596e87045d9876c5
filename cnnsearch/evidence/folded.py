"""The scores of a setting in each fold, where images are dealt into folds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnsearch.evidence import by_fold
from cnnsearch.evidence.comparisons import LEAST_PAIRS, LEAST_SEEDS, Basis, Comparison
from cnnsearch.evidence.configurations import Configuration, is_missing
from cnnsearch.evidence.crossed import Answered, differs_from_zero, less_sure
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
        return {str(row["trial_id"]): row for row in self.rows}

    def _of_folds(self, scores: NDArray[np.float64], metric: Metric | None = None) -> Answered:
        """See `by_fold.condensed`."""
        return by_fold.condensed(scores, self.folds, self._fold_images if (metric or self.metric).is_share else 0)

    def compare_by_fold(self, pairs: Sequence[tuple[Configuration, Configuration]]) -> Comparison | None:
        """Compare over the folds that all settings have; of several pairs no surer than over the pairs."""
        sides = by_fold.shared([self.fold_scores(one) for pair in pairs for one in pair]) if pairs else []
        if not sides or len(sides[0]) < 2:
            return None
        means = [(float(a.mean()), float(b.mean())) for a, b in zip(sides[::2], sides[1::2], strict=True)]
        found = differs_from_zero(self._of_folds(np.mean(sides[::2], axis=0) - np.mean(sides[1::2], axis=0)))
        basis: Basis = "seeds" if len(sides[0]) >= LEAST_SEEDS else "networks"
        if basis == "seeds" and len(pairs) >= LEAST_PAIRS:
            found, basis = less_sure(found, by_fold.over_pairs(np.array([a - b for a, b in means]))), "pairs"
        return Comparison.of(means, found, basis, len(sides[0]), unit="fold")

    def change_by_fold(self, configuration: Configuration) -> Comparison | None:
        """Compare the networks of a setting after their training with what they started from, fold by fold."""
        after, before = by_fold.shared([self.fold_scores(configuration, moment) for moment in ("best", "before")])
        if len(after) < 2:
            return None
        found = by_fold.difference(after, before, self.folds, self._fold_images)
        means = [(float(after.mean()), float(before.mean()))]
        return Comparison.of(means, found, "networks", len(after), unit="fold")._replace(of_networks=True)
