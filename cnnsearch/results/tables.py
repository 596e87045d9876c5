"""The three result tables: building them from records, and reading them.

A table is derived from records and can always be rebuilt from them. `parquet` has their columns.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from cnnsearch.errors import ResultsError, RunError
from cnnsearch.planning.study import Suggestions
from cnnsearch.results import parquet
from cnnsearch.results.building import build, contents_of, ended_trials, has_circle, other_trials
from cnnsearch.results.folder import UNSEALED, Results
from cnnsearch.results.folds import fold_fingerprints
from cnnsearch.results.record import Record
from cnnsearch.spec.confirm import CONFIRM
from cnnsearch.spec.document import shown
from cnnsearch.spec.load import from_yaml
from cnnsearch.spec.sweep import Sweep
from cnnsearch.storage.checksums import canonical_json
from cnnsearch.storage.paths import typed_path
from cnnsearch.words import counted, printable


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
    training: dict[str, Any] = field(default_factory=dict, kw_only=True)
    """The training images whose labels the best networks doubt most; empty where they were not asked."""
    planned: int
    """Number of trials in the sweep, ended or not."""
    is_sealed: bool = False
    """Whether the test set is sealed; no table then holds a number of the test images."""
    unsealed: dict[str, Any] = field(default_factory=dict)
    """When the test set was unsealed ("at"); empty where it never was."""
    damaged: tuple[str, ...] = ()
    """Ids of trials whose record, or a file it vouches for, has been damaged; they count as not done."""
    outside: int = 0
    """Recorded trials that are not here, because the sweep as it is now does not have them."""
    on_other_data: int = 0
    """How many of these were trained on other images, or on another split of them."""
    left_out: tuple[str, ...] = ()
    """What else cannot be read, in sentences; it is missing here."""
    checksums: Mapping[str, str] = field(default_factory=dict)
    """File name -> SHA-256 of the stored tables; empty if the tables are not stored."""


Tables.predictions = _WhenAsked()  # type: ignore[assignment]


def load(folder: Path | str, *, store: bool = True, everything: bool = False) -> Tables:
    """Read the tables of a results folder, building them anew where records have changed since.

    Args:
        folder: of one sweep.
        store: whether to write tables that were built anew into the folder. If not, the folder is only read, as is
            necessary while a run is active.
        everything: whether to take in recorded trials that the sweep as it is now does not have, as after a change to
            its grid. Such tables are not stored.

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
    stored = None
    if not (everything and records):
        stored = parquet.read(results.path, digest, any_digest=not records)
    if stored and (reason := _misfit(stored.tables["trials"], sweep)):
        if not records:
            raise ResultsError(f"{results.path / 'trials.parquet'} is damaged ({reason})")
        stored = None
    damaged = tuple(unreadable) if stored and records else tuple(results.damaged(records))
    if stored is None:
        whole = {id_: record for id_, record in records.items() if id_ not in damaged}
        stored, odd = _built(
            results,
            sweep,
            data,
            whole,
            suggestions,
            "" if damaged else digest,
            is_sealed,
            store=store and not everything,
            everything=everything,
        )
        whole.clear()
        unreadable |= odd
    described, left_out = _described(results)
    others = records.keys() - set(stored.tables["trials"]["trial_id"].to_pylist()) - {*damaged, *unreadable}
    if everything and others:
        many = counted(len(others), "recorded trial is", "recorded trials are")
        left_out.append(f"{many} left out: what they were trained on is not what this sweep trains on.")
    left_out += [f"Trial {printable(id_)} is left out: {reason}." for id_, reason in sorted(unreadable.items())]
    images = fold_fingerprints(data) or (data.get("fingerprint"),)
    on_other_data = sum(records[id_].data not in images for id_ in others)
    for name in ("examples", "folds"):  # they are in the tables
        data.pop(name, None)
    records.clear()  # of very many trials they are large, and frames are made next
    held = stored.tables.pop("predictions", None)
    later: Any = functools.partial(_predictions_frame, held, data)
    if held is None:
        later = functools.partial(_read_predictions, results.path, stored.checksums, data)
    return Tables(
        folder=results.path,
        trials=_trials_frame(stored.tables["trials"]),
        epochs=_epochs_frame(stored.tables.pop("epochs")),
        predictions=later,
        sweep=sweep,
        provenance=described["provenance.json"],
        data=data,
        pictures=described["pictures.json"],
        training=described["training.json"],
        planned=stored.planned,
        is_sealed=is_sealed,
        unsealed=results.read(UNSEALED),
        damaged=tuple(id_ for id_ in damaged if id_ not in unreadable),
        outside=0 if everything else len(others),
        on_other_data=0 if everything else on_other_data,
        left_out=tuple(left_out),
        checksums=stored.checksums,
    )


def _trials_frame(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas()
    return frame.assign(started_at=frame["started_at"].dt.tz_localize(None))


def _epochs_frame(table: pa.Table) -> pd.DataFrame:
    """The epochs as a frame. Columns are converted one by one, so that hardly more than one is there twice."""
    columns: dict[str, Any] = {}
    for name in table.column_names:
        column = table.column(0).combine_chunks()
        table = table.remove_column(0)
        is_text = pa.types.is_string(column.type)
        columns[name] = column.to_pandas() if is_text else column.to_numpy(zero_copy_only=False, writable=True)
    return pd.DataFrame(columns, copy=False)


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
    everything: bool,
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
        plan, ended = ended_trials(sweep, data, records, weights, suggestions)
        others = other_trials(data, records, ended) if everything else []
        ended, planned = ended + others, plan.total + len(others)
        contents, odd = contents_of(results, data, ended)
        if not odd:
            break
        left_out |= odd
        records = {id_: record for id_, record in records.items() if id_ not in odd}
    tables, checksums = build(sweep, data, plan, ended, contents, is_sealed), {}
    if store:
        with contextlib.suppress(RunError):  # a folder that cannot be written can still be read
            checksums = parquet.store(results.path, tables, "" if left_out else digest, planned)
    return parquet.Stored(tables, planned, checksums), left_out


def _described(results: Results) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The files that a report can do without, by name, empty where they are damaged; and what is wrong with these."""
    found: dict[str, dict[str, Any]] = {}
    left_out = []
    for name in ("provenance.json", "pictures.json", "training.json"):
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
    return "a trial starts from itself" if has_circle(parents) else ""


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
