"""Runs a sweep from a notebook or a script; in a notebook it shows the plan, and then how far the run is."""

from __future__ import annotations

import contextlib
import html
import io
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from cnnsearch.execution.events import Event
from cnnsearch.live_view import LiveView
from cnnsearch.plan_text import plan_text
from cnnsearch.prepare import Prepared, prepared, quiet
from cnnsearch.progress import finished_text
from cnnsearch.session import attached, execute
from cnnsearch.spec.sweep import Sweep
from cnnsearch.steps import Steps
from cnnsearch.use.opened import OpenedSweep

WIDTH = 110
"""Characters of a line of the display."""
REDRAW_SECONDS = 0.5


def run(
    sweep: Sweep,
    out: Path | str = "results",
    *,
    address: str | None = None,
    serial: bool = False,
    listen: Callable[[Event], None] = lambda event: None,
    show: bool | None = None,
) -> OpenedSweep:
    """Run a sweep to its end and return its tables, as `cnnsearch.load` does.

    Example:
        sweep = cnnsearch.load_sweep("part1", profile="quick", data="photos")
        tables = cnnsearch.run(sweep)

    Args:
        sweep: from `load_sweep`.
        out: results root, a folder or a URI; the sweep's folder in it is named after the sweep.
        address: of a Ray cluster; None starts Ray on this machine.
        serial: run in this process instead, one trial after another.
        listen: called with every event.
        show: whether to show the plan and the progress below the cell; None: in notebooks.

    Raises:
        CnnsearchError: the request was wrong, or the run was stopped. Failed trials do not raise; see their status.
    """
    cell = Cell() if (is_notebook() if show is None else show) else None
    with (
        without_talk_of_widgets(),
        attached(address) as cluster,
        prepared(sweep, out, cluster=cluster, serial=serial, tell=Steps(show=cell.show) if cell else quiet) as ready,
    ):
        if cell is None:
            return OpenedSweep.of(execute(ready, serial=serial, listen=listen).tables)
        with cell.view(ready) as view:

            def hear(event: Event) -> None:
                view(event)
                listen(event)

            finished = execute(ready, serial=serial, listen=hear)
        cell.show(f"{plan_text(ready)}\n\n{finished_text(finished, finished.answer)}")
        return OpenedSweep.of(finished.tables)


@contextlib.contextmanager
def without_talk_of_widgets() -> Iterator[None]:
    """Keep Ray and tqdm from asking for ipywidgets when they are imported in a notebook: nothing here needs it."""
    log = logging.getLogger("ray.widgets.util")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="IProgress not found")
            yield
    finally:
        log.setLevel(level)


def is_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return getattr(shell, "kernel", None) is not None


class Shown:
    """Text as a notebook shows it: in columns, in a fixed-width font."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return f'<pre style="line-height: 1.3">{html.escape(self.text)}</pre>'


class Cell:
    """One output below the cell, which changes while the run goes on."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, text: str) -> None:
        """Show text in place of what was shown."""
        from IPython.display import display

        if self._handle is None:
            self._handle = display(Shown(text), display_id=True)
        else:
            self._handle.update(Shown(text))

    @contextlib.contextmanager
    def view(self, ready: Prepared) -> Iterator[LiveView]:
        """Show the plan, and how far the run is, for the time of the block."""
        # Not Jupyter's: that would show an output of its own each time.
        screen = Console(file=io.StringIO(), width=WIDTH, color_system=None, force_jupyter=False)
        plan = plan_text(ready)
        view, is_over = LiveView(ready, screen), threading.Event()

        def redraw() -> None:
            while not is_over.wait(REDRAW_SECONDS):
                with contextlib.suppress(RuntimeError):  # an event has changed what was being drawn
                    with screen.capture() as drawn:
                        screen.print(view.drawn())
                    self.show(f"{plan}\n\n{drawn.get().rstrip()}")

        painter = threading.Thread(target=redraw, daemon=True)
        painter.start()
        try:
            yield view
        finally:
            is_over.set()
            painter.join()
