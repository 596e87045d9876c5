"""The wall clock jumps by days while a sweep runs."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

import cnnsearch
from cnnsearch.storage import durable
from tests.asking import ask
from tests.faults.running import TWO_TRIALS, Ended, call, sweep_file

DAY_SECONDS = 86400
SWEEP = TWO_TRIALS.replace("epochs: 2", "epochs: 150").replace("[0.01, 0.1]", "[0.01, 0.02]")
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)

pytestmark = pytest.mark.after

JUMPING = """\
import itertools, time

real, count = time.time, itertools.count()
def jumping():
    return real() + (0, 86400, -86400)[next(count) // 5 % 3]
time.time, time.time_ns = jumping, lambda: int(jumping() * 1e9)
"""
"""A sitecustomize.py: every fifth look at the clock finds it a day on or back."""


@contextmanager
def inside_python(folder: Path) -> Iterator[dict[str, str]]:
    """What Python code sees of the clock jumps."""
    (folder / "sitecustomize.py").write_text(JUMPING, encoding="utf-8")
    yield {"PYTHONPATH": os.pathsep.join([str(folder), str(Path(cnnsearch.__file__).parents[1])])}


@contextmanager
def below_everything(folder: Path) -> Iterator[dict[str, str]]:
    """The clock of the whole process jumps, for C code and times of files too, while the monotonic one goes on."""
    offset, ended = folder / "offset", threading.Event()

    def jump() -> None:
        for days in range(1000):
            draft = folder / "draft"
            draft.write_text(f"{('+0', '+1', '-1')[days % 3]}d", encoding="ascii")
            draft.replace(offset)
            if ended.wait(0.5):
                return

    jumper = threading.Thread(target=jump)
    jumper.start()
    try:
        yield {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(offset),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }
    finally:
        ended.set()
        jumper.join()


@pytest.mark.row(12)
@pytest.mark.parametrize(
    "clock",
    [
        inside_python,
        pytest.param(
            below_everything,
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(FAKETIME is None, reason="libfaketime is not installed"),
            ],
        ),
    ],
)
def test_a_jumping_clock_changes_no_number_and_no_duration(tmp_path: Path, clock: object) -> None:
    file, out = sweep_file(tmp_path, SWEEP), tmp_path / "jumped"
    command = (file, "--serial", "--set", "run.checkpoint_seconds=0.3", "--out")
    began = time.monotonic()
    assert callable(clock)
    with clock(tmp_path) as env:
        first = call(*command, out, "--max-time", "1s", env=env)
        second = call(*command, out, env=env)
    took = time.monotonic() - began
    calm = ask(*command, tmp_path / "calm")
    for ended in (first, second, calm):
        assert (ended.returncode, ended.stderr) == (0, "")
    assert "time is up: " in first.stdout
    assert seconds_of(out) == pytest.approx(took / 2, abs=took / 2)
    assert all_told(second)
    assert epochs(out) == epochs(tmp_path / "calm")
    for run in json.loads((out / "tiny" / "provenance.json").read_text(encoding="utf-8"))["runs"]:
        assert 0 < run["seconds"] < took


def all_told(ended: Ended) -> bool:
    return "2 of 2 trials done" in ended.stdout


def seconds_of(out: Path) -> float:
    """All the time that trials and their epochs say they took."""
    trials = pd.read_parquet(out / "tiny" / "trials.parquet")["seconds"]
    rows = pd.read_parquet(out / "tiny" / "epochs.parquet")["seconds"]
    assert trials.gt(0).all()
    assert rows.gt(0).all()
    assert rows.sum() == pytest.approx(trials.sum())
    return float(trials.sum())


def epochs(out: Path) -> list[dict[str, object]]:
    """Every epoch's numbers but its time, in the order of the table."""
    table = pd.read_parquet(out / "tiny" / "epochs.parquet").drop(columns="seconds").dropna(axis=1, how="all")
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


@pytest.mark.row(12)
@pytest.mark.parametrize("days", [-1, 1])
def test_a_jump_of_a_day_deletes_no_file_in_use(tmp_path: Path, days: int, monkeypatch: pytest.MonkeyPatch) -> None:
    own = durable.temporary_file(tmp_path)
    foreign = tmp_path / ".tmp-0000beef-12345678-1-x"
    foreign.touch()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + days * DAY_SECONDS)
    durable.remove_abandoned(tmp_path)
    assert {own, foreign} == set(tmp_path.iterdir())


WALL_CLOCK = re.compile(r"\btime\.time\b|\btime_ns\b|\bdatetime\.now\b|\butcnow\b|\blocaltime\b|\bgmtime\b|\bmtime\b")
ALLOWED = {
    "storage/durable.py": "age of files of other machines, in weeks",
    "data/index.py": "whether a file has settled; an error makes it hashed again",
    "session.py": "when a run started, for people",
    "execution/trial.py": "when a trial started, for people",
    "execution/jobs.py": "when a trial started, for people",
    "unsealing.py": "when the test set was unsealed, which other times of this kind are compared with",
    "execution/worker_log.py": "when a line was written, for people",
    "results/looking.py": "whether a folder has settled; an error makes it looked at again",
    "report/watch/server.py": "what the times that a page shows are compared with",
    "exchange/to_optuna.py": "when a trial that does not say so was shared, for people",
}


@pytest.mark.row(12)
def test_durations_never_come_from_the_wall_clock() -> None:
    package = Path(cnnsearch.__file__).parent
    used = {
        str(file.relative_to(package)): lines
        for file in package.rglob("*.py")
        if (lines := [line for line in file.read_text(encoding="utf-8").splitlines() if WALL_CLOCK.search(line)])
    }
    assert set(used) <= set(ALLOWED)
    for name in ("session.py", "execution/trial.py", "execution/jobs.py"):
        assert all("datetime.now(UTC)" in line and "started_at" in line for line in used.get(name, ()))
