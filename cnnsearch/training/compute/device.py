"""The state of a process that decides a trial's numbers: threads, precision, seeds. Set anew for every trial."""

from __future__ import annotations

import contextlib
import hashlib
import resource
import sys
import time
from collections.abc import Iterator

import psutil
import torch
from torch import Tensor, nn

from cnnsearch.spec.settings import ResolvedPrecision
from cnnsearch.training.compute.allocator import keep_memory

BF16_GAIN = 1.15
"""bf16 is chosen where a training step is at least this much faster than in fp32."""
_NUMBERS_A_THREAD = 2**16
"""So many of a tensor that torch gives them to a thread of their own."""


def derived_seed(purpose: str, *numbers: int) -> int:
    """A seed for one purpose, in [0, 2^63): a pure function of its arguments.

    Every draw of a trial comes from a generator seeded so, by trial seed and epoch. Hence a trial can go on from an
    epoch without any saved generator state, and trials of one seed see the same data order.
    """
    text = ":".join([purpose, *map(str, numbers)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def seed_draws(seed: int, device: str) -> None:
    """Seed what is drawn on a device, as `torch.manual_seed` does for all kinds of device, which takes a while."""
    torch.default_generator.manual_seed(seed)
    if device == "cuda":
        torch.cuda.manual_seed(seed)


def reset_process(threads: int) -> None:
    """Undo whatever an earlier trial in this process may have left behind.

    Args:
        threads: CPU threads of an operation. The rounding of sums depends on it, so it is part of what is recorded.
    """
    keep_memory()
    torch.set_num_threads(threads)
    if threads > 1:
        with flushing_denormals():
            torch.ones(threads * _NUMBERS_A_THREAD).add_(1)  # starts the threads, which stay
    torch.set_default_dtype(torch.float32)
    torch.set_grad_enabled(True)
    torch.manual_seed(0)
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")
        # A trial that goes on from a checkpoint is to end in the bits it would have had.
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


@contextlib.contextmanager
def flushing_denormals() -> Iterator[None]:
    """Have this thread, and those it starts, take numbers nearer to zero than 1e-38 for zero; on x86 and Arm.

    Where a gradient has become zero, since a unit is dead or all examples are learned, Adam's mean of it shrinks by a
    tenth a step and is such a number after some hundred. A CPU takes many times as long for each: an epoch was measured
    to take twice as long. They change nothing, since Adam's ε is 1e-8.
    """
    before = sys.float_info.min / 2 == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def autocast(device: str, precision: ResolvedPrecision) -> torch.autocast:
    """Matrix products and convolutions in `precision`; weights, statistics and losses stay fp32."""
    # A CUDA graph must not read a copy of a weight that was made outside of it.
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bf16", cache_enabled=device != "cuda")


def is_bf16_on_cpu(x: Tensor) -> bool:
    """Whether a layer computes in bf16 on a CPU what it is now given."""
    return (
        x.device.type == "cpu"
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
    )


def probe_precision(device: str) -> ResolvedPrecision:
    """Time a convolution's training step in both precisions on this device, on one thread; under a second.

    bf16 is several times faster on a CPU with AMX and several times slower on one without: measured, never assumed.
    On a GPU the layers are wide enough that computing takes longer than launching.
    """
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
    narrow, side = (64, 16) if device == "cpu" else (512, 32)
    wide = 2 * narrow
    net = nn.Sequential(nn.Conv2d(narrow, wide, 3, padding=1), nn.ReLU(), nn.Conv2d(wide, narrow, 3, padding=1))
    net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.zeros(16, narrow, side, side, device=device).to(memory_format=torch.channels_last)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        with autocast(device, precision):
            loss = net(images).float().square().mean()
        loss.backward()
        loss.item()
        times.append(time.perf_counter() - start)
    return min(times)


def peak_memory_bytes(device: str) -> int:
    """Most memory used so far: of this process on a CPU (shared pages included), of the device's allocator on a GPU."""
    if device == "cuda":
        return int(torch.cuda.max_memory_reserved())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def shared_memory_bytes() -> int:
    """Of this process's memory, what others that do the same share with it: pages of files. 0 where it is not known."""
    return int(getattr(psutil.Process().memory_info(), "shared", 0))
