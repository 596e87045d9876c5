"""A results folder that a URI names: planning, tables and report work on a copy on this machine, its mirror.

The URI is the truth. What it holds is brought here first, and again when the trials have run, since workers write there
themselves (`direct`); what this process writes goes there at once, or, for tables and reports, at the end. Weights and
training states stay there, but for those that are asked about.
"""

from __future__ import annotations

import contextlib
import fcntl
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
from cnnsearch.planning.trial import Trial
from cnnsearch.results.parcel import RECORD, Parcel, put
from cnnsearch.results.records import Record, Results
from cnnsearch.results.study_file import StudyFile
from cnnsearch.spec.cells import Cell
from cnnsearch.storage.cache import cache_root
from cnnsearch.storage.durable import write_whole
from cnnsearch.storage.remote import Facts, Remote, all_of, is_uri
from cnnsearch.storage.remote_lock import Claim, held

LEFT_THERE = frozenset({"best.safetensors", "checkpoint.pt"})
"""Large files of trials, which only workers need."""
_LOG = logging.getLogger(__name__)

RACY_NANOSECONDS = 2 * 10**9
"""Stores tell whole seconds: what was written so shortly before the newest object may have changed since, unseen."""


def open_results(out: Path | str, name: str) -> Results:
    """The folder of a sweep under a results root: a path, or a URI. Raises ResultsError where that is of no use."""
    if not is_uri(out):
        return Results(Path(out).absolute() / name)
    root = Remote.of(str(out))
    if not root.place:
        raise ResultsError(f"--out {root} names no bucket or folder: give one, such as s3://bucket/results")
    return Mirror.of(root.at(name))


@contextlib.contextmanager
def reading(uri: str) -> Iterator[Mirror]:
    """A sweep's results as they are, for the time of the block. Raises ResultsError where there are none."""
    with Mirror.of(Remote.of(uri)).reading() as mirror:
        if not mirror.sweep_file.exists():
            raise ResultsError(f"{mirror} is not the results of a sweep: it has no sweep.yaml")
        yield mirror


def results_at(path: Path, remote: Remote | None) -> Results:
    """The results folder that an executor was given, to record what became of trials nobody runs any more."""
    return Results(path) if remote is None else Mirror(path, remote)


