"""Notices draws from Python's and numpy's global generators, which no trial seeds or restores, and where they are."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import numpy as np


@dataclass
class Draws:
    """What was noticed."""

    places: list[str] = field(default_factory=list)
    """Lines of the files that were watched, as `nets.py, line 12`, in the order of their draws."""
    were_made: bool = False
    """Whether anything was drawn, in a line that was found or not. Known when the block has ended."""


@contextlib.contextmanager
def foreign_draws(files: Collection[str]) -> Iterator[Draws]:
    """Notice the draws in the block, and which lines of these files led to them."""
    found = Draws()

    def note(at: FrameType | None) -> None:
        while at is not None and at.f_code.co_filename not in files:
            at = at.f_back
        if at is not None:
            found.places.append(f"{at.f_code.co_filename}, line {at.f_lineno}")

    def hook(frame: FrameType, event: str, called: Any) -> None:
        if event == "c_call" and getattr(called, "__self__", None) is random._inst:
            note(frame)

    before = _generators()
    try:
        with _numpy_draws(lambda: note(sys._getframe(1))):
            sys.setprofile(hook)
            yield found
    finally:
        sys.setprofile(None)
        found.were_made = bool(found.places) or before != _generators()


@contextlib.contextmanager
def _numpy_draws(heard: Callable[[], None]) -> Iterator[None]:
    """Call a function at each draw from numpy's global generator in the block: a profiler does not see its calls."""

    def listening(draw: Callable[..., Any]) -> Callable[..., Any]:
        def drawn(*args: Any, **kwargs: Any) -> Any:
            heard()
            return draw(*args, **kwargs)

        return drawn

    before = {
        name: value
        for name, value in vars(np.random).items()
        if callable(value) and getattr(value, "__self__", None) is np.random.mtrand._rand
    }
    vars(np.random).update({name: listening(draw) for name, draw in before.items()})
    try:
        yield
    finally:
        vars(np.random).update(before)


def _generators() -> str:
    """The state of Python's and of numpy's global generator."""
    return repr((random.getstate(), [np.asarray(part).tolist() for part in np.random.get_state()]))
