"""Kinds of device that are not here: what is decided by their facts, and an epoch computed as they allow."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cnnsearch import run
from cnnsearch.data.dataset import Dataset
from cnnsearch.execution.record import is_out_of_memory
from cnnsearch.spec.settings import Settings
from cnnsearch.spec.sweep import Sweep
from cnnsearch.training.compute import device, device_kinds
from cnnsearch.training.compute.device import autocast, lent_process, probe_precision, reset_process, seed_draws
from cnnsearch.training.compute.device_kinds import DEVICES, Cpu, Cuda, Mps, Xpu, available, in_order
from cnnsearch.training.compute.graphs import RECORDERS
from cnnsearch.training.compute.optimizers import optimizer_of
from cnnsearch.training.evaluate import evaluate
from cnnsearch.training.features import Features
from cnnsearch.training.head_scores import HeadInputs, evaluate_heads
from cnnsearch.training.heads import HeadState, train_heads
from cnnsearch.training.models.build import initial_model
from cnnsearch.training.pixels import Pixels
from cnnsearch.training.train import TrainingState, train
from tests.training.test_train import numbers, settings


class UsualOrder(Cpu):
    """The processor with tensors in the order of an Apple GPU, which its kernels round differently."""

    memory_format = Mps.memory_format


class LikeMps(UsualOrder):
    """The processor with what an Apple GPU can do."""

    has_float64 = Mps.has_float64
    has_graphs = Mps.has_graphs
    has_fused_optimizers = False
    """Apple's has them in newer versions of torch: what is done without them is tried, too."""


@pytest.fixture
def like_mps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DEVICES, "cpu", LikeMps())


