"""What becomes of a job whose worker did not bring it to its end. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
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
    most_room: int = 1
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
        room = job.room
        if trouble is Trouble.MEMORY and len(job.trials) == 1:
            room = min(2 * job.room, self.most_room)
        spent = trouble is Trouble.MEMORY and len(job.trials) == 1 and room == job.room
        again, given_up = [], []
        for trial in left:
            failed = self._failed[trial.id]
            if spent or failed > self.limit:
                given_up.append((trial, self._cause(trouble, failed, job, reason)))
            else:
                again.append(Job((trial,), room=room, attempt=failed + 1))
        return again, given_up

    def _cause(self, trouble: Trouble, failed: int, job: Job, reason: str) -> str:
        what = _TIMES[trouble]
        if trouble is Trouble.MEMORY:
            what += ", also with more room" if job.room > 1 else ""
        else:
            what += " once" if failed == 1 else f" {failed} times"
        last = "" if failed == 1 else "the last time: "
        return f"{what}; {last}{reason}"
