"""Control flow only: stand-ins take the place of the GPU, and no kernel is recorded here."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from cnnsearch.data.dataset import Dataset
from cnnsearch.execution.machine import calibrate
from cnnsearch.spec.settings import Settings
from cnnsearch.training.compute import graphs
from cnnsearch.training.compute.device import reset_process
from cnnsearch.training.compute.graphs import WARM_UP_STEPS, ReplayedStep
from cnnsearch.training.models.build import initial_model
from cnnsearch.training.pixels import Pixels
from cnnsearch.training.train import TrainingState, train
from tests.training.test_train import numbers, same, settings


class StandIn:
    """Keeps work instead of recording it; on demand fails the way a layer does that waits for the GPU."""

    def __init__(self, log: list[str], *, fails: bool = False) -> None:
        self.log = log
        self.fails = fails

    def run(self, work: Callable[[], None]) -> None:
        self.log.append("run")
        work()

    def record(self, work: Callable[[], None]) -> Callable[[], object]:
        self.log.append("record")
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing")

        def replay() -> None:
            self.log.append("replay")
            work()

        return replay


def trained(
    dataset: Dataset, chosen: Settings, monkeypatch: pytest.MonkeyPatch, *, stops: tuple[int, ...] = (), **how: bool
) -> tuple[TrainingState, list[str]]:
    """Train with the stand-in, going on from a checkpoint after each epoch in `stops`; what it did, in order."""
    log: list[str] = []
    monkeypatch.setitem(graphs.RECORDERS, "cpu", lambda: StandIn(log, **how))
    reset_process(threads=1)
    pixels = Pixels.of(dataset, "cpu")
    state = TrainingState.start(initial_model(chosen, 2, "cpu"), chosen)
    for stop in (*stops, chosen.epochs):
        for row in train(state, pixels, chosen, precision="fp32"):
            if row.epoch == stop:
                break
        if stop < chosen.epochs:
            log.append("resume")
            saved = copy.deepcopy(state.state_dict())
            state = TrainingState.start(initial_model(chosen, 2, "cpu"), chosen)
            state.load_state_dict(saved)
    return state, log


def eager(dataset: Dataset, chosen: Settings) -> TrainingState:
    assert "cpu" not in graphs.RECORDERS
    reset_process(threads=1)
    state = TrainingState.start(initial_model(chosen, 2, "cpu"), chosen)
    list(train(state, Pixels.of(dataset, "cpu"), chosen, precision="fp32"))
    return state


def check_same(one: TrainingState, other: TrainingState) -> None:
    assert numbers(one.rows) == numbers(other.rows)
    assert same(dict(one.model.state_dict()), dict(other.model.state_dict()))
    assert same(one.best_weights, other.best_weights)
    a, b = one.optimizer.state_dict()["state"], other.optimizer.state_dict()["state"]
    assert a.keys() == b.keys()
    for key in a:
        assert same(a[key], b[key])


# 24 training images: an epoch is 4 full batches and one of 4, 2 and one of 4, 2 full ones, or one smaller one.
@pytest.mark.parametrize("batch_size", [5, 10, 12, 30])
@pytest.mark.parametrize("changes", [{}, {"dropout": 0.3}, {"optimizer": "adamw"}, {"optimizer": "sgd"}])
def test_numbers_are_those_of_the_plain_loop(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, batch_size: int, changes: dict[str, Any]
) -> None:
    chosen = settings(batch_size=batch_size, epochs=4, **changes)
    plain = eager(dataset, chosen)
    for fails in (False, True):
        replayed, log = trained(dataset, chosen, monkeypatch, fails=fails)
        check_same(replayed, plain)
        full = 4 * (24 // batch_size)
        assert log.count("record") == (full > WARM_UP_STEPS)
        assert log.count("replay") == (0 if fails else max(0, full - WARM_UP_STEPS))
        assert log.count("run") + log.count("replay") == 4 * -(-24 // batch_size)


def test_going_on_from_a_checkpoint_warms_up_again(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = settings(epochs=5, dropout=0.2)
    plain = eager(dataset, chosen)
    resumed, log = trained(dataset, chosen, monkeypatch, stops=(2, 3))
    check_same(resumed, plain)
    first = [*["run"] * 3, "record", "replay", "run"]
    again = [*["replay"] * 4, "run"]
    assert log == [*first, *again, "resume", *first, "resume", *first, *again]


def test_it_is_recorded_with_no_gradients() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([weight], fused=True)
    seen: list[bool] = []
    taken: list[list[int]] = []

    class Watching(StandIn):
        def record(self, work: Callable[[], None]) -> Callable[[], object]:
            seen.append(weight.grad is None)
            return super().record(work)

    def step(rows: Tensor) -> None:
        taken.append(rows.tolist())
        (weight[rows].sum()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    take_step = ReplayedStep(step, optimizer.zero_grad, 2, Watching([]))
    batches = [[0, 1], [1, 2], [2], [0, 2], [1, 0], [0], [2, 1]]
    for batch in batches:
        take_step(torch.tensor(batch))
    assert taken == batches
    assert seen == [True]


def test_a_failure_leaves_no_gradients_of_a_half_recorded_step() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], lr=1.0, fused=True)

    class Halfway(StandIn):
        def record(self, work: Callable[[], None]) -> Callable[[], object]:
            weight.grad = torch.full((3,), torch.nan)
            raise RuntimeError("halfway")

    def step(rows: Tensor) -> None:
        weight[rows].sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    take_step = ReplayedStep(step, optimizer.zero_grad, 1, Halfway([]))
    for _ in range(5):
        take_step(torch.tensor([0]))
    assert weight.tolist() == [-4.0, 1.0, 1.0]


def test_a_time_limit_is_not_taken_for_a_failure() -> None:
    class Interrupted(StandIn):
        def record(self, work: Callable[[], None]) -> Callable[[], object]:
            raise KeyboardInterrupt

    take_step = ReplayedStep(lambda rows: None, lambda: None, 1, Interrupted([]))
    for _ in range(WARM_UP_STEPS):
        take_step(torch.tensor([0]))
    with pytest.raises(KeyboardInterrupt):
        take_step(torch.tensor([0]))


def test_a_workload_is_timed_and_weighed_with_its_step_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    monkeypatch.setitem(graphs.RECORDERS, "cpu", lambda: StandIn(log))
    monkeypatch.setattr(calibrate, "LONGEST_SECONDS", 0.0)
    calibrate.measure(settings(), 2, "cpu", 1, "fp32")
    assert log == [*["run"] * 3, "record", "replay", "replay", "run"]


class FakeCuda:
    """Of `torch.cuda`, what recording asks for; ending a recording that was broken fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, free: int) -> None:
        self.stream = "default"
        self.generator = FakeGenerator()
        replaced = {
            "mem_get_info": lambda: (free, 100),
            "max_memory_reserved": lambda: 40,
            "CUDAGraph": lambda: FakeGraph(),
            "stream": self.on,
            "graph": self.recording,
            "default_generators": [self.generator],
            "current_device": lambda: 0,
        }
        for name, value in replaced.items():
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(graphs, "_side_stream", lambda: "side")
        monkeypatch.setattr(graphs, "_FAILED", [])

    @contextlib.contextmanager
    def on(self, stream: str) -> Iterator[None]:
        before, self.stream = self.stream, stream
        try:
            yield
        finally:
            self.stream = before

    @contextlib.contextmanager
    def recording(self, graph: FakeGraph, stream: str) -> Iterator[None]:
        self.stream = stream
        try:
            yield
        except ValueError:
            raise RuntimeError("operation failed due to a previous error during capture") from None
        self.stream = "default"


