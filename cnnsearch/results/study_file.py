"""The record of a searcher's suggestions: one line each, written before the suggestion runs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnsearch.results.shapes import StudyLine, problem
from cnnsearch.spec.cells import Cell
from cnnsearch.storage.checksums import checksum, is_whole
from cnnsearch.storage.durable import append_synced, write_whole
from cnnsearch.storage.reading import parsed, read_bytes


@dataclass(frozen=True)
class StudyFile:
    """The suggestions of one study, in a file named after its id. One process writes at a time.

    Each line carries its index and its own checksum. Lines after a damaged one do not count: they are suggested again,
    from the same outcomes.
    """

    path: Path

    def read(self) -> list[Cell]:
        """The suggestions in order, up to the first line that is missing or damaged."""
        return [line["suggestion"] for line in self._whole_lines()]

    def append(self, first: int, suggestions: Sequence[Cell], about: dict[str, Any]) -> None:
        """Add suggestions, durably. Raises DiskError.

        Args:
            first: index of the first of them; as many are in the file.
            suggestions: the next ones.
            about: facts about the study, for people; written with each.
        """
        lines = [_line({"index": first + n, **about, "suggestion": one}) for n, one in enumerate(suggestions)]
        append_synced(self.path, "".join(lines).encode())

    def repair(self) -> bool:
        """Make the file end after its last whole line.

        Returns whether it was damaged; the damaged file is then kept as `<name>.damaged`. A last line that a crash cut
        short is no damage: what it suggested never ran.
        """
        try:
            stored = read_bytes(self.path)
        except FileNotFoundError:
            return False
        except OSError:
            stored = b"\n"  # something that cannot be read is damage, too
        whole = "".join(_line(line) for line in self._whole_lines()).encode()
        if stored == whole:
            return False
        is_damaged = b"\n" in stored[len(whole) :] or not stored.startswith(whole)
        if is_damaged:
            self.path.replace(self.path.with_name(f"{self.path.name}.damaged"))
        write_whole(self.path, whole)
        return is_damaged

    def _whole_lines(self) -> Iterator[dict[str, Any]]:
        with contextlib.suppress(OSError):
            for number, text in enumerate(read_bytes(self.path).splitlines(keepends=True)):
                try:
                    line = parsed(text)
                except ValueError:
                    return
                is_next = isinstance(line, dict) and is_whole(line) and line.get("index") == number
                if not is_next or not text.endswith(b"\n") or problem(StudyLine, line):
                    return
                yield {key: value for key, value in line.items() if key != "checksum"}


def _line(facts: dict[str, Any]) -> str:
    return json.dumps({"checksum": checksum(facts), **facts}, ensure_ascii=False, allow_nan=False) + "\n"
