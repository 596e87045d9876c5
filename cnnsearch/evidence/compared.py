"""What can be said of two settings: the part of the evidence that axes, families and verdicts build on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cnnsearch import stats
from cnnsearch.evidence import by_fold, crossed, resampled
from cnnsearch.evidence.comparisons import LEAST_PAIRS, LEAST_SEEDS, Basis, Comparison, Score
from cnnsearch.evidence.configurations import Configuration
from cnnsearch.evidence.crossed import Answered
from cnnsearch.evidence.named import Named
from cnnsearch.scores import resamples
from cnnsearch.spec.metric import DEFAULT, METRICS, Metric

MOST_KEPT_BYTES = 64 * 1024**2
"""Memory for means over seeds that are kept; of more settings or examples, the others are computed each time."""


class Compared(Named):
    """Scores of the settings of a sweep, and comparisons between them."""

    def correct(
        self, configuration: Configuration, split: str | None = None, moment: str = "best"
    ) -> NDArray[np.int64] | None:
        """For each example, how many of the configuration's trials are right; None where not recorded."""
        table = self.table(configuration, split, moment)
        return None if table is None else table.sum(axis=0).astype(np.int64)

    def table(
        self, configuration: Configuration, split: str | None = None, moment: str = "best"
    ) -> NDArray[np.float64] | None:
        """Right answers (0 or 1) of a configuration, [seeds, examples]; None where not recorded."""
        split = split or self.judged_on
        found = self.whole_answers(configuration.trial_ids, split, moment)
        if not self.examples[split] or not found:
            return None
        labels = self.labels[split]
        return np.stack([one.predicted == labels for one in found]).astype(np.float64)

    def observed(
        self, configuration: Configuration, split: str | None = None, moment: str = "best"
    ) -> NDArray[np.float64] | None:
        """What settings are compared by: right answers, or numbers of resamples where the metric is another.

        [seeds, examples] as `table`, or [seeds, draws] as `resampled.observations`, or [folds, 1]; more is better.
        """
        split = split or self.judged_on
        if self.is_by_fold(split):
            scores = self.fold_scores(configuration, moment)
            return np.array([*scores.values()])[:, None] if len(scores) > 1 else None
        if self.metric.name == DEFAULT:
            return self.table(configuration, split, moment)
        key = (configuration.key, split, moment)
        if key not in self._observed:
            self._observed[key] = self._resampled(self.metric, configuration, split, moment)
        return self._observed[key]

    @cached_property
    def _observed(self) -> dict[tuple[str, str, str], NDArray[np.float64] | None]:
        return {}

    def _resampled(
        self, metric: Metric, configuration: Configuration, split: str, moment: str = "best"
    ) -> NDArray[np.float64] | None:
        whole = metric.needs_probabilities
        found = [self.predicted(id_, split, moment, whole=whole) for id_ in configuration.trial_ids]
        networks = [one for one in found if one is not None]
        if len(networks) < len(found) or split not in self.measured:
            return None
        images = resampled.worth_images(metric, self.labels[split])
        return resampled.observations(metric, networks, self._draws(split, metric.by_class), images)

    def _draws(self, split: str, by_class: bool) -> NDArray[np.float64]:
        if (split, by_class) not in self._drawn:
            self._drawn[split, by_class] = resamples(self.labels[split], by_class=by_class)
        return self._drawn[split, by_class]

    @cached_property
    def _drawn(self) -> dict[tuple[str, bool], NDArray[np.float64]]:
        return {}

    def _worth(self, split: str, metric: Metric | None = None) -> int:
        """See `Answered.worth`: 0 for the accuracy."""
        by = metric or self.metric
        if self.is_by_fold(split):
            return by_fold.NO_MORE
        return 0 if by.name == DEFAULT else resampled.worth_images(by, self.labels[split])

    def answered(self, configuration: Configuration, split: str | None = None, moment: str = "best") -> Answered | None:
        """A configuration's answers, condensed; its seeds' spread is judged beside that of all others.

        None where they are not recorded, or with fewer than `LEAST_SEEDS` seeds.
        """
        parent = self.by_key.get(configuration.parent or "")
        if moment == "before" and parent is not None and parent.seeds == configuration.seeds:
            return self.answered(parent, split)  # these are its networks, and have one score
        return self._condensed(split or self.judged_on, moment).get(configuration.key)

    def _condensed(self, split: str, moment: str) -> dict[str, Answered]:
        if (split, moment) not in self._known:
            tables = {
                c.key: table
                for c in self.configurations
                if len(c.trial_ids) >= LEAST_SEEDS and (table := self.observed(c, split, moment)) is not None
            }
            if self.is_by_fold(split):
                sides = [self._of_folds(table[:, 0]) for table in tables.values()]
            else:
                sides = crossed.sharing_spread([Answered.of(table, self._worth(split)) for table in tables.values()])
                sides = [by_fold.corrected(side, self.folds) for side in sides] if self.folds else sides
            self._known[split, moment] = dict(zip(tables, sides, strict=True))
        return self._known[split, moment]

    @cached_property
    def _known(self) -> dict[tuple[str, str], dict[str, Answered]]:
        return {}

    def score(self, configuration: Configuration, split: str | None = None, moment: str = "best") -> Score | None:
        """Mean over seeds of the metric, with its interval; None where it was not measured, or there is none.

        With `LEAST_SEEDS` seeds or more the interval covers the setting: other seeds and other images. With fewer it is
        Wilson's, or that of resamples, and covers other images alone; it does not shrink with the number of seeds.
        """
        split = split or self.judged_on
        if self.metric.name != DEFAULT:
            table, side = self.observed(configuration, split, moment), self.answered(configuration, split, moment)
            images = self._worth(split)
            if self.is_by_fold(split) and side is None:
                return None
            return None if table is None else resampled.score_of(self.metric, table, side, self.size(split), images)
        column = f"{split}_accuracy" + ("_before" if moment == "before" else "")
        value, n = configuration.scores.get(column), self.size(split)
        if value is None or n == 0:
            return None
        if (side := self.answered(configuration, split, moment)) is not None:
            interval = crossed.mean_of(side)
            return Score(value, interval.low, interval.high, n, side.replicates)
        return Score.of(value, n, len(configuration.trial_ids))

    def accuracy(self, configuration: Configuration, split: str | None = None) -> Score | None:
        """Mean accuracy over seeds, whatever the metric. Other settings do not vouch for the spread of its seeds."""
        split = split or self.judged_on
        value, n = configuration.scores.get(f"{split}_accuracy"), self.size(split)
        if value is None or n == 0:
            return None
        if (side := self._alone(METRICS[DEFAULT], configuration, split)) is not None:
            interval = crossed.mean_of(side)
            return Score(value, interval.low, interval.high, n, side.replicates)
        return Score.of(value, n, len(configuration.trial_ids))

    def _alone(self, metric: Metric, configuration: Configuration, split: str) -> Answered | None:
        """A configuration's answers, condensed without a look at others; None with too few seeds, or not recorded."""
        if len(configuration.trial_ids) < LEAST_SEEDS:
            return None
        if self.is_by_fold(split):
            scores = self.fold_scores(configuration, metric=metric)
            return self._of_folds(np.array([*scores.values()]), metric) if len(scores) >= LEAST_SEEDS else None
        if metric.name == DEFAULT:
            table = self.table(configuration, split)
        else:
            table = self._resampled(metric, configuration, split)
        if table is None:
            return None
        return self.condensed(table, self._worth(split, metric))

    def score_by(self, metric: Metric, configuration: Configuration, split: str) -> Score | None:
        """As `score`, of any metric. Other settings do not vouch for the spread of its seeds."""
        if metric.name == self.metric.name:
            return self.score(configuration, split)
        if self.is_by_fold(split):
            scores = self.fold_scores(configuration, metric=metric)
            table = np.array([*scores.values()])[:, None] if len(scores) >= LEAST_SEEDS else None
        else:
            table = self._resampled(metric, configuration, split)
        if table is None:
            return None
        images, side = self._worth(split, metric), self._alone(metric, configuration, split)
        return resampled.score_of(metric, table, side, self.size(split), images)

    def compare(self, pairs: Pairs) -> Comparison | None:
        """Compare setting A with setting B over all `pairs` (A, B), on the same examples.

        What it may be used for depends on what was repeated (`Comparison.basis`). `LEAST_PAIRS` matched pairs come
        first, each one repetition with its seeds averaged: so more seeds never earn less than fewer. Of fewer pairs,
        `LEAST_SEEDS` seeds of every setting are the repetitions. Else only the trained networks are compared.

        Returns None without pairs, or where predictions are missing.
        """
        if self.is_by_fold(self.judged_on):
            return self.compare_by_fold(pairs)
        seeds, basis, worth = fewest_seeds(pairs), basis_of(pairs), self._worth(self.judged_on)
        if basis == "pairs":
            return self._compare_means([pairs])[0]
        tables = [(self.observed(a), self.observed(b)) for a, b in pairs]
        known = [(a, b) for a, b in tables if a is not None and b is not None]
        if not known or len(known) != len(tables):
            return None
        if basis == "seeds":
            if len(pairs) == 1:
                sides = [self.answered(one) for one in pairs[0]]
                assert sides[0] is not None  # there are seeds enough, and their tables are known
                assert sides[1] is not None
                return Comparison.of(_whole(known), crossed.difference(sides[0], sides[1]), basis, seeds)
            # Of several pairs, the first seed of each is one repetition, the second another.
            a, b = (np.mean([side[:seeds] for side in sides], axis=0) for sides in zip(*known, strict=True))
            found = crossed.difference(Answered.of(a, worth), Answered.of(b, worth))
            return Comparison.of(_whole(known), found, basis, seeds)
        return Comparison.of(_whole(known), _of_networks(known, worth), basis, seeds)

    def compare_all(self, every: Sequence[Pairs]) -> list[Comparison | None]:
        """`compare` of each of these: an axis with many values has very many."""
        if self.is_by_fold(self.judged_on):
            return [self.compare(pairs) for pairs in every]
        found: list[Comparison | None] = [None] * len(every)
        alike: dict[int, list[int]] = {}
        for index, pairs in enumerate(every):
            if basis_of(pairs) == "pairs":
                alike.setdefault(len(pairs), []).append(index)
            else:
                found[index] = self.compare(pairs)
        for count, indices in alike.items():
            step = max(1, crossed.TOGETHER // (count * max(1, self.size(self.judged_on))))
            for start in range(0, len(indices), step):
                some = indices[start : start + step]
                for index, comparison in zip(some, self._compare_means([every[i] for i in some]), strict=True):
                    found[index] = comparison
        return found

    def _compare_means(self, every: Sequence[Pairs]) -> list[Comparison | None]:
        """See `compare`: each pair is one repetition, with its seeds averaged. All have as many pairs."""
        means = {one.key: self._mean(one) for pairs in every for pair in pairs for one in pair}
        known = {key: mean for key, mean in means.items() if mean is not None}
        whole = [pairs for pairs in every if all(one.key in known for pair in pairs for one in pair)]
        if not whole:
            return [None] * len(every)
        at = {key: place for place, key in enumerate(known)}
        table = np.stack([by_image for by_image, _ in known.values()])
        a, b = (np.array([[at[pair[side].key] for pair in pairs] for pairs in whole]) for side in (0, 1))
        crosses = crossed.all_differ_from_zero(table[a] - table[b], self._worth(self.judged_on))
        judged = {
            id(pairs): Comparison.of(
                [(known[one.key][1], known[other.key][1]) for one, other in pairs], found, "pairs", fewest_seeds(pairs)
            )
            for pairs, found in zip(whole, crosses, strict=True)
        }
        return [judged.get(id(pairs)) for pairs in every]

    def _mean(self, configuration: Configuration) -> tuple[NDArray[np.float64], float] | None:
        """What a setting is compared by, as a mean over its seeds: for each example, and over all.

        An axis with many values has every setting compared many times.
        """
        if configuration.key in self._means:
            return self._means[configuration.key]
        table = self.observed(configuration)
        found = None if table is None else (table.mean(axis=0), float(table.mean()))
        if found is None or found[0].nbytes * len(self._means) < MOST_KEPT_BYTES:
            self._means[configuration.key] = found
        return found

    @cached_property
    def _means(self) -> dict[str, tuple[NDArray[np.float64], float] | None]:
        return {}

    def change(self, configuration: Configuration) -> Comparison | None:
        """Compare the networks of a setting after their training with what they started from, on the same examples.

        A statement about these networks, which need no repetition.
        """
        if self.is_by_fold(self.judged_on):
            return self.change_by_fold(configuration)
        after, before = self.observed(configuration), self.observed(configuration, moment="before")
        if after is None or before is None:
            return None
        found = _of_networks([(after, before)], self._worth(self.judged_on))
        return Comparison.of(_whole([(after, before)]), found, "networks", len(after))._replace(of_networks=True)


Pairs = Sequence[tuple[Configuration, Configuration]]


def fewest_seeds(pairs: Pairs) -> int:
    """Seeds of the setting that has fewest; 0 without pairs."""
    return min((len(c.trial_ids) for pair in pairs for c in pair), default=0)


def basis_of(pairs: Pairs) -> Basis:
    """What is repeated often enough in these pairs to say something of settings: see `Compared.compare`."""
    if len(pairs) >= LEAST_PAIRS:
        return "pairs"
    return "seeds" if fewest_seeds(pairs) >= LEAST_SEEDS else "networks"


Tables = Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]
"""For each pair of settings, the right answers of A and those of B, both [seeds, examples]."""


def _of_networks(known: Tables, worth: int) -> crossed.Crossed:
    """The mean difference of these networks: an interval and an exact test over the examples alone.

    With `worth` images from resamples (see `Answered.worth`), where the test is a normal one.
    """
    mean = np.mean([a.mean(axis=0) - b.mean(axis=0) for a, b in known], axis=0)
    if worth:
        return resampled.of_networks(mean, worth)
    whole = len(known) * int(np.lcm.reduce([len(side) for pair in known for side in pair]))
    p_value = stats.sign_flip_exact(np.rint(mean * whole).astype(np.int64))
    return crossed.Crossed(stats.paired_difference(mean, np.zeros(mean.size)), p_value, 0.0, 0.0)


def _whole(known: Tables) -> list[tuple[float, float]]:
    """For each pair of settings, the mean of A and that of B over all."""
    return [(float(a.mean()), float(b.mean())) for a, b in known]
