"""What plots and reports ask of the tables: which setting is best, who got which example right, what differs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cnnsearch import stats
from cnnsearch.evidence.comparisons import Comparison, Score, over_seeds_too
from cnnsearch.evidence.configurations import AXES, Configuration, axis_values, best_of, collect
from cnnsearch.evidence.recorded import Recorded
from cnnsearch.evidence.searches import Attempt, Searched, searches
from cnnsearch.results.tables import Tables
from cnnsearch.spec.axis_words import describe, rounded
from cnnsearch.spec.stage import Values


class Evidence(Recorded):
    """The facts that tables hold. Everything is computed on first use and kept."""

    @cached_property
    def configurations(self) -> list[Configuration]:
        """Finished configurations, in the order of the table."""
        return collect(self.tables)

    @cached_property
    def by_key(self) -> dict[str, Configuration]:
        """Key -> configuration."""
        return {c.key: c for c in self.configurations}

    @cached_property
    def stages(self) -> list[str]:
        """Names of the stages that have finished configurations, in the order of the sweep."""
        planned = [stage.name for stage in self.tables.sweep.stages]
        present = list(dict.fromkeys(c.stage for c in self.configurations))
        return [name for name in planned if name in present] + [name for name in present if name not in planned]

    def stage(self, name: str) -> list[Configuration]:
        """The finished configurations of a stage."""
        return [c for c in self.configurations if c.stage == name]

    def continues(self, name: str) -> bool:
        """Whether the stage carries weights over from another."""
        return any(c.parent is not None for c in self.stage(name))

    def space(self, name: str) -> dict[str, Values]:
        """A stage's space as the sweep file gives it: axis -> values. Empty for a stage that is not in the sweep."""
        return next((stage.space for stage in self.tables.sweep.stages if stage.name == name), {})

    def axes(self, name: str) -> list[str]:
        """The axes a stage itself varies, in the order of its space; never the seed.

        Axes that a stage only inherits from its parents are not its own, though they differ between its configurations.
        """
        configurations = self.stage(name)
        varying = [a for a in AXES if len({c.values[a] for c in configurations}) > 1]
        space = list(self.space(name))
        own = [axis for axis in space if axis in varying]
        return own if space else varying

    @cached_property
    def varying(self) -> list[str]:
        """The axes that differ between any two trials, finished or not: what a label has to mention."""
        rows = [axis_values(row) for row in self.tables.trials.to_dict("records")]
        return [axis for axis in AXES if len({row[axis] for row in rows}) > 1]

    def label(self, configuration: Configuration, *, omit: Iterable[str] = (), separator: str = ", ") -> str:
        """A configuration in words, by the axes that vary: "residual, lr 0.001, batch 16, no dropout"."""
        omitted = set(omit)
        omitted |= self.without_part.get(configuration.key, set())
        axes = [axis for axis in self.varying if axis not in omitted]
        # If configurations differ in no axis, say what kind this one is.
        axes = axes or [axis for axis in ("model", "lr", "batch_size") if axis not in omitted]
        return separator.join(describe(axis, configuration.values[axis]) for axis in axes)

    @cached_property
    def without_part(self) -> dict[str, set[str]]:
        """Key -> the axes of its search that do not apply to it, such as the momentum of adam."""
        return {
            id_: {axis.name for axis in search.axes} - set(one.values) for id_, (search, one) in self.attempts.items()
        }

    @cached_property
    def attempts(self) -> dict[str, tuple[Searched, Attempt]]:
        """Id of each trial that a search suggested -> the search, and the trial in it."""
        return {one.trial_id: (search, one) for search in self.searches if search.is_search for one in search.attempts}

    def brief(self, configuration: Configuration, room: int) -> str:
        """Name a suggested configuration in about `room` characters: its number, and rounded values of the axes that
        matter most.
        """
        search, attempt = self.attempts[configuration.key]
        parts = [f"trial {attempt.number:,}"]
        for axis in search.telling:
            if axis.name in attempt.values and axis.name != "model":
                part = describe(axis.name, rounded(attempt.values[axis.name]))
                if len(" · ".join([*parts, part])) <= room:
                    parts.append(part)
        return " · ".join(parts)

    @cached_property
    def best(self) -> Configuration | None:
        """The best configuration of all stages by validation accuracy: never by test."""
        return best_of(self.configurations)

    @cached_property
    def searches(self) -> list[Searched]:
        """The stages that were searched, or in which trials were stopped early."""
        return searches(self)

    def correct(
        self, configuration: Configuration, split: str = "test", moment: str = "best"
    ) -> NDArray[np.int64] | None:
        """For each example, how many of the configuration's trials are right; None where not recorded."""
        total = np.zeros(len(self.examples[split]), dtype=np.int64)
        for trial_id in configuration.trial_ids:
            answers = self.answers(trial_id, split, moment)
            if answers is None:
                return None
            total += answers.predicted == self.labels[split]
        return total if total.size else None

    def score(self, configuration: Configuration, split: str = "test", moment: str = "best") -> Score | None:
        """Mean accuracy over seeds with its Wilson interval; None where it was not measured.

        With several seeds the interval still counts each example once: it does not shrink with their number.
        """
        column = f"{split}_accuracy" + ("_before" if moment == "before" else "")
        value, n = configuration.scores.get(column), self.size(split)
        if value is None or n == 0:
            return None
        return Score.of(value, n)

    def compare(
        self, pairs: Sequence[tuple[Configuration, Configuration]], moments: tuple[str, str] = ("best", "best")
    ) -> Comparison | None:
        """Compare A with B over all `pairs` (A, B), on the test examples; seeds are paired where both have them.

        Returns None without pairs, or where predictions are missing.
        """
        sums = np.zeros(len(self.examples["test"]), dtype=np.int64)
        disagreed, networks, ahead = 0.0, 0, 0
        by_seed: dict[int, list[float]] = {}
        for a, b in pairs:
            for seed, trial_a, trial_b in _seed_pairs(a, b):
                answers_a = self.answers(trial_a, "test", moments[0])
                answers_b = self.answers(trial_b, "test", moments[1])
                if answers_a is None or answers_b is None:
                    return None
                truth = self.labels["test"]
                difference = (answers_a.predicted == truth).astype(np.int64) - (answers_b.predicted == truth)
                sums += difference
                disagreed += float(np.mean(difference != 0))
                by_seed.setdefault(seed, []).append(float(np.mean(difference)))
                networks += 1
                ahead += by_seed[seed][-1] > 0
        if networks == 0 or sums.size == 0:
            return None
        difference = stats.paired_difference(sums / networks, np.zeros(sums.size))
        over_seeds = None
        if len(by_seed) > 1:
            over_seeds = stats.mean_interval([sum(values) / len(values) for values in by_seed.values()])
        difference, seeds_agree = over_seeds_too(difference, over_seeds)
        return Comparison(
            difference,
            stats.sign_flip_exact(sums),
            len(pairs),
            len(by_seed),
            seeds_agree,
            disagreed / networks,
            networks,
            ahead,
        )

    @cached_property
    def near_best(self) -> list[Configuration]:
        """The configurations that test examples cannot tell from the best; without predictions, all the others."""
        if self.best is None:
            return []
        correct = {}
        for configuration in self.configurations:
            answers = self.correct(configuration)
            if answers is None or len(configuration.trial_ids) != len(self.best.trial_ids):
                continue
            correct[configuration.key] = answers
        if self.best.key not in correct:
            return [c for c in self.configurations if c.key != self.best.key]
        told = set(correct) - set(stats.not_told_apart(correct, self.best.key)) - {self.best.key}
        told = {key for key in told if self._seeds_agree(self.best, self.by_key[key])}
        return [s for s in self.configurations if s.key != self.best.key and s.key not in told]

    def _seeds_agree(self, a: Configuration, b: Configuration) -> bool:
        comparison = self.compare([(a, b)]) if len(a.trial_ids) > 1 else None
        return comparison is None or comparison.seeds_agree

    def balanced(self, configuration: Configuration) -> tuple[stats.Estimate, float] | None:
        """Mean recall over unevenly large test classes, and its p-value against guessing; None where they are even.

        Also None where answers are not recorded.
        """
        if not stats.are_uneven(self.class_counts("test")):
            return None
        correct = self.correct(configuration)
        if correct is None:
            return None
        labels = self.labels["test"]
        right = np.bincount(labels, correct / len(configuration.trial_ids), len(self.classes))
        return stats.balanced_accuracy(right.tolist(), np.bincount(labels, minlength=len(self.classes)).tolist())

    @cached_property
    def chance_score(self) -> float:
        """What guessing scores in the test that `beats_chance` makes: a mean recall where classes are uneven."""
        if any(self.balanced(c) for c in self.configurations):
            return 1 / sum(count > 0 for count in self.class_counts("test"))
        return self.chance

    @cached_property
    def _beat_chance(self) -> set[str]:
        """Keys of the configurations that are better than chance at 5 %, by Holm's correction over all of them."""
        p_values: dict[str, float] = {}
        unmeasured = set()
        counts = self.class_counts("test")
        for c in self.configurations:
            score, balanced = self.score(c), self.balanced(c)
            if balanced is not None:
                p_values[c.key] = balanced[1]
            elif score is None or sum(counts) == 0:
                unmeasured.add(c.key)  # nothing was measured that speaks against it; the report says so
            else:
                p_values[c.key] = stats.better_than_chance(score.value * score.n, score.n, counts).p_value
        adjusted = stats.holm(list(p_values.values()))
        return unmeasured | {key for key, p in zip(p_values, adjusted, strict=True) if p < stats.SIGNIFICANCE}

    def beats_chance(self, configuration: Configuration) -> bool:
        """Whether it is better than chance on the test examples, corrected for the number of configurations.

        Accuracy is held against always naming the largest class; where classes are uneven, mean recall against
        guessing.
        """
        return configuration.key in self._beat_chance

    @property
    def any_beats_chance(self) -> bool:
        """Whether at least one configuration is better than chance."""
        return bool(self._beat_chance)


def as_evidence(source: Tables | Evidence) -> Evidence:
    """The source itself if it is an `Evidence`, else the evidence of these tables."""
    return source if isinstance(source, Evidence) else Evidence(source)


def _seed_pairs(a: Configuration, b: Configuration) -> list[tuple[int, str, str]]:
    """(seed, trial of A, trial of B): by seed where they share any, else in order."""
    of_b = dict(zip(b.seeds, b.trial_ids, strict=True))
    shared = [(seed, trial, of_b[seed]) for seed, trial in zip(a.seeds, a.trial_ids, strict=True) if seed in of_b]
    return shared or [(seed, one, other) for seed, one, other in zip(a.seeds, a.trial_ids, b.trial_ids, strict=False)]