class NoFloat64(TorchDispatchMode):
    """Refuses what an Apple GPU refuses: a tensor in double precision."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if any(isinstance(one, Tensor) and one.dtype == torch.float64 for one in tree_leaves(found)):
            raise TypeError(f"{func} gives float64, which MPS does not support")
        return found


def test_double_precision_is_refused() -> None:
    with NoFloat64(), pytest.raises(TypeError, match="float64"):
        torch.zeros(2).double()


def epochs(dataset: Dataset, chosen: Settings) -> tuple[TrainingState, tuple[Any, ...], Any]:
    """Train and evaluate; the state, its numbers, and the probabilities of the test images."""
    reset_process(threads=1)
    pixels = Pixels.of(dataset, "cpu")
    state = TrainingState.start(initial_model(chosen, 2, "cpu"), chosen)
    rows = list(train(state, pixels, chosen, precision="fp32"))
    tested = evaluate(state.model, pixels, "test", precision="fp32", whole=True)
    return state, (*(x for row in numbers(rows) for x in row), tested.loss, tested.accuracy), tested.probabilities


RECIPES: tuple[dict[str, Any], ...] = (
    {},
    {"model": "plain", "optimizer": "sgd", "weight_decay": 0.01, "grad_clip": 1.0},
    {"optimizer": "adamw", "dropout": 0.2, "augment": "rand-5", "mixup": 0.2, "cutmix": 1.0, "ema": 0.9},
    {"optimizer": "rmsprop", "erasing": 0.5, "metric": "macro_f1", "loss": "focal", "class_weights": "balanced"},
)


@pytest.mark.parametrize("changes", RECIPES, ids=str)
def test_an_epoch_as_on_mps_is_one_of_a_cpu_up_to_rounding(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    chosen = settings(lr=1e-4, **changes)
    state, _, _ = epochs(dataset, chosen)
    assert not all(p.is_contiguous() for p in state.model.parameters()), "the CPU keeps weights in channels_last order"
    monkeypatch.setitem(DEVICES, "cpu", UsualOrder())
    _, expected, probabilities = epochs(dataset, chosen)
    monkeypatch.setitem(DEVICES, "cpu", LikeMps())
    with NoFloat64():
        state, found, others = epochs(dataset, chosen)
    assert all(p.is_contiguous() for p in state.model.parameters())
    # Adam steps by the sign of gradients that are nothing but rounding, as of biases before a normalisation.
    bound = 1e-2 if chosen.optimizer.startswith("adam") else 1e-5
    assert found == pytest.approx(expected, rel=bound)
    assert others == pytest.approx(probabilities, abs=bound)
    if chosen.has_fused_steps:
        steps = [one["step"] for one in state.optimizer.state_dict()["state"].values() if "step" in one]
        assert all(step.item() == 15 for step in steps), "three epochs of five batches"


def test_heads_as_on_mps_are_those_of_a_cpu_up_to_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    values, rows = torch.rand(60, 9, generator=torch.Generator().manual_seed(0)), torch.arange(60)
    features = HeadInputs(values, rows % 3, {"train": rows[:40], "val": rows[40:50], "test": rows[50:]})
    chosen = [settings(fine_tune="head", dropout=dropout) for dropout in (0.0, 0.3)]

    def trained() -> list[float]:
        states = [HeadState(one, torch.zeros(3, 9), torch.zeros(3)) for one in chosen]
        list(train_heads(features, states))
        weight, bias = torch.stack([s.weight for s in states]), torch.stack([s.bias for s in states])
        tested = evaluate_heads(features, "test", weight, bias)
        return [x for state in states for row in numbers(state.rows) for x in row] + [one.loss for one in tested]

    expected = trained()
    monkeypatch.setitem(DEVICES, "cpu", LikeMps())
    with NoFloat64():
        assert trained() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        ("stages.grid.space={lr: {grid: [0.01]}}",),
        ("train.fine_tune=head", "stages.grid.space={lr: {grid: [0.01, 0.02]}}"),
    ],
)
def test_a_sweep_as_on_mps(
    changes: tuple[str, ...], small_sweep: Callable[..., Sweep], like_mps: None, tmp_path: Path
) -> None:
    """Also what is recorded of a trial, and its predictions, are computed without double precision."""
    sweep = small_sweep("train.model=plain", *changes)
    sweep = sweep.model_copy(update={"stages": sweep.stages[:1]})
    with NoFloat64():
        tables = run(sweep, tmp_path, serial=True)
    assert set(tables.trials["status"]) == {"done"}
    assert tables.trials[["val_loss", "test_loss"]].notna().all(axis=None)


def test_going_on_from_a_checkpoint_without_fused_steps(dataset: Dataset, like_mps: None) -> None:
    chosen = settings()
    _, whole, _ = epochs(dataset, chosen)
    pixels = Pixels.of(dataset, "cpu")
    state = TrainingState.start(initial_model(chosen, 2, "cpu"), chosen)
    next(train(state, pixels, chosen, precision="fp32"))
    saved = copy.deepcopy(state.state_dict())
    resumed = TrainingState.start(initial_model(chosen, 2, "cpu"), chosen)
    resumed.load_state_dict(saved)
    list(train(resumed, pixels, chosen, precision="fp32"))
    assert tuple(x for row in numbers(resumed.rows) for x in row) == whole[:-2]


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_steps_that_are_not_fused_are_the_fused_ones_up_to_rounding(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def stepped() -> Tensor:
        torch.manual_seed(0)
        net = nn.Linear(5, 3)
        optimizer = optimizer_of(net, settings(optimizer=name, weight_decay=0.1))
        for _ in range(4):
            net(torch.ones(2, 5)).square().sum().backward()
            optimizer.step()
        return net.weight.detach()

    expected = stepped()
    monkeypatch.setitem(DEVICES, "cpu", LikeMps())
    torch.testing.assert_close(stepped(), expected)


def test_images_and_maps_are_in_the_order_that_a_device_takes_them_in(dataset: Dataset, like_mps: None) -> None:
    pixels = Pixels.of(dataset, "cpu")
    (images,), _ = pixels.batch(pixels.rows["train"])
    assert images.is_contiguous()
    maps = torch.rand(40, 2, 2, 4)
    (batch,), _ = Features((maps,), pixels.labels, pixels.rows).batch(torch.arange(3))
    assert batch.is_contiguous()
    assert torch.equal(batch, maps[:3].permute(0, 3, 1, 2))


def test_on_a_cpu_nothing_is_copied_into_order() -> None:
    images = torch.rand(2, 4, 4, 3).permute(0, 3, 1, 2)
    assert in_order(images) is images


@pytest.mark.parametrize(
    ("have", "first"),
    [(("cuda", "xpu", "mps"), "cuda"), (("xpu", "mps"), "xpu"), (("mps",), "mps"), ((), "cpu")],
)
def test_the_kind_to_take_first(have: tuple[str, ...], first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((torch.cuda, "cuda"), (torch.xpu, "xpu"), (torch.backends.mps, "mps")):
        monkeypatch.setattr(module, "is_available", lambda name=name: name in have)
    found = [one.name for one in available()]
    assert found == [*have, "cpu"]
    assert found[0] == first


def test_only_recorded_steps_go_without_the_cache_of_autocast() -> None:
    cached = {name: autocast(name, "fp32")._cache_enabled for name in DEVICES}
    assert cached == {"cuda": False, "xpu": True, "mps": True, "cpu": True}


def test_fused_optimizers_are_asked_of_torch() -> None:
    assert {name: one.has_fused_optimizers for name, one in DEVICES.items()} == dict.fromkeys(DEVICES, True)


def test_before_macos_14_there_is_no_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor: (major, minor) <= (13, 3))
    assert probe_precision("mps") == "fp32"
    assert not Mps().has_bf16()
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor: (major, minor) <= (15, 0))
    assert Mps().has_bf16()
    monkeypatch.setattr(torch.xpu, "is_bf16_supported", lambda: False)
    assert probe_precision("xpu") == "fp32"
    monkeypatch.delattr(torch.xpu, "is_bf16_supported")
    assert Xpu().has_bf16(), "torch before 2.7 does not say"


@contextlib.contextmanager
def recorded(monkeypatch: pytest.MonkeyPatch, module: Any, names: str) -> Iterator[list[str]]:
    """Put stand-ins that note their calls in the place of functions of torch, which have to be there."""
    calls: list[str] = []

    def note(name: str) -> Any:
        def call(*given: Any) -> Any:
            calls.append(" ".join([name, *map(str, given)]))
            return {"get_rng_state": "state", "get_rng_state_all": "states"}.get(name, 7)

        return call

    for name in names.split():
        monkeypatch.setattr(module, name, note(name))
    yield calls


def test_a_process_is_prepared_and_lent_on_mps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "available", lambda: [Mps(), Cpu()])
    names = "manual_seed empty_cache driver_allocated_memory get_rng_state set_rng_state recommended_max_memory"
    with recorded(monkeypatch, torch.mps, names) as calls:
        with lent_process():
            reset_process(threads=1)
            seed_draws(5, "mps")
        assert Mps().peak_memory_bytes() == 7
        assert calls == [
            "get_rng_state",
            "manual_seed 0",  # torch.manual_seed seeds it, too
            "empty_cache",
            "manual_seed 5",
            "set_rng_state state",
            "driver_allocated_memory",
        ]
        monkeypatch.setattr(torch.backends.mps, "get_name", lambda: "Apple M4", raising=False)
        assert Mps().gpus() == [("Apple M4", 7)]
        monkeypatch.delattr(torch.backends.mps, "get_name")
        assert Mps().gpus() == [("Apple GPU", 7)]


def test_a_process_is_prepared_and_lent_on_xpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "available", lambda: [Xpu(), Cpu()])
    names = "manual_seed empty_cache reset_peak_memory_stats max_memory_reserved get_rng_state_all set_rng_state_all"
    with recorded(monkeypatch, torch.xpu, names) as calls:
        with lent_process():
            reset_process(threads=1)
            seed_draws(5, "xpu")
        assert Xpu().peak_memory_bytes() == 7
        between = ["empty_cache", "reset_peak_memory_stats", "manual_seed 5"]
        assert calls == ["get_rng_state_all", *between, "set_rng_state_all states", "max_memory_reserved"]
    monkeypatch.setattr(torch.xpu, "device_count", lambda: 2)
    monkeypatch.setattr(torch.xpu, "get_device_properties", lambda index: SimpleNamespace(name="Arc", total_memory=9))
    assert Xpu().gpus() == [("Arc", 9), ("Arc", 9)]


def test_a_process_is_prepared_and_lent_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it was before there were other kinds; the settings are torch's own, put back in the end."""
    monkeypatch.setattr(device, "available", lambda: [Cuda(), Cpu()])
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    names = "manual_seed empty_cache reset_peak_memory_stats max_memory_reserved get_rng_state_all set_rng_state_all"
    with recorded(monkeypatch, torch.cuda, names) as calls:
        with lent_process():
            reset_process(threads=1)
            seed_draws(5, "cuda")
            assert torch.get_float32_matmul_precision() == "high"
            assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == (True, False)
        assert Cuda().peak_memory_bytes() == 7
        between = ["empty_cache", "reset_peak_memory_stats", "manual_seed 5"]
        assert calls == ["get_rng_state_all", *between, "set_rng_state_all states", "max_memory_reserved"]
    now = torch.get_float32_matmul_precision(), torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    assert now == before


@pytest.mark.parametrize(
    "message",
    [
        "MPS backend out of memory (MPS allocated: 1.00 GiB, other allocations: 2.00 GiB, max allowed: 3.00 GiB)",
        "Native API failed. Native API returns: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)",
        "CUDA out of memory. Tried to allocate 2.00 GiB",
    ],
)
def test_running_out_of_memory_is_told_from_other_errors(message: str) -> None:
    assert is_out_of_memory(RuntimeError(message))
    assert not is_out_of_memory(ValueError(message))


def test_a_gpu_evaluates_more_at_once_than_a_cpu() -> None:
    assert {one.evaluated_numbers for name, one in device_kinds.DEVICES.items() if name != "cpu"} == {4_000_000}
    assert DEVICES["cpu"].evaluated_numbers == 400_000


def test_what_records_steps_is_known_for_the_kinds_that_have_graphs() -> None:
    assert {name for name, one in DEVICES.items() if one.has_graphs} == RECORDERS.keys()
