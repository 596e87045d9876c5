"""What plots and reports ask of the tables: which setting is best, who got which example right, what differs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cnnsearch import stats
from cnnsearch.evidence.codes import coded, places, runs
from cnnsearch.evidence.searches import Attempt, Searched, searches
from cnnsearch.evidence.settings import AXES, Setting, Value, axis_values, collect, describe, is_missing

if TYPE_CHECKING:
    from cnnsearch.results.tables import Tables


class Score(NamedTuple):
    """An accuracy with its 95 % Wilson interval, from `n` examples."""

    value: float
    low: float
    high: float
    n: int


class Comparison(NamedTuple):
    """How much more often A is right than B on the same test examples, averaged over `pairs` of networks."""

    difference: stats.Estimate
    """The interval covers other test examples; with two seeds or more, the wider of that and the one over seeds."""
    p_value: float
    """Exact, over examples; see `stats.sign_flip_exact`."""
    pairs: int
    seeds: int
    seeds_agree: bool
    """Whether the interval over seeds leaves out zero; true with one seed, which cannot disagree."""
    disagreement: float
    """Share of examples that exactly one side of a pair gets right."""
    networks: int = 1
    """Pairs of networks compared: settings times seeds."""
    ahead: int = 1
    """Of those, where A is ahead."""

    @property
    def is_consistent(self) -> bool:
        """Whether it repeats: over seeds where there are several, else over every pair of networks.

        Without several seeds nothing else says that an average difference is not one lucky network's.
        """
        return self.seeds_agree and (self.seeds > 1 or self.ahead in (0, self.networks))


class Answers(NamedTuple):
    """What one trial said of each example of a split: codes into `Evidence.classes`, and its confidence."""

    predicted: NDArray[np.int16]
    confidence: NDArray[np.float32]


class Evidence:
    """A `Tables`, understood. Everything is computed on first use and kept."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables

    @cached_property
    def settings(self) -> list[Setting]:
        """Finished settings, in the order of the table."""
        return collect(self.tables)

    @cached_property
    def by_key(self) -> dict[str, Setting]:
        """Setting key -> setting."""
        return {setting.key: setting for setting in self.settings}

    @cached_property
    def stages(self) -> list[str]:
        """Names of the stages that have finished settings, in the order of the sweep."""
        planned = [str(stage.get("name")) for stage in self.tables.sweep.get("stages", [])]
        present = list(dict.fromkeys(setting.stage for setting in self.settings))
        return [name for name in planned if name in present] + [name for name in present if name not in planned]

    def stage(self, name: str) -> list[Setting]:
        """The finished settings of a stage."""
        return [setting for setting in self.settings if setting.stage == name]

    def continues(self, name: str) -> bool:
        """Whether the stage carries weights over from another."""
        return any(setting.parent is not None for setting in self.stage(name))

    def space(self, name: str) -> dict[str, Any]:
        """A stage's space as the sweep gives it: axis -> constant or {"grid": [...]}."""
        for stage in self.tables.sweep.get("stages", []):
            if stage.get("name") == name:
                return dict(stage.get("space") or {})
        return {}

    def axes(self, name: str) -> list[str]:
        """The axes a stage itself varies, in the order of its space; never the seed.

        Axes that a stage only inherits from its parents are not its own, though they differ between its settings.
        """
        settings = self.stage(name)
        varying = [a for a in AXES if len({setting.values[a] for setting in settings}) > 1]
        space = list(self.space(name))
        own = [axis for axis in space if axis in varying]
        return own if space else varying

    @cached_property
    def varying(self) -> list[str]:
        """The axes that differ between any two trials, finished or not: what a label has to mention."""
        rows = [axis_values(row) for row in self.tables.trials.to_dict("records")]
        return [axis for axis in AXES if len({row[axis] for row in rows}) > 1]

    def label(self, setting: Setting, *, omit: Iterable[str] = (), separator: str = ", ") -> str:
        """A setting in words, by the axes that vary: "residual, lr 0.001, batch 16, no dropout"."""
        omitted = set(omit)
        omitted |= self.without_part.get(setting.key, set())
        axes = [axis for axis in self.varying if axis not in omitted]
        # Where nothing is left to tell settings apart, say what kind of setting it is.
        axes = axes or [axis for axis in ("model", "lr", "batch_size") if axis not in omitted]
        return separator.join(describe(axis, setting.values[axis]) for axis in axes)

    @cached_property
    def without_part(self) -> dict[str, set[str]]:
        """Setting key -> the axes of its search that have no part in it, such as the momentum of adam."""
        return {
            id_: {axis.name for axis in search.axes} - set(one.values) for id_, (search, one) in self.attempts.items()
        }

    @cached_property
    def attempts(self) -> dict[str, tuple[Searched, Attempt]]:
        """Id of a trial that was suggested by a search -> the search, and the trial in it."""
        return {one.trial_id: (search, one) for search in self.searches if search.is_search for one in search.attempts}

    def brief(self, setting: Setting, room: int) -> str:
        """A suggested setting in about `room` characters: its number, and the axes that matter most, rounded."""
        search, attempt = self.attempts[setting.key]
        parts = [f"trial {attempt.number:,}"]
        for axis in search.telling:
            if axis.name in attempt.values and axis.name != "model":
                value = attempt.values[axis.name]
                part = describe(axis.name, float(f"{value:.2g}") if isinstance(value, float) else value)
                if len(" · ".join([*parts, part])) <= room:
                    parts.append(part)
        return " · ".join(parts)

    @cached_property
    def models(self) -> list[str]:
        """Models in order of appearance, finished or not: the order of their colours."""
        names = [str(row["model"]) for row in self.tables.trials.to_dict("records") if isinstance(row["model"], str)]
        return list(dict.fromkeys(names))

    @cached_property
    def best(self) -> Setting | None:
        """The best setting of all stages by validation accuracy: never by test."""
        return best_of(self.settings)

    @cached_property
    def searches(self) -> list[Searched]:
        """The stages that were searched, or in which trials were stopped early."""
        return searches(self)

    @cached_property
    def classes(self) -> list[str]:
        """Class names, in the order of the data."""
        named = [str(name) for name in self.tables.data.get("classes", [])]
        frame = self.tables.predictions
        seen = {str(name) for column in ("label", "predicted") for name in coded(frame[column])[1]}
        return named + sorted(seen - set(named))

    @cached_property
    def examples(self) -> dict[str, list[str]]:
        """Split -> its examples in the order of every array below."""
        frame = self.tables.predictions
        (split_codes, splits), (name_codes, names) = coded(frame["split"]), coded(frame["example"])
        found: dict[str, list[str]] = {"val": [], "test": []}
        for code, split in enumerate(splits):
            if split in found:
                found[split] = sorted(names[one] for one in np.unique(name_codes[split_codes == code]))
        return found

    @cached_property
    def labels(self) -> dict[str, NDArray[np.int64]]:
        """Split -> true class of each example, as codes into `classes`."""
        return self._coded[1]

    @cached_property
    def _coded(self) -> tuple[dict[tuple[str, str, str], Answers], dict[str, NDArray[np.int64]]]:
        """(trial_id, split, moment) -> answers, of the trials that answered every example; and the labels."""
        frame = self.tables.predictions
        labels = {split: np.full(len(names), -1, dtype=np.int64) for split, names in self.examples.items()}
        # Words become numbers a column at a time: a table may have millions of rows, and few different words.
        true, predicted = (places(frame[column], self.classes) for column in ("label", "predicted"))
        at_place = {split: places(frame["example"], names, np.int32) for split, names in self.examples.items()}
        confidence = frame["confidence"].to_numpy(dtype=np.float32, na_value=np.nan)
        answers = {}
        known: dict[str, NDArray[np.int32]] = {}  # orders that hold every example once: mostly the same for all trials
        for (trial_id, split, moment), rows in runs(frame):
            if split not in at_place:
                continue
            at = at_place[split][rows]
            if not np.array_equal(at, known.get(split, ())):
                labels[split][at] = true[rows]
                if len(np.unique(at)) != len(self.examples[split]):
                    continue
                known[split] = at
            by_example = np.empty(len(at), dtype=np.int16)
            surety = np.empty(len(at), dtype=np.float32)
            by_example[at], surety[at] = predicted[rows], confidence[rows]
            answers[trial_id, split, moment] = Answers(by_example, surety)
        return answers, labels

    def answers(self, trial_id: str, split: str = "test", moment: str = "best") -> Answers | None:
        """A trial's answers; None where they are not recorded, or not for every example of the split."""
        return self._coded[0].get((trial_id, split, moment))

    def correct(self, setting: Setting, split: str = "test", moment: str = "best") -> NDArray[np.int64] | None:
        """For each example, how many of the setting's trials (one a seed) are right; None where not recorded."""
        total = np.zeros(len(self.examples[split]), dtype=np.int64)
        for trial_id in setting.trial_ids:
            answers = self.answers(trial_id, split, moment)
            if answers is None:
                return None
            total += answers.predicted == self.labels[split]
        return total if total.size else None

    def size(self, split: str) -> int:
        """Examples of a split: from the predictions, else from the data's counts."""
        counts = self.tables.data.get("counts", {}).get(split, [])
        return len(self.examples.get(split, [])) or sum(counts)

    def score(self, setting: Setting, split: str = "test", moment: str = "best") -> Score | None:
        """Mean accuracy over seeds with its Wilson interval; None where it was not measured.

        With several seeds the interval still counts each example once: it does not shrink with their number.
        """
        column = f"{split}_accuracy" + ("_before" if moment == "before" else "")
        value, n = setting.scores.get(column), self.size(split)
        if value is None or n == 0:
            return None
        return Score(value, *stats.wilson(min(value, 1.0) * n, n), n)

    def compare(
        self, pairs: Sequence[tuple[Setting, Setting]], moments: tuple[str, str] = ("best", "best")
    ) -> Comparison | None:
        """A against B over all `pairs` (A, B), on the test examples; seeds are paired where both have them.

        Returns None without pairs or where predictions are missing.
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
        seeds_agree = True
        if len(by_seed) > 1:
            over_seeds = stats.mean_interval([sum(values) / len(values) for values in by_seed.values()])
            seeds_agree = over_seeds.low > 0 or over_seeds.high < 0
            if over_seeds.high - over_seeds.low > difference.high - difference.low:
                difference = stats.Estimate(difference.value, over_seeds.low, over_seeds.high)
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
    def near_best(self) -> list[Setting]:
        """The settings the test examples cannot tell from the best; without predictions, all the others."""
        if self.best is None:
            return []
        correct = {}
        for setting in self.settings:
            answers = self.correct(setting)
            if answers is None or len(setting.trial_ids) != len(self.best.trial_ids):
                continue
            correct[setting.key] = answers
        if self.best.key not in correct:
            return [setting for setting in self.settings if setting.key != self.best.key]
        told = set(correct) - set(stats.not_told_apart(correct, self.best.key)) - {self.best.key}
        told = {key for key in told if self._seeds_agree(self.best, self.by_key[key])}
        return [s for s in self.settings if s.key != self.best.key and s.key not in told]

    def _seeds_agree(self, a: Setting, b: Setting) -> bool:
        comparison = self.compare([(a, b)]) if len(a.trial_ids) > 1 else None
        return comparison is None or comparison.seeds_agree

    @cached_property
    def chance(self) -> float:
        """Accuracy of always naming the most common class of the test examples."""
        counts = self.class_counts("test")
        return max(counts) / sum(counts) if sum(counts) else 1 / max(1, len(self.classes))

    def class_counts(self, split: str) -> list[int]:
        """Examples of each class in a split."""
        counts = self.tables.data.get("counts", {}).get(split)
        if counts:
            return [int(count) for count in counts]
        if split in self.labels and len(self.labels[split]):
            return [int(count) for count in np.bincount(self.labels[split], minlength=len(self.classes))]
        return []

    def beats_chance(self, setting: Setting) -> bool:
        """Whether its test accuracy is better than chance by an exact one-sided test at 5 %."""
        score, counts = self.score(setting), self.class_counts("test")
        if score is None or sum(counts) == 0:
            return True  # nothing speaks against it, and the report says what was not measured
        return stats.better_than_chance(score.value * score.n, score.n, counts).better

    @cached_property
    def _epochs(self) -> tuple[pd.DataFrame, dict[str, slice]]:
        """All epochs as numbers, a trial's together and in order; and which rows are its."""
        frame = self.tables.epochs.sort_values(["trial_id", "epoch"], kind="stable")
        numbers = frame.drop(columns="trial_id").astype(np.float64)
        ids = frame["trial_id"].to_numpy(dtype=object)
        starts = np.flatnonzero(np.append(True, ids[1:] != ids[:-1])) if len(ids) else np.zeros(0, np.int64)
        ends = np.append(starts[1:], len(ids))
        return numbers, {str(ids[start]): slice(start, end) for start, end in zip(starts, ends, strict=False)}

    @cached_property
    def _columns(self) -> dict[str, NDArray[np.float64]]:
        numbers = self._epochs[0]
        return {str(name): numbers[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in numbers.columns}

    def curve(self, trial_id: str, column: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Epochs and a column's values of a trial, where measured; epoch 0 is before training."""
        rows = self._epochs[1].get(trial_id)
        if rows is None:
            return np.empty(0), np.empty(0)
        epoch, value = self._columns["epoch"][rows], self._columns[column][rows]
        known = np.isfinite(value)
        return epoch[known], value[known]

    @cached_property
    def _best_epochs(self) -> dict[str, float]:
        rows = self.tables.trials.to_dict("records")
        return {str(row["trial_id"]): float(row["best_epoch"]) for row in rows if not is_missing(row["best_epoch"])}

    def best_epoch(self, trial_id: str) -> float | None:
        """The epoch a trial's scores are from; None where none is recorded."""
        return self._best_epochs.get(trial_id)

    def turn(self, trial_id: str) -> int | None:
        """The epoch where a trial's validation loss turned, or None."""
        epoch, loss = self.curve(trial_id, "val_loss")
        trained = epoch >= 1
        if not trained.any():
            return None
        return stats.turning_epoch(loss[trained].tolist(), int(epoch[trained][0]))


def best_of(settings: Iterable[Setting]) -> Setting | None:
    """The best by validation accuracy, the earliest of equals; one that lost a seed loses to one that has all.

    The same rule by which a later stage of the sweep chooses what to start from.
    """
    return max(settings, key=lambda s: (len(s.trial_ids), s.val_accuracy, -s.order), default=None)


def as_evidence(source: Tables | Evidence) -> Evidence:
    """The evidence itself, or that of the tables."""
    return source if isinstance(source, Evidence) else Evidence(source)


def main_stage(evidence: Evidence) -> str | None:
    """The first stage that trains from scratch and varies anything but the model; else the first."""
    fresh = [name for name in evidence.stages if not evidence.continues(name)]
    for name in fresh:
        if set(evidence.axes(name)) - {"model"}:
            return name
    return fresh[0] if fresh else None


def matched(settings: Sequence[Setting], axis: str, value: Value, other: Value) -> list[tuple[Setting, Setting]]:
    """Pairs of settings that differ in `axis` alone: the first has `value`, the second `other`."""

    def rest(setting: Setting) -> tuple[object, ...]:
        return (setting.parent, *((a, v) for a, v in setting.values.items() if a != axis))

    have = {rest(setting): setting for setting in settings if setting.values[axis] == other}
    firsts = [setting for setting in settings if setting.values[axis] == value]
    return [(setting, have[rest(setting)]) for setting in firsts if rest(setting) in have]


def preferred(settings: Sequence[Setting], axis: str) -> Value:
    """The value of an axis whose settings have the highest mean validation accuracy."""

    def mean(value: Value) -> float:
        scores = [setting.val_accuracy for setting in settings if setting.values[axis] == value]
        return sum(scores) / len(scores)

    return max(distinct(settings, axis), key=mean)


def distinct(settings: Iterable[Setting], axis: str) -> list[Value]:
    """The values of an axis among settings: numbers ascending, words in order of appearance."""
    values = list(dict.fromkeys(setting.values[axis] for setting in settings))
    numbers = [value for value in values if isinstance(value, int | float)]
    return sorted(numbers) if len(numbers) == len(values) else values  # type: ignore[return-value]


def _seed_pairs(a: Setting, b: Setting) -> list[tuple[int, str, str]]:
    """(seed, trial of A, trial of B): by seed where they share any, else in order."""
    of_b = dict(zip(b.seeds, b.trial_ids, strict=True))
    shared = [(seed, trial, of_b[seed]) for seed, trial in zip(a.seeds, a.trial_ids, strict=True) if seed in of_b]
    return shared or [(seed, one, other) for seed, one, other in zip(a.seeds, a.trial_ids, b.trial_ids, strict=False)]
