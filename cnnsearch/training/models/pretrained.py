"""Find, check and identify the pretrained weights that a sweep names, before anything is planned and without torch."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cnnsearch.data.images import Interpolation
from cnnsearch.errors import DiskError, RequestError, RunError
from cnnsearch.spec.model_names import PUBLISHED, is_timm
from cnnsearch.storage.cache import cache_root
from cnnsearch.storage.checksums import sha256
from cnnsearch.storage.durable import read_checked, write_checked
from cnnsearch.storage.paths import typed_path
from cnnsearch.training.models.checked_timm import refuse_without_timm


@dataclass(frozen=True)
class Preprocessing:
    """How images must be prepared for the weights of a model."""

    mean: tuple[float, ...] = ()
    """[3] channel means of images in [0, 1]; empty: those of the training images."""
    std: tuple[float, ...] = ()
    """[3] channel standard deviations of images in [0, 1]; empty: those of the training images."""
    interpolation: Interpolation = "bilinear"
    """How images are resized."""

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Preprocessing:
        """Make one from `dataclasses.asdict` of one that has been through JSON.

        Raises:
            KeyError: something is missing.
        """
        return cls(tuple(plain["mean"]), tuple(plain["std"]), plain["interpolation"])


OWN_IMAGES = Preprocessing()
"""The preprocessing for this package's own models: images are normalised by statistics of the training images."""
IMAGENET = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""The preprocessing that nearly all of torchvision's weights expect."""


@dataclass(frozen=True)
class Pretrained:
    """A file of weights that fits its model."""

    file: Path
    digest: str
    """First 16 hex digits of the SHA-256 of its contents."""
    preprocessing: Preprocessing = OWN_IMAGES
    note: str = ""
    """Which part of the file is used, in words; empty if all of it."""

    @property
    def identity(self) -> str:
        """Hash for a trial's id of the contents and, unless it is one of the two usual ones, the preprocessing."""
        if self.preprocessing in (OWN_IMAGES, IMAGENET):
            return self.digest
        facts = f"{self.digest} {self.preprocessing}"
        return hashlib.sha256(facts.encode()).hexdigest()[:16]


Key = tuple[str, str]
"""(model, weights as the sweep names them: imagenet, pretrained, or a path)."""


def find_weights(named: set[Key]) -> dict[Key, Pretrained]:
    """Find every file of weights that is named, and fetch published ones that are not here yet.

    A file that was checked once is not checked again until it changes.

    Raises:
        RequestError: weights are missing, cannot be read, or do not fit their model.
        RunError: the process that checks them failed.
    """
    refuse_without_timm(model for model, _ in sorted(named) if is_timm(model))
    return {key: _find(*key) for key in sorted(named)}


def _find(model: str, weights: str) -> Pretrained:
    note = cache_root() / "weights" / f"{_name(model, weights)}.json"
    if (known := read_checked(note)) is not None:
        with contextlib.suppress(OSError):
            digest = digest_of(Path(known["file"]))
            if digest == known["digest"]:
                return Pretrained(Path(known["file"]), digest, Preprocessing.of(known), known.get("note", ""))
    if weights not in PUBLISHED and not typed_path(weights).exists():  # said at once: a process takes seconds to start
        raise RequestError(f"there is no file of weights {typed_path(weights)}")
    command = [sys.executable, "-m", "cnnsearch.training.models.weights", model, weights]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)  # stderr, with its progress bar, is shown
    if done.returncode != 0:
        raise RunError(f"checking the weights {weights} of {model} failed")
    answer = json.loads(done.stdout.splitlines()[-1])
    if "error" in answer:
        raise RequestError(answer["error"])
    file = Path(answer["file"])
    found = Pretrained(file, digest_of(file), Preprocessing.of(answer), answer["note"])
    kept = {"file": str(file), "digest": found.digest, "note": found.note, **asdict(found.preprocessing)}
    with contextlib.suppress(OSError, DiskError):  # without the note, they are checked again
        note.parent.mkdir(parents=True, exist_ok=True)
        write_checked(note, kept)
    return found


def digest_of(file: Path) -> str:
    """Compute `Pretrained.digest` of a file.

    Raises:
        OSError: the file cannot be read.
    """
    return sha256(file, follow=True)[:16]


def _name(model: str, weights: str) -> str:
    place = weights if weights in PUBLISHED else str(typed_path(weights).absolute())
    package = importlib.metadata.version("timm" if is_timm(model) else "torchvision")
    return hashlib.sha256(f"{model} {place} {package}".encode()).hexdigest()[:16]
