"""A small process beside a run that cleans up after it, however it ends.

A process that is killed cannot clean up. The warden holds the other end of a pipe: when that closes, the run is over,
and the warden ends every process that the run started and removes every temporary folder that it made. If the run did
not announce its end, the warden prints the run's last words in its place.

It also ends a run that is stuck. Some calls into Ray wait for a process that has died, for ever, and no thread and no
signal handler of the run gets a turn meanwhile. So the run says how soon it will be heard of again.

The processes of a run have its mark in their environment, so that they are recognised even when their parent is gone.
Some overwrite their environment with a title, as Ray's workers do: those are recognised because a process of the run
started them. Parents may die first, so the warden notes the run's processes from time to time, each with the time of
its start, since a number may be given to another process. Nothing else is ever ended, whatever files it has open. The
warden imports the standard library and psutil only: it starts in a few hundredths of a second.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

MARK = "CNNSEARCH_RUN"
"""Environment variable with the run's mark, which every process of the run inherits."""
LOOK_SECONDS = 5.0
"""How often the warden notes the processes of the run."""
TICK_SECONDS = 1.0
"""How often it looks at the time."""
LONGEST_TICK_SECONDS = 5.0
"""Most seconds between two looks that count: a longer gap means that the machine slept."""
DYING_SECONDS = 10.0
"""Time that a stuck run has to end by itself once Ray's own processes are gone; then it is killed."""
LEAVE_SECONDS = 10.0
"""How long a run waits at its end for the warden to finish cleaning up."""


