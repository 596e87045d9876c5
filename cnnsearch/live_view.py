"""The view of a run on a terminal: a few lines that are redrawn in place, for terminals of any width."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cnnsearch.execution.events import Event
from cnnsearch.plan_text import NO_LIMITS, Limits
from cnnsearch.planning.labels import setting_parts
from cnnsearch.planning.trial import EpochRow, Trial, shown_epoch
from cnnsearch.prepare import Prepared
from cnnsearch.progress import LineView, State, not_done
from cnnsearch.spec.axis_words import words
from cnnsearch.words import clock, printable

MOST_SHOWN = 8
"""Most running trials listed; many heads may be trained together."""
WIDEST_BAR = 28
_INDENT, _GAP = 2, 2
_ABSENT = "–"


def view_for(
    ready: Prepared, console: Console, say: Callable[[str], None], limits: Limits = NO_LIMITS
) -> LiveView | LineView:
    """The live view where the console can move its cursor; else one line for each event.

    A pipe and a file get lines whatever FORCE_COLOR says, and so does a terminal that calls itself dumb.
    """
    can_redraw = console.is_terminal and not console.is_dumb_terminal and console.file.isatty()
    return LiveView(ready, console, limits) if can_redraw else LineView(ready, say, limits)


class LiveView:
    """Progress and time left, the running trials in columns, and the best so far."""

    def __init__(self, ready: Prepared, console: Console, limits: Limits = NO_LIMITS) -> None:
        self.state = State(ready, limits)
        self._console = console
        self._widths: dict[str, int] = {}
        """Header of a column -> the widest that it has been, so that columns do not move all the time."""
        self._live = Live(get_renderable=self.drawn, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def __call__(self, event: Event) -> None:
        self.state.update(event)

    def drawn(self) -> RenderableType:
        """What is shown now."""
        state, width = self.state, self._console.width
        parts = [f"{stage.stage.name} {state.done_of(stage)}/{stage.total}" for stage in state.plan.stages]
        parts += not_done(state.counts)
        parts.append(f"{clock(state.elapsed)} elapsed, about {clock(state.seconds_left)} left")
        bar = min(WIDEST_BAR, width // 4)
        lines = _wrapped(parts, " · ", width - bar - 1)
        head = Table.grid(padding=(0, 1))
        head.add_row(ProgressBar(total=state.plan.total, completed=state.done, width=bar), _lines(lines))
        running = list(state.running.values())
        rows: list[RenderableType] = [head]
        if running:
            rows += self._trials(running[:MOST_SHOWN], width)
        if len(running) > MOST_SHOWN:
            rows.append(_lines([f"  and {len(running) - MOST_SHOWN} more"]))
        if best := state.best_text():
            rows.append(_lines(_labelled("best so far", best, width)))
        if state.dashboard:
            address, _, token = state.dashboard.partition(" (")
            rows.append(_lines(_wrapped([address, *([f"({token}"] if token else [])], " ", width)))
        if state.waiting_for:
            rows.append(_lines([f"{state.waiting_for} …"]))
        return Group(*rows)

    def _trials(self, running: Sequence[tuple[Trial, EpochRow | None]], width: int) -> list[RenderableType]:
        """The running trials in as many columns as there is room for, and what the others are."""
        columns = _columns(running, self.state)
        for column in columns:
            self._widths[column.name] = max(self._widths.get(column.name, 0), column.width)
        left, kept = width - _INDENT + _GAP, set[str]()
        for column in sorted(columns, key=lambda column: column.rank):
            needed = self._widths[column.name] + _GAP
            if needed <= left:
                kept.add(column.name)
                left -= needed
        table = Table.grid(padding=(0, _GAP, 0, 0))
        table.add_column(width=0)
        shown = [column for column in columns if column.name in kept]
        for column in shown:
            justify = "right" if column.is_number else "left"
            table.add_column(justify=justify, min_width=self._widths[column.name], no_wrap=True)  # type: ignore[arg-type]
        table.add_row("", *(Text(column.name, style="dim") for column in shown))
        for cells in zip(*(column.cells for column in shown), strict=True):
            table.add_row("", *map(Text, cells))
        hidden = [column.name for column in columns if column.name not in kept]
        return [table, *([_lines(_labelled("  no room for", ", ".join(hidden), width))] if hidden else [])]


@dataclass(frozen=True)
class _Column:
    """A column of the table of running trials."""

    name: str
    cells: Sequence[str]
    rank: int
    """Its importance: the lowest are kept where there is no room for all."""
    is_number: bool = False

    @property
    def width(self) -> int:
        return max(map(cell_len, [self.name, *self.cells]))


def _columns(running: Sequence[tuple[Trial, EpochRow | None]], state: State) -> list[_Column]:
    """The columns in the order in which they are shown; those in which no trial has anything are left out."""
    images = state.ready.sizes.train
    found = [_axis_column(axis, running, rank) for rank, axis in enumerate(state.axes, start=3)]
    last = 3 + len(state.axes)
    stages = [trial.stage for trial, _ in running]
    has_axes = any(column is not None for column in found)
    if len(set(stages)) > 1 or not has_axes:
        found.insert(0, _Column("stage", [printable(stage) for stage in stages], last + 1 if has_axes else 2))
    measured = {
        "epoch": [f"{row.epoch}/{trial.settings.epochs}" if row else "starting" for trial, row in running],
        "val": [shown_epoch(trial.settings, row) if row else "" for trial, row in running],
        "val loss": [f"{row.val_loss:.3g}" if row and row.val_loss is not None else "" for _, row in running],
        "this epoch": [state.this_epoch(trial, row) for trial, row in running],
        "images/s": [f"{images / row.seconds:,.0f}" if row and row.seconds and row.epoch else "" for _, row in running],
    }
    ranks = {"epoch": 0, "val": 1, "val loss": 2, "this epoch": last, "images/s": last + 2}
    others = [_Column(name, cells, ranks[name], True) for name, cells in measured.items() if any(cells)]
    return [*(column for column in found if column is not None), *others]


def _axis_column(axis: str, running: Sequence[tuple[Trial, EpochRow | None]], rank: int) -> _Column | None:
    """The values of an axis; None where it applies to none of the trials."""
    parts = [setting_parts(trial.settings, [axis]) for trial, _ in running]
    if not any(parts):
        return None
    cells = [printable(part[0][-1]) if part else _ABSENT for part in parts]
    return _Column(words(axis).label or words(axis).short, cells, rank)


def _wrapped(parts: Iterable[str], separator: str, width: int) -> list[str]:
    """Join parts to lines of at most this width, where a part alone is not wider."""
    lines: list[str] = []
    for part in parts:
        if lines and cell_len(lines[-1] + separator + part) <= width:
            lines[-1] += separator + part
        else:
            lines.append(part)
    return lines


def _labelled(label: str, text: str, width: int) -> list[str]:
    """A label and a text that goes on below itself, broken between its parts: `lr 0.001,` is one."""
    pieces = printable(text).replace(", ", ",\0").replace(": ", ":\0").replace(" at ", "\0at ").split("\0")
    first, *more = _wrapped(pieces, " ", width - len(label) - 2)
    return [f"{label}  {first}", *(" " * (len(label) + 2) + line for line in more)]


def _lines(lines: Sequence[str]) -> Text:
    """Lines that rich does not break again; one that is too wide ends with an ellipsis."""
    return Text("\n".join(lines), no_wrap=True, overflow="ellipsis")
