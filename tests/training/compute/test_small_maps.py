from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import assume, given, settings, strategies as st
from torch import Tensor, nn

from cnnsearch.spec.settings import ResolvedPrecision, Settings
from cnnsearch.training.compute import small_maps
from cnnsearch.training.compute.convolution import has_amx
from cnnsearch.training.compute.device import autocast
from cnnsearch.training.compute.small_maps import SmallMapConv2d, for_small_maps, has_vectors
from cnnsearch.training.models.backbones import make

pytestmark = pytest.mark.usefixtures("one_thread")
needs_amx = pytest.mark.skipif(not has_amx(), reason="this CPU has no AMX: nothing is unfolded in bf16")
needs_vectors = pytest.mark.skipif(not has_vectors(), reason="this CPU has neither AVX2 nor AVX-512")
in_both = pytest.mark.parametrize(
    "precision", [pytest.param("bf16", marks=needs_amx), pytest.param("fp32", marks=needs_vectors)]
)
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
CLOSE = {"bf16": 2**-7, "fp32": 2e-6}
"""Relative to what fp64 gives."""
LAST = torch.channels_last


def layer(before: int, after: int, kernel: int, stride: int, padding: int, bias: bool = False) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(before, after, kernel, stride, padding, bias=bias).to(memory_format=LAST)


def computed(convolution: nn.Module, x: Tensor, precision: ResolvedPrecision) -> list[Tensor]:
    """Outputs, and gradients of input, weight and bias."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    with autocast("cpu", precision):
        y = convolution(x)
    torch.manual_seed(1)
    grad = torch.randn(y.shape).to(y.dtype).contiguous(memory_format=LAST)
    return [y, *torch.autograd.grad(y, [x, *convolution.parameters()], grad)]


def error(found: Tensor, exact: Tensor) -> float:
    return float((found.detach().double() - exact.detach().double()).norm() / exact.detach().double().norm())


sides = st.integers(1, 9)


@in_both
@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 7),
    st.sampled_from([32, 64]),
    st.sampled_from([32, 96]),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(0, 2),
    sides,
    sides,
    st.booleans(),
    st.booleans(),
)
def test_any_shape_gives_what_an_ordinary_convolution_gives(
    precision: ResolvedPrecision,
    batch: int,
    before: int,
    after: int,
    kernel: int,
    stride: int,
    padding: int,
    height: int,
    width: int,
    bias: bool,
    keeps_patches: bool,
) -> None:
    assume(padding < kernel <= min(height, width) + 2 * padding)
    assume(stride <= width)
    usual = layer(before, after, kernel, stride, padding, bias)
    x = torch.randn(batch, before, height, width).to(DTYPES[precision]).contiguous(memory_format=LAST)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(small_maps, "FEWEST_WEIGHTS", 0)
        patched.setattr(small_maps, "MOST_POSITIONS", dict.fromkeys(DTYPES.values(), 10_000))
        patched.setattr(small_maps, "MOST_KEPT", 10**9 if keeps_patches else 0)
        ours = SmallMapConv2d.of(usual)
        with autocast("cpu", precision):
            assert ours.gains(x)
        found = computed(ours, x, precision)
    exact = computed(copy.deepcopy(usual).double(), x.double(), "fp32")
    for one, plain in zip(found, exact, strict=True):
        assert one.shape == plain.shape
        assert error(one, plain) < CLOSE[precision]


@in_both
def test_a_layers_own_shape_is_the_same_but_for_single_bits(precision: ResolvedPrecision) -> None:
    usual = layer(512, 512, 3, 1, 1)
    x = torch.randn(16, 512, 4, 4).relu().to(DTYPES[precision]).contiguous(memory_format=LAST)
    ours = computed(SmallMapConv2d.of(usual), x, precision)
    for one, other in zip(ours, computed(usual, x, precision), strict=True):
        assert error(one, other) < {"bf16": 1e-4, "fp32": 2e-6}[precision]
        assert one.is_contiguous(memory_format=LAST)


@in_both
def test_only_where_it_gains_something(precision: ResolvedPrecision) -> None:
    channels = {"bf16": 256, "fp32": 384}[precision]
    wide = SmallMapConv2d.of(layer(channels, channels, 3, 1, 1))
    side = {"bf16": 8, "fp32": 4}[precision]
    most = 16_384 // side**2

    def some(batch: int, side: int, channels: int = channels) -> Tensor:
        return torch.randn(batch, channels, side, side).contiguous(memory_format=LAST)

    small = some(4, side)
    with autocast("cpu", precision):
        assert wide.gains(small)
        assert not wide.gains(small.contiguous())  # a copy would be made first
        assert not wide.gains(some(4, side + 1))
        assert wide.gains(some(most, side))
        assert not wide.gains(some(most + 1, side))
        with torch.no_grad():
            assert not wide.gains(small)
        narrow = SmallMapConv2d.of(layer(channels // 2, channels, 3, 1, 1))
        assert not narrow.gains(some(4, side, channels // 2))
    assert not wide.gains(some(4, 8))  # fp32
    assert not wide.gains(small.double())


@needs_vectors
def test_frozen_layers_in_fp32_stay_what_they_are_in_batches_of_any_size() -> None:
    wide = SmallMapConv2d.of(layer(512, 512, 3, 1, 1)).requires_grad_(False)
    assert not wide.gains(torch.randn(4, 512, 4, 4).contiguous(memory_format=LAST))


@needs_amx
def test_no_gradient_is_left_unset_where_a_map_is_narrower_than_the_stride() -> None:
    """oneDNN would leave what lies in memory, which is NaN here: in about one of three calls."""
    usual = layer(32, 64, 3, 2, 1)
    x = torch.randn(2, 32, 3, 1).bfloat16().contiguous(memory_format=LAST)
    exact = computed(usual, x.float(), "fp32")
    for _ in range(20):
        junk = [torch.full_like(usual.weight, float("nan"), dtype=torch.bfloat16) for _ in range(3)]
        del junk
        for one, plain in zip(computed(SmallMapConv2d.of(usual), x, "bf16"), exact, strict=True):
            assert error(one, plain) < 2**-7


def test_a_model_keeps_its_names_and_parameters() -> None:
    model = make("resnet18", Settings(model="resnet18"), 10)
    replaced = [name for name, module in model.named_modules() if isinstance(module, SmallMapConv2d)]
    assert "layer4.1.conv2" in replaced
    assert "layer2.0.downsample.0" in replaced  # for its stride
    assert "layer1.0.conv1" not in replaced
    from torchvision.models import resnet18

    theirs = resnet18(num_classes=10).state_dict()
    assert {n: v.shape for n, v in model.state_dict().items()} == {n: v.shape for n, v in theirs.items()}


def test_what_is_no_ordinary_convolution_stays() -> None:
    odd = [
        nn.Conv2d(512, 1024, 3, groups=2),
        nn.Conv2d(512, 512, 3, dilation=2),
        nn.Conv2d(512, 512, 3, padding="same"),
        nn.Conv2d(512, 512, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(500, 600, 3),
        nn.Conv2d(64, 64, 3),
    ]
    model = nn.Sequential(*odd)
    for_small_maps(model)
    assert list(model) == odd
