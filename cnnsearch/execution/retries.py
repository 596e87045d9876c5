"""What becomes of a job whose worker did not bring it to its end. Pure."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from cnnsearch.planning.queue import Job
from cnnsearch.planning.trial import Trial


class Trouble(StrEnum):
    """Why a job was not brought to its end."""

    DIED = "died"
    """Its worker process is gone."""
    SILENT = "silent"
    """Nothing was heard of it for so long that its worker was killed."""
    MEMORY = "memory"
    """There was not enough memory for it."""
    SPOILED = "spoiled"
    """Another of its trials broke, and the worker is replaced before the rest go on."""


_TIMES = {
    Trouble.DIED: "the worker process died",
    Trouble.SILENT: "the worker process stood still and was killed",
    Trouble.MEMORY: "out of memory",
}


@dataclass
class Retries:
    """Counts attempts, and says after each that failed what runs again and what is given up."""

    limit: int
    """New starts of a trial."""
    max_slots: int = 1
    """Places that a job can have at most."""
    _failed: Counter[str] = field(default_factory=Counter)
    """Trial id -> attempts that failed."""

    def after(
        self, job: Job, left: Sequence[Trial], trouble: Trouble, reason: str
    ) -> tuple[list[Job], list[tuple[Trial, str]]]:
        """Jobs to run again, and trials that are given up with the cause.

        Trials that ran together run alone afterwards: one that kills its worker must not take the others along. What
        ran out of memory gets twice the room, and is given up where it had all there is.

        Args:
            job: as it ran.
            left: its trials that have not ended.
            trouble: what happened.
            reason: in one line.
        """
        if trouble is Trouble.SPOILED:
            return [replace(job, trials=tuple(left), attempt=job.attempt + 1)], []
        self._failed.update(trial.id for trial in left)
        slots = job.slots
        if trouble is Trouble.MEMORY and len(job.trials) == 1:
            slots = min(2 * job.slots, self.max_slots)
        spent = trouble is Trouble.MEMORY and len(job.trials) == 1 and slots == job.slots
        again, given_up = [], []
        for trial in left:
            failed = self._failed[trial.id]
            if spent or failed > self.limit:
                given_up.append((trial, self._cause(trouble, failed, job, reason)))
            else:
                again.append(Job((trial,), slots=slots, attempt=failed + 1))
        return again, given_up

    def _cause(self, trouble: Trouble, failed: int, job: Job, reason: str) -> str:
        what = _TIMES[trouble]
        if trouble is Trouble.MEMORY:
            what += ", also with more room" if job.slots > 1 else ""
        else:
            what += " once" if failed == 1 else f" {failed} times"
        last = "" if failed == 1 else "the last time: "
        return f"{what}; {last}{reason}"


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
