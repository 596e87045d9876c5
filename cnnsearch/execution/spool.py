"""How a worker runs trials on a machine that does not have the results folder: in a folder of its own, whose changes
go to the `depot` after every step, before anybody is told of them.

Images and pretrained weights are fetched once for all workers of a machine, into its cache.
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
from cnnsearch.errors import DiskError
from cnnsearch.execution.workplace import Workplace
from cnnsearch.planning.trial import Trial
from cnnsearch.results.continuation import shorter
from cnnsearch.results.parcel import Parcel
from cnnsearch.results.records import Results
from cnnsearch.results.trial_folder import TrialFolder
from cnnsearch.storage.cache import cache_root
from cnnsearch.storage.durable import alone_in, remove_abandoned, replacing, temporary_folder
from cnnsearch.training.models.pretrained import Pretrained, digest_of


class Office(Protocol):
    """A `depot.Depot`, wherever it is. What it raises, its methods here raise."""

    def hand_over(self, trial_id: str, holder: str, names: Iterable[str]) -> dict[str, bytes]: ...
    def fetch(self, trial_id: str, names: Iterable[str]) -> dict[str, bytes]: ...
    def keep(self, holder: str, parcels: Iterable[Parcel]) -> None: ...
    def read(self, file: Path, start: int) -> bytes: ...


State = tuple[int, int, int]
"""Of a file: inode, size, modification time."""


@dataclass
class Spool:
    """One worker's folder, and what of it the depot has."""

    place: Workplace
    """As the depot's machine knows it."""
    office: Office
    folder: Path
    """Of this worker alone."""
    _trials: tuple[Trial, ...] = ()
    """Of the job at hand."""
    _holder: str = ""
    _sent: dict[str, dict[str, State]] = field(default_factory=dict)
    """Trial id -> file name -> what it was when it was sent."""

    @classmethod
    def open(cls, place: Workplace, office: Office) -> Spool:
        """Make a worker's folder; those that dead workers of this machine left are removed. Raises DiskError."""
        try:
            home = cache_root() / "spool"
            home.mkdir(parents=True, exist_ok=True)
            remove_abandoned(home)
            return cls(place, office, temporary_folder(home))
        except OSError as error:
            raise DiskError(f"a folder for trials cannot be made: {error}") from None

    @property
    def results(self) -> Results:
        """Where trials write."""
        return Results(self.folder)

    def here(self) -> Workplace:
        """The workplace as trials of this worker find it, images and weights fetched where they are missing.

        Raises DiskError where there is no room for them.
        """
        return replace(
            self.place,
            results=self.folder,
            datasets={form: self._with_images(dataset) for form, dataset in self.place.datasets.items()},
            weights={key: self._with_file(found) for key, found in self.place.weights.items()},
        )

    def begin(self, trials: tuple[Trial, ...]) -> None:
        """Take on a job: bring here what its trials start from, and forget the last one's."""
        for trial in self._trials:
            shutil.rmtree(self.results.trial(trial.id).path, ignore_errors=True)
        self._trials, self._holder, self._sent = trials, secrets.token_hex(8), {}
        for trial in trials:
            folder = self.results.trial(trial.id)
            shutil.rmtree(folder.path, ignore_errors=True)
            # The record goes when the trial begins, which the depot has to hear of.
            names = (folder.checkpoint_file.name, folder.record_file.name)
            self._put(folder, self.office.hand_over(trial.id, self._holder, names))
            self._sent[trial.id] = dict(_states(folder))
            if not folder.checkpoint_file.exists():
                self._bring_shorter(trial)
            self._bring_parents(trial.parent_id)

    def send(self) -> None:
        """Have the depot keep what has changed. Raises what `Depot.keep` raises."""
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
            self.office.keep(self._holder, parcels)

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _put(self, folder: TrialFolder, files: dict[str, bytes]) -> None:
        if files:
            folder.make()
        for name, content in files.items():
            try:
                (folder.path / name).write_bytes(content)
            except OSError as error:
                raise DiskError(f"{folder.path / name} cannot be written: {error.strerror}") from None

    def _bring_shorter(self, trial: Trial) -> None:
        """The training state of the longest shorter trial like it, if any was kept."""
        for other in shorter(trial, self.place.known_epochs):
            folder = self.results.trial(other.id)
            files = self.office.fetch(other.id, (folder.record_file.name, folder.checkpoint_file.name))
            self._put(folder, files)
            if folder.checkpoint_file.name in files:
                return

    def _bring_parents(self, trial_id: str | None) -> None:
        """The weights a trial starts from, and where those are a part, the ones under them."""
        while trial_id is not None:
            folder = self.results.trial(trial_id)
            record, weights = folder.record_file.name, folder.weights_file.name
            files = self.office.fetch(trial_id, (record,))
            known = folder.record_file.read_bytes() if folder.weights_file.exists() else None
            if files.get(record) != known:
                self._put(folder, files | self.office.fetch(trial_id, (weights,)))
            found = folder.record()
            trial_id = found.parent_id if found else None

    def _with_images(self, dataset: Dataset) -> Dataset:
        """A pack says with a file beside it that it is whole; both keep their names, which say what they hold."""
        pack = dataset.images_path
        note = pack.with_suffix(".json")
        if pack.exists() and note.exists():
            return dataset
        folder = cache_root() / "images"
        with _alone(folder):
            if not ((folder / note.name).exists() and (folder / pack.name).exists()):
                for file in (pack, note):
                    self._fetch(file, folder / file.name)
        return replace(dataset, images_path=folder / pack.name)

    def _with_file(self, found: Pretrained) -> Pretrained:
        if _digest(found.file) == found.digest:
            return found
        folder = cache_root() / "weights"
        here = folder / f"{found.digest}-{found.file.name}"
        with _alone(folder):
            if _digest(here) != found.digest:
                self._fetch(found.file, here)
        return replace(found, file=here)

    def _fetch(self, file: Path, here: Path) -> None:
        with replacing(here) as temporary, temporary.open("wb") as opened:
            for piece in _pieces(self.office.read, file):
                opened.write(piece)


def _pieces(read: Callable[[Path, int], bytes], file: Path) -> Iterator[bytes]:
    start = 0
    while piece := read(file, start):
        yield piece
        start += len(piece)


def _states(folder: TrialFolder) -> Iterator[tuple[str, State]]:
    """File name -> state, of the finished files in a folder."""
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
    """Hold a folder against the other workers of this machine. Raises DiskError."""
    try:
        with alone_in(folder):
            yield
    except OSError as error:
        raise DiskError(f"{folder} cannot be written: {error.strerror or error}") from None
