from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from cnnsearch.training.compute.linear import LongLinear


def through(layer: nn.Linear, x: torch.Tensor, bf16: bool) -> list[torch.Tensor]:
    """The output, and the gradients of input, weight and bias."""
    leaf = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        y = layer(leaf)
    torch.manual_seed(1)
    found = torch.autograd.grad(y.float(), [leaf, *layer.parameters()], torch.randn(y.shape))
    return [y, *found]


def both(batch: int, features: int) -> tuple[LongLinear, nn.Linear, torch.Tensor]:
    torch.manual_seed(0)
    ours = LongLinear(features, 10)
    torch.manual_seed(0)
    ordinary = nn.Linear(features, 10)
    return ours, ordinary, torch.randn(batch, features)


@pytest.mark.parametrize(("batch", "features"), [(4, 33_000), (3, 50_000), (1, 200_001)])
def test_in_bf16_it_is_an_ordinary_layer_within_rounding(batch: int, features: int) -> None:
    ours, ordinary, x = both(batch, features)
    for mine, theirs in zip(through(ours, x, True), through(ordinary, x, True), strict=True):
        torch.testing.assert_close(mine.float(), theirs.float(), rtol=0.02, atol=0.01)


@pytest.mark.parametrize(("batch", "features", "bf16"), [(4, 33_000, False), (4, 32_768, True), (130, 33_000, True)])
def test_elsewhere_it_is_an_ordinary_layer_bit_for_bit(batch: int, features: int, bf16: bool) -> None:
    ours, ordinary, x = both(batch, features)
    assert all(torch.equal(*pair) for pair in zip(through(ours, x, bf16), through(ordinary, x, bf16), strict=True))


@pytest.mark.parametrize(("batch", "features"), [(6, 262_144), (3, 524_288), (16, 98_304), (24, 65_536), (8, 196_608)])
@pytest.mark.after
def test_what_ends_a_process_in_onednn_does_not_here(batch: int, features: int) -> None:
    code = f"""
import torch
from cnnsearch.training.compute.linear import LongLinear
torch.set_num_threads(1)
with torch.autocast("cpu", torch.bfloat16):
    y = LongLinear({features}, 2)(torch.zeros({batch}, {features}, requires_grad=True))
y.float().sum().backward()
"""
    subprocess.run([sys.executable, "-c", code], check=True)