class FakeGraph:
    def replay(self) -> str:
        return "replayed"


class FakeGenerator:
    def __init__(self) -> None:
        self.state = self

    def clone_state(self) -> FakeGenerator:
        return FakeGenerator()

    def graphsafe_set_state(self, state: FakeGenerator) -> None:
        self.state = state


def test_recording_happens_on_a_stream_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, streams = FakeCuda(monkeypatch, free=50), []
    assert graphs.CudaRecorder().record(lambda: streams.append(cuda.stream))() == "replayed"
    assert (streams, cuda.stream) == (["side"], "default")


def test_after_a_failure_this_process_records_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda(monkeypatch, free=50)

    def broken() -> None:
        raise ValueError

    with pytest.raises(RuntimeError, match="previous error"):
        graphs.CudaRecorder().record(broken)
    assert cuda.stream == "default"
    assert cuda.generator.state is not cuda.generator
    with pytest.raises(RuntimeError, match="failed before"):
        graphs.CudaRecorder().record(lambda: None)


def test_what_would_take_more_memory_than_is_left_is_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeCuda(monkeypatch, free=39)
    with pytest.raises(RuntimeError, match="as much memory again"):
        graphs.CudaRecorder().record(lambda: None)
    assert graphs._FAILED == []


def test_nothing_is_recorded_on_a_cpu() -> None:
    assert graphs.RECORDERS.keys() == {"cuda"}
