"""Run trials on a machine without the results folder: they write into a folder of the worker's own, the spool.

After every step, and before the step is reported, what has changed in the spool is sent to the `TrialStore`. Images
and pretrained weights are fetched once for all workers of a machine, into its cache.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from cnnsearch.data.dataset import Dataset
from cnnsearch.errors import DiskError, RunError
from cnnsearch.execution.context import SharedContext
from cnnsearch.planning.trial import Trial
from cnnsearch.results.continuation import shorter
from cnnsearch.results.folder import Results
from cnnsearch.results.parcel import HOLDER, Parcel, put
from cnnsearch.results.trial_folder import TrialFolder
from cnnsearch.storage.cache import cache_root
from cnnsearch.storage.durable import alone_in, remove_abandoned, replacing, temporary_folder
from cnnsearch.storage.remote import Remote, all_of
from cnnsearch.training.models.pretrained import Pretrained, digest_of


class TrialStore(Protocol):
    """Where the trials of a sweep are kept, as a worker reaches it: a `Depot` through Ray, or a `RemoteStore`.

    One worker at a time holds a trial: the last to which it was handed over. Changes from other workers are refused.
    """

    def hand_over(self, trial_id: str, holder: str, names: Iterable[str]) -> dict[str, bytes]:
        """Make `holder` the only worker whose changes to a trial are accepted, and return its files as `fetch` does."""

    def fetch(self, trial_id: str, names: Iterable[str]) -> dict[str, bytes]:
        """Return the files of a trial that exist among those named: name -> content."""

    def keep(self, holder: str, parcels: Iterable[Parcel]) -> None:
        """Change trials' files as the parcels say, each in the order of `Parcel.changes`.

        Raises:
            DiskError: a file cannot be written; RemoteError where that is under a URI.
            RunError: a trial is held by another worker, or has ended.
        """

    def read(self, file: Path, start: int) -> bytes:
        """Return a piece of an image pack or of pretrained weights from byte `start`; empty at the file's end.

        Raises RunError where the file cannot be read.
        """


@dataclass(frozen=True)
class RemoteStore:
    """The trials of a sweep whose results are kept under a URI, where every worker reads and writes by itself.

    The holder of a trial is noted beside its files. Object stores cannot make a write depend on this note being
    unchanged. So a worker that was given up, and pauses between reading the note and writing, may mix its files with
    those of a later attempt: their checksums then differ from those in the record, and the trial counts as not done.
    """

    remote: Remote
    """The place of the sweep's results."""
    reader: Callable[[Path, int], bytes] | None = None
    """Reads files that this machine lacks, as `TrialStore.read`."""

    def hand_over(self, trial_id: str, holder: str, names: Iterable[str]) -> dict[str, bytes]:
        """See TrialStore. Raises RemoteError."""
        self.remote.write(f"trials/{trial_id}/{HOLDER}", holder.encode())
        return self.fetch(trial_id, names)

    def fetch(self, trial_id: str, names: Iterable[str]) -> dict[str, bytes]:
        """See TrialStore. Raises RemoteError."""
        found = all_of(lambda name: self.remote.read(f"trials/{trial_id}/{name}"), names)
        return {name: content for name, content in found.items() if content is not None}

    def keep(self, holder: str, parcels: Iterable[Parcel]) -> None:
        """See TrialStore."""
        by_id = {parcel.trial_id: parcel for parcel in parcels}
        all_of(lambda trial_id: self._keep(holder, by_id[trial_id]), by_id)

    def _keep(self, holder: str, parcel: Parcel) -> None:
        if self.remote.read(f"trials/{parcel.trial_id}/{HOLDER}") != holder.encode():
            raise RunError(f"trial {parcel.trial_id} was given to another worker")
        put(self.remote, parcel)

    def read(self, file: Path, start: int) -> bytes:
        """See TrialStore."""
        if self.reader is None:
            raise RunError(f"{file} is gone")
        return self.reader(file, start)


FileState = tuple[int, int, int]
"""Inode, size and modification time of a file."""


