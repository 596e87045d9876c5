"""The three result tables: building them from records, and reading them.

A table is derived from records and can always be rebuilt from them. `parquet` has their columns.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from cnnsearch.errors import ResultsError, RunError
from cnnsearch.planning.plan import Plan, WeightsDigests, make_plan
from cnnsearch.planning.study import Suggestions
from cnnsearch.planning.trial import Trial
from cnnsearch.results import parquet
from cnnsearch.results.folder import UNSEALED, Results
from cnnsearch.results.parquet import EPOCHS, PREDICTIONS, TRIALS
from cnnsearch.results.record import Measures, Record
from cnnsearch.spec.confirm import CONFIRM
from cnnsearch.spec.document import shown
from cnnsearch.spec.load import from_yaml
from cnnsearch.spec.settings import Settings
from cnnsearch.spec.sweep import Sweep
from cnnsearch.storage.checksums import canonical_json
from cnnsearch.storage.paths import typed_path
from cnnsearch.words import printable


class _WhenAsked:
    """A field that may be given as a function, which is called when the field is first read."""

    def __get__(self, owner: Any, kind: type) -> pd.DataFrame:
        if callable(found := owner.__dict__["_predictions"]):
            found = owner.__dict__["_predictions"] = found()
        frame: pd.DataFrame = found
        return frame

    def __set__(self, owner: Any, value: pd.DataFrame | Callable[[], pd.DataFrame]) -> None:
        owner.__dict__["_predictions"] = value


@dataclass(frozen=True)
class Tables:
    """Everything a report is made from."""

    folder: Path
    trials: pd.DataFrame
    """One row for each trial that ended; columns of `TRIALS`. Times are UTC, without a zone, as Excel wants them."""
    epochs: pd.DataFrame
    """One row for each epoch of each trial; columns of `EPOCHS`."""
    predictions: pd.DataFrame
    """One row for each trial, split, moment and example; columns of `PREDICTIONS`, strings as categories.

    It may be long, and is read on first use."""
    sweep: Sweep
    """The resolved sweep, as in sweep.yaml."""
    provenance: dict[str, Any]
    """Runs with their commands, versions and hardware."""
    data: dict[str, Any]
    """Source, classes, splits that the source brings, images of each class in each split, fingerprint, warnings."""
    pictures: dict[str, Any]
    """Base64 PNGs of some examples; may be empty."""
    planned: int
    """Number of trials in the sweep, ended or not."""
    is_sealed: bool = False
    """Whether the test set is sealed: no table then holds a number of the test images."""
    unsealed: dict[str, Any] = field(default_factory=dict)
    """When the test set was unsealed ("at"); empty where it never was."""
    damaged: tuple[str, ...] = ()
    """Ids of trials whose record, or a file it vouches for, has been damaged: they count as not done."""
    left_out: tuple[str, ...] = ()
    """What else cannot be read, in sentences: it is missing here."""
    checksums: Mapping[str, str] = field(default_factory=dict)
    """File name -> SHA-256 of the stored tables; empty if the tables are not stored."""


Tables.predictions = _WhenAsked()  # type: ignore[assignment]


def load(folder: Path | str, *, store: bool = True) -> Tables:
    """Read the tables of a results folder, building them anew where records have changed since.

    Args:
        folder: of one sweep.
        store: whether to write tables that were built anew into the folder. If not, the folder is only read, as is
            necessary while a run is active.

    What is damaged is left out and named in the result. Raises ResultsError if the folder holds no sweep, or its sweep
    or the description of its data cannot be read.
    """
    results = Results(typed_path(folder))
    if not results.path.is_dir():
        raise ResultsError(f"there is no folder {results.path}")
    results.refuse_links()
    text = results.sweep_text()
    sweep = from_yaml(text, str(results.sweep_file))
    data = results.read("data.json")
    unreadable: dict[str, str] = {}
    records = results.records(unreadable)
    if unreadable and not records:  # as where a later version has written them
        raise ResultsError(next(iter(unreadable.values())))
    suggestions = results.suggestions()
    is_sealed = results.is_sealed(sweep)
    digest = _digest(text + "sealed" * is_sealed, data, records, suggestions)
    stored = parquet.read(results.path, digest, any_digest=not records)
    if stored and (reason := _misfit(stored.tables["trials"], sweep)):
        if not records:
            raise ResultsError(f"{results.path / 'trials.parquet'} is damaged ({reason})")
        stored = None
    damaged = tuple(unreadable) if stored and records else tuple(results.damaged(records))
    if stored is None:
        whole = {id_: record for id_, record in records.items() if id_ not in damaged}
        stored, odd = _built(
            results, sweep, data, whole, suggestions, "" if damaged else digest, is_sealed, store=store
        )
        unreadable |= odd
    described, left_out = _described(results)
    left_out += [f"Trial {printable(id_)} is left out: {reason}." for id_, reason in sorted(unreadable.items())]
    data.pop("examples", None)  # they are in the predictions
    later: Any = functools.partial(_read_predictions, results.path, stored.checksums, data)
    held = stored.tables.get("predictions")
    return Tables(
        folder=results.path,
        trials=_trials_frame(stored.tables["trials"]),
        epochs=stored.tables["epochs"].to_pandas(),
        predictions=later if held is None else _predictions_frame(held, data),
        sweep=sweep,
        provenance=described["provenance.json"],
        data=data,
        pictures=described["pictures.json"],
        planned=stored.planned,
        is_sealed=is_sealed,
        unsealed=results.read(UNSEALED),
        damaged=tuple(id_ for id_ in damaged if id_ not in unreadable),
        left_out=tuple(left_out),
        checksums=stored.checksums,
    )


def _trials_frame(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas()
    return frame.assign(started_at=frame["started_at"].dt.tz_localize(None))


def _built(
    results: Results,
    sweep: Sweep,
    data: dict[str, Any],
    records: dict[str, Record],
    suggestions: Suggestions,
    digest: str,
    is_sealed: bool,
    *,
    store: bool,
) -> tuple[parquet.Stored, dict[str, str]]:
    """Build the tables from records, and store them under a digest where asked to.

    A damaged trial may be repaired without a change to its record, so the digest is empty where any is damaged.

    Returns the tables, and trial id -> what is wrong with the files of each trial that had to be left out.
    """
    if "fingerprint" not in data:
        raise ResultsError(f"{results.path} has no data.json; run the sweep again, which puts it right")
    weights = {(model, name): digest for model, name, digest in data.get("weights", [])}
    left_out: dict[str, str] = {}
    while True:
        plan, ended = _ended(sweep, data["fingerprint"], records, weights, suggestions)
        contents, odd = _contents(results, data, ended)
        if not odd:
            break
        left_out |= odd
        records = {id_: record for id_, record in records.items() if id_ not in odd}
    tables, checksums = _build(sweep, data, plan, ended, contents, is_sealed), {}
    if store:
        with contextlib.suppress(RunError):  # a folder that cannot be written can still be read
            checksums = parquet.store(results.path, tables, "" if left_out else digest, plan.total)
            del tables["predictions"]
    return parquet.Stored(tables, plan.total, checksums), left_out


def _described(results: Results) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The files that a report can do without, by name, empty where they are damaged; and what is wrong with these."""
    found: dict[str, dict[str, Any]] = {}
    left_out = []
    for name in ("provenance.json", "pictures.json"):
        try:
            found[name] = results.read(name)
        except ResultsError as error:
            found[name] = {}
            left_out.append(f"{error}.")
    return found, left_out


