from __future__ import annotations

import numpy as np
import pytest
import torch

from cnnsearch.training.compute.device_kinds import DEVICES, Cpu
from cnnsearch.training.compute.totals import Total


class Single(Cpu):
    """A processor without double precision."""

    has_float64 = False


@pytest.fixture(params=["double", "single"])
def total(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[Total]:
    if request.param == "single":
        monkeypatch.setitem(DEVICES, "cpu", Single())
    return Total


def test_single_numbers_are_summed_one_after_another_in_float64(total: type[Total]) -> None:
    numbers = torch.rand(1000, generator=torch.Generator().manual_seed(0)) * 1e5
    found = total("cpu")
    for _ in range(2):
        found.clear()
        for number in numbers:
            found.add(number)
        assert found.value.item() == sum(numbers.tolist()), "to the bit"


def test_sums_of_several_trials(total: type[Total]) -> None:
    found = total("cpu", 3)
    assert found.value.tolist() == [0, 0, 0]
    parts = [torch.rand(3, n, generator=torch.Generator().manual_seed(n)) for n in (5, 1, 700)]
    for part in parts:
        found.add(part)
    expected = np.concatenate([part.numpy().astype(np.float64) for part in parts], axis=1).sum(axis=1)
    np.testing.assert_allclose(found.value, expected, rtol=1e-14)
    value = found.value
    found.clear()
    assert value.any(), "it is a copy"
    assert not found.value.any()
