"""The command is killed, interrupted, or loses Ray: the same command goes on, and nothing stays behind."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cnnsearch.ending import INTERRUPTED, SHOW_CURSOR, stoppable
from cnnsearch.execution.warden import MARK
from cnnsearch.results.folder import Results
from cnnsearch.storage.durable import write_whole
from tests.asking import ask
from tests.faults.running import SHORT, call
from tests.recorded import numbers

pytestmark = pytest.mark.after

SWEEP = """
name: tiny
data: {image_size: 8, split: {method: fill, train_per_class: 6, val_per_class: 4}}
train: {model: residual, width: 0.05, epochs: 12, precision: fp32}
run: {dashboard: false, checkpoint_epochs: 4}
stages:
  - name: grid
    space: {lr: {grid: [0.001, 0.002]}, batch_size: {grid: [16, 32]}}
  - name: dropout
    start_from: {stage: grid}
    space: {dropout: {grid: [0.1, 0.2]}}
"""
LONGER = SWEEP.replace("epochs: 12", "epochs: 30")
"""For kills at random instants, most of which should find the command alive."""
TRIALS = 6


COMMANDS: set[int] = set()
"""Processes of the commands started here: Ray's folders carry the number of who started it."""


class Started:
    """A running command in a session of its own, as a terminal would start it; unless `whole`, without a report."""

    def __init__(self, *arguments: object, whole: bool = False, first: str = "") -> None:
        """`first` is code that runs before the command."""
        python = [sys.executable, "-m", "cnnsearch.sweep"] if whole else SHORT
        if first:
            run = f"import runpy, sys; sys.argv[0] = {SHORT[-1]!r}; runpy.run_path(sys.argv[0], run_name='__main__')"
            python = [sys.executable, "-c", f"{first}; {run}"]
        self.output = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [*python, *map(str, arguments)],
            stdout=self.output,
            stderr=self.errors,
            start_new_session=True,
        )
        COMMANDS.add(self.process.pid)

    def until(self, condition: Callable[[], Any], seconds: float = 90) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.stderr
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def child(self, name: str) -> psutil.Process:
        (found,) = [child for child in psutil.Process(self.process.pid).children() if child.name() == name]
        return found

    def ended(self, seconds: float = 60) -> int:
        try:
            return self.process.wait(seconds)
        finally:
            self.process.kill()

    @property
    def stderr(self) -> str:
        self.errors.seek(0)
        return self.errors.read()

    @property
    def stdout(self) -> str:
        self.output.seek(0)
        return self.output.read()


def marked() -> set[int]:
    """Processes of any run that this test's runs could have started."""
    found = set()
    for process in psutil.process_iter():
        try:
            if process.environ().get("CNNSEARCH_TEST_OWNER") == str(os.getpid()):
                found |= {process.pid} if process.status() != psutil.STATUS_ZOMBIE else set()
        except psutil.Error:
            continue
    return found