def _misfit(trials: pa.Table, sweep: Sweep) -> str:
    """Say what in a table of trials cannot come from a sweep; empty if nothing."""
    known = {stage.name for stage in sweep.stages} | {CONFIRM.name}
    if odd := set(trials["stage"].to_pylist()) - known:
        return f"the sweep has no stage {shown(min(odd))}"
    parents = dict(zip(trials["trial_id"].to_pylist(), trials["parent_id"].to_pylist(), strict=True))
    return "a trial starts from itself" if _has_circle(parents) else ""


def _has_circle(parents: Mapping[str, str | None]) -> bool:
    """Whether any trial descends from itself."""
    left = dict(parents)
    while roots := [trial for trial, parent in left.items() if parent not in left]:
        for trial in roots:
            del left[trial]
    return bool(left)


Answers = dict[tuple[str, str], tuple[NDArray[np.int32], NDArray[np.float32]]]
"""(split, moment) -> predicted classes and their probabilities."""
Contents = tuple[list[dict[str, Any]], Answers]
"""The epochs of a trial and its predictions, as `TrialFolder` gives them."""


def _contents(
    results: Results, data: dict[str, Any], ended: Sequence[tuple[Trial, Record]]
) -> tuple[dict[str, Contents], dict[str, str]]:
    """Read the files of trials: trial id -> contents, and trial id -> what is wrong with those that do not fit."""
    sizes = {split: len(listed["names"]) for split, listed in data.get("examples", {}).items()}
    found: dict[str, Contents] = {}
    odd: dict[str, str] = {}
    parents = {record.trial_id: record.parent_id for _, record in ended}
    if _has_circle(parents):
        return {}, dict.fromkeys(parents, "trials start from each other in a circle")
    for _, record in ended:
        folder = results.trial(record.trial_id)
        try:
            contents = folder.epochs(strict=True), folder.predictions()
        except ResultsError as error:
            odd[record.trial_id] = str(error)
            continue
        for (split, moment), (predicted, _) in contents[1].items():
            classes = int(predicted.max(initial=-1)) + 1
            if len(predicted) != sizes.get(split) or classes > len(data["classes"]):
                what = f"{len(predicted):,} answers of {classes:,} or more classes for {split}/{moment}"
                odd[record.trial_id] = f"{folder.predictions_file} does not fit data.json: it has {what}"
        if any(row["epoch"] > record.settings.epochs for row in contents[0]):
            odd[record.trial_id] = f"{folder.epochs_file} has more epochs than the trial"
        found[record.trial_id] = contents
    return found, odd


