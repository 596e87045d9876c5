"""How fast 3×3 convolutions of our own models are on this CPU, in bf16 and channels_last, on one thread.

    python -m benchmarks.convolutions                       image sizes 64 and 32, widths 1 and 0.25, batches 16 and 32
    python -m benchmarks.convolutions --sizes 32 --batches 16

Prints GFLOP/s of the forward pass, of the gradients of input and weight as autograd has oneDNN compute them, and of the
weight's gradient in blocks, whether or not `cnnsearch.training.compute.convolution` would take blocks for the shape.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from itertools import pairwise

import torch
from torch.nn import functional as F

from benchmarks.limit import matmul_rate
from cnnsearch.training.compute.convolution import MOST_AT_ONCE, gradients, weight_gradient
from cnnsearch.training.models.own import CHANNELS, scaled

SECONDS = 0.5
"""Spent on each shape at least, all ways in turn."""
LEAST_ROUNDS = 5


def main(arguments: list[str] | None = None) -> int:
    """Print the table."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--sizes", type=int, nargs="+", default=[64, 32], help="sides of the images, pixels")
    made.add_argument("--widths", type=float, nargs="+", default=[1.0, 0.25])
    made.add_argument("--batches", type=int, nargs="+", default=[16, 32])
    options = made.parse_args(arguments)
    torch.set_num_threads(1)
    print(f"a square matrix product: {matmul_rate() / 1e9:.0f} GFLOP/s\n")
    print("batch  side  before  after  forward  input  weight  in blocks")
    for batch in options.batches:
        for before, after, side in shapes(options.sizes, options.widths):
            rates = " ".join(f"{rate:7.0f}" for rate in measure(batch, before, after, side))
            chosen = "  <- used" if 9 * before * after > MOST_AT_ONCE else ""
            print(f"{batch:5} {side:5} {before:7} {after:6} {rates}{chosen}", flush=True)
    return 0


def shapes(sizes: Iterable[int], widths: Iterable[float]) -> list[tuple[int, int, int]]:
    """(channels before, channels after, side) of the layers after the stem; residual blocks have both kinds."""
    found = []
    for size in sizes:
        for width in widths:
            for before, after in pairwise(scaled(count, width) for count in CHANNELS):
                found += [(before, after, size // 2), (after, after, size // 2)]
    return list(dict.fromkeys(found))


def measure(batch: int, before: int, after: int, side: int) -> list[float]:
    """GFLOP/s of each way, the best of many turns."""
    x, grad, weight = (
        torch.randn(shape).bfloat16().to(memory_format=torch.channels_last)
        for shape in ((batch, before, side, side), (batch, after, side, side), (after, before, 3, 3))
    )
    ways: list[Callable[[], object]] = [
        lambda: F.conv2d(x, weight, padding=1),
        lambda: gradients(x, grad, weight, [True, False, False]),
        lambda: gradients(x, grad, weight, [False, True, True])[1].float(),  # what autograd hands to the fp32 weight
        lambda: weight_gradient(x, grad, weight.shape),
    ]
    best = [float("inf")] * len(ways)
    for way in ways:
        way()
    began, rounds = time.perf_counter(), 0
    while rounds < LEAST_ROUNDS or time.perf_counter() - began < SECONDS:
        for i, way in enumerate(ways):
            start = time.perf_counter()
            way()
            best[i] = min(best[i], time.perf_counter() - start)
        rounds += 1
    operations = 2 * batch * side * side * 9 * before * after
    return [operations / seconds / 1e9 for seconds in best]


if __name__ == "__main__":
    sys.exit(main())
