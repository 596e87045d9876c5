"""What happens while a sweep runs, for whoever listens: the live view, the log, a notebook."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cnnsearch.planning.trial import Trial
from cnnsearch.results.records import Record

if TYPE_CHECKING:
    from cnnsearch.planning.trial import EpochRow


@dataclass(frozen=True)
class Ready:
    """The executor is up; `dashboard` is the URL of its dashboard, if it has one."""

    dashboard: str | None = None
    token: str | None = None
    """Where to find the token that the dashboard asks for: a file, or an environment variable. Never the token."""


@dataclass(frozen=True)
class Started:
    """A trial was given to a worker."""

    trial: Trial


@dataclass(frozen=True)
class EpochDone:
    """A trial finished an epoch."""

    trial: Trial
    row: EpochRow


@dataclass(frozen=True)
class Ended:
    """A trial ended, one way or another, and its record is written."""

    trial: Trial
    record: Record


Event = Ready | Started | EpochDone | Ended
