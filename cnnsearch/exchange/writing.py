"""Where trials go: which tools there are, and how `--to` names them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cnnsearch.errors import RequestError
from cnnsearch.exchange.going import GoingSweep
from cnnsearch.words import printable


@dataclass(frozen=True)
class Written:
    """What was written, and what was there already."""

    place: str
    added: int = 0
    """Trials that were not there."""
    updated: int = 0
    """Trials that were there, and of which something new was written."""
    same: int = 0
    """Trials of which nothing was new."""
    epochs: int = 0
    """Epochs that were written."""


class Writer(Protocol):
    """Writes a sweep to a place of one tool, where it may have been written before."""

    def __call__(self, sweep: GoingSweep, place: str) -> Written:
        """Write what is new; raises RequestError where the place cannot be written."""
        ...


def _optuna(sweep: GoingSweep, place: str) -> Written:
    from cnnsearch.exchange.to_optuna import write

    return write(sweep, place)


def _tensorboard(sweep: GoingSweep, place: str) -> Written:
    from cnnsearch.exchange.to_tensorboard import write

    return write(sweep, place)


def _mlflow(sweep: GoingSweep, place: str) -> Written:
    from cnnsearch.exchange.to_mlflow import write

    return write(sweep, place)


def _csv(sweep: GoingSweep, place: str) -> Written:
    from cnnsearch.exchange.to_csv import write

    return write(sweep, place)


WRITERS: dict[str, Writer] = {"optuna": _optuna, "tensorboard": _tensorboard, "mlflow": _mlflow, "csv": _csv}
ALLOWED = "optuna:journal.log, optuna:sqlite:///study.db, tensorboard:DIR, mlflow:URI or csv:DIR"


def writer_of(to: str) -> Callable[[GoingSweep], Written]:
    """What writes to the place that `--to` names. Raises RequestError."""
    tool, colon, place = to.partition(":")
    if tool not in WRITERS or not colon or not place:
        raise RequestError(f"--to {printable(to)}: allowed are {ALLOWED}")
    return lambda sweep: WRITERS[tool](sweep, place)
