"""The pretrained weights a sweep names: found, checked and identified before anything is planned. Torch stays out."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from cnnsearch.data.cache import cache_root, write_whole
from cnnsearch.errors import RequestError, RunError


@dataclass(frozen=True)
class Pretrained:
    """A file of weights that fits its model."""

    file: Path
    digest: str
    """First 16 hex digits of the SHA-256 of its contents."""
    mean: tuple[float, ...]
    """[3] channel means the weights expect, images in [0, 1]; empty for those of the training images."""
    std: tuple[float, ...]
    """[3] the same for standard deviations."""


Key = tuple[str, str]
"""(model, weights as the sweep names them)."""


def find_weights(named: set[Key]) -> dict[Key, Pretrained]:
    """Find every file of weights, fetching what is published and not here yet.

    What was checked once is not checked again while the file stays as it is.

    Raises RequestError where weights are missing, unreadable or do not fit.
    """
    return {key: _find(*key) for key in sorted(named)}


def _find(model: str, weights: str) -> Pretrained:
    note = cache_root() / "weights" / f"{_name(model, weights)}.json"
    try:
        known = json.loads(note.read_bytes())
        digest = _digest(Path(known["file"]))
        if digest == known["digest"]:
            return Pretrained(Path(known["file"]), digest, tuple(known["mean"]), tuple(known["std"]))
    except (OSError, ValueError, KeyError):
        pass
    command = [sys.executable, "-m", "cnnsearch.models.weights", model, weights]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)  # its progress bar may be seen
    if done.returncode != 0:
        raise RunError(f"checking the weights {weights} of {model} failed")
    answer = json.loads(done.stdout.splitlines()[-1])
    if "error" in answer:
        raise RequestError(answer["error"])
    digest = _digest(Path(answer["file"]))
    note.parent.mkdir(parents=True, exist_ok=True)
    write_whole(note, json.dumps({**answer, "digest": digest}).encode())
    return Pretrained(Path(answer["file"]), digest, tuple(answer["mean"]), tuple(answer["std"]))


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()[:16]


def _name(model: str, weights: str) -> str:
    place = weights if weights == "imagenet" else str(Path(weights).absolute())
    return hashlib.sha256(f"{model} {place} {importlib.metadata.version('torchvision')}".encode()).hexdigest()[:16]