def _read_predictions(folder: Path, checksums: Mapping[str, str], data: dict[str, Any]) -> pd.DataFrame:
    return _predictions_frame(parquet.read_predictions(folder, checksums["predictions.parquet"]), data)


def _predictions_frame(table: pa.Table, data: dict[str, Any]) -> pd.DataFrame:
    """The predictions as a frame; labels and predicted classes get the same categories, the classes in their order."""
    frame: pd.DataFrame = table.to_pandas(split_blocks=True, self_destruct=True)
    words = [str(name) for name in data.get("classes", [])]
    answers = {name: frame[name].astype("category") for name in ("label", "predicted")}
    seen = {str(word) for column in answers.values() for word in column.cat.categories}
    if words and not seen <= set(words):
        raise ResultsError(f"predictions.parquet is damaged: data.json has no class {shown(min(seen - set(words)))}")
    words += sorted(seen - set(words))
    for name, column in answers.items():
        frame[name] = column.cat.set_categories(words)
    return frame


def _digest(sweep: str, data: dict[str, Any], records: dict[str, Record], suggestions: Suggestions) -> str:
    """A hash that changes with sweep, data, records and suggestions, but not with the version that reads them."""
    parts = [sweep, str(data.get("fingerprint")), *(f"{id_} {records[id_].checksum}" for id_ in sorted(records))]
    parts += [f"{id_} {canonical_json(suggestions[id_])}" for id_ in sorted(suggestions)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _ended(
    sweep: Sweep, data: str, records: Mapping[str, Record], weights: WeightsDigests, suggestions: Suggestions
) -> tuple[Plan, list[tuple[Trial, Record]]]:
    """Return the plan, and those of its trials that ended with their records, in the plan's order.

    Another version may have given the same trials other ids. If no trial has a record under its present id, all records
    are matched by settings instead. Never only some are: numbers of two versions must not be mixed.
    """
    plan = make_plan(sweep, data, {id_: record.outcome for id_, record in records.items()}, weights, suggestions)
    if records and not records.keys() & plan.trials.keys():
        records = _under_present_ids(records, weights)
        plan = make_plan(sweep, data, {id_: record.outcome for id_, record in records.items()}, weights, suggestions)
    return plan, [(trial, records[id_]) for id_, trial in plan.trials.items() if id_ in records]


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


def _build(
    sweep: Sweep,
    data: dict[str, Any],
    plan: Plan,
    ended: Sequence[tuple[Trial, Record]],
    contents: Mapping[str, Contents],
    is_sealed: bool,
) -> dict[str, pa.Table]:
    names = {trial.id: record.trial_id for trial, record in ended}
    confirmed = {trial.id: names.get(one.setting[0].id) for one in plan.contenders for trial in one.again}
    rows = [_trial_row(sweep.name, trial.stage, confirmed.get(trial.id), record) for trial, record in ended]
    if is_sealed:  # another sweep, or an earlier state of this one, may have looked at the test images
        rows = [{name: None if name.startswith("test_") else value for name, value in row.items()} for row in rows]
        contents = {id_: (epochs, _without_test(answers)) for id_, (epochs, answers) in contents.items()}
    epochs = [{**row, "trial_id": record.trial_id} for _, record in ended for row in contents[record.trial_id][0]]
    return {
        "trials": pa.Table.from_pylist(rows, schema=TRIALS),
        "epochs": pa.Table.from_pylist(epochs, schema=EPOCHS),
        "predictions": _predictions(data, {record.trial_id: contents[record.trial_id][1] for _, record in ended}),
    }


def _without_test(answers: Answers) -> Answers:
    return {(split, moment): one for (split, moment), one in answers.items() if split != "test"}


def _trial_row(sweep: str, stage: str, confirms: str | None, record: Record) -> dict[str, Any]:
    settings: Settings = record.settings
    best, before = record.best, record.before
    # What an older version did not record stays null: there, `Settings` has the present default.
    columns = {**settings.model_dump(exclude_unset=True), **record.model_dump(exclude={"settings", "best", "before"})}
    columns |= {"sweep": sweep, "stage": stage, "confirms": confirms, "status": record.status.value}
    columns |= {"precision": record.precision or settings.precision}
    for name in Measures.model_fields:
        columns[name] = getattr(best, name) if best else None
        columns[f"{name}_before"] = getattr(before, name) if before else None
    return {name: columns.get(name) for name in TRIALS.names}


def _predictions(
    data: dict[str, Any],
    answers: Mapping[str, Mapping[tuple[str, str], tuple[NDArray[np.int32], NDArray[np.float32]]]],
) -> pa.Table:
    """Build the table of all predictions, with strings as dictionaries: a few bytes per row."""
    listed = data.get("examples", {})
    splits, moments = sorted(listed), ["before", "best"]
    names = [str(name) for split in splits for name in listed[split]["names"]]
    true = np.concatenate([np.zeros(0, np.int32), *(np.asarray(listed[split]["labels"], np.int32) for split in splits)])
    sizes = [len(listed[split]["names"]) for split in splits]
    numbers = np.split(np.arange(len(names), dtype=np.int32), np.cumsum(sizes)[:-1])
    parts: list[tuple[int, int, int, NDArray[np.int32], NDArray[np.int16], NDArray[np.float32]]] = []
    for index, of_trial in enumerate(answers.values()):
        for (split, moment), (predicted, confidence) in sorted(of_trial.items(), key=lambda part: part[0]):
            place = splits.index(split)
            parts.append((index, place, moments.index(moment), numbers[place], predicted.astype(np.int16), confidence))
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
        (ids, list(answers)),
        (of_split, splits),
        (of_moment, moments),
        (examples, names),
        (true[examples] if len(examples) else examples, data["classes"]),
        (predicted, data["classes"]),
    ]
    columns = [pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(words, pa.string())) for codes, words in coded]
    return pa.Table.from_arrays([*columns, pa.array(confidence)], names=PREDICTIONS.names)
