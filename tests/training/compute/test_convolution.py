from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from cnnsearch.spec.settings import Settings
from cnnsearch.training.compute import convolution
from cnnsearch.training.compute.convolution import Conv3x3, gradients, has_amx, weight_gradient
from cnnsearch.training.models import own
from cnnsearch.training.models.build import initial_model

pytestmark = pytest.mark.usefixtures("one_thread")
needs_amx = pytest.mark.skipif(not has_amx(), reason="this CPU has no AMX: nothing is computed in blocks")
CHANNELS_LAST = torch.channels_last


def inputs(batch: int, before: int, after: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """x, gradient of the output, weight: fp32."""
    torch.manual_seed(0)
    x = torch.randn(batch, before, height, width).relu().to(memory_format=CHANNELS_LAST)
    grad = torch.randn(batch, after, height, width).to(memory_format=CHANNELS_LAST)
    return x, grad, torch.randn(after, before, 3, 3).to(memory_format=CHANNELS_LAST)


def error(found: Tensor, exact: Tensor) -> float:
    return float((found.float() - exact).norm() / exact.norm())


channels, sides = st.integers(1, 80), st.integers(1, 13)


@needs_amx
@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), channels, channels, sides, sides, st.sampled_from([16, 24, 64]))
def test_blocks_give_the_bits_of_the_whole(batch: int, before: int, after: int, h: int, w: int, block: int) -> None:
    x, grad, weight = inputs(batch, before, after, h, w)
    _, whole, bias = gradients(x.bfloat16(), grad.bfloat16(), weight.bfloat16(), [False, True, True])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(convolution, "BLOCK", block)
        found, found_bias = weight_gradient(x.bfloat16(), grad.bfloat16(), weight.shape)
    assert torch.equal(found, whole.float())
    assert torch.equal(found_bias, bias.float())


@needs_amx
@pytest.mark.parametrize("shape", [(16, 512, 1024, 16, 16), (3, 1024, 1024, 8, 8), (1, 717, 717, 5, 7)])
def test_blocks_of_the_models_own_shapes(shape: tuple[int, int, int, int, int]) -> None:
    x, grad, weight = inputs(*shape)
    found, _ = weight_gradient(x.bfloat16(), grad.bfloat16(), weight.shape)
    assert torch.equal(
        found, gradients(x.bfloat16(), grad.bfloat16(), weight.bfloat16(), [False, True, True])[1].float()
    )
    exact = gradients(x.bfloat16().float(), grad.bfloat16().float(), weight, [False, True, True])[1]
    assert error(found, exact) < 2**-8  # a bf16 number's rounding


def small_blocks(patched: pytest.MonkeyPatch) -> list[int]:
    """Compute small layers in blocks as well; counts the layers that are."""
    seen: list[int] = []

    def counted(x: Tensor, grad: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
        seen.append(shape.numel())
        return weight_gradient(x, grad, shape)

    patched.setattr(convolution, "BLOCK", 32)
    patched.setattr(convolution, "MOST_AT_ONCE", 9 * 16 * 16)
    patched.setattr(convolution, "weight_gradient", counted)
    return seen


def steps(model: str, size: int, width: float, bf16: bool, **changes: Any) -> dict[str, Tensor]:
    """The state after three training steps."""
    chosen = Settings.model_validate({"model": model, "image_size": size, "width": width, **changes})
    net = initial_model(chosen, 8, "cpu").train()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    torch.manual_seed(0)
    for _ in range(3):
        images = torch.randn(5, size, size, 3).permute(0, 3, 1, 2)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = net(images)
        F.cross_entropy(logits.float(), torch.arange(5)).backward()
        optimizer.step()
        optimizer.zero_grad()
    return net.state_dict()


@pytest.mark.parametrize("bf16", [False, pytest.param(True, marks=needs_amx)])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize(("model", "size", "width"), [("plain", 16, 0.1), ("plain", 33, 0.07), ("residual", 17, 0.1)])
def test_training_is_that_of_ordinary_layers_bit_for_bit(
    model: str, size: int, width: float, dropout: float, bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = small_blocks(monkeypatch)
    ours = steps(model, size, width, bf16, dropout=dropout)
    assert bool(seen) == bf16
    monkeypatch.setattr(Conv3x3, "forward", nn.Conv2d.forward)
    monkeypatch.setattr(own, "average", lambda x: x.mean(dim=(2, 3)))
    ordinary = steps(model, size, width, bf16, dropout=dropout)
    assert ours.keys() == ordinary.keys()
    assert all(torch.equal(ours[name], ordinary[name]) for name in ours)


@needs_amx
def test_blocks_are_only_for_wide_layers_that_train_in_bf16_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = small_blocks(monkeypatch)
    x = torch.randn(2, 32, 6, 6).to(memory_format=CHANNELS_LAST)

    def blocks(layer: nn.Module, bf16: bool = True) -> int:
        seen.clear()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            y = layer(x)
        if y.requires_grad:
            y.float().sum().backward()
        return len(seen)

    wide = Conv3x3(32, 64).to(memory_format=CHANNELS_LAST)
    assert blocks(wide) == 1
    assert blocks(wide, bf16=False) == 0
    assert blocks(Conv3x3(32, 8).to(memory_format=CHANNELS_LAST)) == 0
    with torch.no_grad():
        assert blocks(wide) == 0
    torch.set_num_threads(2)
    assert blocks(wide) == 0
    torch.set_num_threads(1)
    assert blocks(wide.requires_grad_(False)) == 0


def test_same_parameters_and_initial_values_as_an_ordinary_convolution() -> None:
    torch.manual_seed(1)
    ours = Conv3x3(5, 7).state_dict()
    torch.manual_seed(1)
    ordinary = nn.Conv2d(5, 7, 3, padding=1).state_dict()
    assert ours.keys() == ordinary.keys()
    assert all(torch.equal(ours[name], ordinary[name]) for name in ours)
