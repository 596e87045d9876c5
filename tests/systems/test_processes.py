"""What is done with processes where a system cannot do it as Linux does."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from typing import Any

import psutil
import pytest

from cnnsearch import systems
from cnnsearch.systems import processes


def test_a_process_is_seen_until_it_is_killed() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], **processes.apart())
    assert processes.is_running(process.pid)
    assert os.getsid(process.pid) != os.getsid(0)
    process.send_signal(signal.SIGSTOP)
    processes.kill(process.pid)
    assert process.wait(30) == -signal.SIGKILL
    assert not processes.is_running(process.pid)
    processes.kill(process.pid)  # it is gone already


def test_windows_starts_a_group_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 512, raising=False)
    assert processes.apart() == {"creationflags": 512}


class RangError(Exception):
    """What the alarm raises."""


def ring() -> None:
    raise RangError


def test_an_alarm_rings_if_the_block_takes_too_long() -> None:
    with processes.alarm(60, ring):
        pass
    with pytest.raises(RangError), processes.alarm(0.05, ring):
        time.sleep(60)
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


@pytest.mark.parametrize("name", ["SIGALRM", "setitimer"])
def test_without_alarms_the_block_ends_by_itself(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(signal, name)
    with processes.alarm(0.01, ring):
        time.sleep(0.05)


def interrupted_soon() -> None:
    processes.interrupt_main()
    for _ in range(1000):
        time.sleep(0.01)


@pytest.mark.parametrize("has_it", [True, False])
def test_the_main_thread_is_interrupted(has_it: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_it:
        monkeypatch.delattr(signal, "pthread_kill")
    with pytest.raises(KeyboardInterrupt):
        interrupted_soon()


def test_memory_and_limits_where_there_is_no_module_resource(monkeypatch: pytest.MonkeyPatch) -> None:
    real, now = processes.peak_memory_bytes(), psutil.Process().memory_info().rss
    assert real >= 0.9 * now
    assert processes.limit("RLIMIT_NOFILE") is None or (processes.limit("RLIMIT_NOFILE") or 0) > 0
    monkeypatch.setattr(systems, "module", lambda name: None)
    assert 0.5 * now < processes.peak_memory_bytes() <= 1.1 * real
    assert processes.limit("RLIMIT_NOFILE") is None


def test_cores_and_niceness_where_the_system_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert processes.usable_cores() == len(os.sched_getaffinity(0))
    monkeypatch.delattr(psutil.Process, "cpu_affinity")
    monkeypatch.delattr(os, "nice")
    assert processes.usable_cores() == os.cpu_count()
    processes.be_nice(5)


@pytest.mark.parametrize("answers", [True, False])
def test_a_processor_of_apple_is_called_by_its_name(answers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **how: Any) -> subprocess.CompletedProcess[str]:
        if not answers:
            raise FileNotFoundError(command[0])
        return subprocess.CompletedProcess(command, 0, "Apple M2 Pro\n")

    assert processes.processor_name()
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    assert processes.processor_name() == ("Apple M2 Pro" if answers else "arm")
