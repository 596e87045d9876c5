"""`cnnsearch watch`: the growing report of a running sweep, on a page that only this machine can see.

`looking` reads what a results folder holds right now, `making` makes the report in a process of low priority, `live`
decides when, `rendering` writes the page and `server` serves it. Nothing here writes into a results folder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from cnnsearch.errors import RequestError

__all__ = ["serve"]


def serve(folders: Sequence[Path], port: int | None, say: Callable[[str], None]) -> None:
    """Serve the page of these results folders until interrupted.

    Args:
        folders: one, or several to compare.
        port: on 127.0.0.1; None for the usual one, or any free one where that is taken.
        say: called with a line that gives the page's address.

    Raises RequestError where a folder holds no results, or the port cannot be had.
    """
    if port is not None and not 0 <= port <= 65535:
        raise RequestError(f"--port {port}: give a number from 0 (any that is free) to 65535")
    if len(folders) > 1:
        from cnnsearch.report.comparison import refuse_repeats

        refuse_repeats(folders)
    # Check the request before importing the report's modules, which takes seconds.
    from cnnsearch.report.watch.live import Live

    live = Live(folders)
    from cnnsearch.report.watch.server import open_server

    with live, open_server(live, port) as server:
        names = ", ".join(str(folder) for folder in folders)
        say(f"watching {names}: http://127.0.0.1:{server.server_port}/ (Ctrl-C ends it)")
        server.serve_forever()
