"""Has a process look up timm's models: which there are, and at which image sizes. Without torch and timm."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path

from cnnsearch.errors import DiskError, RequestError
from cnnsearch.storage.cache import cache_root
from cnnsearch.storage.durable import read_checked, write_checked
from cnnsearch.training.models.other_process import ask

Size = tuple[str, int]
"""(model, image size)."""


def refuse_without_timm(models: Iterable[str]) -> None:
    """Raise RequestError where timm's models are named and it is not installed."""
    names = list(models)
    if names and find_spec("timm") is None:
        raise RequestError(f"model {names[0]} is one of timm's, which is not installed: pip install 'cnnsearch[timm]'")


def misfits(asked: Iterable[Size]) -> dict[Size, str]:
    """Look up the image sizes that some of timm's models cannot take. What was looked up once is remembered.

    Args:
        asked: names of timm's models, each with an image size.

    Returns:
        Those that do not go together -> why.

    Raises:
        RequestError: timm is not installed, or has no such model.
        RunError: the process that looks it up ended without an answer.
    """
    pairs = sorted(set(asked))
    refuse_without_timm(model for model, _ in pairs)
    known = {pair: note["problem"] for pair in pairs if (note := read_checked(_note(pair))) is not None}
    if missing := [pair for pair in pairs if pair not in known]:
        found = _answer(missing)
        for pair in missing:
            known[pair] = found[pair]
            with contextlib.suppress(OSError, DiskError):  # without the note, it is looked up again
                _note(pair).parent.mkdir(parents=True, exist_ok=True)
                write_checked(_note(pair), {"problem": found[pair]})
    return {pair: problem for pair, problem in known.items() if problem}


def _answer(pairs: list[Size]) -> Mapping[Size, str]:
    """Have a process answer: see `timm_check.main`."""
    told = ask("cnnsearch.training.models.timm_check", pairs, "looking up timm's models failed")
    return dict(zip(pairs, told["problems"], strict=True))


def _note(pair: Size) -> Path:
    facts = f"{pair[0]} {pair[1]} {importlib.metadata.version('timm')}"
    return cache_root() / "timm" / f"{hashlib.sha256(facts.encode()).hexdigest()[:16]}.json"
