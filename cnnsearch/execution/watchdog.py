"""Notices jobs of which nothing has been heard for too long. Pure but for the clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

FACTOR = 10.0
"""A job may be silent for this many times what is usual for it."""
LONGEST_TICK_SECONDS = 5.0
"""Of the time between two looks no more than this counts: a driver that was stopped itself, or a machine that slept,
has heard nothing because it did not listen."""


@dataclass
class _Watched:
    usual_seconds: float
    silent_seconds: float = 0.0


@dataclass
class Watchdog:
    """Counts the seconds in which nothing was heard of each running job."""

    patience_seconds: float
    """No job is given up before it has been silent this long."""
    clock: Callable[[], float] = time.monotonic
    _jobs: dict[str, _Watched] = field(default_factory=dict)
    _looked_at: float | None = None

    def started(self, job: str, usual_seconds: float) -> None:
        """A job began, which is expected to be silent for no longer than this at a time."""
        self._jobs[job] = _Watched(usual_seconds)

    def heard(self, job: str) -> None:
        """A job gave a sign of life; as long a silence as the one that ended is usual for it from now on."""
        watched = self._jobs.get(job)
        if watched is not None:
            watched.usual_seconds = max(watched.usual_seconds, watched.silent_seconds)
            watched.silent_seconds = 0.0

    def ended(self, job: str) -> None:
        """Stop watching a job."""
        self._jobs.pop(job, None)

    def look(self) -> list[tuple[str, float]]:
        """Jobs that have been silent for too long, with the seconds; each is reported once, and then forgotten."""
        now = self.clock()
        passed = 0.0 if self._looked_at is None else min(now - self._looked_at, LONGEST_TICK_SECONDS)
        self._looked_at = now
        late = []
        for job, watched in list(self._jobs.items()):
            watched.silent_seconds += passed
            if watched.silent_seconds > max(self.patience_seconds, FACTOR * watched.usual_seconds):
                late.append((job, watched.silent_seconds))
                del self._jobs[job]
        return late
