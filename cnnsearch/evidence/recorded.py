"""What the tables hold, as arrays: each trial's answers by example, and its curves by epoch."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cnnsearch import stats
from cnnsearch.errors import ResultsError
from cnnsearch.evidence.codes import coded, places, runs
from cnnsearch.evidence.configurations import axis_values, is_missing
from cnnsearch.results.folder import Results
from cnnsearch.results.tables import Tables
from cnnsearch.scores import Predicted
from cnnsearch.spec.axis_words import Value
from cnnsearch.spec.metric import METRICS


class Answers(NamedTuple):
    """What one trial answered for each example of a split: codes into `Recorded.classes`, and its confidence."""

    predicted: NDArray[np.int16]
    confidence: NDArray[np.float32]


class Part(NamedTuple):
    """What one trial answered for the examples of its fold."""

    at: NDArray[np.int32]
    """Their places in the arrays over all examples."""
    predicted: NDArray[np.int16]
    confidence: NDArray[np.float32]


class Recorded:
    """Tables as arrays. Everything is computed on first use and kept."""

    def __init__(self, tables: Tables, metric: str | None = None) -> None:
        """Settings are compared by `metric`; by default by that of the sweep."""
        self.tables = tables
        self.metric = METRICS[metric or tables.sweep.metric]

    def show(self, **lacking: dict[str, Any]) -> None:
        """Put `pictures` of some examples into the tables, or the `training` images that are doubted.

        No fact that is kept depends on either.
        """
        self.tables = replace(self.tables, **lacking)  # type: ignore[arg-type]

    @property
    def judged_on(self) -> str:
        """The split on which settings are compared: test; val while the test set is sealed, and where it has folds."""
        return "val" if self.tables.is_sealed or self.folds else "test"

    @property
    def folds(self) -> int:
        """In how many folds the images were dealt; 0 where they were split once."""
        split = self.tables.sweep.folds
        return split.k if split else 0

    @property
    def unit(self) -> str:
        """What the trials of a setting differ in, in a word: "seed", or "fold", each of which has its own seed."""
        return "fold" if self.folds else "seed"

    @cached_property
    def repeat_of(self) -> dict[str, int]:
        """Trial -> how often images had been dealt before its fold; empty where they were split once."""
        if not self.folds or "repeat" not in self.tables.trials:
            return {}
        rows = self.tables.trials[["trial_id", "repeat"]].dropna()
        return dict(zip(rows["trial_id"].astype(str), rows["repeat"].astype(int), strict=True))

    @property
    def judged(self) -> str:
        """`judged_on` in words: "test" or "validation"."""
        return self.measured[self.judged_on]

    @property
    def judged_by(self) -> str:
        """What settings are compared by, in words: "test accuracy", "validation macro F1"."""
        return f"{self.judged} {self.metric.words}"

    @property
    def chosen_by(self) -> str:
        """What chooses the best setting, in words: "validation accuracy"."""
        return f"validation {METRICS[self.tables.sweep.metric].words}"

    @property
    def measured(self) -> dict[str, str]:
        """The splits that scores are shown of, each with its name in words: not the test set while it is sealed."""
        return {"val": "validation"} if self.tables.is_sealed else {"val": "validation", "test": "test"}

    @property
    def runs(self) -> list[dict[str, Any]]:
        """The runs of the sweep's command, oldest first, as provenance records them."""
        return self.tables.provenance.get("runs") or []

    @property
    def run_seconds(self) -> list[float]:
        """How long each run took, where that is recorded."""
        return [float(run["seconds"]) for run in self.runs if isinstance(run.get("seconds"), int | float)]

    @cached_property
    def rows(self) -> list[dict[Any, Any]]:
        """The rows of the table of trials, which are not to be changed."""
        return self.tables.trials.to_dict("records")

    @cached_property
    def values(self) -> list[dict[str, Value]]:
        """The hyperparameters of each of `rows`, see `axis_values`, which are not to be changed either."""
        return [axis_values(row) for row in self.rows]

    @cached_property
    def models(self) -> list[str]:
        """Models in order of appearance, finished or not. Their colours follow this order."""
        names = [str(row["model"]) for row in self.rows if isinstance(row["model"], str)]
        return list(dict.fromkeys(names))

    @cached_property
    def classes(self) -> list[str]:
        """Class names, in the order of the data."""
        named = [str(name) for name in self.tables.data.get("classes", [])]
        frame = self.tables.predictions
        seen = {str(name) for column in ("label", "predicted") for name in coded(frame[column])[1]}
        return named + sorted(seen - set(named))

    @cached_property
    def examples(self) -> dict[str, list[str]]:
        """Split -> its examples, in the order of all arrays over examples."""
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
    def _coded(
        self,
    ) -> tuple[
        dict[tuple[str, str, str], Answers],
        dict[str, NDArray[np.int64]],
        dict[str, NDArray[np.int32]],
        dict[tuple[str, str, str], Part],
    ]:
        """Answers by (trial_id, split, moment), of trials that answered every example; the labels; each split's order;
        and the answers of trials that answered those of their fold alone.

        The order says where in our arrays the examples of the table are, and so those of a trial's files.
        """
        frame = self.tables.predictions
        labels = {split: np.full(len(names), -1, dtype=np.int64) for split, names in self.examples.items()}
        # Whole columns of words become numbers at once: a table may have millions of rows, and few different words.
        true, predicted = (places(frame[column], self.classes) for column in ("label", "predicted"))
        at_place = {split: places(frame["example"], names, np.int32) for split, names in self.examples.items()}
        confidence = frame["confidence"].to_numpy(dtype=np.float32, na_value=np.nan)
        answers = {}
        parts: dict[tuple[str, str, str], Part] = {}
        known: dict[str, NDArray[np.int32]] = {}  # split -> the last order seen to hold every example once
        for (trial_id, split, moment), rows in runs(frame):
            if split not in at_place:
                continue
            at = at_place[split][rows]
            if not np.array_equal(at, known.get(split, ())):
                labels[split][at] = true[rows]
                if len(np.unique(at)) != len(self.examples[split]):
                    parts[trial_id, split, moment] = Part(at, predicted[rows].astype(np.int16), confidence[rows])
                    continue
                known[split] = at
            by_example = np.empty(len(at), dtype=np.int16)
            surety = np.empty(len(at), dtype=np.float32)
            by_example[at], surety[at] = predicted[rows], confidence[rows]
            answers[trial_id, split, moment] = Answers(by_example, surety)
        return answers, labels, known, parts

    def predicted(self, trial_id: str, split: str, moment: str = "best", *, whole: bool = False) -> Predicted | None:
        """What a trial predicted, as metrics take it; None as for `answers`, and where a label is not known.

        With `whole` it has the probabilities of all classes, where the trial kept them.
        """
        answers, labels = self.answers(trial_id, split, moment), self.labels[split]
        if answers is None or not len(labels) or labels.min() < 0:
            return None
        # Before its training a network is that of the trial it started from.
        kept_by = trial_id if moment == "best" else self._parents.get(trial_id)
        chances = self._chances(kept_by, split, answers) if whole and kept_by else None
        return Predicted(labels, len(self.classes), answers.predicted.astype(np.int64), answers.confidence, chances)

    @cached_property
    def _parents(self) -> dict[str, str]:
        rows = self.tables.trials[["trial_id", "parent_id"]].dropna().astype(str)
        return dict(zip(rows["trial_id"], rows["parent_id"], strict=True))

    def _chances(self, trial_id: str, split: str, answers: Answers) -> NDArray[np.float32] | None:
        """The probabilities of all classes, if they are those that the answers came from."""
        with contextlib.suppress(ResultsError):
            trial = Results(self.tables.folder).trial(trial_id)
            files = (trial.probabilities_file.name, trial.test_probabilities_file.name)
            if (record := trial.record()) is not None and trial.damage(record, files):
                return None
            found = trial.probabilities().get(split)
            if found is None or found.shape != (len(answers.predicted), len(self.classes)):
                return None
            ours = np.empty_like(found)
            ours[self._coded[2][split]] = found
            if np.array_equal(ours.argmax(axis=1), answers.predicted):
                return ours
        return None

    def answers(self, trial_id: str, split: str | None = None, moment: str = "best") -> Answers | None:
        """A trial's answers; None where they are not recorded, or not for every example of the split."""
        return self._coded[0].get((trial_id, split or self.judged_on, moment))

    def whole_answers(self, trial_ids: Sequence[str], split: str | None = None, moment: str = "best") -> list[Answers]:
        """The answers of a setting for every example: of each of its seeds, or with folds of each repeat.

        With folds an example of validation is answered by the network that was not trained on it. Empty where the
        answers of a seed are not recorded; repeats in which a fold lacks them are left out.
        """
        split = split or self.judged_on
        if not (self.folds and split == "val"):
            found = [self.answers(trial_id, split, moment) for trial_id in trial_ids]
            return [] if None in found else [one for one in found if one is not None]
        by_repeat: dict[int, list[Part]] = {}
        for trial_id in trial_ids:
            if (part := self._coded[3].get((trial_id, split, moment))) is not None:
                by_repeat.setdefault(self.repeat_of.get(trial_id, 0), []).append(part)
        joined = ([np.concatenate(arrays) for arrays in zip(*parts, strict=True)] for parts in by_repeat.values())
        return [
            Answers(predicted[order], confidence[order])
            for at, predicted, confidence in joined
            if np.array_equal(at[order := np.argsort(at)], np.arange(len(self.examples[split])))
        ]

    def size(self, split: str) -> int:
        """Number of examples in a split: from the predictions, else from the data's counts."""
        counts = self.tables.data.get("counts", {}).get(split, [])
        return len(self.examples.get(split, [])) or sum(counts)

    def answered_by(self, trial_id: str, split: str) -> int:
        """Number of examples of a split that a trial's network answers: with folds, of validation those of its own."""
        if not self.folds or split != "val":
            return self.size(split)
        own = self._coded[3].get((trial_id, split, "best"))
        return round(self.size(split) / self.folds) if own is None else len(own.at)

    def counts_of_one(self, split: str) -> list[int]:
        """Examples of each class in a split, with folds in that of the first one."""
        return [int(count) for count in self.tables.data.get("counts", {}).get(split) or self.class_counts(split)]

    def class_counts(self, split: str) -> list[int]:
        """Examples of each class in a split."""
        counts = self.tables.data.get("counts", {}).get(split)
        if counts and not (self.folds and split == "val"):  # those of one fold
            return [int(count) for count in counts]
        if split in self.labels and len(self.labels[split]):
            return [int(count) for count in np.bincount(self.labels[split], minlength=len(self.classes))]
        return []

    @cached_property
    def chance(self) -> float:
        """Accuracy of always naming the most common class of the examples that settings are compared on."""
        counts = self.class_counts(self.judged_on)
        return max(counts) / sum(counts) if sum(counts) else 1 / max(1, len(self.classes))

    @cached_property
    def _epochs(self) -> tuple[pd.DataFrame, dict[str, slice]]:
        """All epochs, each trial's together and in order; and trial_id -> its rows."""
        frame = self.tables.epochs
        ids, starts = _starts(frame)
        epochs = frame["epoch"].to_numpy()
        in_order = np.diff(epochs) >= 0
        in_order[starts[1:] - 1] = True  # where another trial begins
        if len(set(ids)) < len(ids) or not in_order.all():
            frame = frame.sort_values(["trial_id", "epoch"], kind="stable")
            ids, starts = _starts(frame)
        ends = np.append(starts, len(frame))[1:]
        return frame, {id_: slice(start, end) for id_, start, end in zip(ids, starts, ends, strict=True)}

    @cached_property
    def _columns(self) -> dict[str, NDArray[np.float64]]:
        frame = self._epochs[0].drop(columns="trial_id")
        return {str(name): frame[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in frame.columns}

    def curve(self, trial_id: str, column: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Epochs of a trial and a column's values at them, where measured; epoch 0 is before training."""
        rows = self._epochs[1].get(trial_id)
        if rows is None:
            return np.empty(0), np.empty(0)
        epoch, value = self._columns["epoch"][rows], self._columns[column][rows]
        known = np.isfinite(value)
        return epoch[known], value[known]

    @cached_property
    def _best_epochs(self) -> dict[str, float]:
        rows = self.rows
        return {str(row["trial_id"]): float(row["best_epoch"]) for row in rows if not is_missing(row["best_epoch"])}

    def best_epoch(self, trial_id: str) -> float | None:
        """The epoch that a trial's scores are from; None where none is recorded."""
        return self._best_epochs.get(trial_id)

    def turn(self, trial_id: str) -> int | None:
        """The epoch at which a trial's validation loss turned upwards; None where it did not, or noise may be why."""
        epoch, loss = self.curve(trial_id, "val_loss")
        trained = epoch >= 1
        if not trained.any():
            return None
        return stats.turning_epoch(loss[trained].tolist(), int(epoch[trained][0]))

    def risen(self, trial_ids: Sequence[str]) -> dict[str, float]:
        """Trial -> how many times its lowest its validation loss ends at, where above it by 5 %, be it by noise."""
        found = {}
        for trial in trial_ids:
            epoch, loss = self.curve(trial, "val_loss")
            times = stats.ends_above_lowest(loss[epoch >= 1].tolist())
            if times is not None:
                found[trial] = times
        return found

    def turns(self, trial_ids: Sequence[str]) -> dict[str, int]:
        """Trial -> epoch at which its validation loss turned; empty where noise alone turns as many of these trials."""
        found = {trial: turn for trial in trial_ids if (turn := self.turn(trial)) is not None}
        return found if stats.more_than_noise_turns(len(found), len(trial_ids)) else {}


def _starts(frame: pd.DataFrame) -> tuple[list[str], NDArray[np.intp]]:
    """The trials in the order of the rows of a table of epochs, and the first row of each."""
    codes, ids = coded(frame["trial_id"])
    starts = np.flatnonzero(np.append(True, codes[1:] != codes[:-1])) if len(codes) else np.zeros(0, np.intp)
    return [ids[code] for code in codes[starts]], starts