@dataclass(frozen=True)
class Mirror(Results):
    """The folder of one sweep, `path`, kept like what is under a URI. One process at a time."""

    remote: Remote
    _listed: dict[str, Facts] = field(default_factory=dict)
    """Name -> facts, of what was there when it was last looked at."""
    _claims: list[Claim] = field(default_factory=list)
    """This process's hold on the URI, while it has it."""

    @classmethod
    def of(cls, remote: Remote) -> Mirror:
        """The mirror on this machine. Raises ResultsError where the URI cannot be reached."""
        try:
            remote.check()
        except RemoteError as error:
            raise ResultsError(f"{error}. Look at the URI, and at the credentials this machine has for it") from None
        where = remote.identity
        digest = hashlib.sha256(where.encode()).hexdigest()[:16]
        name = re.sub(r"[^\w.-]", "_", where.partition(" ")[0].rpartition("/")[2]).lstrip(".")
        return cls(cache_root() / "remote" / digest / (name or "results"), remote)

    def __str__(self) -> str:
        return str(self.remote)

    @contextlib.contextmanager
    def locked(self) -> Iterator[Results]:
        """See Results. Others are kept off the URI, wherever they run; and the mirror is made like it."""
        with super().locked(), held(self.remote) as claim:
            self._claims.append(claim)
            try:
                self._first_pull()
                yield self
            finally:
                self._claims.clear()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Mirror]:
        """See Results. It is another mirror, while this one and the URI may be held."""
        apart = Mirror(self.path.parent.with_name(f"{self.path.parent.name}-read") / self.path.name, self.remote)
        try:
            apart.path.mkdir(parents=True, exist_ok=True)
            lock = (apart.path.parent / ".lock").open("w")
        except OSError as error:
            raise ResultsError(f"{apart.path} cannot be written: {error.strerror}") from None
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            apart._first_pull()
            yield apart

    def _first_pull(self) -> None:
        try:
            self.pull()
        except DiskError as error:
            raise ResultsError(str(error)) from None

    def pull(self) -> None:
        """Make the mirror like what is under the URI. Raises DiskError."""
        self._listed.clear()
        self._listed.update(self.remote.list())
        index = _Index.read(self.path)
        wanted = {name for name in self._listed if name.rpartition("/")[2] not in LEFT_THERE}
        for name in _files(self.path):
            if not index.fits(name, self._listed.get(name)):
                (self.path / name).unlink()
        self._fetch(sorted(name for name in wanted if not (self.path / name).exists()), index)
        for folder in self.trials_path.glob("*"):
            with contextlib.suppress(OSError):
                folder.rmdir()  # its files are not there any more

    def _fetch(self, names: Sequence[str], index: _Index) -> None:
        """Bring files here, and remember which they are."""
        _bring(self.remote, self.path, names)
        newest = max((facts.changed for facts in self._listed.values()), default=0)
        listed = {name: self._listed[name] for name in names}
        index.note({name: facts for name, facts in listed.items() if facts.changed < newest - RACY_NANOSECONDS})
        index.write()

    def publish(self) -> None:
        """See Results. Of tables, plots and report, those that are not there yet; what vouches for others, last."""
        index = _Index.read(self.path)
        names = [name for name in _files(self.path) if not name.startswith("trials/")]
        names = [name for name in names if not index.fits(name, self._listed.get(name))]
        for is_note in (False, True):
            self._push([name for name in names if name.endswith(".json") == is_note])
        if names:
            there = self.remote.facts(names)
            self._listed.update(there)
            index.note(there)
            index.write()

    def write(self, name: str, value: str | dict[str, Any]) -> None:
        """See Results."""
        super().write(name, value)
        self._push([name])

    def study(self, study_id: str) -> StudyFile:
        """See Results."""
        return _RemoteStudyFile(super().study(study_id).path, self)

    def set_damaged_aside(self) -> list[str]:
        """See Results."""
        aside = super().set_damaged_aside()
        self._push([f"{name}.damaged" for name in aside])
        kept = [name for name in aside if (self.path / name).exists()]
        self._push(kept)
        all_of(self.remote.delete, [name for name in aside if name not in kept])
        return aside

    def commit_failure(self, trial: Trial, error: str) -> Record:
        """See Results. Its epochs are brought here first, for the record to vouch for them."""
        folder = self.trial(trial.id)
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
        """See Results. They are brought here for that."""
        name = f"trials/{trial_id}/{self.trial(trial_id).weights_file.name}"
        if name in self._listed and not (self.path / name).exists():
            self._fetch([name], _Index.read(self.path))
        return super().has_weights(trial_id)

    def has_checkpoint(self, trial_id: str) -> bool:
        """See Results."""
        return f"trials/{trial_id}/{self.trial(trial_id).checkpoint_file.name}" in self._listed

    def drop_weights(self, trial_ids: Iterable[str]) -> None:
        """See Results."""
        dropped = list(trial_ids)
        super().drop_weights(dropped)
        if any(claim.taken_by for claim in self._claims):
            return
        weights = {trial_id: f"trials/{trial_id}/{self.trial(trial_id).weights_file.name}" for trial_id in dropped}
        # Of what had ended before this run it is known whether there are any.
        old = {trial_id for trial_id in dropped if f"trials/{trial_id}/{RECORD}" in self._listed}
        there = [name for trial_id, name in weights.items() if trial_id not in old or name in self._listed]
        try:
            all_of(self.remote.delete, there)
        except RemoteError as error:
            _LOG.warning("%s; weights that nothing needs stay there until the next run", error)
            return
        for name in there:
            self._listed.pop(name, None)

    def adopt(self, trial_ids: list[str]) -> list[str]:
        """See Results. Of the other sweeps only those trials are brought here, and only for that."""
        folders = [folder for trial_id in trial_ids for folder in self._elsewhere.get(trial_id, ())]
        if not folders:
            return []
        root, beside = self.remote.parent, self.path.parent
        try:
            names = [f"{folder}/{name}" for folder in folders for name in root.at(folder).list()]
            _bring(root, beside, [name for name in names if not name.endswith("/checkpoint.pt")])
            taken = super().adopt(trial_ids)
        finally:
            for sweep in {folder.partition("/")[0] for folder in folders}:
                shutil.rmtree(beside / sweep, ignore_errors=True)
        self._check()
        for trial_id in taken:
            files = {file.name: file.read_bytes() for file in self.trial(trial_id).path.iterdir()}
            put(self.remote, Parcel(trial_id, files))
        return taken

    @cached_property
    def _elsewhere(self) -> dict[str, list[str]]:
        """Trial id -> its folders in other sweeps of this results root where it has ended, as it was at first."""
        found: dict[str, list[str]] = {}
        for name in sorted(self.remote.parent.list()):
            sweep, *rest = name.split("/")
            if rest[:1] == ["trials"] and rest[2:] == [RECORD] and sweep != self.path.name:
                found.setdefault(rest[1], []).append(name.rpartition("/")[0])
        return found

    def _push(self, names: Iterable[str]) -> None:
        """Bring files from here to the URI. Raises DiskError."""
        self._check()
        all_of(lambda name: self.remote.write(name, (self.path / name).read_bytes()), names)

    def _check(self) -> None:
        for claim in self._claims:
            claim.check()