@pytest.fixture(autouse=True)
def _nothing_stays_behind(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Row 23, after every test here: no process that a run started, none of its temporary folders."""
    monkeypatch.setenv("CNNSEARCH_TEST_OWNER", str(os.getpid()))
    monkeypatch.delenv(MARK, raising=False)
    place = tempfile.mkdtemp(prefix="cnnt-")
    monkeypatch.setenv("TMPDIR", place)  # Ray's own lies under /tmp, whatever this says
    tempfile.tempdir = None
    COMMANDS.clear()
    yield
    deadline = time.monotonic() + 15
    while (left := (marked(), own_folders())) != (set(), set()) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in left[0]:
        psutil.Process(pid).kill()
    shutil.rmtree(place)
    tempfile.tempdir = None
    assert left == (set(), set())


def own_folders() -> set[Path]:
    """Temporary folders of the commands started here: in this test's own place, and Ray's, which lie in /tmp."""
    in_place = set(Path(os.environ["TMPDIR"]).glob("cnn*"))
    return in_place | {folder for pid in COMMANDS for folder in Path("/tmp").glob(f"cnns-*/ray/session_*_{pid}")}


@pytest.fixture
def arguments(tmp_path: Path) -> list[object]:
    (tmp_path / "tiny.yaml").write_text(SWEEP, encoding="utf-8")
    return [tmp_path / "tiny.yaml", "--out", tmp_path / "out"]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "out" / "tiny"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return numbers_of(SWEEP, tmp_path_factory.mktemp("undisturbed"))


def numbers_of(text: str, folder: Path) -> dict[str, Any]:
    """What a sweep comes to if nothing disturbs it."""
    (folder / "tiny.yaml").write_text(text, encoding="utf-8")
    ended = ask(folder / "tiny.yaml", "--out", folder, "--serial")
    assert ended.returncode == 0, ended.stderr
    return numbers(folder / "tiny")


def records(results: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in results.glob("trials/*/record.json")}


def ends_as_if_undisturbed(arguments: list[object], results: Path, expected: dict[str, Any], *more: str) -> None:
    """The same command ends well, keeps what was finished as it was, and comes to the same numbers."""
    finished = records(results)
    last = (ask if "--serial" in more else call)(*arguments, "--json", *more)
    assert last.returncode == 0, last.stderr
    assert (last.told["planned"], last.told["counts"]["done"]) == (TRIALS, TRIALS)
    assert {file: file.read_bytes() for file in finished} == finished
    assert numbers(results) == expected
    assert not list(results.rglob(".tmp-*"))
    assert not list(results.rglob("checkpoint.pt"))


def killed_at(instants: list[float], arguments: list[object], results: Path) -> int:
    """Start the command again and again, killing it so many seconds after its start; how often it was alive then."""
    hits = 0
    for instant in instants:
        finished = records(results)
        started = Started(*arguments, whole=True)
        time.sleep(instant)
        if started.process.poll() is None:
            hits += 1
            os.kill(started.process.pid, signal.SIGKILL)
        started.ended()
        # What was finished is never touched again, let alone trained again.
        assert {file: file.read_bytes() for file in finished} == finished
    return hits


@pytest.mark.after
@pytest.mark.row(3)
@pytest.mark.row(23)
@pytest.mark.timeout(600)
def test_the_command_killed_at_random_instants(arguments: list[object], results: Path, tmp_path: Path) -> None:
    rng = random.Random(3)
    (tmp_path / "tiny.yaml").write_text(LONGER, encoding="utf-8")
    assert killed_at([rng.uniform(0.1, 14) for _ in range(3)], arguments, results) >= 2
    (tmp_path / "quiet").mkdir()
    ends_as_if_undisturbed(arguments, results, numbers_of(LONGER, tmp_path / "quiet"))


@pytest.mark.slow
@pytest.mark.row(3)
@pytest.mark.row(23)
@pytest.mark.timeout(3600)
def test_the_command_killed_at_fifty_random_instants(tmp_path: Path) -> None:
    """In rounds: a folder is finished after a few kills, and then a new one begins."""
    rng = random.Random(50)
    undisturbed = numbers_of(LONGER, tmp_path)
    hits = 0
    for number in range(10):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "tiny.yaml").write_text(LONGER, encoding="utf-8")
        arguments: list[object] = [folder / "tiny.yaml", "--out", folder]
        instants = [rng.uniform(0.1, 4), *(rng.uniform(0.5, 20) for _ in range(4))]
        hits += killed_at(instants, arguments, folder / "tiny")
        ends_as_if_undisturbed(arguments, folder / "tiny", undisturbed)
    assert hits >= 40


@pytest.mark.row(3)
def test_a_killed_command_says_so_after_all(arguments: list[object], results: Path) -> None:
    started = Started(*arguments, "--serial", "--set", "train.epochs=100000")
    started.until(lambda: list(results.glob("trials/*/epochs.jsonl")))
    os.kill(started.process.pid, signal.SIGKILL)
    assert started.ended() == -signal.SIGKILL
    deadline = time.monotonic() + 10
    while "the same command goes on" not in started.stderr and time.monotonic() < deadline:
        time.sleep(0.05)
    assert started.stderr.startswith("error: this run ended without a word")


@pytest.mark.row(5)
@pytest.mark.row(23)
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["gcs_server", pytest.param("raylet", marks=pytest.mark.slow)])
def test_ray_dies(arguments: list[object], results: Path, undisturbed: dict[str, Any], name: str) -> None:
    started = Started(*arguments)
    started.until(lambda: list(results.glob("trials/*/epochs.jsonl")))
    process, began = started.child(name), time.monotonic()
    process.kill()
    assert started.ended(100) == 1
    assert time.monotonic() - began < 90
    deadline = time.monotonic() + 10
    while "goes on" not in started.stderr and time.monotonic() < deadline:
        time.sleep(0.05)
    assert f"error: Ray's process {name} has died; what is finished is kept" in started.stderr
    assert "Traceback" not in started.stderr
    assert "(raylet)" not in started.stdout
    ends_as_if_undisturbed(arguments, results, undisturbed, *(["--serial"] if name == "raylet" else []))


SOON = "from cnnsearch.execution.on_ray import starting, stuck; starting.START_SECONDS = 20; stuck.STUCK_SECONDS = 12"


def first_worker(started: Started) -> psutil.Process | None:
    """The first of Ray's workers, as soon as there is one."""
    for child in psutil.Process(started.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any(part.endswith("default_worker.py") for part in child.cmdline()[1:2]):
                return child
    return None


@pytest.mark.row(23)
@pytest.mark.timeout(300)
@pytest.mark.parametrize("is_told_to_stop", [False, True])
def test_a_worker_dies_while_ray_starts(
    arguments: list[object], results: Path, undisturbed: dict[str, Any], is_told_to_stop: bool
) -> None:
    """Ray then waits for it for ever, and neither threads nor signal handlers get a turn."""
    started = Started(*arguments, first=SOON)
    started.until(lambda: first_worker(started))
    worker = first_worker(started)
    assert worker is not None
    worker.kill()
    began = time.monotonic()
    if is_told_to_stop:
        time.sleep(1)
        os.killpg(started.process.pid, signal.SIGINT)
    code = started.ended(60)
    assert time.monotonic() - began < (25 if is_told_to_stop else 45)
    assert code in (0, 1, 130), started.stderr  # where it was not the worker that Ray waits for, all goes on
    assert "Traceback" not in started.stderr
    if code == 1:
        deadline = time.monotonic() + 10
        while "--serial" not in started.stderr and time.monotonic() < deadline:
            time.sleep(0.05)
        assert started.stderr.startswith("error: Ray did not start"), started.stderr
        assert "--serial" in started.stderr
    ends_as_if_undisturbed(arguments, results, undisturbed, "--serial")


@pytest.mark.slow
@pytest.mark.row(23)
@pytest.mark.timeout(300)
def test_a_run_that_stands_still_is_ended(arguments: list[object], results: Path, undisturbed: dict[str, Any]) -> None:
    """As where a call into Ray never comes back: here, a listener that never does."""
    hang = "import ctypes; from cnnsearch import session; e = session.execute"  # holds the interpreter as Ray does
    hang += "; session.execute = lambda *a, **k: e(*a, **{**k, 'listen': lambda event: ctypes.PyDLL(None).sleep(1000)})"
    started = Started(*arguments, first=f"{SOON}; {hang}")
    began = time.monotonic()
    assert started.ended(100) in (1, -signal.SIGKILL)
    assert time.monotonic() - began < 90
    deadline = time.monotonic() + 10
    while "goes on" not in started.stderr and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "error: Ray has stood still for 12 s" in started.stderr
    ends_as_if_undisturbed(arguments, results, undisturbed, "--serial")


@pytest.mark.row(7)
@pytest.mark.row(23)
@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.after)])
def test_interrupted_once(
    arguments: list[object], results: Path, undisturbed: dict[str, Any], number: signal.Signals
) -> None:
    """Ctrl-C in a terminal goes to the whole group of processes; SIGTERM to the command."""
    started = Started(*arguments)
    started.until(lambda: list(results.glob("trials/*/record.json")))
    began = time.monotonic()
    if number == signal.SIGINT:
        os.killpg(started.process.pid, number)
    else:
        os.kill(started.process.pid, number)
        while "stopped: " not in started.stderr and started.process.poll() is None:
            time.sleep(0.01)
        started.process.send_signal(number)  # it is leaving as it is
    assert started.ended() == 130, started.stderr
    assert time.monotonic() - began < 5
    assert f" of {TRIALS} trials done. The same command goes on:" in started.stderr
    assert started.stderr.startswith("stopped: ")
    if number == signal.SIGINT:
        ends_as_if_undisturbed(arguments, results, undisturbed, "--serial")


