"""The record of what stopping rules decided: lines in `decisions/<n>.jsonl`, written before anybody acts on them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cnnsearch.planning.decisions import Note
from cnnsearch.results.shapes import DecisionLine, problem
from cnnsearch.storage.checksums import checksum, is_whole
from cnnsearch.storage.durable import append_synced
from cnnsearch.storage.reading import parsed, read_bytes

MOST_BYTES = 64 * 1024
"""Bytes from which on a file gets no more lines: under a URI, the last one is sent again with every decision."""


@dataclass(frozen=True)
class DecisionsFolder:
    """The notes of a sweep, in files numbered from 1. One process writes at a time.

    Each line carries its own checksum. A damaged line is passed over: what it said is decided again.
    """

    path: Path

    def read(self) -> list[Note]:
        """The notes in the order in which they were made."""
        return [note for file in self._files() for note in _notes(file)]

    def append(self, notes: Sequence[Note]) -> Path:
        """Add notes, durably; return the file they are in. Raises DiskError."""
        files = self._files()
        file = files[-1] if files else self.path / "0001.jsonl"
        if files and not _takes_more(file):
            file = self.path / f"{int(file.stem) + 1:04}.jsonl"
        append_synced(file, "".join(map(_line, notes)).encode())
        return file

    def _files(self) -> list[Path]:
        return sorted(file for file in self.path.glob("*.jsonl") if file.stem.isdigit())


def _takes_more(file: Path) -> bool:
    """Whether a file is small enough, and its last line was not cut off."""
    try:
        stored = read_bytes(file)
    except OSError:
        return False
    return len(stored) < MOST_BYTES and stored.endswith(b"\n")


def _line(note: Note) -> str:
    facts = {name: value for name, value in asdict(note).items() if value is not None}
    return json.dumps({**facts, "checksum": checksum(facts)}, allow_nan=False) + "\n"


def _notes(file: Path) -> Iterator[Note]:
    try:
        lines = read_bytes(file).splitlines()
    except OSError:
        return
    for text in lines:
        with contextlib.suppress(ValueError):
            facts = parsed(text)
            if isinstance(facts, dict) and is_whole(facts) and not problem(DecisionLine, facts):
                yield Note(**{name: facts.get(name) for name in DecisionLine.model_fields})  # type: ignore[arg-type]
