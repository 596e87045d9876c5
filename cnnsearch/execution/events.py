"""What happens while a sweep runs, for listeners such as the live view, the log or a notebook."""

from __future__ import annotations

from dataclasses import dataclass

from cnnsearch.planning.plan import Plan
from cnnsearch.planning.trial import EpochRow, Trial
from cnnsearch.results.record import Record


@dataclass(frozen=True)
class Waiting:
    """Nothing else will be heard for a while, since this is being done."""

    what: str
    """In words that fit after "now", such as "starting Ray"."""


@dataclass(frozen=True)
class Ready:
    """The executor has started."""

    dashboard: str | None = None
    """URL of its dashboard, if it has one."""
    token: str | None = None
    """Where to find the token that the dashboard asks for: a file or an environment variable. Never the token."""


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
    """A trial ended, with any status, and its record is written."""

    trial: Trial
    record: Record


@dataclass(frozen=True)
class Planned:
    """The plan has changed: trials are known that were not, or fewer are left than there might have been."""

    plan: Plan


Event = Waiting | Ready | Started | EpochDone | Ended | Planned

Progress = list[tuple[Trial, EpochRow | Record]]
"""One report of a job: epochs that its trials finished, and records of trials that ended."""
