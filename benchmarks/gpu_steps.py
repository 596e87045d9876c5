"""What training steps of part 1's networks take on a GPU, on noise, in bf16; `benchmarks.gpu` runs this, too.

    python -m benchmarks.gpu_steps --width 0.25

Measured are: the best matrix product; a step with its kernels launched one by one, as a CUDA graph, and as a graph
whose convolutions need not repeat their bits (cuDNN's choice, which this project does not take); the kernels that take
longest; and convolutions of several trials together as groups of one, a trial's share beside one trial alone, which is
what training trials of one shape together would gain. A line of JSON comes last.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from unittest import mock

import torch
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils.benchmark import Timer

from benchmarks.limit import matmul_rate
from cnnsearch.execution.machine.hardware import detect
from cnnsearch.spec.settings import Settings
from cnnsearch.training.compute.device import reset_process
from cnnsearch.training.compute.graphs import RECORDERS, WARM_UP_STEPS
from cnnsearch.training.models.build import initial_model
from cnnsearch.training.pixels import Pixels
from cnnsearch.training.train import TrainingState, train

MODELS = ("plain", "residual")
STEPS = 50
"""Of an epoch in which steps are timed."""
SHARING = (1, 2, 4, 8)
"""Trials that share a GPU."""
TOGETHER = (1, 4, 8)
"""Trials whose convolutions are timed as groups of one."""
LONGEST = 12
"""Kernels told of."""


@dataclass(frozen=True)
class Measured:
    """See the module."""

    rate: float
    """Operations a second of a matrix product."""
    step_milliseconds: dict[str, dict[str, float]]
    """Model and batch size -> way -> milliseconds."""
    convolution_microseconds: dict[str, dict[str, float]]
    """Shape -> trials together -> microseconds of a convolution's outputs and gradients, of each trial."""
    kernel_microseconds: dict[str, dict[str, float]]
    """Model in batches of 16 -> kernel -> microseconds of a step; the longest."""


