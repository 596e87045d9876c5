from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from cnnsearch.training.compute.layout import average

PAIRS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "average": (average, lambda x: x.mean(dim=(2, 3))),
}
some = st.integers(1, 70)


@pytest.mark.parametrize("name", list(PAIRS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), some, st.integers(1, 9), some, st.booleans())
def test_values_and_gradients_bit_for_bit(
    name: str, dtype: torch.dtype, batch: int, channels: int, height: int, width: int, last: bool
) -> None:
    torch.manual_seed(0)
    x = torch.randn(batch, channels, height, width).to(dtype)
    if last:
        x = x.to(memory_format=torch.channels_last)
    values, grads = [], []
    for function in PAIRS[name]:
        leaf = x.detach().requires_grad_()
        y = function(leaf)
        torch.manual_seed(1)
        grads.append(torch.autograd.grad(y, leaf, torch.randn(y.shape).to(dtype))[0])
        values.append(y)
    assert torch.equal(*values)
    assert torch.equal(*grads)
    if last:
        assert grads[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", list(PAIRS))
def test_there_is_no_gradient_where_none_is_asked_for(name: str) -> None:
    x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        assert not PAIRS[name][0](x).requires_grad
