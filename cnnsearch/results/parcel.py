"""Changes of a trial's folder, as they travel from the worker that made them to where results are kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from cnnsearch.storage.remote import Remote

RECORD = "record.json"
"""The file that vouches for those beside it."""


@dataclass(frozen=True)
class Parcel:
    """How a trial's folder has changed."""

    trial_id: str
    changed: Mapping[str, bytes]
    """File name -> its new content."""
    gone: frozenset[str] = frozenset()
    """Names of files that are no more."""

    def changes(self) -> Iterator[tuple[str, bytes | None]]:
        """File name and new content, None where it goes, in the order in which the folder is to change.

        The record goes first and comes last: it never vouches for files that are not those beside it.
        """
        if self.changed or RECORD in self.gone:
            yield RECORD, None
        for name in sorted(self.changed, key=lambda name: name == RECORD):
            yield name, self.changed[name]
        for name in sorted(self.gone - {RECORD}):
            yield name, None


HOLDER = ".holder"
"""Who runs a trial; gone when the trial has ended."""


def put(remote: Remote, parcel: Parcel) -> None:
    """Change a trial's files. With its record the trial has ended, and nobody holds it any more."""
    if RECORD in parcel.changed:
        parcel = replace(parcel, gone=parcel.gone | {HOLDER})
    for name, content in parcel.changes():
        path = f"trials/{parcel.trial_id}/{name}"
        if content is None:
            remote.delete(path)
        else:
            remote.write(path, content)
