"""How fast this machine is just now.

A machine that is shared, hot or on battery may be three times as fast at one time as at another. What was timed then
is held against what takes as long now. Without torch.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Any

SLICES = 11
"""Pieces of work that are timed; the middle one counts, since others may be interrupted."""
LOOPS = 20_000
"""Length of such a piece: some milliseconds."""
MOST = 4.0
"""Most times by which a machine is taken to be faster or slower than it was: beyond, the pace itself is in doubt."""
PACE = "pace"
"""Name under which the pace at which something was timed is kept beside it."""
_TIMES = ("step_seconds", "eval_image_seconds", "prefix_image_seconds")


def pace() -> float:
    """Seconds that a bit of work takes now that is always the same."""
    taken = []
    for _ in range(SLICES):
        began = time.perf_counter()
        for number in range(LOOPS):
            number * number
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def slower(then: float | None, now: float) -> float:
    """How many times as long things take now as they did then; 1 where that is not known."""
    return min(MOST, max(1 / MOST, now / then)) if then else 1.0


def at_pace(timed: Mapping[str, Any], now: float) -> dict[str, Any]:
    """What was timed of a workload, with the times that it takes now."""
    times = slower(timed.get(PACE), now)
    return {**timed, **{name: timed[name] * times for name in _TIMES if name in timed}}
