"""Whether a report is still what its tables would give, so that it need not be made again.

report.json, written last, holds a digest of what a report was made from, and the digests of its files. By these, the
next report also knows which pictures are this one's.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Collection, Sequence
from importlib import metadata
from pathlib import Path

from cnnsearch.results.shapes import ReportNote, problem
from cnnsearch.results.tables import Tables
from cnnsearch.storage.checksums import sha256
from cnnsearch.storage.durable import read_checked, write_checked

Lines = Sequence[tuple[str, str]]


def made_from(tables: Tables) -> str:
    """Compute a digest of all that a report shows and of the code that makes it; empty if the tables are not stored."""
    if not tables.checksums:
        return ""
    facts = [
        _code(),
        tables.checksums,
        tables.sweep.to_dict(),
        tables.provenance,
        tables.data,
        tables.pictures,
        tables.training,
        tables.planned,
        tables.damaged,
        tables.is_sealed,
        tables.unsealed,
        tables.left_out,
        tables.outside,
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def note(
    out: Path, pictures: Collection[str], made: str = "", summary: Lines = (), others: Collection[str] = ()
) -> None:
    """Note what the report in `out` was made from, and its answer. Raises DiskError.

    Args:
        out: the report's folder.
        pictures: file names of its pictures in plots/.
        made: from `made_from`; empty for a report that is made again each time.
        summary: the answer.
        others: names of its other files.
    """
    files = ["report.html", "report.md", *others, *(f"plots/{name}" for name in pictures)]
    facts = {"made_from": made, "summary": summary, "files": {name: sha256(out / name) for name in sorted(files)}}
    write_checked(out / "report.json", facts)


def own_pictures(out: Path) -> list[Path]:
    """The pictures that the report in `out` wrote and nobody has changed since; files of others are not among them."""
    stored = read_checked(out / "report.json") or {}
    found = []
    for name, digest in dict(stored.get("files") or {}).items():
        if re.fullmatch(r"plots/[a-z0-9_-]+\.png", name) and _is(out / name, digest):
            found.append(out / name)
    return found


def _is(path: Path, digest: str) -> bool:
    try:
        return sha256(path) == digest
    except OSError:
        return False


def noted(out: Path, tables: Tables) -> list[tuple[str, str]] | None:
    """Return the answer of the report in `out`; None if a new report would differ, or one of its files has changed."""
    stored = read_checked(out / "report.json")
    if (
        stored is None
        or problem(ReportNote, stored)
        or not stored["made_from"]
        or stored["made_from"] != made_from(tables)
    ):
        return None
    whole = all(_is(out / name, digest) for name, digest in stored["files"].items())
    return [(label, line) for label, line in stored["summary"]] if whole else None


@functools.cache
def _code() -> str:
    """Digest of this package's files, and of the version of Matplotlib."""
    package = Path(__file__).parents[1]
    found = hashlib.sha256(f"matplotlib {metadata.version('matplotlib')}".encode())
    for file in sorted([*package.rglob("*.py"), *package.rglob("templates/*")]):
        found.update(f"{file.relative_to(package)} {sha256(file, follow=True)}".encode())
    return found.hexdigest()