@pytest.mark.row(7)
@pytest.mark.row(23)
@pytest.mark.timeout(300)
def test_interrupted_twice(arguments: list[object], results: Path, undisturbed: dict[str, Any]) -> None:
    started = Started(*arguments)
    started.until(lambda: list(results.glob("trials/*/epochs.jsonl")))
    os.killpg(started.process.pid, signal.SIGINT)
    time.sleep(0.1)
    began = time.monotonic()
    os.killpg(started.process.pid, signal.SIGINT)
    assert started.ended() == 130
    assert time.monotonic() - began < 1
    assert "Traceback" not in started.stderr
    assert started.stderr.count("goes on") == 1
    ends_as_if_undisturbed(arguments, results, undisturbed, "--serial")


@pytest.mark.row(7)
def test_interrupted_while_it_plans(arguments: list[object], results: Path) -> None:
    started = Started(*arguments, whole=True)
    time.sleep(0.7)
    os.killpg(started.process.pid, signal.SIGINT)
    assert started.ended() in (130, -signal.SIGINT)  # before Python has come to our code, it is Python's to end
    assert "trials done" not in started.stderr
    assert not list(results.glob("trials/*"))


@pytest.mark.after
@pytest.mark.row(7)
def test_terminated_while_ray_starts(arguments: list[object]) -> None:
    """Ray has a handler of its own then, which ends with another code and says nothing."""
    started = Started(*arguments)
    started.until(lambda: [one for one in psutil.Process(started.process.pid).children() if one.name() == "gcs_server"])
    os.kill(started.process.pid, signal.SIGTERM)
    assert started.ended() == 130
    assert started.stderr.startswith(f"stopped: 0 of {TRIALS} trials done.")


