"""Ends a run that is stuck: Tune takes no step, or nothing runs and nothing is being started.

Of some 60 kills of single processes of a run two left it waiting for ever.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import psutil

from cnnsearch.execution.warden import Warden

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
        self._used = 0.0
        self._looked_at = time.monotonic()

    def look(self, *, is_waiting: bool) -> float:
        """Return the seconds; `is_waiting` says whether trials wait while none runs."""
        now, used = time.monotonic(), self._cpu_seconds()
        passed = now - self._looked_at
        is_busy = used - self._used > BUSY_SHARE * passed
        self._looked_at, self._used = now, used
        self._seconds = self._seconds + min(passed, 2 * BEAT_SECONDS) if is_waiting and not is_busy else 0.0
        return self._seconds

    def _cpu_seconds(self) -> float:
        total = 0.0
        for child in self._process.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                times = child.cpu_times()
                total += times.user + times.system
        return total


def expect(warden: Warden) -> None:
    """Have the warden end the run if nothing is heard of it for too long."""
    words = f"error: Ray has stood still for {STUCK_SECONDS:.0f} s. What is finished is kept; the same command goes on."
    warden.expect(STUCK_SECONDS, words, AFTER_SIGNAL_SECONDS)


@contextlib.contextmanager
def watching_over(warden: Warden) -> Iterator[None]:
    """Have the warden end the run if, in the block, Tune takes no step for too long."""
    with warden.signals():
        expect(warden)
        try:
            yield
        finally:
            warden.expect(None)