@dataclass
class Spool:
    """One worker's folder for its trials, and what the store has already received of it."""

    context: SharedContext
    """The context with the paths of the machine that has the results folder."""
    store: TrialStore
    folder: Path
    """Used by this worker alone."""
    _trials: tuple[Trial, ...] = ()
    """The trials of the current job."""
    _holder: str = ""
    """Name by which the store knows this worker and job."""
    _sent: dict[str, dict[str, FileState]] = field(default_factory=dict)
    """Trial id -> file name -> the file's state when it was last sent."""

    @classmethod
    def open(cls, context: SharedContext, store: TrialStore) -> Spool:
        """Make a worker's folder, and remove those that dead workers left on this machine. Raises DiskError."""
        try:
            home = cache_root() / "spool"
            home.mkdir(parents=True, exist_ok=True)
            remove_abandoned(home)
            return cls(context, store, temporary_folder(home))
        except OSError as error:
            raise DiskError(f"a folder for trials cannot be made: {error}") from None

    @property
    def results(self) -> Results:
        """The folder as a results folder that trials write into."""
        return Results(self.folder)

    def context_here(self) -> SharedContext:
        """Return the context with paths on this machine; fetch the images and weights that it lacks.

        Raises DiskError where they cannot be stored.
        """
        return replace(
            self.context,
            results=self.folder,
            datasets={form: self._with_images(dataset) for form, dataset in self.context.datasets.items()},
            weights={key: self._with_file(found) for key, found in self.context.weights.items()},
        )

    def begin(self, trials: tuple[Trial, ...]) -> None:
        """Start a job: fetch what its trials start from, and remove the files of the previous job."""
        for trial in self._trials:
            shutil.rmtree(self.results.trial(trial.id).path, ignore_errors=True)
        self._trials, self._holder, self._sent = trials, secrets.token_hex(8), {}
        for trial in trials:
            folder = self.results.trial(trial.id)
            shutil.rmtree(folder.path, ignore_errors=True)
            # The record is fetched too: its removal, when the trial begins, can then be noticed and sent.
            names = (folder.checkpoint_file.name, folder.record_file.name)
            self._write(folder, self.store.hand_over(trial.id, self._holder, names))
            self._sent[trial.id] = dict(_states(folder))
            if not folder.checkpoint_file.exists():
                self._fetch_shorter(trial)
            self._fetch_parents(trial.parent_id)

    def send(self) -> None:
        """Send what has changed to the store. Raises what `TrialStore.keep` raises."""
        parcels = []
        for trial in self._trials:
            folder, sent = self.results.trial(trial.id), self._sent[trial.id]
            now = dict(_states(folder))
            changed = {name: (folder.path / name).read_bytes() for name in now if now[name] != sent.get(name)}
            gone = frozenset(sent.keys() - now.keys())
            if changed or gone:
                parcels.append(Parcel(trial.id, changed, gone))
                self._sent[trial.id] = now
        if parcels:
            self.store.keep(self._holder, parcels)

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, folder: TrialFolder, files: dict[str, bytes]) -> None:
        if files:
            folder.make()
        for name, content in files.items():
            try:
                (folder.path / name).write_bytes(content)
            except OSError as error:
                raise DiskError(f"{folder.path / name} cannot be written: {error.strerror}") from None

    def _fetch_shorter(self, trial: Trial) -> None:
        """Fetch the training state from which this trial can continue: that of the longest shorter trial, if kept."""
        for other in shorter(trial, self.context.known_epochs):
            folder = self.results.trial(other.id)
            files = self.store.fetch(other.id, (folder.record_file.name, folder.checkpoint_file.name))
            self._write(folder, files)
            if folder.checkpoint_file.name in files:
                return

    def _fetch_parents(self, trial_id: str | None) -> None:
        """Fetch the weights that a trial starts from, and those that these started from, which they may complete."""
        while trial_id is not None:
            folder = self.results.trial(trial_id)
            record, weights = folder.record_file.name, folder.weights_file.name
            files = self.store.fetch(trial_id, (record,))
            known = folder.record_file.read_bytes() if folder.weights_file.exists() else None
            if files.get(record) != known:
                self._write(folder, files | self.store.fetch(trial_id, (weights,)))
            found = folder.record()
            trial_id = found.parent_id if found else None

    def _with_images(self, dataset: Dataset) -> Dataset:
        """Return the dataset with its pack of images on this machine; fetch the pack if it is missing.

        A file beside the pack says that the pack is complete. Both keep their names, which identify their content.
        """
        pack = dataset.images_path
        note = pack.with_suffix(".json")
        if pack.exists() and note.exists():
            return dataset
        folder = cache_root() / "images"
        with _alone(folder):
            if not ((folder / note.name).exists() and (folder / pack.name).exists()):
                for file in (pack, note):
                    self._copy(file, folder / file.name)
        return replace(dataset, images_path=folder / pack.name)

    def _with_file(self, found: Pretrained) -> Pretrained:
        """Return the pretrained weights with their file on this machine; fetch the file if it is missing."""
        if _digest(found.file) == found.digest:
            return found
        folder = cache_root() / "weights"
        here = folder / f"{found.digest}-{found.file.name}"
        with _alone(folder):
            if _digest(here) != found.digest:
                self._copy(found.file, here)
        return replace(found, file=here)

    def _copy(self, file: Path, here: Path) -> None:
        with replacing(here) as temporary, temporary.open("wb") as opened:
            for piece in _pieces(self.store.read, file):
                opened.write(piece)


def _pieces(read: Callable[[Path, int], bytes], file: Path) -> Iterator[bytes]:
    start = 0
    while piece := read(file, start):
        yield piece
        start += len(piece)


def _states(folder: TrialFolder) -> Iterator[tuple[str, FileState]]:
    """Return name and state of each complete file in a folder."""
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(folder.path):
            if not entry.name.startswith("."):
                facts = entry.stat()
                yield entry.name, (facts.st_ino, facts.st_size, facts.st_mtime_ns)


def _digest(file: Path) -> str | None:
    try:
        return digest_of(file)
    except OSError:
        return None


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep the other workers of this machine out of a folder. Raises DiskError."""
    try:
        with alone_in(folder):
            yield
    except OSError as error:
        raise DiskError(f"{folder} cannot be written: {error.strerror or error}") from None
