"""What this machine has, without importing torch, and how trials are laid out on it."""

from __future__ import annotations

import functools
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

from cnnsearch.errors import RequestError
from cnnsearch.spec import RunSpec


@dataclass(frozen=True)
class Hardware:
    """The processors and memory this process may use."""

    cpu: str
    cores: int
    memory_bytes: int
    gpus: tuple[str, ...]

    @property
    def key(self) -> str:
        """Tells kinds of machine apart: timings and probes of one do not hold on another."""
        return f"{self.cpu}, {self.cores} cores" + "".join(f", {gpu}" for gpu in self.gpus)


@dataclass(frozen=True)
class Layout:
    """How trials share the machine. `threads` follows from the request alone, never from what else runs: it changes
    the rounding of a trial's numbers."""

    device: str
    """cpu or cuda."""
    trials_at_once: int
    threads: int
    """CPU threads of a trial."""
    gpus: float
    """GPUs of a trial; 0 on a CPU."""

    def describe(self, hardware: Hardware) -> str:
        """In words, for people."""
        many = f"{self.trials_at_once} trial{'s' * (self.trials_at_once > 1)} at a time"
        if self.device == "cuda":
            return f"{len(hardware.gpus)} × {hardware.gpus[0]}, {many}, {self.gpus:g} GPU each"
        cores = f"{hardware.cores} CPU core{'s' * (hardware.cores > 1)}"
        return f"{cores}, {many}, {self.threads} thread{'s' * (self.threads > 1)} each"


@functools.cache
def detect() -> Hardware:
    """Look at this machine once."""
    return Hardware(_cpu_name(), _cores(), _memory_bytes(), _gpus())


def lay_out(run: RunSpec, hardware: Hardware) -> Layout:
    """Fit the request to the machine: one thread a trial and a trial a core, unless told otherwise.

    For the small networks this is made for, two trials on a core each are faster than one on two cores.

    Raises RequestError where more is asked for than there is.
    """
    if run.device == "cuda" and not hardware.gpus:
        raise RequestError("run.device is cuda, and there is no GPU on this machine; allowed here: auto, cpu")
    threads = 1 if run.threads_per_trial == "auto" else run.threads_per_trial
    if threads > hardware.cores:
        raise RequestError(f"run.threads_per_trial is {threads}, and this machine has {hardware.cores} cores")
    device = "cuda" if hardware.gpus and run.device != "cpu" else "cpu"
    # One GPU or a part of one is no request: without any, device auto takes the CPU.
    if run.device != "cpu" and run.gpus_per_trial > max(1, len(hardware.gpus)):
        raise RequestError(f"run.gpus_per_trial is {run.gpus_per_trial:g}, and there are {len(hardware.gpus)} GPUs")
    if device == "cuda":
        room = max(1, min(int(len(hardware.gpus) / run.gpus_per_trial + 1e-9), hardware.cores // threads))
    else:
        room = hardware.cores // threads
    at_once = room if run.trials_at_once == "auto" else run.trials_at_once
    if at_once > room:
        raise RequestError(f"run.trials_at_once is {at_once}, and there is room for {room} here")
    return Layout(device, at_once, threads, run.gpus_per_trial if device == "cuda" else 0.0)


def oom_kills() -> int:
    """Processes of this machine that the kernel has killed for want of memory so far; 0 where it does not tell."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _cores() -> int:
    """Cores this process may run on: what containers and batch systems restrict is respected."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        if quota != "max":
            cores = min(cores, max(1, int(int(quota) / int(period))))
    except (OSError, ValueError):
        pass
    return cores


def _memory_bytes() -> int:
    total = psutil.virtual_memory().total
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        return total if limit == "max" else min(total, int(limit))
    except (OSError, ValueError):
        return total


def _gpus() -> tuple[str, ...]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if (visible is not None and visible.strip() in ("", "-1")) or shutil.which("nvidia-smi") is None:
        return ()
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    names = tuple(line.strip() for line in listed.splitlines() if line.strip())
    return names if visible is None else names[: len(visible.split(","))]
