"""Says what a command is doing while there is nothing else to see: one line that changes, and is gone afterwards."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from cnnsearch.words import clock as as_clock, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

LINE_SECONDS = 10.0
"""Where the line cannot change, as in a file: least seconds between two lines about the same step."""
SURE_SECONDS = 1.0
"""Seconds of a step after which the time left is told."""


class Steps:
    """What a command is doing now, on standard error.

    On a terminal a line with a spinner, the count and the time left. Elsewhere a line every ten seconds about steps
    that count something, such as images; of the others nothing.

        with Steps() as steps:
            steps("reading the images")
            steps("reading the images", 200, 1700)
    """

    def __init__(
        self,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
        show: Callable[[str], None] | None = None,
    ) -> None:
        """`show` is where else than on a console the line is shown, such as below a cell."""
        from rich.console import Console

        self._console = console or Console(stderr=True, highlight=False)
        self._is_live = show is not None or (self._console.is_terminal and not self._console.is_dumb_terminal)
        self._show = show or self._show_status
        self._clock = clock
        self._status: Status | None = None
        self._what = ""
        self._since = self._told_at = 0.0

    def __enter__(self) -> Steps:
        return self

    def __exit__(self, *exception: object) -> None:
        self.end()

    def __call__(self, what: str, done: int = 0, total: int = 0) -> None:
        """Tell what is being done, and how much of how many is done where that is known."""
        now = self._clock()
        if what != self._what:
            self._what, self._since, self._told_at = what, now, now
        text = what
        if total:
            text += f": {done:,} of {total:,}"
            if done and now - self._since >= SURE_SECONDS:
                text += f", about {as_clock((now - self._since) / done * (total - done))} left"
        if self._is_live:
            self._show(text)
        elif total and now - self._told_at >= LINE_SECONDS:
            self._told_at = now
            print(text, file=sys.stderr, flush=True)

    def end(self) -> None:
        """Clear the line."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _show_status(self, text: str) -> None:
        from rich.markup import escape

        text = escape(printable(text))  # a folder may be called [/bold]
        if self._status is None:
            self._status = self._console.status(text)
            self._status.start()
        else:
            self._status.update(text)