def main(arguments: list[str] | None = None) -> int:
    """0, or 2 where there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=float, default=1.0, help="factor on the channels (default: 1)")
    options = parser.parse_args(arguments)
    if not detect().gpus:
        print("error: there is no CUDA GPU here", file=sys.stderr)
        return 2
    found = measure(options.width, "cuda")
    print(*told(found), json.dumps(dataclasses.asdict(found)), sep="\n")
    return 0


def measure(width: float, device: str, image_size: int = 64) -> Measured:
    """All of it, in this process."""
    reset_process(threads=1)
    chosen = {
        f"{model}, batch {batch_size}": Settings(
            model=model, batch_size=batch_size, width=width, image_size=image_size, epochs=4, lr=1e-9
        )
        for model in MODELS
        for batch_size in (16, 32)
    }
    return Measured(
        matmul_rate(device),
        {name: step_milliseconds(settings, device) for name, settings in chosen.items()},
        convolution_microseconds(width, device, image_size // 2),
        {model: kernel_microseconds(chosen[f"{model}, batch 16"], device) for model in MODELS},
    )


def told(found: Measured) -> Iterator[str]:
    """In lines, for people."""
    yield f"best matrix product: {found.rate / 1e12:.1f} TFLOP/s"
    for name, ways in found.step_milliseconds.items():
        yield f"a step of {name}: " + ", ".join(f"{ms:.3f} ms {way}" for way, ms in ways.items())
    for shape, shares in found.convolution_microseconds.items():
        each = ", ".join(f"{us:.1f} µs with {trials} at once" for trials, us in shares.items())
        yield f"a trial's convolution of {shape}: {each}"
    for model, kernels in found.kernel_microseconds.items():
        yield f"kernels of a step of {model}:"
        yield from (f"  {us:8.1f} µs  {name[:90]}" for name, us in kernels.items())


def step_milliseconds(settings: Settings, device: str) -> dict[str, float]:
    """Way -> milliseconds of a training step."""
    with mock.patch.dict(RECORDERS, clear=True):
        launched = step_seconds(settings, device)
    replayed = step_seconds(settings, device)
    with torch.backends.cudnn.flags(enabled=True, deterministic=False):
        free = step_seconds(settings, device)
    ways = {"launched": launched, "as a graph": replayed, "as a graph that need not repeat": free}
    return {way: 1e3 * seconds for way, seconds in ways.items()}


def step_seconds(settings: Settings, device: str) -> float:
    """Seconds of a training step in the fastest epoch, on noise."""
    state, pixels = noise(settings, device)
    return min(row.seconds for row in train(state, pixels, settings, precision="bf16")) / STEPS


def kernel_microseconds(settings: Settings, device: str) -> dict[str, float]:
    """Kernel (on a CPU: operation) -> microseconds of a step in the second epoch, launched one by one; the longest."""
    state, pixels = noise(settings, device)
    with mock.patch.dict(RECORDERS, clear=True):
        epochs = train(state, pixels, settings, precision="bf16")
        next(epochs)
        # Both, since the profiler warns where it sees kernels without what launched them.
        with profile(activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * (device == "cuda")]) as profiled:
            next(epochs)
    found: dict[str, float] = {}
    for event in profiled.events():
        if event.device_type.name.lower() == device:
            found[event.name] = found.get(event.name, 0.0) + _own_microseconds(event, device) / STEPS
    return dict(sorted(found.items(), key=lambda one: -one[1])[:LONGEST])


def _own_microseconds(event: torch.autograd.profiler_util.FunctionEvent, device: str) -> float:
    return float(event.self_cpu_time_total if device == "cpu" else event.self_device_time_total)


def convolution_microseconds(width: float, device: str, side: int) -> dict[str, dict[str, float]]:
    """Shape -> trials together -> microseconds of each for outputs and both gradients, batch 16, in channels_last."""
    found: dict[str, dict[str, float]] = {}
    for before, after in ((round(64 * width), round(128 * width)), (round(512 * width), round(1024 * width))):
        name = f"{before} to {after} channels at {side}×{side}"
        found[name] = {}
        for trials in TOGETHER:
            shapes = (
                (16, trials * before, side, side),
                (trials * after, before, 3, 3),
                (16, trials * after, side, side),
            )
            x, weight, grad = (
                torch.randn(shape, device=device).bfloat16().contiguous(memory_format=torch.channels_last)
                for shape in shapes
            )
            x.requires_grad_()
            weight.requires_grad_()

            def work(
                x: torch.Tensor = x, weight: torch.Tensor = weight, grad: torch.Tensor = grad, groups: int = trials
            ) -> None:
                torch.autograd.grad(F.conv2d(x, weight, padding=1, groups=groups), (x, weight), grad)

            timer = Timer("run()", globals={"run": _recorded(work, device)})
            found[name][str(trials)] = 1e6 * timer.blocked_autorange(min_run_time=0.2).median / trials
    return found


def _recorded(work: Callable[[], None], device: str) -> Callable[[], object]:
    """As a graph, where there are any."""
    if device not in RECORDERS:
        return work
    recorder = RECORDERS[device]()
    for _ in range(WARM_UP_STEPS):
        recorder.run(work)
    return recorder.record(work)


def packed(
    width: float,
    device: str = "cuda",
    sharing: Sequence[int] = SHARING,
    seconds: float = 4.0,
    image_size: int = Settings().image_size,
) -> dict[int, float]:
    """Trials that share a GPU -> training steps a second of all of them, each `residual` in batches of 16.

    Args:
        width: factor on the channels.
        device: what they share.
        sharing: how many at a time.
        seconds: how long they are timed.
        image_size: side of the images, pixels.
    """
    found = {}
    context = multiprocessing.get_context("spawn")
    for trials in sharing:
        ready, asked = context.Barrier(trials), [(width, device, seconds, image_size)] * trials
        with context.Pool(trials, initializer=_share, initargs=(ready,)) as pool:
            found[trials] = sum(pool.starmap(_packed_rate, asked, chunksize=1))
    return found


def _share(ready: Barrier) -> None:
    global _READY
    _READY = ready


_READY: Barrier | None = None


def _packed_rate(width: float, device: str, seconds: float, image_size: int) -> float:
    """Steps a second of one trial, from when all are ready."""
    reset_process(threads=1)
    settings = Settings(model="residual", batch_size=16, width=width, epochs=100_000, lr=1e-9, image_size=image_size)
    state, pixels = noise(settings, device)
    epochs = train(state, pixels, settings, precision="bf16")
    for _ in range(2):
        next(epochs)
    assert _READY is not None
    _READY.wait(timeout=120)
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        next(epochs)
        done += STEPS
    return done / (time.perf_counter() - start)


def noise(settings: Settings, device: str) -> tuple[TrainingState, Pixels]:
    """A model and images for epochs of so many full batches."""
    rows = torch.arange(STEPS * settings.batch_size, device=device)
    shape = (len(rows), settings.image_size, settings.image_size, 3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    middle, spread = torch.full((3,), 127.5, device=device), torch.full((3,), 73.9, device=device)
    pixels = Pixels(images, rows % 10, {"train": rows, "val": rows[:1]}, middle, spread)
    return TrainingState.start(initial_model(settings, 10, device), settings), pixels


if __name__ == "__main__":
    sys.exit(main())
