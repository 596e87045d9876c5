"""Builds the three result tables from records and the files beside them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cnnsearch.errors import ResultsError
from cnnsearch.planning.plan import Plan, WeightsDigests, make_plan
from cnnsearch.planning.study import Suggestions
from cnnsearch.planning.trial import Trial
from cnnsearch.results.epochs import COLUMNS, Epochs, read_epochs
from cnnsearch.results.folder import Results
from cnnsearch.results.folds import Fold, fold_fingerprints, folds_of
from cnnsearch.results.parquet import EPOCHS, PREDICTIONS, TRIALS
from cnnsearch.results.record import Measures, Record
from cnnsearch.results.trial_folder import TrialFolder
from cnnsearch.spec.arguments import GROUPS
from cnnsearch.spec.settings import Settings
from cnnsearch.spec.sweep import Sweep


def has_circle(parents: Mapping[str, str | None]) -> bool:
    """Whether any trial descends from itself."""
    left = dict(parents)
    while roots := [trial for trial, parent in left.items() if parent not in left]:
        for trial in roots:
            del left[trial]
    return bool(left)


Answers = dict[tuple[str, str], tuple[NDArray[np.int32], NDArray[np.float32]]]
"""(split, moment) -> predicted classes and their probabilities."""


@dataclass(frozen=True)
class Contents:
    """What the files of trials hold, in the order of the trials."""

    epochs: list[Epochs] = field(default_factory=list)
    answers: list[Answers] = field(default_factory=list)


def contents_of(
    results: Results, data: dict[str, Any], ended: Sequence[tuple[Trial, Record]]
) -> tuple[Contents, dict[str, str]]:
    """Read the files of trials: their contents, and trial id -> what is wrong with those that do not fit.

    The contents lack what is wrong.
    """
    found = Contents()
    parents = {record.trial_id: record.parent_id for _, record in ended}
    if has_circle(parents):
        return found, dict.fromkeys(parents, "trials start from each other in a circle")
    records = {record.trial_id: record for _, record in ended}
    folders = [results.trial(id_) for id_ in records]
    with ThreadPoolExecutor(1) as beside:  # Arrow parses beside Python
        parts = beside.submit(lambda: [*read_epochs(folders)])
        odd = _read_answers(folders, records, data, found.answers)
        for some, epochs in parts.result():
            if isinstance(epochs, ResultsError):
                odd[some[0].path.name] = str(epochs)
                continue
            numbers = np.split(epochs.rows["epoch"].to_numpy(), np.cumsum(epochs.counts)[:-1])
            for folder, of_trial in zip(some, numbers, strict=True):
                if of_trial.max(initial=0) > records[folder.path.name].settings.epochs:
                    odd[folder.path.name] = f"{folder.epochs_file} has more epochs than the trial"
            found.epochs.append(epochs)
    return found, odd


def _read_answers(
    folders: Sequence[TrialFolder], records: Mapping[str, Record], data: dict[str, Any], found: list[Answers]
) -> dict[str, str]:
    """Read the predictions of trials into `found`; returns trial id -> what is wrong with those that do not fit."""
    sizes = {split: len(listed["names"]) for split, listed in data.get("examples", {}).items()}
    folds = folds_of(data)
    odd: dict[str, str] = {}
    for folder in folders:
        id_ = folder.path.name
        try:
            answers = folder.predictions()
        except ResultsError as error:
            odd[id_] = str(error)
            continue
        fold = folds.get(records[id_].data)
        for (split, moment), (predicted, _) in answers.items():
            size = len(fold.validates) if fold and split == "val" else sizes.get(split)
            classes = int(predicted.max(initial=-1)) + 1
            if len(predicted) != size or classes > len(data["classes"]):
                what = f"{len(predicted):,} answers of {classes:,} or more classes for {split}/{moment}"
                odd[id_] = f"{folder.predictions_file} does not fit data.json: it has {what}"
        found.append(answers)
    return odd


def ended_trials(
    sweep: Sweep,
    data: Mapping[str, Any],
    records: Mapping[str, Record],
    weights: WeightsDigests,
    suggestions: Suggestions,
) -> tuple[Plan, list[tuple[Trial, Record]]]:
    """Return the plan, and those of its trials that ended with their records, in the plan's order.

    Another version may have given the same trials other ids. If no trial has a record under its present id, all records
    are matched by settings instead. Never only some are: numbers of two versions must not be mixed.
    """

    def planned(records: Mapping[str, Record]) -> Plan:
        outcomes = {id_: record.outcome for id_, record in records.items()}
        return make_plan(sweep, data["fingerprint"], outcomes, weights, suggestions, folds=fold_fingerprints(data))

    plan = planned(records)
    if records and not records.keys() & plan.trials.keys():
        records = _under_present_ids(records, weights)
        plan = planned(records)
    return plan, [(trial, records[id_]) for id_, trial in plan.trials.items() if id_ in records]


class Outside(NamedTuple):
    """How many recorded trials a sweep does not have as it is now."""

    of_stages: Mapping[str, int] = MappingProxyType({})
    """Stage -> those that were trained on its data."""
    on_other_data: int = 0
    """Those that were trained on other images, or on another split of them."""


def outside(records: Mapping[str, Record], plan: Plan, images: Collection[str]) -> Outside:
    """Count the recorded trials that a sweep as it is now does not have.

    While a later stage waits for what it starts from, it is not known which of its trials it has: none is counted.

    Args:
        records: all that are recorded.
        plan: of the sweep.
        images: fingerprints of its data: of its folds, where it has folds.
    """
    left = [record for id_, record in records.items() if id_ not in plan.trials]
    later = {stage.stage.name for stage in plan.stages if stage.waiting and not stage.studies}
    of_stages = Counter(one.stage for one in left if one.data in images and one.stage not in later)
    return Outside(of_stages, sum(one.data not in images for one in left))


def other_trials(
    data: Mapping[str, Any], records: Mapping[str, Record], ended: Sequence[tuple[Trial, Record]]
) -> list[tuple[Trial, Record]]:
    """The recorded trials on the same images that are not among these, each as the trial that it was."""
    known = {record.trial_id for _, record in ended}
    images = fold_fingerprints(data) or (data["fingerprint"],)
    others = [record for id_, record in records.items() if id_ not in known and record.data in images]
    return [(Trial(one.stage, one.settings, one.data, one.parent_id), one) for one in others]


def _under_present_ids(records: Mapping[str, Record], weights: WeightsDigests) -> dict[str, Record]:
    found: dict[str, Record] = {}
    present: dict[str, str] = {}
    left = dict(records)
    while ready := [record for record in left.values() if record.parent_id not in left]:
        for record in ready:
            settings, parent = record.settings, record.parent_id
            digest = None if parent else weights.get((settings.model, settings.weights))
            trial = Trial(record.stage, settings, record.data, parent and present.get(parent, parent), digest)
            found[trial.id] = record
            present[record.trial_id] = trial.id
        for record in ready:
            del left[record.trial_id]
    return found


def build(
    sweep: Sweep,
    data: dict[str, Any],
    plan: Plan,
    ended: Sequence[tuple[Trial, Record]],
    contents: Contents,
    is_sealed: bool,
) -> dict[str, pa.Table]:
    """Build the tables: name -> table. The contents are empty afterwards: of many trials they are large."""
    names = {trial.id: record.trial_id for trial, record in ended}
    confirmed = {trial.id: names.get(one.setting[0].id) for one in plan.contenders for trial in one.again}
    folds = folds_of(data)
    ids, answers = [record.trial_id for _, record in ended], contents.answers
    if is_sealed:  # another sweep, or an earlier state of this one, may have looked at the test images
        answers = [_without_test(of_trial) for of_trial in answers]
    columns = _of_trials(ended) | {
        "sweep": [sweep.name] * len(ended),
        "stage": [trial.stage for trial, _ in ended],
        "confirms": [confirmed.get(trial.id) for trial, _ in ended],
        **_of_folds([folds.get(record.data) for _, record in ended]),
    }
    columns |= {name: [None] * len(ended) for name in columns if is_sealed and name.startswith("test_")}
    arrays = [pa.array(columns[one.name], one.type) for one in TRIALS]
    tables = {"trials": pa.Table.from_arrays(arrays, schema=TRIALS), "epochs": _epochs(ids, contents.epochs)}
    tables["predictions"] = _predictions(data, ids, answers, [folds.get(record.data) for _, record in ended])
    contents.answers.clear()
    return tables


def _without_test(answers: Answers) -> Answers:
    return {(split, moment): one for (split, moment), one in answers.items() if split != "test"}


def _of_folds(folds: Sequence[Fold | None]) -> dict[str, list[Any]]:
    """The columns that say which fold each trial had."""
    return {name: [fold and getattr(fold, name) for fold in folds] for name in ("fold", "repeat")}


_OF_SETTINGS = [name for name in TRIALS.names if name in Settings.model_fields and name not in GROUPS]
_OF_RECORD = [name for name in TRIALS.names if name in Record.model_fields]


def _of_trials(ended: Sequence[tuple[Trial, Record]]) -> dict[str, list[Any]]:
    """The columns that records hold: name -> the value of each trial."""
    records = [record for _, record in ended]
    # What an older version did not record stays null: there, `Settings` has the present default.
    settings = [(record.settings, record.settings.model_fields_set) for record in records]
    columns = {
        name: [getattr(one, name) if name in known else None for one, known in settings] for name in _OF_SETTINGS
    }
    columns["code"] = [one.code or None for one, _ in settings]
    for group in GROUPS:
        args = [getattr(one, group) for one, _ in settings]
        columns[group] = [json.dumps(one, sort_keys=True) if one else None for one in args]
    columns |= {name: [getattr(record, name) for record in records] for name in _OF_RECORD}
    columns["status"] = [record.status.value for record in records]
    columns["precision"] = [record.precision or record.settings.precision for record in records]
    for moment, suffix in (("best", ""), ("before", "_before")):
        measured = [getattr(record, moment) for record in records]
        for name in Measures.model_fields:
            if name + suffix in TRIALS.names:
                columns[name + suffix] = [one and getattr(one, name) for one in measured]
    return columns


def _epochs(ids: Sequence[str], parts: list[Epochs]) -> pa.Table:
    """Build the table of all epochs, given those of these trials in parts; these are gone afterwards."""
    counts = [count for part in parts for count in part.counts]
    rows = pa.concat_tables([COLUMNS.empty_table(), *(part.rows for part in parts)])
    parts.clear()
    places = pa.array(np.repeat(np.arange(len(ids), dtype=np.int32), counts))
    columns = [pa.DictionaryArray.from_arrays(places, pa.array(ids, pa.string())).cast(pa.string())]
    nothing = pa.nulls(len(rows), pa.float64())
    for _ in COLUMNS:  # one by one, so that what they were made from is free again
        column = rows.column(0)
        columns.append(nothing if column.null_count == len(rows) else column.combine_chunks())
        rows = rows.remove_column(0)
    return pa.Table.from_arrays(columns, schema=EPOCHS)


def _predictions(
    data: dict[str, Any],
    trial_ids: Sequence[str],
    answers: Sequence[Answers],
    folds: Sequence[Fold | None],
) -> pa.Table:
    """Build the table of all predictions, with strings as dictionaries: a few bytes per row.

    `answers` and `folds` are those of the trials, in the same order.
    """
    listed = data.get("examples", {})
    splits, moments = sorted(listed), ["before", "best"]
    names = [str(name) for split in splits for name in listed[split]["names"]]
    true = np.concatenate([np.zeros(0, np.int32), *(np.asarray(listed[split]["labels"], np.int32) for split in splits)])
    sizes = [len(listed[split]["names"]) for split in splits]
    numbers = np.split(np.arange(len(names), dtype=np.int32), np.cumsum(sizes)[:-1])
    parts: list[tuple[int, int, int, NDArray[np.int32], NDArray[np.int16], NDArray[np.float32]]] = []
    for index, (of_trial, fold) in enumerate(zip(answers, folds, strict=True)):
        for (split, moment), (predicted, confidence) in sorted(of_trial.items(), key=lambda part: part[0]):
            place = splits.index(split)
            which = numbers[place][fold.validates] if fold and split == "val" else numbers[place]
            parts.append((index, place, moments.index(moment), which, predicted.astype(np.int16), confidence))
    lengths = [len(part[3]) for part in parts]
    ids, of_split, of_moment = (
        np.repeat(np.array([part[place] for part in parts], dtype), lengths)
        for place, dtype in ((0, np.int32), (1, np.int8), (2, np.int8))
    )
    examples, predicted = (
        np.concatenate([np.zeros(0, np.int32), *(part[place] for part in parts)]) for place in (3, 4)
    )
    confidence = np.concatenate([np.zeros(0, np.float32), *(part[5] for part in parts)])
    coded = [
        (ids, trial_ids),
        (of_split, splits),
        (of_moment, moments),
        (examples, names),
        (true[examples] if len(examples) else examples, data["classes"]),
        (predicted, data["classes"]),
    ]
    columns = [pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(words, pa.string())) for codes, words in coded]
    return pa.Table.from_arrays([*columns, pa.array(confidence)], names=PREDICTIONS.names)
