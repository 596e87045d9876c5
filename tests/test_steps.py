from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from cnnsearch.steps import Steps


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def told(force_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """What a terminal shows, and what goes to standard error elsewhere, while 1,000 images are read in 40 s."""
    screen, errors, clock = io.StringIO(), io.StringIO(), Clock()
    monkeypatch.setattr("sys.stderr", errors)
    monkeypatch.setenv("TERM", "xterm")
    with Steps(Console(file=screen, force_terminal=force_terminal, width=100), clock) as steps:
        steps("starting")
        steps("reading the images")
        for done in range(0, 1001, 100):
            steps("reading the images", done, 1000)
            clock.now += 4
        steps("planning")
    return screen.getvalue(), errors.getvalue()


def test_a_terminal_shows_the_count_and_the_time_left_and_is_clear_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setenv("TERM", "xterm")
    clock = Clock()
    with Steps(Console(file=shown, force_terminal=True, width=100), clock) as steps:
        steps("reading the images")
        deadline = time.monotonic() + 30  # a thread draws it
        while "reading the images" not in shown.getvalue():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        clock.now += 10
        steps("reading the images", 250, 1000)
        assert steps._status is not None
        assert steps._status.status == "reading the images: 250 of 1,000, about 0:30 left"
    assert "\x1b[2K" in shown.getvalue().rpartition("reading the images")[2]  # the line is erased


def test_elsewhere_a_line_now_and_then_tells_what_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, errors = told(False, monkeypatch)
    assert screen == ""
    assert errors.splitlines() == [
        "reading the images: 300 of 1,000, about 0:28 left",
        "reading the images: 600 of 1,000, about 0:16 left",
        "reading the images: 900 of 1,000, about 0:04 left",
    ]
    assert told(True, monkeypatch)[1] == ""


def test_a_name_with_brackets_is_shown_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen = Console(file=io.StringIO(), force_terminal=True, width=100)
    with Steps(screen) as steps:
        steps("looking at a[/bold]b\x1b[2J")
        assert steps._status is not None
        with screen.capture() as shown:
            screen.print(steps._status.status)
    assert "looking at a[/bold]b\\x1b[2J" in shown.get()
