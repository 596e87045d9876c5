"""Jobs whose workers fail: noticing those that are silent, and deciding what runs again. Without Ray or files."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from cnnsearch.planning.job import Job
from cnnsearch.planning.trial import Trial


class Trouble(StrEnum):
    """Why a worker did not finish its job."""

    DIED = "died"
    """Its worker process is gone."""
    SILENT = "silent"
    """Its worker was silent for so long that it was killed."""
    MEMORY = "memory"
    """It needed more memory than there was."""
    SPOILED = "spoiled"
    """Another of its trials failed, and the worker is replaced before the others continue."""


_TIMES = {
    Trouble.DIED: "the worker process died",
    Trouble.SILENT: "the worker process stood still and was killed",
    Trouble.MEMORY: "out of memory",
}


@dataclass
class Retries:
    """Counts failed attempts, and decides after each what runs again and what is given up."""

    limit: int
    """How often a trial is started again at most."""
    max_slots: int = 1
    """Most slots that a job can have."""
    _failed: Counter[str] = field(default_factory=Counter)
    """Trial id -> failed attempts."""

    def after(
        self, job: Job, left: Sequence[Trial], trouble: Trouble, reason: str
    ) -> tuple[list[Job], list[tuple[Trial, str]]]:
        """Jobs to run again, and trials that are given up, each with the cause.

        Trials that ran together run alone afterwards: one that kills its worker must not take the others along. A trial
        that ran out of memory gets twice the slots, and is given up if it had all there are.

        Args:
            job: as it ran.
            left: its trials that have not ended.
            trouble: what happened.
            reason: the same in one line, for people.
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
"""A job may be silent for this many times as long as usual."""
LONGEST_TICK_SECONDS = 5.0
"""Most seconds between two checks that count as silence. A longer gap means that the driver was stopped or the machine
slept, so the driver itself did not listen."""


@dataclass
class _Watched:
    usual_seconds: float
    silent_seconds: float = 0.0


@dataclass
class Watchdog:
    """Counts how long each running job has been silent."""

    patience_seconds: float
    """Silence in seconds up to which no job is given up."""
    clock: Callable[[], float] = time.monotonic
    _jobs: dict[str, _Watched] = field(default_factory=dict)
    _looked_at: float | None = None

    def started(self, job: str, usual_seconds: float) -> None:
        """Start watching a job, which is expected to be silent for at most `usual_seconds` at a time."""
        self._jobs[job] = _Watched(usual_seconds)

    def heard(self, job: str) -> None:
        """Note a sign of life of a job. From now on, silences as long as the one that just ended are usual for it."""
        watched = self._jobs.get(job)
        if watched is not None:
            watched.usual_seconds = max(watched.usual_seconds, watched.silent_seconds)
            watched.silent_seconds = 0.0

    def ended(self, job: str) -> None:
        """Stop watching a job."""
        self._jobs.pop(job, None)

    def look(self) -> list[tuple[str, float]]:
        """Jobs that have been silent for too long, with the seconds. Each is reported once, then no longer watched."""
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