@dataclass(frozen=True)
class _RemoteStudyFile(StudyFile):
    """A study's suggestions, here and under the URI."""

    mirror: Mirror

    def append(self, first: int, suggestions: Sequence[Cell], about: dict[str, Any]) -> None:
        """See StudyFile. Raises DiskError where they do not get there."""
        super().append(first, suggestions, about)
        self.mirror._push([f"studies/{self.path.name}"])


@dataclass
class _Index:
    """What the files of a mirror were there, and here, when they were the same."""

    folder: Path
    entries: dict[str, list[int]]
    """Name -> size and time of change there, size and time of change here."""

    @classmethod
    def read(cls, folder: Path) -> _Index:
        """What was noted; nothing where that is damaged."""
        try:
            stored = json.loads(cls(folder, {}).file.read_bytes())
            return cls(folder, {str(name): [int(number) for number in entry] for name, entry in stored.items()})
        except (OSError, ValueError, TypeError, AttributeError):
            return cls(folder, {})

    @property
    def file(self) -> Path:
        return self.folder.parent / ".index.json"

    def fits(self, name: str, there: Facts | None) -> bool:
        """Whether the file here is still what is there."""
        return there is not None and self.entries.get(name) == self._entry(name, there)

    def note(self, there: Mapping[str, Facts]) -> None:
        """Files that have just been made the same."""
        self.entries |= {name: entry for name, facts in there.items() if (entry := self._entry(name, facts))}

    def write(self) -> None:
        """Keep what was noted. Raises DiskError."""
        write_whole(self.file, json.dumps(self.entries).encode())

    def _entry(self, name: str, there: Facts) -> list[int] | None:
        try:
            here = (self.folder / name).stat()
        except OSError:
            return None
        return [there.size, there.changed, here.st_size, here.st_mtime_ns]


def _bring(remote: Remote, folder: Path, names: Iterable[str]) -> None:
    """Bring files into a folder; those that are gone meanwhile are not there. Raises DiskError."""

    def bring(name: str) -> None:
        content = remote.read(name)
        if content is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)

    try:
        all_of(bring, names)
    except OSError as error:
        raise DiskError(f"{folder} cannot be written: {error.strerror or error}") from None


def _files(folder: Path) -> list[str]:
    """Names of the files in a folder and those in it, but for hidden ones."""
    found = []
    for where, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [os.path.relpath(os.path.join(where, name), folder) for name in files if not name.startswith(".")]
    return sorted(found)
