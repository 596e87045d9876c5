"""Ends a run that is stuck: Tune takes no step, or nothing runs and nothing is being started.

Of some 60 kills of single processes of a run two left it waiting for ever.
"""

from __future__ import annotations

import contextlib
import time

import psutil

STUCK_SECONDS = 110.0
"""Seconds without a step of Tune's after which the run is ended: a step takes less than one."""
IDLE_SECONDS = 110.0
"""Seconds in which trials wait, no worker runs one and nothing is being started, after which the run is ended."""
BUSY_SHARE = 0.25
"""Share of a core that Ray's processes use while they start something; an idle Ray uses less."""
BEAT_SECONDS = 5.0
"""How often the warden is told that the run goes on."""
AFTER_SIGNAL_SECONDS = 40.0
"""Seconds that are left for the end of a run that was told to stop."""


class Idle:
    """Counts how long trials wait though nothing runs and nothing is being started."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._seconds = 0.0
        self._used: float | None = None
        """CPU seconds at the last look, if trials waited then."""
        self._looked_at = time.monotonic()

    def look(self, *, is_waiting: bool) -> float:
        """Return the seconds; `is_waiting` says whether trials wait while none runs."""
        now, before = time.monotonic(), self._used
        passed, self._looked_at = now - self._looked_at, now
        self._used = self._cpu_seconds() if is_waiting else None
        is_busy = before is not None and self._used is not None and self._used - before > BUSY_SHARE * passed
        self._seconds = self._seconds + min(passed, 2 * BEAT_SECONDS) if is_waiting and not is_busy else 0.0
        return self._seconds

    def _cpu_seconds(self) -> float:
        total = 0.0
        for child in self._process.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                times = child.cpu_times()
                total += times.user + times.system
        return total


def patience() -> tuple[float, str, float]:
    """What the warden is told while trials run: see `Warden.expect`."""
    words = f"error: Ray has stood still for {STUCK_SECONDS:.0f} s. What is finished is kept; the same command goes on."
    return STUCK_SECONDS, words, AFTER_SIGNAL_SECONDS
