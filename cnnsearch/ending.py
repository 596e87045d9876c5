"""How a command ends: with one clear message and an exit code, in good order when it is asked to stop."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from cnnsearch.errors import CnnsearchError, RequestError
from cnnsearch.output import Output
from cnnsearch.storage.remote import redacted
from cnnsearch.words import printable, say

if TYPE_CHECKING:
    from cnnsearch.prepare import Prepared

INTERRUPTED = 130
"""Exit code of a command that was stopped."""
ASK_AGAIN_SECONDS = 0.05
"""Seconds after which an interrupt that Python dropped is repeated."""
SHOW_CURSOR = b"\x1b[?25h"
"""Sent to a terminal at the end: a live table hides its cursor."""


def how_to_go_on(first: str = "") -> str:
    """Say which command goes on; `first` is what it takes before."""
    return f"{first or 'The same command goes on'}:\n  {command_line()}"


def command_line() -> str:
    """This command line, however `sweep` was called."""
    arguments = sys.argv[2:] if sys.argv[1:2] == ["sweep"] else sys.argv[1:]
    return shlex.join(["python", "-m", "cnnsearch.sweep", *map(redacted, arguments)])


@contextlib.contextmanager
def one_clear_message(stopped: str = "stopped") -> Iterator[None]:
    """End the command with an error's own message and exit code, without a traceback."""
    try:
        yield
    except CnnsearchError as error:
        end(f"error: {error}", error.exit_code)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        given = f"{printable(str(error.filename)[:60])}…"
        longest = "most file systems take names of up to 255 bytes, and paths of up to 4,096"
        end(f"error: {given} is too long: {longest}", RequestError.exit_code)
    except KeyboardInterrupt:
        end(stopped, INTERRUPTED)


def end(message: str, code: int) -> NoReturn:
    say(message, sys.stderr)
    raise typer.Exit(code) from None


@contextlib.contextmanager
def as_a_program() -> Iterator[None]:
    """Let no output end the command, and exit at its end: 1 in place of 0 where standard output could not be written.

    When stopped, leave at once: everything is cleaned up by then, Python's own end takes half a second and may exit
    with -2.
    """
    output = Output()
    code: Any = 0
    try:
        yield
    except SystemExit as left:
        code = left.code
    if loss := output.loss():
        print(f"error: standard output cannot be written: {loss}", file=sys.stderr, flush=True)
        code = code or CnnsearchError.exit_code
    if code == INTERRUPTED:
        os._exit(INTERRUPTED)
    sys.exit(code)


class Stopper:
    """Handles Ctrl-C and SIGTERM: the first asks for an orderly end, the second ends at once."""

    def __init__(self) -> None:
        self.asked = False
        self.ready: Prepared | None = None
        self.say_dropped = sys.unraisablehook

    def __call__(self, number: int, frame: object) -> None:
        if not self.asked:
            self.asked = True
            raise KeyboardInterrupt
        if self.ready is not None:
            self.ready.warden.last_words("")
        if os.isatty(1):
            os.write(1, SHOW_CURSOR)
        words = f"\nstopped at once; what was finished is kept. {how_to_go_on()}\n"
        with contextlib.suppress(OSError):
            os.write(2, words.encode(errors="backslashreplace"))
        os._exit(INTERRUPTED)

    def dropped(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Ask again where Python has dropped the exception, as it does in the callbacks of its imports."""
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            self.say_dropped(unraisable)
            return
        self.asked = False
        main = threading.main_thread().ident or 0
        threading.Timer(ASK_AGAIN_SECONDS, signal.pthread_kill, (main, signal.SIGINT)).start()


@contextlib.contextmanager
def stoppable() -> Iterator[Stopper]:
    """Stop in good order when asked once, at once when asked twice. After a stop, further signals are ignored."""
    stopper = Stopper()
    before = {number: signal.signal(number, stopper) for number in (signal.SIGINT, signal.SIGTERM)}
    sys.unraisablehook = stopper.dropped
    try:
        yield stopper
    finally:
        sys.unraisablehook = stopper.say_dropped
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if stopper.asked else handler)
