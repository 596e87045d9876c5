"""Where the results of a sweep are kept: a folder of this machine, or a URI. What differs between them is here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from cnnsearch.errors import ResultsError
from cnnsearch.planning.decisions import Note
from cnnsearch.planning.study import Study
from cnnsearch.planning.trial import Trial
from cnnsearch.results.folder import Results
from cnnsearch.results.mirror import Mirror
from cnnsearch.results.record import Record
from cnnsearch.spec.cells import Cell
from cnnsearch.storage.paths import typed_path
from cnnsearch.storage.remote import Remote, is_uri


class ResultsPlace(Protocol):
    """A sweep's results, as a session uses them; `str` names the place for people.

    Planning, tables and report read the files in the folder `here`. Writing, and questions about large files, go
    through these methods. All but `locked` and `reading` may be called only while this process holds the place.
    """

    @property
    def here(self) -> Results:
        """The folder on this machine: the results themselves, or a copy of what the URI holds."""

    @property
    def remote(self) -> Remote | None:
        """What the URI names; None for a folder."""

    def locked(self) -> contextlib.AbstractContextManager[ResultsPlace]:
        """Hold the place and yield it. Raises ResultsError if another process holds it, or it cannot be written."""

    def reading(self) -> contextlib.AbstractContextManager[ResultsPlace]:
        """Yield the place for reading only, even while another process holds it. Raises ResultsError."""

    def pull(self) -> None:
        """Copy into `here` what workers wrote to the URI. Raises DiskError."""

    def publish(self) -> None:
        """Copy tables, plots and report from `here` to where results are kept. Raises DiskError."""

    def write(self, name: str, value: str | dict[str, Any]) -> None:
        """Write one of the folder's own files: text as it is, an object as JSON with its checksum. Raises DiskError."""

    def record_suggestions(self, study: Study, suggestions: Sequence[Cell]) -> None:
        """Write the next suggestions of a study, durably. Raises DiskError."""

    def record_decisions(self, notes: Sequence[Note]) -> object:
        """Write down, durably, what stopping rules decided, and on what. Raises DiskError."""

    def set_damaged_aside(self) -> list[str]:
        """Rename damaged files of the folder to `<name>.damaged`, so that a run writes them again; returns the names.

        Intact lines of a damaged study stay in place. Damaged choices, with which the sweep was begun, are restored
        from its history if they are recorded there.
        """

    def adopt(self, trial_ids: list[str], *, untested: bool = False) -> list[str]:
        """Copy those of these trials that other sweeps in the same results root have finished; returns their ids.

        Trials of a sealed sweep have no test score yet: they are taken only where `untested` ones are wanted.
        """

    def has_weights(self, trial_id: str) -> bool:
        """See `TrialFolder.has_weights`."""

    def has_checkpoint(self, trial_id: str) -> bool:
        """Whether training state of a trial is kept."""

    def drop_weights(self, trial_ids: Iterable[str], metric: str) -> None:
        """See `TrialFolder.drop_weights`."""

    def commit_failure(self, trial: Trial, error: str) -> Record:
        """Record that a trial failed whose worker can no longer do so."""


def open_results(out: Path | str, name: str) -> ResultsPlace:
    """The results of the sweep `name` under a results root, a path or a URI.

    Raises ResultsError where a URI cannot be reached, or names no bucket or folder.
    """
    if not is_uri(out):
        return Results(typed_path(out).absolute() / name)
    root = Remote.of(str(out))
    if not root.place:
        raise ResultsError(f"--out {root} names no bucket or folder: give one, such as s3://bucket/results")
    return Mirror.of(root.at(name))


@contextlib.contextmanager
def reading(uri: str) -> Iterator[Mirror]:
    """The results of a sweep under a URI, for reading. Raises ResultsError where there are none."""
    with Mirror.of(Remote.of(uri)).reading() as mirror:
        if not mirror.here.sweep_file.exists():
            raise ResultsError(f"{mirror} is not the results of a sweep: it has no sweep.yaml")
        yield mirror


@contextlib.contextmanager
def for_reading(results: str) -> Iterator[ResultsPlace]:
    """Open results for reading, for the time of the block: a folder as people type it, or a URI."""
    if is_uri(results):
        with reading(results) as place:
            yield place
    else:
        yield Results(typed_path(results))


def results_at(path: Path, remote: Remote | None) -> ResultsPlace:
    """Return the place of an executor's context, in which it records the failure of trials that no worker runs."""
    return Results(path) if remote is None else Mirror(Results(path), remote)
