"""How a command ends: with one clear message and an exit code, in good order when it is asked to stop."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from cnnsearch.errors import CnnsearchError, RequestError
from cnnsearch.output import Output
from cnnsearch.storage.remote import redacted
from cnnsearch.systems import processes
from cnnsearch.words import printable, say

if TYPE_CHECKING:
    from cnnsearch.prepare import Prepared
    from cnnsearch.told import Progress, Told

INTERRUPTED = 130
"""Exit code of a command that was stopped."""
ASK_AGAIN_SECONDS = 0.05
"""Seconds after which an interrupt that Python dropped is repeated."""
SHOW_CURSOR = b"\x1b[?25h"
"""Sent to a terminal at the end: a live table hides its cursor."""


def how_to_go_on(first: str = "") -> str:
    """Say which command goes on; `first` is what it takes before."""
    return f"{first or 'The same command goes on'}:\n  {command_line()}"


def how_to_see(results: object) -> str:
    """Say which command shows what is done."""
    return f"What is done:\n  cnnsearch report {shlex.quote(redacted(str(results)))}"


def command_line() -> str:
    """This command line, however `sweep` was called."""
    arguments = sys.argv[2:] if sys.argv[1:2] == ["sweep"] else sys.argv[1:]
    return shlex.join(["python", "-m", "cnnsearch.sweep", *map(redacted, arguments)])


class Ending(typer.Exit):
    """The end of a command that did not get where it was going; its message is on standard error."""

    def __init__(self, message: str, code: int, go_on: str | None = None, progress: Progress | None = None) -> None:
        super().__init__(code)
        self.message = message.removeprefix("error: ")
        self.go_on = go_on
        self.progress = progress

    def told(self) -> Told:
        """What `--json` prints of it."""
        from cnnsearch.told import Failure, Stopped

        rest = {"go_on": self.go_on, "progress": self.progress}
        if self.exit_code == INTERRUPTED:
            return Stopped(message=self.message, **rest)
        return Failure(exit_code=self.exit_code, error=self.message, **rest)


@contextlib.contextmanager
def answering(as_json: bool) -> Iterator[Callable[[Told], None]]:
    """Yield what takes the command's answer for programs.

    With `as_json`, standard output is that one JSON object alone, at every exit code; all else that the block prints
    goes to standard error.
    """
    if not as_json:
        yield lambda told: None
        return
    from cnnsearch.told import line

    out, answers = sys.stdout, list[Any]()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield answers.append
    except Ending as ending:
        answers = [ending.told()]
        raise
    except Exception as error:
        if not isinstance(error, typer.Exit):
            answers = [_unforeseen(error)]
        raise
    finally:
        for told in answers[-1:]:
            print(line(told), file=out, flush=True)


def _unforeseen(error: Exception) -> Told:
    """What `--json` prints of an error that is not ours: of arguments that cannot be parsed, or of a fault in here."""
    from cnnsearch.told import Failure

    message = getattr(error, "format_message", None)
    if message is not None:
        return Failure(exit_code=RequestError.exit_code, error=message())
    return Failure(exit_code=CnnsearchError.exit_code, error=f"{type(error).__name__}: {error}")


@contextlib.contextmanager
def one_clear_message(stopped: str = "stopped", go_on: str | None = None) -> Iterator[None]:
    """End the command with an error's own message and exit code, without a traceback.

    Args:
        stopped: what to say where the command was stopped.
        go_on: the command that goes on then.
    """
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
        end(stopped, INTERRUPTED, go_on)


def end(message: str, code: int, go_on: str | None = None, progress: Progress | None = None) -> NoReturn:
    """Say a message on standard error, and end the command. For programs: the command that goes on, what is done."""
    say(message, sys.stderr)
    raise Ending(message, code, go_on, progress) from None


@contextlib.contextmanager
def as_a_program() -> Iterator[None]:
    """Let no output end the command, and exit at its end: 1 in place of 0 where standard output could not be written.

    When stopped, leave at once: everything is cleaned up by then, Python's own end takes half a second and may exit
    with -2.
    """
    # A report allocates millions of objects and frees most of them soon: looking for cycles takes a tenth of its time.
    gc.set_threshold(50_000, 20, 20)
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

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json
        self.asked = False
        self.ready: Prepared | None = None
        self.say_dropped = sys.unraisablehook

    def __call__(self, number: int, frame: object) -> None:
        if not self.asked:
            self.asked = True
            raise KeyboardInterrupt
        if self.ready is not None:
            self.ready.warden.last_words("")
        for terminal in filter(os.isatty, (1, 2)):  # where one of them hides it
            os.write(terminal, SHOW_CURSOR)
        words = f"stopped at once; what was finished is kept. {how_to_go_on()}"
        words += f"\n{how_to_see(self.ready.results)}" if self.ready is not None else ""
        with contextlib.suppress(OSError):
            os.write(2, f"\n{words}\n".encode(errors="backslashreplace"))
        if self.as_json:
            from cnnsearch.told import line

            with contextlib.suppress(OSError):
                os.write(1, f"{line(Ending(words, INTERRUPTED, command_line()).told())}\n".encode())
        os._exit(INTERRUPTED)

    def dropped(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Ask again where Python has dropped the exception, as it does in the callbacks of its imports."""
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            self.say_dropped(unraisable)
            return
        self.asked = False
        threading.Timer(ASK_AGAIN_SECONDS, processes.interrupt_main).start()


@contextlib.contextmanager
def stoppable(as_json: bool = False) -> Iterator[Stopper]:
    """Stop in good order when asked once, at once when asked twice. After a stop, further signals are ignored."""
    stopper = Stopper(as_json)
    before = {number: signal.signal(number, stopper) for number in (signal.SIGINT, signal.SIGTERM)}
    sys.unraisablehook = stopper.dropped
    try:
        yield stopper
    finally:
        sys.unraisablehook = stopper.say_dropped
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if stopper.asked else handler)
