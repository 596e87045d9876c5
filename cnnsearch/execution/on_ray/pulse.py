"""Ends a run whose cluster has lost its head node.

Once a cluster's control process is gone, every call into Ray waits for it and can be interrupted neither by exceptions
nor by signals. After a minute Ray ends the whole process, with a message about its own internals. Here the process ends
a little sooner, with a message that says what to do.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator

from cnnsearch.errors import RunError
from cnnsearch.execution.on_ray import authentication
from cnnsearch.execution.warden import Warden

PATIENCE = "RAY_gcs_rpc_server_reconnect_timeout_s"
"""Ray's setting: the seconds that the control process may not answer before Ray ends this process."""
DEFAULT_PATIENCE = 60.0
SHARE = 0.75
"""Fraction of Ray's timeout after which we give up."""
SHOW_CURSOR = "\x1b[?25h"


@contextlib.contextmanager
def watched(address: str, warden: Warden | None) -> Iterator[None]:
    """End this process if, during the block, the cluster does not answer for 45 s, or 3/4 of Ray's setting.

    Args:
        address: of the control process (GCS), host:port.
        warden: is told, before the process ends, that it need not print a message.
    """
    patience = SHARE * float(os.environ.get(PATIENCE, DEFAULT_PATIENCE))
    over = threading.Event()
    watch = threading.Thread(target=_watch, args=(address, patience, over, warden), name="pulse", daemon=True)
    watch.start()
    try:
        yield
    finally:
        over.set()


def _watch(address: str, patience: float, over: threading.Event, warden: Warden | None) -> None:
    each = patience / 10
    answered_at = time.monotonic()
    while not over.wait(each):
        if authentication.answers(address, each):
            answered_at = time.monotonic()
        elif time.monotonic() - answered_at > patience and not over.is_set():
            if warden:
                warden.last_words("")
            os.write(2, _last_words(address, patience).encode())
            os._exit(RunError.exit_code)


def _last_words(address: str, patience: float) -> str:
    """Return what to print at the end; on a terminal, it starts below the live view and shows the hidden cursor."""
    before = f"\n{SHOW_CURSOR}" if os.isatty(2) else ""
    return (
        f"{before}error: the Ray cluster at {address} has not answered for {patience:.0f} s.\n"
        "What is finished is kept; the same command goes on, on a new cluster too.\n"
    )
