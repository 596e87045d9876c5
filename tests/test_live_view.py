"""The live view as a terminal of some width shows it."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from cnnsearch.execution.events import Ended, EpochDone, Ready, Started
from cnnsearch.live_view import LiveView, _wrapped, view_for
from cnnsearch.planning.trial import EpochRow
from cnnsearch.prepare import Prepared, prepared
from cnnsearch.progress import LineView
from cnnsearch.spec.sweep import Sweep
from tests.test_progress import record, row

FIVE = (
    "stages=[{name: grid, space: {model: {grid: [plain, residual]}, lr: {grid: [0.0001, 0.001]}, "
    "batch_size: {grid: [16, 32]}, dropout: {grid: [0, 0.25]}, optimizer: {grid: [adam, adamw]}}}]"
)


@pytest.fixture
def ready(small_sweep: Callable[..., Sweep], tmp_path: Path) -> Iterator[Prepared]:
    with prepared(small_sweep(FIVE, "train.epochs=100"), tmp_path, dry_run=True) as found:
        yield found


def terminal(width: int, **options: str) -> Console:
    environ = {"TERM": "xterm-256color", **options}
    return Console(file=io.StringIO(), force_terminal=True, width=width, _environ=environ, legacy_windows=False)


def busy(ready: Prepared, width: int) -> LiveView:
    """A view of some trials that have ended, three that run and one that starts."""
    view = LiveView(ready, terminal(width))
    trials = ready.plan.stages[0].trials
    view(Ready("http://127.0.0.1:8265", "/tmp/cnns-1234/token"))
    for trial, accuracy in zip(trials[-3:], (0.78, 0.5, None), strict=True):
        view(Started(trial))
        view(Ended(trial, record(trial, accuracy)))
    for trial, epoch in zip([trials[3], trials[12], trials[31 - 4]], (7, 42, 100), strict=True):
        view(Started(trial))
        view(EpochDone(trial, row(epoch, seconds=0.0249)))
    view(Started(trials[0]))
    return view


def shown(view: LiveView) -> list[str]:
    console = view._console
    with console.capture() as captured:
        console.print(view.drawn())
    return [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in captured.get().splitlines()]


def cells(line: str) -> list[str]:
    return re.split(r"\s{2,}", line.strip())


@pytest.mark.parametrize("width", [60, 100, 200])
def test_no_line_is_wider_and_no_value_is_cut(ready: Prepared, width: int) -> None:
    lines = shown(busy(ready, width))
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
    assert len([line for line in lines if "/100" in line]) == 3  # one line for each trial
    (header,) = [line for line in lines if "val loss" in line]
    assert "loss" in cells(header) or "val loss" in cells(header)
    for value in ("71.5 %", "7/100", "42/100", "100/100", "0.81", "starting"):
        assert any(value in cells(line) for line in lines), value
    text = "\n".join(lines)
    assert "grid 3/32" in text
    assert "1 failed" in text
    assert " left" in text
    assert "http://127.0.0.1:8265" in text
    assert "(token in /tmp/cnns-1234/token)" in text


def test_all_columns_where_there_is_room(ready: Prepared) -> None:
    lines = shown(busy(ready, 100))
    (header,) = [line for line in lines if "val loss" in line]
    assert cells(header) == ["model", "lr", "batch", "dropout", "optimizer", "epoch", "val", "val loss", "images/s"]
    (longest,) = [line for line in lines if "42/100" in line]
    assert cells(longest) == ["plain", "0.001", "32", "–", "adam", "42/100", "71.5 %", "0.81", "2,410"]
    # Numbers end below the end of their header.
    assert longest.index("0.81") + 4 == header.index("val loss") + 8
    assert not any("no room" in line for line in lines)
    (best,) = [line for line in lines if line.startswith("best so far")]
    assert best.endswith("batch 32, dropout 0.25, adamw: val 50.0 % (35.2–64.8)") or "val 78.0 %" in best


def test_the_least_important_columns_go_first_and_are_named(ready: Prepared) -> None:
    lines = shown(busy(ready, 60))
    (header,) = [line for line in lines if "val loss" in line and "no room" not in line]
    assert cells(header) == ["model", "lr", "batch", "epoch", "val", "val loss"]
    assert "  no room for  dropout, optimizer, images/s" in lines
    narrow = shown(busy(ready, 24))
    assert max(map(len, narrow)) <= 24
    (header,) = [line for line in narrow if line.strip().startswith("epoch")]
    assert cells(header) == ["epoch", "val"]


def test_a_long_value_does_not_take_the_place_of_the_others(ready: Prepared) -> None:
    view = LiveView(ready, terminal(60))
    trial = ready.plan.stages[0].trials[0]
    long = replace(trial, settings=trial.settings.model_copy(update={"model": "x" * 50}))
    view(Started(long))
    view(EpochDone(long, EpochRow(1, 1.0, 0.5, 0.81, 0.715, 0.001, 1.0)))
    lines = shown(view)
    assert any("1/100" in line and "71.5 %" in line for line in lines)
    assert "xxx" not in "".join(lines)
    assert any(line.startswith("  no room for  model") for line in lines)


def test_columns_stay_where_they_are_when_values_become_shorter(ready: Prepared) -> None:
    view = busy(ready, 100)
    before = next(line for line in shown(view) if "val loss" in line)
    trials = ready.plan.stages[0].trials
    for trial in (trials[12], trials[27]):
        view(Ended(trial, record(trial, 0.5)))
    assert next(line for line in shown(view) if "val loss" in line) == before


def test_many_running_trials_are_counted(ready: Prepared) -> None:
    view = LiveView(ready, terminal(100))
    for trial in ready.plan.stages[0].trials[:11]:
        view(Started(trial))
    lines = shown(view)
    assert sum("starting" in line for line in lines) == 8
    assert "  and 3 more" in lines


def test_parts_are_not_broken() -> None:
    assert _wrapped(["one", "two", "three", "four"], " · ", 11) == ["one · two", "three", "four"]
    assert _wrapped(["longer than that"], " ", 3) == ["longer than that"]
    assert _wrapped([], " ", 3) == []


class Screen(io.StringIO):
    """A file that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("file", "environ", "is_live"),
    [
        (Screen(), {"TERM": "xterm"}, True),
        (Screen(), {"TERM": "xterm", "NO_COLOR": "1"}, True),
        (Screen(), {"TERM": "dumb"}, False),
        (Screen(), {"TERM": "unknown"}, False),
        (io.StringIO(), {"TERM": "xterm"}, False),
        (io.StringIO(), {"TERM": "xterm", "FORCE_COLOR": "1"}, False),
    ],
)
def test_only_a_terminal_that_can_be_redrawn_is(
    ready: Prepared, file: io.StringIO, environ: dict[str, str], is_live: bool
) -> None:
    said: list[str] = []
    view = view_for(ready, Console(file=file, _environ=environ), said.append)
    assert isinstance(view, LiveView) is is_live
    if not is_live:
        assert isinstance(view, LineView)
        view(Started(ready.plan.stages[0].trials[0]))
        assert len(said) == 1
        assert file.getvalue() == ""


def test_without_colour_there_is_none(ready: Prepared) -> None:
    def escapes(**environ: str) -> Sequence[str]:
        console = terminal(100, **environ)
        view = LiveView(ready, console)
        view(Started(ready.plan.stages[0].trials[0]))
        with console.capture() as captured:
            console.print(view.drawn())
        return re.findall(r"\x1b\[([0-9;]*)m", captured.get())

    colours = [code for code in escapes(NO_COLOR="1") if any(part in code for part in ("3", "4", "9"))]
    assert colours == []
    assert [code for code in escapes() if "3" in code] != []
