"""What workers on machines without the results folder reach it through: one process on the machine that has it.

Records, checkpoints and weights of trials come in and go out by trial and file name; images and pretrained weights go
out in pieces. See `spool` for the other end.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cnnsearch.errors import DiskError, RunError
from cnnsearch.results.parcel import Parcel
from cnnsearch.results.records import Results
from cnnsearch.results.trial_folder import TrialFolder
from cnnsearch.storage.durable import write_whole

PIECE_BYTES = 16 * 1024**2
"""Of a file that is read in pieces: what is in memory at a time, at both ends."""


@dataclass
class Depot:
    """The results folder's end of the way. One worker at a time holds a trial; what others send of it is refused."""

    results: Path
    """Of the sweep."""
    files: frozenset[Path] = frozenset()
    """What may be read beside the trials: images and pretrained weights."""
    _holders: dict[str, str] = field(default_factory=dict)
    """Trial id -> who was given it last."""

    def hand_over(self, trial_id: str, holder: str, names: Iterable[str]) -> dict[str, bytes]:
        """Note who runs a trial from now on, and return those of the named files that there are."""
        self._holders[trial_id] = holder
        return self.fetch(trial_id, names)

    def fetch(self, trial_id: str, names: Iterable[str]) -> dict[str, bytes]:
        """Those of the named files of a trial that there are."""
        folder, found = self._folder(trial_id), {}
        for name in names:
            if (content := _read(folder.path / _plain(name))) is not None:
                found[name] = content
        return found

    def keep(self, holder: str, parcels: Iterable[Parcel]) -> None:
        """Make trials' folders what the holder's are. In each, the record goes first and comes last: it vouches.

        Raises:
            DiskError: a file cannot be written.
            RunError: a trial was given to somebody else in the meantime.
        """
        for parcel in parcels:
            # A depot that was started again does not know: whoever has the trial comes first.
            if self._holders.setdefault(parcel.trial_id, holder) != holder:
                raise RunError(f"trial {parcel.trial_id} was given to another worker")
            self._keep(parcel)

    def _keep(self, parcel: Parcel) -> None:
        folder = self._folder(parcel.trial_id)
        try:
            folder.make()
            for name, content in parcel.changes():
                path = folder.path / _plain(name)
                if content is None:
                    path.unlink(missing_ok=True)
                else:
                    write_whole(path, content)
        except OSError as error:
            raise DiskError(f"{folder.path} cannot be written: {error.strerror or error}") from None

    def read(self, file: Path, start: int) -> bytes:
        """A piece of one of the files that may be read, from a byte on; empty at its end.

        Raises RunError where it may not or cannot be read.
        """
        if file not in self.files:
            raise RunError(f"{file} is no file of this sweep")
        try:
            with file.open("rb") as opened:
                opened.seek(start)
                return opened.read(PIECE_BYTES)
        except OSError as error:
            raise RunError(f"{file} cannot be read: {error.strerror}") from None

    def sees(self, mark: Path, content: bytes) -> bool:
        """Whether a file is there with this content: whether this is the machine that wrote it, or shares its disk."""
        return _read(mark) == content

    def _folder(self, trial_id: str) -> TrialFolder:
        return Results(self.results).trial(_plain(trial_id))


def _plain(name: str) -> str:
    """A name that leads nowhere else."""
    if not name or name in (".", "..") or "/" in name or "\0" in name:
        raise RunError(f"{name!r} is no name of a file of a trial")
    return name


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
