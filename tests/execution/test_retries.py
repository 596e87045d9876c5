"""Jobs whose worker did not bring them to their end: noticing those that are silent, running them again."""

from __future__ import annotations

import pytest

from cnnsearch.execution.retries import FACTOR, LONGEST_TICK_SECONDS, Retries, Trouble, Watchdog
from cnnsearch.planning.job import Job
from cnnsearch.planning.trial import Trial
from cnnsearch.spec.settings import Settings

TRIALS = tuple(Trial("grid", Settings(model="plain", seed=seed), "data") for seed in range(3))


def test_a_worker_that_dies_is_started_again_up_to_the_limit() -> None:
    retries = Retries(limit=2)
    job = Job(TRIALS[:1])
    for attempt in (2, 3):
        (job,), given_up = retries.after(job, job.trials, Trouble.DIED, "killed")
        assert (job.attempt, given_up) == (attempt, [])
    again, ((trial, cause),) = retries.after(job, job.trials, Trouble.DIED, "killed")
    assert (again, trial) == ([], TRIALS[0])
    assert cause == "the worker process died 3 times; the last time: killed"


def test_trials_that_ran_together_run_alone_afterwards() -> None:
    again, given_up = Retries(limit=1).after(Job(TRIALS), TRIALS[1:], Trouble.SILENT, "quiet")
    assert [job.trials for job in again] == [(TRIALS[1],), (TRIALS[2],)]
    assert given_up == []


def test_what_runs_out_of_memory_gets_twice_the_room_and_then_all_there_is() -> None:
    retries = Retries(limit=9, max_slots=3)
    job, rooms = Job(TRIALS[:1]), []
    for _ in range(2):
        (job,), _ = retries.after(job, job.trials, Trouble.MEMORY, "4 GB asked for")
        rooms.append(job.slots)
    assert rooms == [2, 3]
    again, ((_, cause),) = retries.after(job, job.trials, Trouble.MEMORY, "4 GB asked for")
    assert again == []
    assert cause == "out of memory, also with more room; the last time: 4 GB asked for"


def test_where_there_is_no_more_room_memory_is_not_tried_again() -> None:
    again, ((_, cause),) = Retries(limit=9).after(Job(TRIALS[:1]), TRIALS[:1], Trouble.MEMORY, "too much")
    assert again == []
    assert cause == "out of memory; too much"


@pytest.mark.parametrize("trouble", [Trouble.DIED, Trouble.SILENT])
def test_no_retries_are_allowed(trouble: Trouble) -> None:
    again, ((_, cause),) = Retries(limit=0).after(Job(TRIALS[:1]), TRIALS[:1], trouble, "gone")
    assert again == []
    assert cause.endswith(" once; gone")


def test_the_rest_of_a_job_whose_worker_is_replaced_goes_on_uncounted() -> None:
    retries = Retries(limit=0)
    (job,), given_up = retries.after(Job(TRIALS, slots=2), TRIALS[1:], Trouble.SPOILED, "another trial broke")
    assert (job.trials, job.slots, given_up) == (TRIALS[1:], 2, [])
    (again,), _ = Retries(limit=1).after(job, job.trials[:1], Trouble.DIED, "killed")
    assert again.trials == TRIALS[1:2]


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def watch(dog: Watchdog, clock: Clock, seconds: float, step: float = 1.0) -> list[str]:
    late = []
    for _ in range(int(seconds / step)):
        clock.now += step
        late += [job for job, _ in dog.look()]
    return late


def test_silence_beyond_patience_and_beyond_what_is_usual_is_reported_once() -> None:
    clock = Clock()
    dog = Watchdog(60, clock)
    dog.look()
    dog.started("quick", usual_seconds=1)
    dog.started("slow", usual_seconds=20)
    assert watch(dog, clock, 60) == []
    assert watch(dog, clock, 2) == ["quick"]
    assert watch(dog, clock, FACTOR * 20 - 62) == []
    assert watch(dog, clock, 2) == ["slow"]
    assert watch(dog, clock, 1000) == []


def test_a_sign_of_life_begins_the_count_again_and_teaches_what_is_usual() -> None:
    clock = Clock()
    dog = Watchdog(10, clock)
    dog.look()
    dog.started("job", usual_seconds=0)
    assert watch(dog, clock, 9) == []
    dog.heard("job")
    assert watch(dog, clock, 9 * FACTOR) == []
    assert watch(dog, clock, 2) == ["job"]


def test_what_has_ended_is_not_reported() -> None:
    clock = Clock()
    dog = Watchdog(1, clock)
    dog.look()
    dog.started("job", 0)
    dog.ended("job")
    dog.heard("job")
    assert watch(dog, clock, 100) == []


def test_time_in_which_nobody_listened_does_not_count() -> None:
    clock = Clock()
    dog = Watchdog(60, clock)
    dog.look()
    dog.started("job", 0)
    clock.now += 24 * 3600
    assert dog.look() == []
    assert watch(dog, clock, 60 - LONGEST_TICK_SECONDS) == []
    assert watch(dog, clock, 2) == ["job"]
