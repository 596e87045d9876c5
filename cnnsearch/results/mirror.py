"""A results folder that a URI names: planning, tables and report work on a copy on this machine, its mirror.

The URI is the truth. What it holds is fetched first, and again when the trials have run, since workers write there
themselves (see `spool.RemoteStore`). What this process writes goes there at once; tables and reports go at the end.
Weights and training states are not fetched, except where a method asks about them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from cnnsearch.errors import DiskError, RemoteError, ResultsError
from cnnsearch.planning.decisions import Note
from cnnsearch.planning.study import Study
from cnnsearch.planning.trial import Trial
from cnnsearch.results.folder import Results
from cnnsearch.results.parcel import RECORD, Parcel, put
from cnnsearch.results.record import Record
from cnnsearch.spec.cells import Cell
from cnnsearch.storage.cache import cache_root
from cnnsearch.storage.durable import write_whole
from cnnsearch.storage.remote import Facts, Remote, all_of
from cnnsearch.storage.remote_lock import Claim, held
from cnnsearch.systems import locks

LEFT_THERE = frozenset({"best.safetensors", "checkpoint.pt"})
"""Large files of trials, which only workers need: they are not mirrored."""
_LOG = logging.getLogger(__name__)

RACY_NANOSECONDS = 2 * 10**9
"""Nanoseconds before the newest file in which a change may go unnoticed, since stores give times in whole seconds."""


@dataclass(frozen=True)
class Mirror:
    """The results of a sweep under a URI, a `ResultsPlace`. One process at a time."""

    here: Results
    remote: Remote
    _listed: dict[str, Facts] = field(default_factory=dict)
    """Name -> facts of the files under the URI when it was last listed."""
    _claims: list[Claim] = field(default_factory=list)
    """This process's claim on the URI, while it has one."""

    @classmethod
    def of(cls, remote: Remote) -> Mirror:
        """The mirror on this machine of what a URI names. Raises ResultsError where that cannot be reached."""
        try:
            remote.check()
        except RemoteError as error:
            raise ResultsError(f"{error}. Look at the URI, and at the credentials this machine has for it") from None
        where = remote.identity
        digest = hashlib.sha256(where.encode()).hexdigest()[:16]
        name = re.sub(r"[^\w.-]", "_", where.partition(" ")[0].rpartition("/")[2]).lstrip(".")
        return cls(Results(cache_root() / "remote" / digest / (name or "results")), remote)

    def __str__(self) -> str:
        return str(self.remote)

    @contextlib.contextmanager
    def locked(self) -> Iterator[Mirror]:
        """See ResultsPlace. Locks the URI against commands on any machine, and makes the mirror equal to it."""
        with self.here.locked(str(self)), held(self.remote) as claim:
            self._claims.append(claim)
            try:
                self._first_pull()
                yield self
            finally:
                self._claims.clear()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Mirror]:
        """See ResultsPlace. Yields a separate mirror, since another process may hold this one and the URI."""
        path = self.here.path
        apart = Mirror(Results(path.parent.with_name(f"{path.parent.name}-read") / path.name), self.remote)
        try:
            apart.here.path.mkdir(parents=True, exist_ok=True)
            lock = (apart.here.path.parent / ".lock").open("w")
        except OSError as error:
            raise ResultsError(f"{apart.here.path} cannot be written: {error.strerror}") from None
        with lock:
            locks.lock(lock.fileno())
            apart._first_pull()
            yield apart

    def _first_pull(self) -> None:
        try:
            self.pull()
        except DiskError as error:
            raise ResultsError(str(error)) from None

    def pull(self) -> None:
        """Make the mirror equal to the URI, except for large files. Raises DiskError."""
        self._listed.clear()
        self._listed.update(self.remote.list())
        index = _Index.read(self.here.path)
        wanted = {name for name in self._listed if name.rpartition("/")[2] not in LEFT_THERE}
        for name in _files(self.here.path):
            if not index.fits(name, self._listed.get(name)):
                (self.here.path / name).unlink()
        self._fetch(sorted(name for name in wanted if not (self.here.path / name).exists()), index)
        for folder in self.here.trials_path.glob("*"):
            with contextlib.suppress(OSError):
                folder.rmdir()  # where the URI has none of its files any more

    def _fetch(self, names: Sequence[str], index: _Index) -> None:
        """Fetch files, and note their facts in the index."""
        _download(self.remote, self.here.path, names)
        newest = max((facts.changed for facts in self._listed.values()), default=0)
        listed = {name: self._listed[name] for name in names}
        index.note({name: facts for name, facts in listed.items() if facts.changed < newest - RACY_NANOSECONDS})
        index.write()

    def publish(self) -> None:
        """See ResultsPlace. Files that vouch for others go last."""
        index = _Index.read(self.here.path)
        names = [name for name in _files(self.here.path) if not name.startswith("trials/")]
        names = [name for name in names if not index.fits(name, self._listed.get(name))]
        for is_note in (False, True):
            self._push([name for name in names if name.endswith(".json") == is_note])
        if names:
            there = self.remote.facts(names)
            self._listed.update(there)
            index.note(there)
            index.write()

    def write(self, name: str, value: str | dict[str, Any]) -> None:
        """See ResultsPlace."""
        self.here.write(name, value)
        self._push([name])

    def record_suggestions(self, study: Study, suggestions: Sequence[Cell]) -> None:
        """See ResultsPlace."""
        self.here.record_suggestions(study, suggestions)
        self._push([f"studies/{self.here.study(study.id).path.name}"])

    def record_decisions(self, notes: Sequence[Note]) -> None:
        """See ResultsPlace."""
        file = self.here.record_decisions(notes)
        self._push([f"decisions/{file.name}"])

    def set_damaged_aside(self) -> list[str]:
        """See ResultsPlace."""
        aside = self.here.set_damaged_aside()
        self._push([f"{name}.damaged" for name in aside])
        kept = [name for name in aside if (self.here.path / name).exists()]
        self._push(kept)
        all_of(self.remote.delete, [name for name in aside if name not in kept])
        return aside

    def commit_failure(self, trial: Trial, error: str) -> Record:
        """See ResultsPlace. Fetches the trial's epochs first, for the record to vouch for them."""
        folder = self.here.trial(trial.id)
        epochs = self.remote.read(f"trials/{trial.id}/{folder.epochs_file.name}")
        folder.make()
        if epochs is not None:
            write_whole(folder.epochs_file, epochs)
        record = folder.commit_failure(trial, error)
        self._check()
        gone = frozenset({folder.checkpoint_file.name})
        put(self.remote, Parcel(trial.id, {RECORD: folder.record_file.read_bytes()}, gone))
        return record

    def has_weights(self, trial_id: str) -> bool:
        """See ResultsPlace. Fetches them for that."""
        name = f"trials/{trial_id}/{self.here.trial(trial_id).weights_file.name}"
        if name in self._listed and not (self.here.path / name).exists():
            self._fetch([name], _Index.read(self.here.path))
        return self.here.has_weights(trial_id)

    def has_checkpoint(self, trial_id: str) -> bool:
        """See ResultsPlace."""
        return f"trials/{trial_id}/{self.here.trial(trial_id).checkpoint_file.name}" in self._listed

    def drop_weights(self, trial_ids: Iterable[str], metric: str) -> None:
        """See ResultsPlace."""
        dropped = list(trial_ids)
        self.here.drop_weights(dropped, metric)
        if any(claim.taken_by for claim in self._claims):
            return
        # Of trials that had ended before this run, the list says whether they have any.
        old = {trial_id for trial_id in dropped if f"trials/{trial_id}/{RECORD}" in self._listed}
        files = [
            (trial_id, f"trials/{trial_id}/{file.name}")
            for trial_id in dropped
            for file in self.here.trial(trial_id).droppable(metric)
        ]
        there = [name for trial_id, name in files if trial_id not in old or name in self._listed]
        try:
            all_of(self.remote.delete, there)
        except RemoteError as error:
            _LOG.warning("%s; weights that nothing needs stay there until the next run", error)
            return
        for name in there:
            self._listed.pop(name, None)

    def adopt(self, trial_ids: list[str], *, untested: bool = False) -> list[str]:
        """See ResultsPlace. Only these trials of other sweeps are fetched, and those copies are removed again."""
        folders = [folder for trial_id in trial_ids for folder in self._elsewhere.get(trial_id, ())]
        if not folders:
            return []
        root, beside = self.remote.parent, self.here.path.parent
        try:
            names = [f"{folder}/{name}" for folder in folders for name in root.at(folder).list()]
            _download(root, beside, [name for name in names if not name.endswith("/checkpoint.pt")])
            taken = self.here.adopt(trial_ids, untested=untested)
        finally:
            for sweep in {folder.partition("/")[0] for folder in folders}:
                shutil.rmtree(beside / sweep, ignore_errors=True)
        self._check()
        for trial_id in taken:
            files = {file.name: file.read_bytes() for file in self.here.trial(trial_id).path.iterdir()}
            put(self.remote, Parcel(trial_id, files))
        return taken

    @cached_property
    def _elsewhere(self) -> dict[str, list[str]]:
        """Trial id -> its folders in other sweeps where it has ended, relative to the results root. Listed once."""
        found: dict[str, list[str]] = {}
        for name in sorted(self.remote.parent.list()):
            sweep, *rest = name.split("/")
            if rest[:1] == ["trials"] and rest[2:] == [RECORD] and sweep != self.here.path.name:
                found.setdefault(rest[1], []).append(name.rpartition("/")[0])
        return found

    def _push(self, names: Iterable[str]) -> None:
        """Copy files from here to the URI. Raises DiskError."""
        self._check()
        all_of(lambda name: self.remote.write(name, (self.here.path / name).read_bytes()), names)

    def _check(self) -> None:
        for claim in self._claims:
            claim.check()


