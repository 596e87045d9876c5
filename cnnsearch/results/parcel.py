"""Changes of a trial's folder, as the worker that made them sends them to where results are kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from cnnsearch.storage.remote import Remote

RECORD = "record.json"
"""The file that vouches for those beside it."""


@dataclass(frozen=True)
class Parcel:
    """The changes of a trial's folder."""

    trial_id: str
    changed: Mapping[str, bytes]
    """File name -> its new content."""
    gone: frozenset[str] = frozenset()
    """Names of files that were removed."""

    def changes(self) -> Iterator[tuple[str, bytes | None]]:
        """File name and new content (None to remove the file), in the order in which to change the folder.

        Delete the old record first and write the new one last: it vouches for the other files.
        """
        if self.changed or RECORD in self.gone:
            yield RECORD, None
        for name in sorted(self.changed, key=lambda name: name == RECORD):
            yield name, self.changed[name]
        for name in sorted(self.gone - {RECORD}):
            yield name, None


HOLDER = ".holder"
"""Name of the file that says which worker holds a trial; removed when the trial has ended."""


def put(remote: Remote, parcel: Parcel) -> None:
    """Change a trial's files under a URI. If this writes the record, the trial has ended, so its holder is removed."""
    if RECORD in parcel.changed:
        parcel = replace(parcel, gone=parcel.gone | {HOLDER})
    for name, content in parcel.changes():
        path = f"trials/{parcel.trial_id}/{name}"
        if content is None:
            remote.delete(path)
        else:
            remote.write(path, content)