@pytest.mark.row(7)
def test_an_interrupt_that_python_drops_comes_again() -> None:
    """What is raised while an object is finalised goes nowhere."""

    class Dropped:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    def drop_one() -> None:
        Dropped()
        time.sleep(20)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.raises(KeyboardInterrupt), stoppable():
            drop_one()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.row(9)
@pytest.mark.timeout(300)
def test_of_two_starts_at_once_one_is_refused(arguments: list[object], results: Path) -> None:
    both = [Started(*arguments, "--serial", "--set", "train.epochs=100000") for _ in range(2)]
    deadline = time.monotonic() + 60
    while all(started.process.poll() is None for started in both) and time.monotonic() < deadline:
        time.sleep(0.05)
    refused = [started for started in both if started.process.poll() is not None]
    (running,) = [started for started in both if started not in refused]
    assert refused[0].process.returncode == 2
    assert f"is in use by process {running.process.pid} on {os.uname().nodename}" in refused[0].stderr
    running.process.kill()
    running.ended()


@pytest.mark.row(9)
def test_a_lock_left_behind_is_taken_over(arguments: list[object], results: Path) -> None:
    """By a crash, or by a reboot: then the process it names may be anybody's by now."""
    results.mkdir(parents=True)
    write_whole(results / ".lock", f"process {os.getpid()} on {os.uname().nodename}\n".encode())
    with Results(results).locked():
        assert (results / ".lock").read_text().startswith(f"process {os.getpid()} ")


def test_an_end_at_once_leaves_the_terminal_its_cursor(tmp_path: Path) -> None:
    end = "from cnnsearch.ending import Stopper; s = Stopper(); s.asked = True; s(2, None)"
    outer, inner = os.openpty()
    with (tmp_path / "errors").open("w+") as errors:
        process = subprocess.Popen([sys.executable, "-c", end], stdout=inner, stderr=errors)
        assert process.wait(60) == INTERRUPTED
        errors.seek(0)
        assert errors.read().startswith("\nstopped at once; what was finished is kept.")
    os.close(inner)
    assert os.read(outer, 100) == SHOW_CURSOR
    os.close(outer)
