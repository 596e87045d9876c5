"""What plots and reports ask of the tables: which setting is best, what may be as good, and what is told apart."""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cnnsearch import stats
from cnnsearch.evidence import by_fold
from cnnsearch.evidence.compared import Compared
from cnnsearch.evidence.comparisons import Comparison, Score
from cnnsearch.evidence.configurations import Configuration, best_of
from cnnsearch.evidence.crossed import between_all, luck_of_the_best
from cnnsearch.evidence.statements import SIBLINGS, Key, statements
from cnnsearch.evidence.verdicts import CANNOT_TELL, Verdict, judge, judge_all
from cnnsearch.planning.rounds import LOOKS
from cnnsearch.results.tables import Tables
from cnnsearch.spec.metric import METRICS

_SHARE = stats.SIGNIFICANCE / 2
"""Error rate of either half of what a report tells apart: see `Evidence`."""


class Evidence(Compared):
    """The facts that tables hold, and how sure one can be of them. Everything is computed on first use and kept.

    All verdicts of a report are made here, with one error rate for the whole page: at most 5 % of reports call anything
    different that is not. Statements on axes, models and stages have one half of it, single settings that are told
    apart the other, whether or not there is any: more seeds never cost a statement.
    """

    @cached_property
    def contenders(self) -> list[Configuration]:
        """The settings among which the best is chosen: those that were trained again to confirm them, else all."""
        confirmed = [c for c in self.configurations if c.confirms is not None]
        return confirmed or self.configurations

    @property
    def is_confirmed(self) -> bool:
        """Whether the best was chosen among settings that were trained again on fresh seeds."""
        return bool(self.contenders) and self.contenders[0].confirms is not None

    @cached_property
    def best(self) -> Configuration | None:
        """The best contender by the sweep's metric on validation: never by test."""
        return best_of(self.contenders)

    @property
    def best_trial(self) -> str | None:
        """Id of the network that stands for the best setting: of its seeds, the best one on validation.

        The first of equals. None where there is no best setting.
        """
        if self.best is None:
            return None
        trials = self.tables.trials
        metric = METRICS[self.best.metric]
        worth = (metric.sign * trials[metric.measure]).fillna(-np.inf)
        known = dict(zip(trials["trial_id"].astype(str), worth, strict=True))
        return max(self.best.trial_ids, key=lambda trial_id: known[trial_id])

    def score(self, configuration: Configuration, split: str | None = None, moment: str = "best") -> Score | None:
        """As `Compared.score`. The interval of the best setting is moved by what the luck of its choice is worth."""
        found = super().score(configuration, split, moment)
        found = found and found._replace(unit=self.unit)
        if found is None or moment != "best" or configuration.key not in self._luck or not found.covers_seeds:
            return found
        luck = self.metric.sign * self._luck[configuration.key][split or self.judged_on]
        most = 1.0 if found.is_share else np.inf
        return found._replace(low=max(0.0, found.low - luck), high=min(most, found.high - luck))

    @cached_property
    def _luck(self) -> dict[str, dict[str, float]]:
        """Key of the best setting -> split -> what its choice among several is worth: see `luck_of_the_best`."""
        settings = self._repeated
        if self.is_by_fold("val") and settings:
            alone = by_fold.without_the_folds([self.fold_scores(c) for c in settings])
            sides = [self._of_folds(scores) for scores in alone if len(scores) > 1]
        else:
            sides = [side for c in settings if (side := self.answered(c, "val")) is not None]
        if self.best is None or self.best not in settings or len(sides) < len(settings):
            return {}
        at = settings.index(self.best)
        return {
            self.best.key: {
                split: luck_of_the_best(sides, at, on_same_images=split == "val") for split in ("val", "test")
            }
        }

    @cached_property
    def statements(self) -> dict[Key, Comparison]:
        """Every comparison that a report may state, except for single settings against each other."""
        return statements(self)

    @cached_property
    def _verdicts(self) -> dict[Key, Verdict]:
        """Verdicts on all statements; those on two settings are judged with all other pairs of settings."""
        single = [key for key in self.statements if key[0] == SIBLINGS]
        others = [key for key in self.statements if key[0] != SIBLINGS]
        found = dict(zip(others, judge_all([self.statements[key] for key in others], _SHARE), strict=True))
        for key in single:
            comparison = self.statements[key]
            clear = comparison.can_tell and comparison.p_value < self._bound
            found[key] = judge(comparison, 0.0 if clear else 1.0)
        return found

    def verdict(self, key: Key) -> Verdict:
        """How sure one can be of a statement, corrected for all others on the page."""
        return self._verdicts.get(key, CANNOT_TELL)

    @cached_property
    def _repeated(self) -> list[Configuration]:
        """The contenders that have seeds enough to be told apart, if there are two."""
        found = [c for c in self.contenders if self.answered(c) is not None]
        return found if len(found) > 1 else []

    @cached_property
    def _pairwise(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Differences between the settings of `_repeated`, and their p-values: see `crossed.between_all`."""
        if self.is_by_fold(self.judged_on):
            images = self._fold_images if self.metric.is_share else 0
            return by_fold.between_all([self.fold_scores(c) for c in self._repeated], self.folds, images)
        sides = [side for c in self._repeated if (side := self.answered(c)) is not None]
        return between_all(sides) if sides else (np.zeros((0, 0)), np.zeros((0, 0)))

    @cached_property
    def _bound(self) -> float:
        """The p-value below which two settings are told apart.

        Holm's correction covers every two contenders, because the data say which is ahead, and siblings.
        """
        p_values = self._pairwise[1]
        of_contenders = p_values[np.triu_indices(len(p_values), 1)]
        siblings = [c.p_value for key, c in self.statements.items() if key[0] == SIBLINGS and c.can_tell]
        # Seeds that were added after looking, until something was clear: each look has its share.
        looks = len(LOOKS) if self._was_looked_at else 1
        return stats.holm_bound(np.concatenate([of_contenders, siblings]), _SHARE / looks)

    @property
    def _was_looked_at(self) -> bool:
        """Whether contenders got more seeds, depending on what those before had shown."""
        confirm = self.tables.sweep.confirm if self.is_confirmed else None
        return confirm is not None and any(len(c.trial_ids) > confirm.seeds for c in self.contenders)

    @cached_property
    def _lost(self) -> NDArray[np.bool_]:
        """[worse, better]: which two of `_repeated` are told apart by seeds and images."""
        value, p_values = self._pairwise
        return (p_values < self._bound) & (value < 0)

    @cached_property
    def told_apart(self) -> list[Configuration]:
        """The contenders that cannot be the best: each is worse than another one."""
        worse = {self._repeated[i].key for i in np.flatnonzero(self._lost.any(axis=1))}
        return [c for c in self.contenders if c.key in worse]

    @cached_property
    def near_best(self) -> list[Configuration]:
        """The contenders beside the best that may be as good: neither told to be worse nor told to be better."""
        lost = {c.key for c in [*self.told_apart, *self.better_than_best]}
        return [c for c in self.contenders if c is not self.best and c.key not in lost]

    @cached_property
    def better_than_best(self) -> list[Configuration]:
        """The contenders that are told apart from the best by validation, and better."""
        if self.best not in self._repeated:
            return []
        better = {self._repeated[i].key for i in np.flatnonzero(self._lost[self._repeated.index(self.best)])}
        return [c for c in self.contenders if c.key in better]

    @property
    def tells_settings_apart(self) -> bool:
        """Whether there are seeds enough to tell any two contenders apart, whatever the outcome."""
        return bool(self._repeated)

    @cached_property
    def incomplete(self) -> list[Configuration]:
        """The settings that finished fewer seeds than others of their stage."""
        most = {stage: max(len(c.trial_ids) for c in self.stage(stage)) for stage in self.stages}
        # A contender that was told to be worse gets no more seeds; one that lost a seed lacks it.
        rows = self.rows if self.is_confirmed else []
        lost = {row["confirms"] for row in rows if row["status"] != "done"}
        fewer = [c for c in self.configurations if len(c.trial_ids) < most[c.stage]]
        return [c for c in fewer if c.confirms is None or c.confirms in lost]

    @cached_property
    def added(self) -> list[Configuration]:
        """The settings that a changed command added when test scores of others were there to be seen."""
        if self.tables.sweep.evidence.test == "sealed":
            return self._added_since_unsealed
        runs = [run for run in self.runs if isinstance(run.get("started_at"), str)]
        known = self.tables.trials[self.tables.trials["started_at"].notna()]
        times = pd.to_datetime(known["started_at"], utc=True)
        starts = dict(zip(known["trial_id"].astype(str), times, strict=True))
        for before, after in pairwise(runs):
            moment = pd.to_datetime(after["started_at"], utc=True)
            if before.get("command") != after.get("command") and any(start < moment for start in starts.values()):
                settings = [c for c in self.configurations if c.confirms is None]
                return [c for c in settings if all(starts.get(id_, moment) >= moment for id_ in c.trial_ids)]
        return []

    @property
    def _added_since_unsealed(self) -> list[Configuration]:
        """The settings that were first trained after the test set had been unsealed."""
        at = self.tables.unsealed.get("at")
        if not isinstance(at, str):
            return []
        times = pd.to_datetime(self.tables.trials["started_at"], utc=True)
        late = set(self.tables.trials.loc[times >= pd.to_datetime(at, utc=True), "trial_id"].astype(str))
        return [c for c in self.configurations if c.confirms is None and late.issuperset(c.trial_ids)]

    def balanced(self, configuration: Configuration) -> tuple[stats.Estimate, float] | None:
        """Mean recall over unevenly large classes, and its p-value against guessing; None where they are even.

        Also None where answers are not recorded.
        """
        if not stats.are_uneven(self.class_counts(self.judged_on)):
            return None
        table = self.table(configuration)
        if table is None:
            return None
        labels = self.labels[self.judged_on]
        right = np.bincount(labels, table.mean(axis=0), len(self.classes))
        return stats.balanced_accuracy(right.tolist(), np.bincount(labels, minlength=len(self.classes)).tolist())

    @cached_property
    def chance_score(self) -> float:
        """What guessing scores in the test that `beats_chance` makes: a mean recall where classes are uneven."""
        if any(self.balanced(c) for c in self.configurations):
            return 1 / sum(count > 0 for count in self.class_counts(self.judged_on))
        return self.chance

    @cached_property
    def _beat_chance(self) -> set[str]:
        """Keys of the configurations that are better than chance at 5 %, by Holm's correction over all of them."""
        p_values: dict[str, float] = {}
        unmeasured = set()
        counts = self.class_counts(self.judged_on)
        for c in self.configurations:
            score, balanced = self.accuracy(c), self.balanced(c)
            if balanced is not None:
                p_values[c.key] = balanced[1]
            elif score is None or sum(counts) == 0:
                unmeasured.add(c.key)  # nothing was measured that speaks against it; the report says so
            else:
                p_values[c.key] = stats.better_than_chance(score.value * score.n, score.n, counts).p_value
        adjusted = stats.holm(list(p_values.values()))
        return unmeasured | {key for key, p in zip(p_values, adjusted, strict=True) if p < stats.SIGNIFICANCE}

    def beats_chance(self, configuration: Configuration) -> bool:
        """Whether it is better than chance, corrected for the number of configurations.

        Accuracy is held against always naming the largest class; where classes are uneven, mean recall against
        guessing.
        """
        return configuration.key in self._beat_chance

    @property
    def any_beats_chance(self) -> bool:
        """Whether at least one configuration is better than chance."""
        return bool(self._beat_chance)


def as_evidence(source: Tables | Evidence, metric: str | None = None) -> Evidence:
    """The source itself if it is an `Evidence`, else the evidence of these tables.

    With `metric` settings are compared by that, in place of the sweep's.
    """
    if isinstance(source, Evidence):
        return source if metric in (None, source.metric.name) else Evidence(source.tables, metric)
    return Evidence(source, metric)
