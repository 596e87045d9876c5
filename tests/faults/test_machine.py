"""Machines that lack what is usually there: a free port, shared memory, a home that can be written."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.faults.running import TWO_TRIALS, call, sweep_file

pytestmark = pytest.mark.after

NAMESPACE = ["unshare", "--mount", "sh", "-c"]


def can_unshare() -> bool:
    try:
        return subprocess.run([*NAMESPACE, "mount -t tmpfs tmpfs /mnt"], capture_output=True).returncode == 0
    except OSError:
        return False


needs_mounts = pytest.mark.skipif(not can_unshare(), reason="mount namespaces are not permitted")


def with_mounts(*mounts: str) -> Sequence[str]:
    """Words before a command, for which these file systems are mounted and for nobody else."""
    script = " && ".join([*(f"mount -t tmpfs {mount}" for mount in mounts), 'exec "$@"'])
    return [*NAMESPACE, script, "sh"]


def without_a_home(home: Path) -> dict[str, str]:
    """The environment of somebody whose home is `home`, without anything that would stand in for it."""
    home.mkdir()
    cleared = ("CNNSEARCH_CACHE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR", "RAY_AUTH_TOKEN")
    assert not set(cleared[1:]) & set(os.environ), "these would hide what is tested"
    return {"HOME": str(home), "CNNSEARCH_CACHE": ""}


@needs_mounts
@pytest.mark.row(22)
def test_a_home_that_cannot_be_written_is_no_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)  # there since this process has started a Ray
    home = tmp_path / "home"
    before = with_mounts(f"-o ro tmpfs {home}")
    env = without_a_home(home)
    ended = call(sweep_file(tmp_path), "--serial", "--out", tmp_path, before=before, env=env)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "2 of 2 trials done" in ended.stdout


@needs_mounts
@pytest.mark.slow
@pytest.mark.row(22)
def test_ray_runs_with_a_home_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    home = tmp_path / "home"
    before = with_mounts(f"-o ro tmpfs {home}")
    ended = call(sweep_file(tmp_path), "--out", tmp_path, before=before, env=without_a_home(home))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "2 of 2 trials done" in ended.stdout


@needs_mounts
@pytest.mark.slow
@pytest.mark.row(22)
def test_ray_runs_without_shared_memory_to_speak_of(tmp_path: Path) -> None:
    before = with_mounts("-o size=1m tmpfs /dev/shm")
    ended = call(sweep_file(tmp_path), "--out", tmp_path, before=before)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "2 of 2 trials done" in ended.stdout


@pytest.mark.slow
@pytest.mark.row(22)
def test_where_the_dashboard_s_port_is_taken_its_real_address_is_shown(tmp_path: Path) -> None:
    text = TWO_TRIALS.replace("dashboard: false", "dashboard: true").replace("epochs: 2", "epochs: 100000")
    command = [sys.executable, "-m", "cnnsearch.sweep", str(sweep_file(tmp_path, text)), "--out", str(tmp_path)]
    with socket.socket() as taken:
        with contextlib.suppress(OSError):  # somebody else's will do
            taken.bind(("127.0.0.1", 8265))
            taken.listen()
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            assert running.stdout is not None
            lines = iter(running.stdout.readline, "")
            found = next(match for line in lines if (match := re.search(r"dashboard http://127\.0\.0\.1:(\d+)", line)))
            assert found[1] != "8265"
            assert answers(f"http://127.0.0.1:{found[1]}")
            running.send_signal(signal.SIGTERM)
            _, stderr = running.communicate(timeout=60)
            assert running.returncode == 130
            assert "Traceback" not in stderr
        finally:
            running.kill()
            running.communicate()


def answers(address: str) -> bool:
    """Whether a dashboard is there; it may ask who we are."""
    try:
        with urllib.request.urlopen(address, timeout=30) as page:
            return b"Ray Dashboard" in page.read()
    except urllib.error.HTTPError as error:
        return error.code in (401, 403)
