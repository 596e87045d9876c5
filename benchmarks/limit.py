"""The least time a sweep could take: its multiplications left after exact reuse, at the rate of a matrix product."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cnnsearch.spec.settings import Settings
from cnnsearch.training.models.backbones import make
from cnnsearch.training.models.build import build
from cnnsearch.training.models.cut import cut, freeze

COUNTED_IMAGES = 2


def flops(trials: Iterable[Settings], images: Mapping[str, int], classes: int) -> float:
    """Floating-point operations of trials, two a multiply-add: every step forward and backward, every evaluation of
    the validation images after an epoch, and one of the test images. Frozen layers are counted once an image.

    Args:
        images: split -> images in it.
    """
    known: dict[tuple[object, ...], tuple[float, float, float]] = {}
    frozen_done: set[tuple[object, ...]] = set()
    total = 0.0
    for s in trials:
        key = (s.model, s.width, s.fine_tune, s.image_size)
        if key not in known:
            known[key] = image_flops(s, classes)
        frozen, evaluated, trained = known[key]
        if key not in frozen_done:
            total += frozen * sum(images.values())
            frozen_done.add(key)
        total += s.epochs * (images["train"] * trained + images["val"] * evaluated) + images["test"] * evaluated
    return total


def image_flops(settings: Settings, classes: int) -> tuple[float, float, float]:
    """Of one image: frozen layers, then evaluating and training what follows them."""
    size = settings.image_size
    if settings.fine_tune == "full":
        with torch.device("meta"):
            return 0.0, *_count(build(settings, classes), [torch.empty(COUNTED_IMAGES, 3, size, size)])
    frozen = freeze(make(settings.model, settings, classes).eval(), settings.fine_tune, classes)
    halves = cut(frozen, size)
    if halves is None:
        raise ValueError(f"nothing of {settings.model} is frozen with {settings.fine_tune}")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        crossing = halves.prefix(torch.zeros(COUNTED_IMAGES, 3, size, size))
    return counter.get_total_flops() / COUNTED_IMAGES, *_count(halves.suffix, crossing)


def _count(model: nn.Module, inputs: Sequence[Tensor]) -> tuple[float, float]:
    with FlopCounterMode(display=False) as counter:
        logits = model(*inputs)
        evaluated = counter.get_total_flops()
        logits.sum().backward()
    return evaluated / COUNTED_IMAGES, counter.get_total_flops() / COUNTED_IMAGES


def matmul_rate(device: str = "cpu") -> float:
    """Floating-point operations a second of the best of a few square products, bf16 and fp32, on all cores."""
    best = 0.0
    for dtype in (torch.float32, torch.bfloat16):
        for n in (1024, 2048, 4096) if device == "cpu" else (4096, 8192):
            a, b = (torch.randn(n, n).to(device, dtype) for _ in range(2))
            for _ in range(6):
                start = time.perf_counter()
                (a @ b)[0, 0].item()  # waits for a GPU
                rate = 2 * n**3 / (time.perf_counter() - start)
                best = max(best, rate)
            if rate < best / 4:
                break  # a processor without bf16 takes minutes for the larger ones
    return best
