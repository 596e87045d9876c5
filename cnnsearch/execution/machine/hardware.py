"""What this machine has, and how trials are laid out on it. Without torch."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from cnnsearch.errors import RequestError
from cnnsearch.execution.machine.gpus import nvidia_gpus, other_gpus, torch_may_have_others
from cnnsearch.spec.sweep import RunSpec
from cnnsearch.systems import processes

MEMORY_USED = 0.9
"""Share of the memory of a machine or GPU that a run is planned to take."""
DRIVER_BYTES = 900 * 1024**2
"""Memory of the command and of Ray's own processes on one machine."""
MOST_ON_A_GPU = 8
"""Most trials that share a GPU if the request does not say how many. A guess, not measured."""
CUDA_CONTEXT_BYTES = 600 * 10**6
"""GPU memory of a process beside its tensors: its CUDA context and the kernels of libraries."""
ALONE = frozenset({"mps"})
"""Kinds of GPU on which trials run one at a time: Apple's has the memory that all programs share, so that no measured
share of it is safe."""
GPU_PARTS = 10_000
"""Parts into which Ray divides a GPU when it counts shares of one."""
_UNITS = {"amx_tile": "AMX", "avx512f": "AVX-512", "avx2": "AVX2"}
"""Vector units of x86 by Linux's name for them, the widest first."""


@dataclass(frozen=True)
class Hardware:
    """The processors and memory this process may use."""

    cpu: str
    cores: int
    memory_bytes: int
    gpus: tuple[str, ...]
    gpu_memory_bytes: int = 0
    """Memory of the GPU that has the least; 0 if unknown, or without GPUs."""
    kind: str = "cuda"
    """What torch calls the GPUs: cuda, xpu or mps."""

    @property
    def device(self) -> str:
        """What torch calls what trials run on here, if the request leaves that open."""
        return self.kind if self.gpus else "cpu"

    @property
    def key(self) -> str:
        """Identifies a kind of machine: timings and probes of one kind do not hold for another."""
        return f"{self.cpu}, {self.cores} cores" + "".join(f", {gpu}" for gpu in self.gpus)


@dataclass(frozen=True)
class Layout:
    """How trials share the machine.

    `threads` follows from the request alone, never from what else runs, since it changes how a trial's numbers round.
    """

    device: str
    """cpu, cuda, xpu or mps."""
    trials_at_once: int
    threads: int
    """CPU threads of a trial."""
    gpus: float
    """GPUs of a trial; 0 on a CPU."""
    gpu_bytes: int = 0
    """Memory on its GPU that a trial was measured to take, if its share of the GPU follows from that."""
    host_bytes: int = 0
    """Memory that a trial was measured to take, if it limits how many trials run at once."""
    is_serial: bool = False
    """Whether trials run in the process of the command, without Ray."""

    def describe(self, hardware: Hardware) -> str:
        """The layout in words, for people."""
        many = f"{self.trials_at_once} trial{'s' * (self.trials_at_once > 1)} at a time"
        if self.gpus:
            each = f"{self.gpus:g} GPU each"
            each += f" ({self.gpu_bytes / 1e9:.1f} GB measured)" if self.gpu_bytes else ""
            return f"{len(hardware.gpus)} × {hardware.gpus[0]}, {many}, {each}"
        cores = f"{hardware.cores} CPU core{'s' * (hardware.cores > 1)}"
        why = f" ({self.host_bytes / 1e9:.1f} GB each measured: memory allows no more)" if self.host_bytes else ""
        return f"{cores}, {many}, {self.threads} thread{'s' * (self.threads > 1)} each{why}"


@functools.cache
def detect() -> Hardware:
    """What this machine has; looked up once."""
    gpus, kind = nvidia_gpus(), "cuda"
    if not gpus and torch_may_have_others():
        gpus, kind = other_gpus()
    names, least = tuple(name for name, _ in gpus), min((memory for _, memory in gpus), default=0)
    return Hardware(_cpu_name(), _cores(), _memory_bytes(), names, least, kind)


