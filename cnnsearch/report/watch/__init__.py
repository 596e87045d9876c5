"""`cnnsearch watch`: the growing report of a running sweep, on a page that only this machine can see.

`results.looking` reads what a results folder holds right now, `making` makes the report in a process of low priority,
`live` decides when, `rendering` writes the page and `server` serves it. Nothing here writes into a results folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cnnsearch.errors import RequestError
from cnnsearch.words import listed

if TYPE_CHECKING:
    from cnnsearch.results.looking import Folder

__all__ = ["serve"]

WAIT_SECONDS = 0.5
"""Seconds between two looks for a sweep that has not begun."""


def serve(folders: Sequence[Path], port: int | None, say: Callable[[str], None]) -> None:
    """Serve the page of these results folders until interrupted.

    Args:
        folders: one, or several to compare.
        port: on 127.0.0.1; None for the usual one, or any free one where that is taken.
        say: called with a line that says what is waited for, and one that gives the page's address.

    Waits for sweeps that have not begun. Raises RequestError where a folder holds something else, or the port cannot be
    had.
    """
    if port is not None and not 0 <= port <= 65535:
        raise RequestError(f"--port {port}: give a number from 0 (any that is free) to 65535")
    if len(folders) > 1:
        from cnnsearch.report.comparison import refuse_repeats

        refuse_repeats(folders)
    from cnnsearch.results.looking import Folder

    wait([Folder(folder) for folder in folders], say)
    from cnnsearch.report.watch.live import Live

    live = Live(folders)
    from cnnsearch.report.watch.server import open_server

    with live, open_server(live, port) as server:
        names = ", ".join(str(folder) for folder in folders)
        say(f"watching {names}: http://127.0.0.1:{server.server_port}/ (Ctrl-C ends it)")
        server.serve_forever()


def wait(folders: Sequence[Folder], say: Callable[[str], None]) -> None:
    """Wait until a sweep has begun in each of these folders. Raises RequestError where one holds something else."""
    awaited = [folder for folder in folders if not folder.check()]
    for folder in awaited:
        inside = f"; there is {listed(folder.beside())} beside it" if folder.beside() else ""
        say(f"waiting for a sweep to begin in {folder.path}{inside} (Ctrl-C ends it)")
    while awaited:
        time.sleep(WAIT_SECONDS)
        awaited = [folder for folder in awaited if not folder.check()]
