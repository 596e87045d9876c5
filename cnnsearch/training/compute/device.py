"""The state of a process that affects a trial's numbers: threads, precision, seeds. Set anew for every trial."""

from __future__ import annotations

import contextlib
import hashlib
import sys
import time
from collections.abc import Iterator

import psutil
import torch
from torch import Tensor, nn

from cnnsearch.spec.settings import ResolvedPrecision
from cnnsearch.training.compute.allocator import keep_memory
from cnnsearch.training.compute.device_kinds import DEVICES, available

BF16_GAIN = 1.15
"""bf16 is chosen if a training step in fp32 takes more than this many times as long."""
_NUMBERS_A_THREAD = 2**16
"""Elements per thread of a tensor large enough for torch to use all threads on it."""


def derived_seed(purpose: str, *numbers: int) -> int:
    """Return a seed in [0, 2^63) for one purpose: a pure function of its arguments.

    Every draw of a trial comes from a generator with such a seed, made of the trial's seed and the epoch. Hence a trial
    can go on from an epoch without saved generator state, and trials of one seed see the same data order.

    Args:
        purpose: what is drawn, such as "order" or "dropout".
        numbers: what it depends on, such as the trial's seed and the epoch.
    """
    text = ":".join([purpose, *map(str, numbers)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def seed_draws(seed: int, device: str) -> None:
    """Seed the generators of a device. `torch.manual_seed` seeds all kinds of device, which takes longer."""
    torch.default_generator.manual_seed(seed)
    if device != "cpu":
        DEVICES[device].seed(seed)


def reset_process(threads: int) -> None:
    """Undo whatever an earlier trial in this process may have left behind.

    Args:
        threads: CPU threads for one operation. The rounding of sums depends on it, so records contain it.
    """
    keep_memory()
    torch.set_num_threads(threads)
    if threads > 1:
        with flushing_denormals():
            torch.ones(threads * _NUMBERS_A_THREAD).add_(1)  # starts the threads, which stay and keep this setting
    torch.set_default_dtype(torch.float32)
    torch.set_grad_enabled(True)
    torch.manual_seed(0)
    for device in available():
        device.prepare()


@contextlib.contextmanager
def lent_process() -> Iterator[None]:
    """Put back, after the block, the state of torch that `reset_process` sets and that trials change."""
    threads, dtype, has_gradients = torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()
    with contextlib.ExitStack() as stack:
        for device in available():
            stack.enter_context(device.lent())
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.set_default_dtype(dtype)
            torch.set_grad_enabled(has_gradients)


@contextlib.contextmanager
def flushing_denormals() -> Iterator[None]:
    """Make this thread, and those it starts, treat numbers nearer to zero than 1e-38 as zero; on x86 and Arm.

    If a gradient has become zero, because a unit is dead or all examples are learned, Adam's mean of it shrinks by a
    tenth at each step and is such a number after some hundred steps. A CPU takes many times as long for each of them:
    an epoch was measured to take twice as long. They make no difference to training, since Adam's ε is 1e-8.
    """
    before = sys.float_info.min / 2 == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def autocast(device: str, precision: ResolvedPrecision) -> torch.autocast:
    """Return a context that computes matrix products and convolutions in `precision`; the rest stays fp32.

    Weights, statistics and losses are fp32 in either precision.
    """
    # No cache where steps are recorded: a graph must not read a copy of a weight that was made outside the graph.
    is_cached = not DEVICES[device].has_graphs
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bf16", cache_enabled=is_cached)


def is_bf16_on_cpu(x: Tensor) -> bool:
    """Whether a layer that is given `x` now computes in bf16 on a CPU."""
    return (
        x.device.type == "cpu"
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
    )


def probe_precision(device: str) -> ResolvedPrecision:
    """Choose a precision by timing training steps of two convolutions in both, on one thread; under a second.

    bf16 is several times faster on a CPU with AMX, and several times slower on one without, so it is measured. For a
    GPU the layers are wide enough that computing takes longer than launching kernels.

    Args:
        device: cpu, cuda, xpu or mps.
    """
    if not DEVICES[device].has_bf16():
        return "fp32"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = {precision: _probe_step(device, precision) for precision in ("fp32", "bf16")}
    except RuntimeError:
        return "fp32"
    finally:
        torch.set_num_threads(threads)
    return "bf16" if seconds["fp32"] > BF16_GAIN * seconds["bf16"] else "fp32"


def _probe_step(device: str, precision: ResolvedPrecision) -> float:
    facts = DEVICES[device]
    narrow, side = facts.probe_width, facts.probe_side
    wide = 2 * narrow
    net = nn.Sequential(nn.Conv2d(narrow, wide, 3, padding=1), nn.ReLU(), nn.Conv2d(wide, narrow, 3, padding=1))
    net.to(device, memory_format=facts.memory_format)  # type: ignore[call-overload]
    images = torch.zeros(16, narrow, side, side, device=device).to(memory_format=facts.memory_format)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        with autocast(device, precision):
            loss = net(images).float().square().mean()
        loss.backward()
        loss.item()
        times.append(time.perf_counter() - start)
    return min(times)


def shared_memory_bytes() -> int:
    """Return how much of this process's memory is pages of files, which similar processes share; 0 if unknown."""
    return int(getattr(psutil.Process().memory_info(), "shared", 0))
