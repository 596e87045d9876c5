"""Machines made of namespaces: own processes, files, host name and network address, on a network of their own.

Nothing of it is seen outside: the bridge between them is in a network namespace as well, and all of it ends with the
process that made it, however that ends. Root is not needed where the kernel lets users make namespaces.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil

INSIDE = Path(__file__).with_name("inside.py")
NETWORK = "10.77.0"
HOME = "/mnt/home"
READY_SECONDS = 20.0


class UnavailableError(Exception):
    """Namespaces cannot be made here."""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


class Running:
    """A command on a machine."""

    def __init__(self, command: Sequence[str], files: tuple[IO[str], IO[str]]) -> None:
        self._output, self._errors = files
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._output, stderr=self._errors, start_new_session=True
        )

    @property
    def stdout(self) -> str:
        """What it wrote so far."""
        return _text(self._output)

    @property
    def stderr(self) -> str:
        """What it wrote so far."""
        return _text(self._errors)

    def until(self, condition: Callable[[], Any], seconds: float = 60) -> None:
        """Wait for a condition while the command runs."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"it ended first: {self.stdout}{self.stderr}"
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {self.stdout}{self.stderr}"
            time.sleep(0.05)

    def until_told(self, text: str, seconds: float = 60) -> None:
        """Wait until it has written a text."""
        self.until(lambda: text in self.stdout, seconds)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the command, as a terminal or a batch system would."""
        (inner,) = psutil.Process(self.process.pid).children()  # nsenter waits for it
        inner.send_signal(number)

    def ended(self, seconds: float = 180) -> Ended:
        """Wait for its end."""
        try:
            returncode = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds:g} s: {self.stdout}{self.stderr}") from None
        return Ended(returncode, self.stdout, self.stderr)


def _text(file: IO[str]) -> str:
    # Its own position is the command's too.
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode()


@dataclass
class Machine:
    """One machine; `Network.add` makes them."""

    name: str
    address: str
    process: subprocess.Popen[bytes]
    """Whoever made it; ends with it."""
    environment: dict[str, str]
    files: contextlib.ExitStack
    first: int = field(init=False)
    """The machine's first process, by its number here: what it ends with."""

    def __post_init__(self) -> None:
        self.first = _first(self.process)

    def start(self, command: Sequence[str], *, env: Mapping[str, str] | None = None, folder: str = HOME) -> Running:
        """Start a command in a folder of the machine, in a clean environment and what `env` adds."""
        variables = [f"{name}={value}" for name, value in {**self.environment, **(env or {})}.items()]
        enter = [*_entering(self.first, "mount", "net", "uts", "ipc", "pid"), "env", "-i", "-C", folder, *variables]
        return Running([*enter, *command], (self._file(), self._file()))

    def _file(self) -> IO[str]:
        return self.files.enter_context(tempfile.TemporaryFile("w+"))

    def kill(self) -> None:
        """End everything on it at once, without a word to anybody."""
        _end(self.process, self.first)

    @property
    def received_bytes(self) -> int:
        """What has come to it over the network so far."""
        for line in Path(f"/proc/{self.first}/net/dev").read_text(encoding="ascii").splitlines():
            device, _, counts = line.partition(":")
            if device.strip() == "eth0":
                return int(counts.split()[0])
        raise AssertionError("it has no network")


class Network:
    """Machines that reach each other and nothing else."""

    def __init__(self, files: contextlib.ExitStack) -> None:
        self._files = files
        self._process = _namespaced([], {})
        self._first = _first(self._process)
        self.machines: list[Machine] = []
        self._ip(
            "link set lo up",
            "link add bridge type bridge",
            f"addr add {NETWORK}.1/24 dev bridge",
            "link set bridge up",
        )

    def add(self, environment: Mapping[str, str], **wanted: Any) -> Machine:
        """One machine more; `wanted` is what it sees, see `inside.prepare`."""
        number = len(self.machines) + 2
        name, address = f"node-{number - 2}", f"{NETWORK}.{number}"
        hosts = "".join(f"{NETWORK}.{other} node-{other - 2}\n" for other in range(2, 12))
        wanted |= {"hostname": name, "home": HOME, "hosts": f"127.0.0.1 localhost\n{hosts}"}
        # Nested in the network's own process namespace: ends with it.
        process = _namespaced(_entering(self._first, "mount", "net", "pid"), wanted)
        machine = Machine(name, address, process, dict(environment), self._files)
        self.machines.append(machine)
        self._ip(f"link add {name} type veth peer name eth0 netns {machine.first}", f"link set {name} master bridge up")
        inside = ["link set lo up", f"addr add {address}/24 dev eth0", "link set eth0 up"]
        # Nothing is there; but with a way out, programs find their own address as they would on any machine.
        _run_ip(machine.first, *inside, f"route add default via {NETWORK}.1")
        return machine

    def close(self) -> None:
        """End all machines."""
        for machine in self.machines:
            machine.kill()
        _end(self._process, self._first)

    def _ip(self, *lines: str) -> None:
        _run_ip(self._first, *lines)


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """A network for the time of the block. Raises UnavailableError."""
    with contextlib.ExitStack() as files:
        made = Network(files)
        files.callback(made.close)
        yield made


def _namespaced(before: Sequence[str], wanted: Mapping[str, Any]) -> subprocess.Popen[bytes]:
    """A first process in namespaces of its own."""
    as_user = [] if before or os.geteuid() == 0 else ["--user", "--map-root-user"]
    unshare = ["unshare", *as_user, "--net", "--mount", "--uts", "--ipc", "--pid", "--mount-proc", "--kill-child"]
    python = [sys.executable, "-I", "-S", str(INSIDE)]
    process = subprocess.Popen(
        [*before, *unshare, *python], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(json.dumps(wanted).encode() + b"\n")  # a token is for nobody's list of processes
        process.stdin.flush()
    if process.stdout.readline() != b"ready\n":
        _, complaint = process.communicate()
        raise UnavailableError(complaint.decode().strip())
    return process


def _first(process: subprocess.Popen[bytes]) -> int:
    """The innermost process of a chain that each waits for the next."""
    return int(psutil.Process(process.pid).children(recursive=True)[-1].pid)


def _end(process: subprocess.Popen[bytes], first: int) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(first, signal.SIGKILL)
    process.communicate()


def _entering(first: int, *namespaces: str) -> list[str]:
    as_user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
    return ["nsenter", f"--target={first}", *as_user, *(f"--{name}" for name in namespaces), "--"]


def _run_ip(first: int, *lines: str) -> None:
    """`ip` commands in the network of a machine."""
    command = [*_entering(first, "net"), "ip", "-batch", "-"]
    done = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True)
    if done.returncode != 0:
        raise UnavailableError(done.stderr.strip())