def lay_out(run: RunSpec, hardware: Hardware, gpu_bytes: int | None = None, host_bytes: int = 0) -> Layout:
    """Fit the request to the machine: one thread per trial and one trial per core, unless the request says otherwise.

    For small networks, two trials on one core each are faster than one trial on two cores.

    Args:
        run: the request.
        hardware: the machine.
        gpu_bytes: GPU memory that a trial's process takes beside its CUDA context. None if not measured yet: a trial
            then has a GPU to itself unless more trials are asked for.
        host_bytes: memory that a trial's process takes on a CPU; 0 if not measured yet. If one trial per core does not
            fit, fewer run at once; each keeps its threads, so that its numbers stay the same.

    Raises RequestError if more is asked for than there is.
    """
    if run.device not in ("auto", "cpu", hardware.device):
        there = f"the GPUs of this machine are {hardware.kind}" if hardware.gpus else "there is no GPU on this machine"
        allowed = ", ".join(dict.fromkeys(("auto", "cpu", hardware.device)))
        raise RequestError(f"run.device is {run.device}, and {there}; allowed here: {allowed}")
    threads = 1 if run.threads_per_trial == "auto" else run.threads_per_trial
    if threads > hardware.cores:
        raise RequestError(f"run.threads_per_trial is {threads}, and this machine has {hardware.cores} cores")
    device = "cpu" if run.device == "cpu" else hardware.device
    asked = 1.0 if run.gpus_per_trial == "auto" else run.gpus_per_trial
    # One GPU, or a part of one, does not have to exist: without GPUs, device auto takes the CPU.
    if run.device != "cpu" and asked > max(1, len(hardware.gpus)):
        raise RequestError(f"run.gpus_per_trial is {asked:g}, and there are {len(hardware.gpus)} GPUs")
    if device in ALONE and asked != 1:
        raise RequestError(
            f"run.gpus_per_trial is {asked:g}, and on {device} one trial runs at a time; allowed: 1, auto"
        )
    gpus, slots = 0.0, hardware.cores // threads
    if device != "cpu":
        if run.gpus_per_trial == "auto":
            asked = 1.0 if device in ALONE else 1 / _trials_on_a_gpu(run, hardware, threads, gpu_bytes)
        gpus = _countable(asked)
        slots = max(1, min(gpu_slots(len(hardware.gpus), gpus), hardware.cores // threads))
    at_once = slots if run.trials_at_once == "auto" else run.trials_at_once
    if at_once > slots:
        raise RequestError(f"run.trials_at_once is {at_once}, and there is room for {slots} here")
    if device != "cpu":
        return Layout(device, at_once, threads, gpus, (gpu_bytes or 0) if run.gpus_per_trial == "auto" else 0)
    if run.trials_at_once == "auto" and host_bytes:
        fitting = int((MEMORY_USED * hardware.memory_bytes - DRIVER_BYTES) / host_bytes)
        if fitting < at_once:
            return Layout(device, max(1, fitting), threads, 0.0, host_bytes=host_bytes)
    return Layout(device, at_once, threads, 0.0)


def lay_out_serially(run: RunSpec, hardware: Hardware, gpu_bytes: int | None = None, host_bytes: int = 0) -> Layout:
    """As `lay_out`, for trials that run one after another in this process."""
    return replace(lay_out(run, hardware, gpu_bytes, host_bytes), trials_at_once=1, host_bytes=0, is_serial=True)


def _trials_on_a_gpu(run: RunSpec, hardware: Hardware, threads: int, gpu_bytes: int | None) -> int:
    """Trials that share a GPU: as many as memory, cores and the request allow; one if a trial's memory is unknown."""
    asked = None if run.trials_at_once == "auto" else -(-run.trials_at_once // len(hardware.gpus))
    if gpu_bytes is None:
        fitting = asked or 1
    else:
        fitting = int(MEMORY_USED * hardware.gpu_memory_bytes / (gpu_bytes + CUDA_CONTEXT_BYTES))
    cores = hardware.cores // threads // len(hardware.gpus)
    return max(1, min(fitting, asked or MOST_ON_A_GPU, MOST_ON_A_GPU, cores))


def gpu_slots(gpus: float, share: float) -> int:
    """Trials that fit on this many GPUs at once, where each takes whole GPUs or a share of one."""
    return int(gpus / share) if share >= 1 else int(gpus) * int(1 / share + 1e-9)


def _countable(gpus: float) -> float:
    """Round a number of GPUs down so that n trials with 1/n GPU each fit on one in Ray's arithmetic, too."""
    return gpus if gpus >= 1 else max(1, int(gpus * GPU_PARTS + 1e-6)) / GPU_PARTS


def oom_kills() -> int:
    """Number of processes that this machine's kernel has killed for lack of memory; 0 if it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def _cpu_name(info: Path = Path("/proc/cpuinfo")) -> str:
    """The CPU's name and widest vector unit: rented machines of one name can differ in speed by a factor of six."""
    facts: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in info.read_text(encoding="utf-8").partition("\n\n")[0].splitlines():  # one core
            key, _, value = line.partition(":")
            facts[key.strip()] = " ".join(value.split())
    name = facts.get("model name") or processes.processor_name()
    flags = facts.get("flags", "").split()
    units = next((words for flag, words in _UNITS.items() if flag in flags), "")
    return f"{name} ({units})" if units else name


def _cores() -> int:
    """Cores that this process may use, within the limits of containers and batch systems."""
    cores = processes.usable_cores()
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
