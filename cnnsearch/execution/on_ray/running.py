"""Workers that run jobs: killing one that no longer responds, and finding out why one is gone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ray

from cnnsearch.execution.machine import hardware
from cnnsearch.execution.on_ray.machines import on_node
from cnnsearch.execution.retries import Trouble
from cnnsearch.systems import processes

ANSWER_SECONDS = 5.0
"""Seconds to wait for a machine to say whether its kernel killed a worker for lack of memory."""


@dataclass
class Running:
    """The worker of a running job."""

    actor: Any
    whereabouts: Any
    """Reference to (node id, process id)."""
    oom_kills: Any
    """Reference to the number of processes that its machine's kernel had killed for lack of memory as the job began."""

    def kill(self) -> None:
        """Kill the worker, even if it is stopped and does not respond."""
        ray.kill(self.actor)
        if (found := _answer(self.whereabouts)) is None:
            return
        node, process = found
        if node == ray.get_runtime_context().get_node_id():
            processes.kill(process)
        else:
            on_node(node, processes.kill).remote(process)

    def saw_oom_kills(self) -> bool:
        """Whether the kernel of its machine has killed processes for lack of memory since the job began."""
        found, before = _answer(self.whereabouts), _answer(self.oom_kills)
        if found is None or before is None:
            return False
        if found[0] == ray.get_runtime_context().get_node_id():
            now = hardware.oom_kills()
        else:
            now = _answer(on_node(found[0], hardware.oom_kills).remote(), ANSWER_SECONDS) or 0
        return bool(now > before)


def _answer(reference: Any, seconds: float = 0.0) -> Any:
    """Wait for the answer of a worker or machine; None if none came in this many seconds, or the worker is gone."""
    try:
        return ray.get(reference, timeout=seconds)
    except (ray.exceptions.GetTimeoutError, ray.exceptions.RayError):
        return None


def diagnosis(trial: Any, running: Running | None) -> tuple[Trouble, str]:
    """Find out why a worker is gone, as far as Ray and the kernel know; also returns the reason in one line."""
    error = trial.get_pickled_error() if trial.pickled_error_file else None
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return Trouble.MEMORY, "Ray killed the worker because the host's memory was nearly full"
    if running is not None and running.saw_oom_kills():
        return Trouble.MEMORY, "the kernel killed processes because the host's memory was full"
    lines = str(error).strip().splitlines() if error else []
    return Trouble.DIED, " ".join(lines[-1].split())[:300] if lines else "cause unknown"
