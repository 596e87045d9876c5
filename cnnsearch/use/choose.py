"""Which trial is used: the best, as the report has it, or one that is named."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnsearch.errors import RequestError, ResultsError
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.results.folder import Results
from cnnsearch.results.kept_code import how_to_name, name_code, refuse_unnamed
from cnnsearch.results.record import Record
from cnnsearch.results.tables import Tables, load
from cnnsearch.spec.document import shown
from cnnsearch.spec.load import from_yaml
from cnnsearch.spec.settings import Settings
from cnnsearch.spec.sweep import Sweep
from cnnsearch.storage.remote import is_uri, redacted
from cnnsearch.words import LISTED, printable

BEST = "best"
"""What to give in place of an id for the best trial."""
KEEP_ALL = "With --set run.keep=all a sweep keeps the weights of every trial it trains."


@dataclass(frozen=True)
class Chosen:
    """A trial whose weights are kept, and the sweep it belongs to."""

    results: Results
    sweep: Sweep
    data: Mapping[str, Any]
    """data.json."""
    record: Record
    is_best: bool
    """Whether it was chosen as the best, not named."""

    @property
    def is_sealed(self) -> bool:
        """Whether the test set of its sweep is sealed."""
        return self.results.is_sealed(self.sweep)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the network's outputs."""
        return tuple(self.data["classes"])


def results_in(folder: Path | str, what: str = "networks are used from") -> Results:
    """The results in a folder. Raises ResultsError where it holds none, and RequestError for a URI.

    Args:
        folder: of the results of one sweep.
        what: what is done with folders, as the error for a URI says it.
    """
    from cnnsearch.storage.paths import typed_path

    if is_uri(folder):
        raise RequestError(f"{redacted(str(folder))}: {what} folders; copy the results to one first")
    results = Results(typed_path(folder))
    if not results.path.is_dir():
        raise ResultsError(f"there is no folder {results.path}")
    results.refuse_links()
    return results


def choose(
    folder: Path | str, trial: str | None = None, tables: Tables | None = None, code: Sequence[str | Path] = ()
) -> Chosen:
    """Choose the trial to use.

    Args:
        folder: of the results of one sweep.
        trial: its id, or the beginning of it; None: the best by validation, as the report has it.
        tables: those of the folder, where they have been read.
        code: files of the user's own code that may run: those of the trial's network, as they were.

    Raises RequestError where there is no such trial, several, or one that has not kept its weights; and where its code
    was not named, here or before.
    """
    named = name_code(code)
    results = results_in(folder)
    sweep = from_yaml(results.sweep_text(), str(results.sweep_file))
    data = results.read("data.json")
    if "classes" not in data:
        raise ResultsError(f"{results.path} has no data.json; run the sweep again, which puts it right")
    records = results.records({})
    if not records:
        refuse_tables_alone(results, tables or load(results.path, store=False), records)
    kept = [id_ for id_, record in records.items() if _keeps_weights(results, record)]
    if trial is None:
        id_ = Evidence(tables or load(results.path, store=False)).best_trial
        if id_ is None:
            raise RequestError(f"{results.path}: no trial has finished, so there is no best one. {_named(kept)}")
    else:
        id_ = meant(trial, list(records), results.path, _named(kept))
    if id_ not in kept:  # nor in records, where only the tables are kept
        which = "the best trial, " if trial is None else "trial "
        raise RequestError(f"{results.path}: {which}{id_}, has not kept its weights.\n{_named(kept)}\n{KEEP_ALL}")
    refuse_unnamed(results.path, id_, records[id_].settings, named)
    return Chosen(results, sweep, data, records[id_], trial is None)


def ended_trial(results: Results, tables: Tables, asked: str) -> Record:
    """The record of a trial that ended.

    Args:
        results: of its sweep.
        tables: those of the folder.
        asked: its id, or the beginning of it; or `BEST`, the best by validation, as the report has it.

    Raises RequestError where there is no such trial, or several.
    """
    records = results.records({})
    refuse_tables_alone(results, tables, records)
    if asked == BEST:
        id_ = Evidence(tables).best_trial
        if id_ not in records:
            raise RequestError(f"{results.path}: no trial has finished, so there is no best one")
        return records[id_]
    ended = f"Trials that ended: {some(list(records))}." if records else "No trial has ended."
    return records[meant(asked, list(records), results.path, f"{ended} {BEST}: the best by validation.")]


def refuse_tables_alone(results: Results, tables: Tables, records: Mapping[str, Record]) -> None:
    """Raise RequestError where the folder holds the tables of trials that ended, but none of the trials."""
    if not records and not tables.trials.empty:
        raise RequestError(
            f"{results.path} holds the tables of a sweep but not its trials, which this needs; "
            f"a report can be made of them: cnnsearch report {shlex.quote(str(results.path))}"
        )


def repeat_command(results: Path, trial_id: str, settings: Settings) -> str:
    """The command that trains a recorded trial again and compares."""
    return f"cnnsearch reproduce {shlex.quote(str(results))} {trial_id}{how_to_name(results, settings)}"


def _keeps_weights(results: Results, record: Record) -> bool:
    file = results.trial(record.trial_id).weights_file
    return file.name in record.files and file.is_file()


def meant(given: str, known: Sequence[str], folder: Path, instead: str) -> str:
    """The id that is meant by its beginning; `instead` says what else could be given. Raises RequestError."""
    found = [id_ for id_ in known if id_.startswith(given)] if given else []
    if len(found) == 1:
        return found[0]
    if found:
        raise RequestError(f"{folder}: trial {shown(given)} could be {some(found)}; give more of its id")
    raise RequestError(f"{folder} has no trial whose id begins with {shown(given)}. {instead}")


def _named(kept: Sequence[str]) -> str:
    if not kept:
        return "No trial here has its weights."
    return f"Weights are kept of {'trial' if len(kept) == 1 else 'trials'} {some(kept)}."


def some(ids: Sequence[str]) -> str:
    """The first of these ids, and how many more there are."""
    more = f" and {len(ids) - LISTED} more" if len(ids) > LISTED else ""
    return ", ".join(map(printable, ids[:LISTED])) + more
