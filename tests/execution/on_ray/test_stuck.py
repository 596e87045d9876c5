"""Whether trials wait though nothing runs; and why Ray did not start."""

from __future__ import annotations

import errno
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from cnnsearch.errors import RequestError, RunError
from cnnsearch.execution.on_ray import starting, stuck

Times = namedtuple("Times", "user system")


class Process:
    """One that has used so much of a core since the start."""

    def __init__(self) -> None:
        self.used = 0.0

    def children(self, *, recursive: bool) -> list[Process]:
        return [self]

    def cpu_times(self) -> Times:
        return Times(self.used / 2, self.used / 2)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_only_waiting_in_which_nothing_works_counts(clock: list[float]) -> None:
    process: Any = Process()
    idle = stuck.Idle(process)

    def after(seconds: float, *, used: float = 0.0, is_waiting: bool = True) -> float:
        clock[0] += seconds
        process.used += used
        return idle.look(is_waiting=is_waiting)

    assert after(5) == 5
    assert after(5, used=0.5) == 10  # an idle Ray uses a little
    assert after(5, used=3) == 0  # something is being started
    assert after(5) == 5
    assert after(5, is_waiting=False) == 0  # a trial runs
    assert after(5) == 5
    assert after(3600) == 15  # the machine slept


def never() -> None:
    raise AssertionError


def fails(error: Exception, tries: list[int]) -> Any:
    def ray_init() -> None:
        tries.append(1)
        raise error

    return ray_init


@pytest.mark.parametrize(
    ("error", "cause", "times"),
    [
        (RuntimeError("Failed to start: [Errno 11] Resource temporarily unavailable"), "ulimit -u", 1),
        (RuntimeError("can't start new thread"), "no more processes or threads", 1),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n", 1),
        (MemoryError(), "not enough memory", 1),
        (RuntimeError("The current node timed out during startup."), "timed out twice", 2),
        (TimeoutError(), "timed out twice", 2),
        (ValueError("first line\nsomething odd\n\n"), "ValueError: something odd", 1),
    ],
)
def test_where_ray_does_not_start_the_cause_is_told(tmp_path: Path, error: Exception, cause: str, times: int) -> None:
    tries: list[int] = []
    cleared: list[int] = []
    with pytest.raises(RunError) as told:
        starting.start(fails(error, tries), lambda: cleared.append(1), tmp_path, None)
    assert cause in str(told.value)
    assert "--serial" in str(told.value)
    assert len(tries) == len(cleared) == times


def test_a_full_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "LEAST_BYTES", 2**60)
    with pytest.raises(RunError, match="is full"):
        starting.start(fails(RuntimeError("x"), []), lambda: None, tmp_path, None)


def test_the_second_time_counts(tmp_path: Path) -> None:
    left = [TimeoutError()]

    def ray_init() -> str:
        if left:
            raise left.pop()
        return "context"

    assert starting.start(ray_init, lambda: None, tmp_path, None) == "context"


def test_a_wrong_request_stays_one(tmp_path: Path) -> None:
    with pytest.raises(RequestError):
        starting.start(fails(RequestError("wrong"), []), never, tmp_path, None)