class Warden:
    """A run's connection to its warden process: the run's end of the pipe."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def remove(self, folder: Path) -> None:
        """Have a temporary folder removed at the end of the run."""
        self._tell({"remove": str(folder)})

    def last_words(self, text: str) -> None:
        """Set what to print on standard error if this process dies without announcing it; empty for nothing."""
        self._tell({"last_words": text})

    def expect(self, seconds: float | None, words: str = "", after_signal: float = math.inf) -> None:
        """Have this run ended with `words` unless it is heard of again in time; None: however long it takes.

        Args:
            seconds: in which `expect` is called again. Time in which the run is stopped or the machine sleeps does not
                count.
            words: to print then.
            after_signal: seconds that are left once the run was told to stop, in a block of `expecting`.
        """
        self._tell({"expect": seconds, "words": words, "after_signal": min(after_signal, seconds or 0.0)})

    @contextlib.contextmanager
    def expecting(self, seconds: float, words: str, after_signal: float = math.inf) -> Iterator[None]:
        """Have this run ended, as `expect` says, if the block takes longer and nothing is heard of it meanwhile."""
        with self._signals():
            self.expect(seconds, words, after_signal)
            try:
                yield
            finally:
                self.expect(None)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Hear of signals to this process during the block, also while nothing in it gets a turn.

        Where somebody else listens for them already, as an event loop does, or in a thread, nothing changes.
        """
        assert self._process.stdin is not None
        try:
            self._do_not_block()
            before = signal.set_wakeup_fd(self._process.stdin.fileno(), warn_on_full_buffer=False)
        except (ValueError, OSError):
            yield
            return
        if before != -1:
            signal.set_wakeup_fd(before)
        try:
            yield
        finally:
            if before == -1:
                signal.set_wakeup_fd(-1)

    def _do_not_block(self) -> None:
        """Have the pipe take what fits and no more, as signals need it. Raises OSError where pipes cannot do that."""
        if not hasattr(os, "set_blocking"):
            raise OSError("pipes of this system always block")
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)

    def leave(self) -> None:
        """Announce the end of the run, and wait until everything is cleaned up."""
        self._tell({"bye": True})
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        # The warden writes nothing to its standard output, which ends with it. A thread waits for that, since not
        # every system can wait for pipes.
        ended = threading.Thread(target=self._process.stdout.read, daemon=True)
        ended.start()
        ended.join(LEAVE_SECONDS)
        if not ended.is_alive():
            self._process.wait()
            self._process.stdout.close()

    def _tell(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # the warden was killed, or knows already that the run is over
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()


@contextlib.contextmanager
def watching(last_words: str = "") -> Iterator[Warden]:
    """Run a warden for the time of the block; processes started in it carry the run's mark."""
    from cnnsearch.systems.processes import apart  # not for the warden itself

    mark = uuid.uuid4().hex
    environment = {name: value for name, value in os.environ.items() if name != MARK}
    process = subprocess.Popen(
        [sys.executable, "-P", str(Path(__file__)), mark, str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        **apart(),  # Ctrl-C in a terminal goes to the whole process group
    )
    warden = Warden(process)
    warden.last_words(last_words)
    before = os.environ.get(MARK)
    os.environ[MARK] = mark
    try:
        yield warden
    finally:
        if before is None:
            del os.environ[MARK]
        else:
            os.environ[MARK] = before
        warden.leave()


def main(mark: str, owner: int, pipe: IO[bytes]) -> None:
    """Wait for the end of the pipe, then clean up after the run with this mark, whose main process was `owner`."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if (number := getattr(signal, name, None)) is not None:
            signal.signal(number, signal.SIG_IGN)
    folders: list[str] = []
    last_words, said_bye = "", False
    known = _Known(mark, owner)
    patience = _Patience(owner)
    for line in _lines(pipe, known.look, patience):
        with contextlib.suppress(ValueError):  # a line cut off by the end of its writer
            message = json.loads(line)
            said_bye |= "bye" in message
            last_words = message.get("last_words", last_words)
            folders += [message["remove"]] if "remove" in message else []
            if "expect" in message:
                patience.renew(message["expect"], message["words"], message["after_signal"])
    if patience.ended_it:
        last_words = patience.words
    known.end()
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    if last_words and not said_bye:
        print(last_words, file=sys.stderr, flush=True)


def _lines(pipe: IO[bytes], meanwhile: Callable[[], None], patience: _Patience) -> Iterator[bytes]:
    """The lines that come through a pipe until it closes; `meanwhile` is called every `LOOK_SECONDS`."""
    parts: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        with contextlib.suppress(OSError):  # a pipe that breaks has ended, too
            while some := os.read(pipe.fileno(), 2**16):
                parts.put(some)
        parts.put(b"")

    # A thread reads, since not every system can wait for a pipe and look at the time meanwhile.
    threading.Thread(target=read, daemon=True).start()
    begun, looked_at = b"", time.monotonic()
    while True:
        part: bytes | None = None
        with contextlib.suppress(queue.Empty):
            part = parts.get(timeout=TICK_SECONDS)
        patience.tick()
        if time.monotonic() - looked_at > LOOK_SECONDS:
            meanwhile()
            looked_at = time.monotonic()
        if part is None:
            continue
        if not part:
            return
        if any(number in _TOLD_TO_STOP for number in part):
            patience.was_signalled()
        *whole, begun = (begun + part).translate(None, _NO_TEXT).split(b"\n")
        yield from whole


_TOLD_TO_STOP = (signal.SIGINT, signal.SIGTERM)
"""Bytes that Python writes into the pipe when one of these signals comes: see `Warden._signals`."""
_NO_TEXT = bytes(number for number in range(32) if number != 10)


class _Patience:
    """Counts down to the time when the run must have been heard of, and ends it if it was not."""

    def __init__(self, owner: int) -> None:
        self._owner = owner
        self._born = _born(owner)
        self._left: float | None = None
        self._after_signal = 0.0
        self._ticked_at = time.monotonic()
        self._killed_at: float | None = None
        self.words = ""

    @property
    def ended_it(self) -> bool:
        """Whether the run was ended here."""
        return self._killed_at is not None

    def renew(self, seconds: float | None, words: str, after_signal: float) -> None:
        """Count from the start, unless the end has come already."""
        if not self.ended_it:
            self._left, self.words, self._after_signal = seconds, words, after_signal

    def was_signalled(self) -> None:
        """Leave less time: the run was told to stop."""
        if self._left is not None:
            self._left = min(self._left, self._after_signal)

    def tick(self) -> None:
        """Count the time since the last tick."""
        now = time.monotonic()
        passed, self._ticked_at = min(now - self._ticked_at, LONGEST_TICK_SECONDS), now
        if self._killed_at is not None:
            if now - self._killed_at > DYING_SECONDS and _born(self._owner) == self._born:
                import psutil

                with contextlib.suppress(psutil.Error):
                    psutil.Process(self._owner).kill()
            return
        if self._left is None or _is_stopped(self._owner):
            return
        self._left -= passed
        if self._left < 0 and _born(self._owner) == self._born:
            self._killed_at = now
            # Without these the calls that wait for them fail, and the run ends with an exit code of its own.
            for process in _children(self._owner):
                with contextlib.suppress(Exception):
                    if process.name().removesuffix(".exe") in ("raylet", "gcs_server"):
                        process.kill()


def _born(number: int) -> float | None:
    import psutil

    try:
        return float(psutil.Process(number).create_time())
    except psutil.Error:
        return None


def _is_stopped(number: int) -> bool:
    import psutil

    try:
        return psutil.Process(number).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    except psutil.Error:
        return False


def _children(number: int) -> list[Any]:
    import psutil

    try:
        return list(psutil.Process(number).children())
    except psutil.Error:
        return []


class _Known:
    """The processes of a run: those with its mark, and all that they have started."""

    def __init__(self, mark: str, owner: int) -> None:
        self._mark = mark
        self._spared = {owner, os.getpid()}
        self._processes: set[Any] = set()
        """psutil's processes, which are equal only if they started at the same time."""

    def look(self) -> None:
        """Note the processes that the run has now."""
        import psutil

        others = [process for process in psutil.process_iter() if process.pid not in self._spared]
        self._processes = {process for process in self._processes if process.is_running()}
        self._processes |= {process for process in others if self._is_marked(process)}
        parents = {process: _parent(process) for process in others}
        while True:
            numbers = {process.pid for process in self._processes}
            children = {process for process in others if parents[process] in numbers} - self._processes
            if not children:
                return
            self._processes |= children

    def end(self) -> None:
        """Kill the run's processes, again and again until none is left: they may start others meanwhile."""
        import psutil

        for _ in range(20):
            self.look()
            found = [process for process in self._processes if not _is_zombie(process)]
            if not found:
                return
            for process in found:
                with contextlib.suppress(psutil.Error):
                    process.kill()  # psutil makes sure that it is still the same process
            psutil.wait_procs(found, timeout=0.5)

    def _is_marked(self, process: Any) -> bool:
        import psutil

        if process in self._processes:
            return True
        try:
            return bool(process.environ().get(MARK) == self._mark)
        except (psutil.Error, OSError):  # gone, or somebody else's
            return False


def _parent(process: Any) -> int:
    import psutil

    try:
        return int(process.ppid())
    except psutil.Error:
        return 0


def _is_zombie(process: Any) -> bool:
    import psutil

    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return True


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.stdin.buffer)
