"""What workers reach the trials of a results URI through: nobody. They read and write there themselves.

A `spool.Office`, like the `depot`. Who holds a trial is noted beside its files. Stores cannot be asked to write only if
that note is still the same, so a worker that was given up, and stands still between its look and its writing, may leave
files of two attempts: their checksums are then not those of the record, and the trial counts as not done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from cnnsearch.errors import RunError
from cnnsearch.results.parcel import HOLDER, Parcel, put
from cnnsearch.storage.remote import Remote, all_of


@dataclass(frozen=True)
class Direct:
    """The trials of one sweep."""

    remote: Remote
    """Of the sweep."""
    reader: Callable[[Path, int], bytes] | None = None
    """Reads pieces of images and weights that this machine lacks; see `Depot.read`."""

    def hand_over(self, trial_id: str, holder: str, names: Iterable[str]) -> dict[str, bytes]:
        """See Depot. Raises RemoteError."""
        self.remote.write(f"trials/{trial_id}/{HOLDER}", holder.encode())
        return self.fetch(trial_id, names)

    def fetch(self, trial_id: str, names: Iterable[str]) -> dict[str, bytes]:
        """See Depot. Raises RemoteError."""
        found = all_of(lambda name: self.remote.read(f"trials/{trial_id}/{name}"), names)
        return {name: content for name, content in found.items() if content is not None}

    def keep(self, holder: str, parcels: Iterable[Parcel]) -> None:
        """Make trials what the holder's folders are. In each, the record goes first and comes last: it vouches.

        Raises:
            RemoteError: something cannot be written.
            RunError: a trial was given to somebody else in the meantime, or has ended.
        """
        by_id = {parcel.trial_id: parcel for parcel in parcels}
        all_of(lambda trial_id: self._keep(holder, by_id[trial_id]), by_id)

    def _keep(self, holder: str, parcel: Parcel) -> None:
        folder = f"trials/{parcel.trial_id}"
        if self.remote.read(f"{folder}/{HOLDER}") != holder.encode():
            raise RunError(f"trial {parcel.trial_id} was given to another worker")
        put(self.remote, parcel)

    def read(self, file: Path, start: int) -> bytes:
        """See Depot."""
        if self.reader is None:
            raise RunError(f"{file} is gone")
        return self.reader(file, start)
