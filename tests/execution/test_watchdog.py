from __future__ import annotations

from cnnsearch.execution.watchdog import FACTOR, LONGEST_TICK_SECONDS, Watchdog


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