@dataclass
class _Index:
    """Facts about each file, under the URI and here, from when the two were equal: if one differs now, it changed."""

    folder: Path
    entries: dict[str, list[int]]
    """Name -> size and time of change under the URI, then size and time of change here."""

    @classmethod
    def read(cls, folder: Path) -> _Index:
        """The index of a mirror; empty where its file is missing or damaged."""
        try:
            stored = json.loads(cls(folder, {}).file.read_bytes())
            return cls(folder, {str(name): [int(number) for number in entry] for name, entry in stored.items()})
        except (OSError, ValueError, TypeError, AttributeError):
            return cls(folder, {})

    @property
    def file(self) -> Path:
        return self.folder.parent / ".index.json"

    def fits(self, name: str, there: Facts | None) -> bool:
        """Whether the file here still equals the one under the URI."""
        return there is not None and self.entries.get(name) == self._entry(name, there)

    def note(self, there: Mapping[str, Facts]) -> None:
        """Note files that have just been made equal."""
        self.entries |= {name: entry for name, facts in there.items() if (entry := self._entry(name, facts))}

    def write(self) -> None:
        """Write the index. Raises DiskError."""
        write_whole(self.file, json.dumps(self.entries).encode())

    def _entry(self, name: str, there: Facts) -> list[int] | None:
        try:
            here = (self.folder / name).stat()
        except OSError:
            return None
        return [there.size, there.changed, here.st_size, here.st_mtime_ns]


def _download(remote: Remote, folder: Path, names: Iterable[str]) -> None:
    """Copy files into a folder, except those that have been deleted meanwhile. Raises DiskError."""

    def fetch(name: str) -> None:
        content = remote.read(name)
        if content is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)

    try:
        all_of(fetch, names)
    except OSError as error:
        raise DiskError(f"{folder} cannot be written: {error.strerror or error}") from None


def _files(folder: Path) -> list[str]:
    """Relative paths of all files under a folder, except hidden ones."""
    found = []
    for where, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [os.path.relpath(os.path.join(where, name), folder) for name in files if not name.startswith(".")]
    return sorted(name.replace(os.sep, "/") for name in found)  # as in the store
