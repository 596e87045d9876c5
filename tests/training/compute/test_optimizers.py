from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cnnsearch.spec.settings import Settings
from cnnsearch.training.compute.optimizers import UPDATES, FusedOptimizer

TORCHS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": partial(torch.optim.SGD, momentum=0.9),
}
KINDS = list(UPDATES)


def net() -> nn.Module:
    """Its first weight has the same shape in both orders of memory: [4, 3, 3, 3]."""
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 6, 1), nn.Flatten(), nn.Linear(6 * 16, 2)
    )
    return layers.to(memory_format=torch.channels_last)


def chosen(kind: str) -> Settings:
    return Settings.model_validate({"optimizer": kind, "lr": 0.01, "weight_decay": 0.1})


def gradients(model: nn.Module, number: int) -> None:
    torch.manual_seed(number)
    model(torch.randn(5, 3, 6, 6).contiguous(memory_format=torch.channels_last)).square().mean().backward()


def usual(kind: str, steps: int) -> tuple[nn.Module, dict[str, Any]]:
    """A torch optimizer of the model's own parameters."""
    model = net()
    optimizer = TORCHS[kind](model.parameters(), lr=0.01, weight_decay=0.1, fused=True)
    for number in range(steps):
        gradients(model, number)
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer.state_dict()


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_and_state_are_those_of_torchs_optimizer(kind: str) -> None:
    model = net()
    optimizer = FusedOptimizer(model.parameters(), chosen(kind))
    assert sum(view is not own for view, own in zip(optimizer.stepped, model.parameters(), strict=True)) == 2
    for number in range(3):
        gradients(model, number)
        optimizer.step()
    expected, state = usual(kind, 3)
    assert same(model.state_dict(), expected.state_dict())
    assert same(optimizer.state_dict()["state"], state["state"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_parameter_without_a_gradient_stays_as_it_is(kind: str) -> None:
    model = net()
    before = copy.deepcopy(model.state_dict())
    optimizer = FusedOptimizer(model.parameters(), chosen(kind))
    gradients(model, 0)
    optimizer.stepped[4].grad = None
    optimizer.step()
    assert [same(before[name], value) for name, value in model.named_parameters()] == [i == 4 for i in range(8)]
    assert optimizer.state_dict()["state"].keys() == {0, 1, 2, 3, 5, 6, 7}


def test_a_state_that_was_taken_stays_as_it_was() -> None:
    """A checkpoint may be gone back to twice."""
    state = usual("adam", 2)[1]
    ends = []
    for _ in range(2):
        model = net()
        optimizer = FusedOptimizer(model.parameters(), chosen("adam"))
        optimizer.load_state_dict(state)
        gradients(model, 2)
        optimizer.step()
        ends.append(model.state_dict())
    assert same(*ends)


def test_the_compiler_is_not_imported() -> None:
    """It takes two seconds."""
    code = (
        "import sys, tests.training.compute.test_optimizers as t; t.steps(); assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def steps() -> None:
    """One step of each optimizer."""
    for kind in KINDS:
        model = net()
        gradients(model, 0)
        FusedOptimizer(model.parameters(), chosen(kind)).step()


@pytest.mark.parametrize("kind", KINDS)
def test_goes_on_from_the_state_of_either(kind: str) -> None:
    """Also from checkpoints of versions that stepped the model's own parameters."""
    half, state = usual(kind, 2)
    model = net()
    optimizer = FusedOptimizer(model.parameters(), chosen(kind))
    model.load_state_dict(half.state_dict())
    optimizer.load_state_dict(copy.deepcopy(state))
    gradients(model, 2)
    optimizer.step()
    assert same(model.state_dict(), usual(kind, 3)[0].state_dict())


def test_nothing_is_left_of_a_steps_gradients() -> None:
    model = net()
    optimizer = FusedOptimizer(model.parameters(), chosen("sgd"))
    gradients(model, 0)
    assert all(view.grad is not None for view in optimizer.stepped)
    optimizer.step()
    assert all(p.grad is None for p in (*optimizer.stepped, *model.parameters()))


def test_the_learning_rate_is_that_of_the_next_step_and_not_of_a_state() -> None:
    model = net()
    optimizer = FusedOptimizer(model.parameters(), chosen("sgd"))
    optimizer.set_lr(0.5)
    optimizer.load_state_dict(usual("sgd", 1)[1])
    assert optimizer.lr == 0.5
