"""Checksums of files and of JSON objects, by which damage is found."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from cnnsearch.storage.reading import opened


def canonical_json(value: Any) -> str:
    """Write JSON with sorted keys and floats in full: equal values give equal text, whatever the order of keys."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


_SEAL = b"cnnsearch sealed 1 "


def is_whole(stored: dict[str, Any]) -> bool:
    """Say whether an object carries the checksum of the rest of it."""
    return stored.get("checksum") == checksum({key: value for key, value in stored.items() if key != "checksum"})


def checksum(facts: dict[str, Any]) -> str:
    """Return the checksum of what a JSON object says, whatever the order of its keys.

    It is empty for an object with NaN, which no file of ours contains.
    """
    try:
        return hashlib.sha256(canonical_json(facts).encode()).hexdigest()
    except ValueError:
        return ""


def sha256(file: Path, *, follow: bool = False) -> str:
    """Hex SHA-256 of a regular file's content, or with `follow` of that which a link leads to. Raises OSError."""
    with opened(file, follow=follow) as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def sealed(content: bytes | memoryview) -> bytes:
    """Return content with its checksum in front."""
    return b"".join([_SEAL, hashlib.sha256(content).hexdigest().encode(), b"\n", content])


def unsealed(stored: bytes) -> memoryview | None:
    """Return sealed content without a copy; None where it is not what was sealed."""
    end = len(_SEAL) + 65
    content = memoryview(stored)[end:]
    whole = stored[:end] == _SEAL + hashlib.sha256(content).hexdigest().encode() + b"\n"
    return content if whole else None
