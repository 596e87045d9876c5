"""Which of Tune's workers runs which trial, and which workers are kept though nothing runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ray.tune.schedulers import FIFOScheduler
from ray.tune.utils.object_cache import _ObjectCache


class InOrderScheduler(FIFOScheduler):  # type: ignore[misc]
    """Starts trials in the order in which they are suggested, and never ends a worker that is still starting.

    By default, Tune gives a freed worker to the first trial that waits for one, ends the worker that was being started
    for that trial, and asks for another one for the next trial. If workers take longer to start than trials to run,
    hundreds of slots stay empty. At every step it also looks through all trials so far.
    """

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Choose no trial: Tune then starts pending trials in order, and gives freed workers to those without one."""
        controller = tune_controller._tune_controller
        if not isinstance(controller._actor_cache, WaitingWorkers):
            controller._actor_cache = WaitingWorkers()  # at the first step, when there are no workers yet


class WaitingWorkers(_ObjectCache):  # type: ignore[misc]
    """Keeps all workers while nothing is known that could run, as where a stage waits for the last trials of another.

    Tune's own keeps one of them, and the others have to be started again, which takes seconds.
    """

    def cache_object(self, key: Any, obj: Any) -> bool:
        """Keep a worker for trials that need its resources, `key`; returns whether it is kept."""
        if super().cache_object(key, obj):
            return True
        if self._others_are_expected:
            return False
        self._cached_objects[key].append(obj)
        self._num_cached_objects += 1
        return True

    def flush_cached_objects(self, force_all: bool = False) -> Iterator[Any]:
        """Let go of the workers that no trial needs."""
        if force_all or self._others_are_expected:
            yield from super().flush_cached_objects(force_all)

    @property
    def _others_are_expected(self) -> bool:
        return any(self._max_num_objects.values())
