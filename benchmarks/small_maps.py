"""How long layers of a ResNet take over small maps on this CPU, in channels_last, on one thread.

    python -m benchmarks.small_maps
    python -m benchmarks.small_maps --precision fp32 --batches 8 64

Prints milliseconds of a training step (outputs, both gradients) and of outputs alone, by oneDNN's convolution and as a
product over written-out patches, whether or not `training/compute/small_maps` would take the product for the shape.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from cnnsearch.spec.settings import ResolvedPrecision
from cnnsearch.training.compute import small_maps
from cnnsearch.training.compute.allocator import keep_memory
from cnnsearch.training.compute.device import autocast, probe_precision
from cnnsearch.training.compute.small_maps import SmallMapConv2d

SHAPES = (
    (512, 512, 3, 1, 2),
    (512, 512, 3, 1, 4),
    (512, 512, 3, 1, 7),
    (512, 512, 3, 1, 8),
    (256, 512, 3, 2, 8),
    (256, 512, 3, 2, 14),
    (256, 256, 3, 1, 4),
    (256, 256, 3, 1, 8),
    (256, 256, 3, 1, 14),
    (128, 256, 3, 2, 16),
    (128, 128, 3, 1, 4),
    (512, 2048, 1, 1, 4),
    (2048, 512, 1, 1, 7),
    (256, 1024, 1, 1, 8),
)
"""Channels before and after, kernel, stride, side of the input."""
ROUNDS = 12


def main(arguments: list[str] | None = None) -> int:
    """Print the table."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--batches", type=int, nargs="+", default=[16, 32])
    made.add_argument(
        "--precision", choices=["bf16", "fp32"], default=probe_precision("cpu"), help="the faster one here"
    )
    options = made.parse_args(arguments)
    torch.set_num_threads(1)
    keep_memory()
    print("before  after  kernel  stride  side  batch       training step              outputs alone")
    for shape in SHAPES:
        for batch in options.batches:
            told = _compared(shape, batch, options.precision)
            print(" ".join(f"{number:6}" for number in (*shape, batch)), *told, flush=True)
    return 0


def _compared(shape: tuple[int, int, int, int, int], batch: int, precision: ResolvedPrecision) -> list[str]:
    before, after, kernel, stride, side = shape
    layer = nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False).to(memory_format=torch.channels_last)
    ours = SmallMapConv2d.of(layer)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    x = torch.randn(batch, before, side, side, dtype=dtype).contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    told = []
    for trains in (True, False):
        with autocast("cpu", precision), torch.set_grad_enabled(trains):
            used = " <- used" if ours.gains(x) else ""
        usual, product = _seconds([functools.partial(_run, way, x, trains, precision) for way in (layer, ours)])
        told.append(f"{1e3 * usual:7.2f} {1e3 * product:6.2f} ms {usual / product:5.2f}×{used:8}")
    return told


def _run(layer: nn.Module, x: Tensor, trains: bool, precision: ResolvedPrecision) -> None:
    with autocast("cpu", precision), torch.set_grad_enabled(trains):
        y = layer(x)
    if trains:
        y.backward(torch.ones_like(y), inputs=[x, layer.weight])
        x.grad = layer.weight.grad = None


def _seconds(ways: list[Callable[[], None]]) -> list[float]:
    """Of each way, the best of some turns; with every shape as a product."""
    kept = small_maps.FEWEST_WEIGHTS, small_maps.MOST_POSITIONS, small_maps.MOST_ROWS
    small_maps.FEWEST_WEIGHTS, small_maps.MOST_ROWS = 0, 10**9
    small_maps.MOST_POSITIONS = dict.fromkeys(small_maps.MOST_POSITIONS, 10**9)
    try:
        best = [float("inf")] * len(ways)
        for _ in range(ROUNDS):
            for index, way in enumerate(ways):
                start = time.perf_counter()
                way()
                best[index] = min(best[index], time.perf_counter() - start)
        return best
    finally:
        small_maps.FEWEST_WEIGHTS, small_maps.MOST_POSITIONS, small_maps.MOST_ROWS = kept


if __name__ == "__main__":
    sys.exit(main())
