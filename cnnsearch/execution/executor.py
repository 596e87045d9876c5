"""What every executor does: run the jobs of a queue, wherever it runs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from cnnsearch.execution.context import SharedContext
from cnnsearch.execution.events import Event
from cnnsearch.execution.machine.hardware import Layout
from cnnsearch.planning.queue import Queue
from cnnsearch.spec.sweep import RunSpec


class Executor(Protocol):
    """Runs every trial of a queue: `serial.execute` in this process, `on_ray.schedule.execute` in Ray's workers."""

    def __call__(
        self, queue: Queue, context: SharedContext, layout: Layout, run: RunSpec, listen: Callable[[Event], None], /
    ) -> None:
        """Run everything in the queue; when the queue's time is up, save the running trials and return.

        Args:
            queue: hands out jobs, and is told of every epoch, of how each trial ended, and of those that were saved and
                left because they wait for others.
            context: what all trials share.
            layout: resources of a trial, and how many trials run at once on this machine.
            run: the `run` section of the sweep.
            listen: called with every event, from the calling thread.

        Raises:
            DiskError: a file cannot be written.
            RunError: the run stopped before every trial had ended.
        """
