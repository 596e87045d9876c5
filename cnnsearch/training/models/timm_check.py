"""The process that looks up timm's models: which there are, and whether they take images of a size.

`python -m cnnsearch.training.models.timm_check` reads a JSON list of [model, image size] and prints the answer as JSON,
so that the command that plans a sweep imports neither torch nor timm. `checked_timm` starts it.
"""

from __future__ import annotations

import contextlib
import json
import sys
import warnings

import torch

from cnnsearch.errors import RequestError
from cnnsearch.spec.settings import Settings
from cnnsearch.training.models.timm_models import NothingToTrainError, config_of, make, own_size
from cnnsearch.words import listed

CLASSES = 7
STEPS = (14, 16, 32)
"""Multiples of one of these are sizes that most models of fixed sizes take."""
LEAST, MOST = 8, 1024
"""Image sizes that a sweep may have."""


def problem(name: str, image_size: int) -> str:
    """Say why a model cannot take images of this size; empty where it can. Raises RequestError for unknown models."""
    config_of(name)
    if reason := _reason(name, image_size):
        others = _near(name, image_size)
        takes = f"; it takes {listed([str(size) for size in others])}" if others else f" ({reason})"
        return f"image_size {image_size} with model {name}: it takes no images of this size{takes}"
    return ""


def _near(name: str, image_size: int) -> list[int]:
    """Sizes that it takes: one below and one above, where they are found, and the one that it was published for."""
    below = {step * (image_size // step) for step in STEPS} - {image_size}
    above = {step * (image_size // step + 1) for step in STEPS}
    found = []
    for sizes in (sorted(below, reverse=True), sorted(above)):
        fitting = (size for size in sizes if LEAST <= size <= MOST and not _reason(name, size))
        found += [size for size in [next(fitting, None)] if size is not None]
    own = own_size(name)
    return [*found, own] if own not in found and not _reason(name, own) else found


def _reason(name: str, image_size: int) -> str:
    """Try shapes alone: tensors without data take neither time nor memory."""
    settings = Settings.model_validate({"model": name, "image_size": image_size})
    try:
        with torch.device("meta"), torch.no_grad():
            model = make(name, settings, CLASSES).eval()
            patch = getattr(getattr(model, "patch_embed", None), "patch_size", 1)
            for side in patch if isinstance(patch, tuple) else (patch,):
                if isinstance(side, int) and image_size % side:
                    return f"it must be a multiple of {side}"
            model(torch.empty(2, 3, image_size, image_size))
    except NothingToTrainError:
        raise
    except NotImplementedError:  # cannot be computed without data: a trial will say
        return ""
    except Exception as error:
        return str(error).splitlines()[0] if str(error) else type(error).__name__
    return ""


def main() -> None:
    """Print as JSON the problem of each pair, empty where there is none; or the message of an error."""
    pairs = json.load(sys.stdin)
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(sys.stderr):
            told = {"problems": [problem(name, size) for name, size in pairs]}
    except RequestError as error:
        told = {"error": str(error)}  # type: ignore[dict-item]
    print(json.dumps(told))


if __name__ == "__main__":
    main()
