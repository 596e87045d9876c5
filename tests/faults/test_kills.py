"""Each kind of process of a run is killed twenty times at random moments, its first seconds included.

Whatever is killed, the command ends by itself within two minutes or so, without a traceback; no process and no
temporary folder stays; and in the end the numbers are those of a run that nobody disturbed. `make test-kills` runs it,
five minutes a kind on two quiet cores.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.faults.test_driver import (
    SWEEP,
    TRIALS,
    Started,
    _nothing_stays_behind,  # noqa: F401  its check runs after each test here too
    ends_as_if_undisturbed,
    marked,
    numbers_of,
    own_folders,
    records,
)

KILLS = 20
LONGEST_SECONDS = 150.0
"""Two minutes in which a run that stands still is ended, and what it takes to start one on a busy machine."""
KINDS = {
    "command": (),
    "warden": ("warden.py",),
    "raylet": ("raylet/raylet",),
    "gcs": ("gcs_server",),
    "starting worker": ("default_worker.py", "setup_worker.py"),
    "idle worker": ("ray::IDLE",),
    "training worker": ("ray::Worker", " ["),
    "dashboard": ("dashboard/dashboard.py", "ray-dashboard", "multiprocessing"),
    "agents": ("dashboard/agent.py", "runtime_env/agent", "ray::DashboardAgent", "ray::RuntimeEnvAgent"),
    "log monitor": ("log_monitor.py",),
    "autoscaler monitor": ("autoscaler/_private/monitor.py",),
}
"""Kind of process -> what its command line holds, one of them."""


def kind_of(process: psutil.Process, command: int) -> str | None:
    """The kind of this process of a run; None where it has ended or is of no kind."""
    if process.pid == command:
        return "command"
    try:
        line = process.cmdline()
    except psutil.Error:
        return None
    # A worker's title is one text, the first; else it is in the program's first arguments.
    told = " ".join(line[:3])
    if told.startswith("ray::IDLE"):
        return "idle worker"
    if told.startswith("ray::") and "Agent" not in told:
        return "training worker"
    return next((kind for kind, parts in KINDS.items() if any(part in told for part in parts)), None)


def members(command: int, kind: str) -> Iterator[psutil.Process]:
    """The processes of that kind of a run."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(command)
        for one in [process, *process.children(recursive=True)]:
            if kind_of(one, command) == kind:
                yield one


def killed(started: Started, kind: str, moment: float, rng: random.Random) -> bool:
    """Kill a process of that kind at that moment, or as soon as there is one; whether there was one."""
    time.sleep(moment)
    while started.process.poll() is None:
        if found := list(members(started.process.pid, kind)):
            with contextlib.suppress(psutil.Error):
                rng.choice(found).kill()
                return True
        time.sleep(0.01)
    return False


def seconds_of(text: str, folder: Path) -> float:
    """How long the sweep takes here and now."""
    folder.mkdir()
    (folder / "tiny.yaml").write_text(text, encoding="utf-8")
    began = time.monotonic()
    assert Started(folder / "tiny.yaml", "--out", folder).ended(LONGEST_SECONDS) == 0
    return time.monotonic() - began


@pytest.mark.kills
@pytest.mark.row(23)
@pytest.mark.timeout(KILLS * 200)
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_random_moments(kind: str, tmp_path: Path) -> None:
    rng = random.Random(kind)
    text = SWEEP.replace("dashboard: false", f"dashboard: {str(kind == 'dashboard').lower()}")
    undisturbed = numbers_of(text, tmp_path)
    usual = seconds_of(text, tmp_path / "usual")
    ends: Counter[int] = Counter()
    faults: list[str] = []
    longest, misses, rounds = 0.0, 0, 0
    arguments: list[object] = []
    results = tmp_path
    while sum(ends.values()) < KILLS and misses < KILLS:
        if not arguments or len(records(results)) == TRIALS:
            if arguments:
                ends_as_if_undisturbed(arguments, results, undisturbed, "--serial")
            rounds += 1
            folder = tmp_path / str(rounds)
            folder.mkdir()
            (folder / "tiny.yaml").write_text(text, encoding="utf-8")
            arguments, results = [folder / "tiny.yaml", "--out", folder], folder / "tiny"
        moment = rng.uniform(0, usual / 3) if rng.random() < 0.4 else rng.uniform(0, usual)
        started = Started(*arguments)
        if not killed(started, kind, moment, rng):
            misses += 1
            continue
        began = time.monotonic()
        try:
            code = started.ended(LONGEST_SECONDS)
        except Exception:
            faults.append(f"a hang after a kill at {moment:.2f} s: {started.stderr}")
            continue
        longest = max(longest, time.monotonic() - began)
        ends[code] += 1
        if kind != "warden":  # which is what cleans up; the next run does where it is gone
            faults += left_after(15, f"a kill at {moment:.2f} s")
        if "Traceback" in started.stderr:
            faults.append(started.stderr)
    print(f"{kind}: exit codes {dict(ends)}, {misses} misses, at most {longest:.0f} s to the end")
    assert not faults
    assert sum(ends.values()) == KILLS
    assert set(ends) <= {0, 1, -9 if kind == "command" else 1}
    ends_as_if_undisturbed(arguments, results, undisturbed, "--serial")


def left_after(seconds: float, why: str) -> list[str]:
    """What a run left behind, once so many seconds have passed."""
    deadline = time.monotonic() + seconds
    while (left := (marked(), own_folders())) != (set(), set()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return [f"after {why} there were still {left}"] if left != (set(), set()) else []
