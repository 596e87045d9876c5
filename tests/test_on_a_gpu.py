"""What stand-ins cannot show: real kernels, graphs and memory. Skipped without a CUDA GPU."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from cnnsearch.data.dataset import Dataset
from cnnsearch.execution.events import Event, Started
from cnnsearch.execution.record import is_out_of_memory
from cnnsearch.planning import queue as job_queue
from cnnsearch.prepare import prepared
from cnnsearch.session import execute
from cnnsearch.spec.load import load_sweep
from cnnsearch.spec.settings import ResolvedPrecision, Settings
from cnnsearch.spec.sweep import Sweep
from cnnsearch.training.compute import graphs
from cnnsearch.training.compute.device import probe_precision, reset_process
from cnnsearch.training.models.build import initial_model
from cnnsearch.training.pixels import Pixels
from cnnsearch.training.train import TrainingState, train
from tests.faults.running import workers
from tests.recorded import numbers as recorded_numbers
from tests.training.test_train import numbers, same

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    pytest.mark.timeout(300),
]
KINDS: tuple[dict[str, Any], ...] = (
    {},
    {"model": "plain"},
    {"model": "resnet18", "width": 1.0},
    {"dropout": 0.3},
    {"optimizer": "adamw", "weight_decay": 0.1},
    {"optimizer": "sgd"},
    {"lr_schedule": "cosine", "warmup_epochs": 1},
    {"augment": "flip+crop"},
    {"augment": "rand-5"},
    {"class_weights": "balanced", "label_smoothing": 0.1},
)


def settings(**changes: Any) -> Settings:
    """24 training images in batches of 5: an epoch is four full batches and one of 4."""
    small = {"model": "residual", "image_size": 8, "width": 0.25, "epochs": 4, "batch_size": 5, "lr": 1e-3}
    return Settings.model_validate({**small, **changes})


def start(chosen: Settings) -> TrainingState:
    reset_process(threads=1)
    return TrainingState.start(initial_model(chosen, 2, "cuda"), chosen)


def trained(dataset: Dataset, chosen: Settings, precision: ResolvedPrecision = "bf16") -> TrainingState:
    state = start(chosen)
    list(train(state, Pixels.of(dataset, "cuda"), chosen, precision=precision))
    return state


def is_same(one: TrainingState, other: TrainingState) -> bool:
    rows = numbers(one.rows) == numbers(other.rows)
    return rows and same(dict(one.model.state_dict()), dict(other.model.state_dict()))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("changes", KINDS, ids=str)
def test_a_replayed_step_is_the_launched_one_bit_for_bit(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], precision: ResolvedPrecision
) -> None:
    recorded: list[bool] = []

    class Watched(graphs.CudaRecorder):
        def record(self, work: Callable[[], None]) -> Callable[[], object]:
            found = super().record(work)
            recorded.append(True)
            return found

    monkeypatch.setitem(graphs.RECORDERS, "cuda", Watched)
    replayed = trained(dataset, settings(**changes), precision)
    assert recorded == [True]
    monkeypatch.delitem(graphs.RECORDERS, "cuda")
    assert is_same(replayed, trained(dataset, settings(**changes), precision))
    assert recorded == [True]


@pytest.mark.parametrize("changes", KINDS, ids=str)
def test_going_on_from_a_checkpoint_changes_nothing(dataset: Dataset, changes: dict[str, Any]) -> None:
    chosen = settings(**changes)
    state = start(chosen)
    for row in train(state, Pixels.of(dataset, "cuda"), chosen, precision="bf16"):
        if row.epoch == 2:
            break
    file = io.BytesIO()
    torch.save(state.state_dict(), file)
    file.seek(0)
    resumed = start(chosen)
    resumed.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    list(train(resumed, Pixels.of(dataset, "cuda"), chosen, precision="bf16"))
    whole = trained(dataset, chosen)
    assert is_same(resumed, whole)
    assert whole.best is not None
    best = {name: value.cpu() for name, value in whole.best_weights.items()}
    assert same(best, {name: value.cpu() for name, value in resumed.best_weights.items()})


@pytest.mark.parametrize("model", ["plain", "residual"])
def test_loss_and_gradients_of_a_step_are_those_of_a_cpu(dataset: Dataset, model: str) -> None:
    """In fp64, where rounding turns no ReLU on or off; then the loss in both precisions that trials compute in."""
    chosen = settings(model=model, batch_size=24)
    found = {}
    for device in ("cpu", "cuda"):
        pixels = Pixels.of(dataset, device)
        (images,), labels = pixels.batch(pixels.rows["train"])
        net = initial_model(chosen, 2, device).train()
        exact = copy.deepcopy(net).double()
        F.cross_entropy(exact(images.double()), labels).backward()
        gradients = {name: p.grad.cpu() for name, p in exact.named_parameters() if p.grad is not None}
        losses = []
        for enabled in (False, True):
            with torch.autocast(device, torch.bfloat16, enabled=enabled):
                losses.append(F.cross_entropy(net(images).float(), labels).item())
        found[device] = gradients, losses
    (expected, [fp32, _]), (gradients, [on_gpu, bf16]) = found["cpu"], found["cuda"]
    for name, value in expected.items():
        torch.testing.assert_close(gradients[name], value, rtol=1e-8, atol=1e-10)
    assert on_gpu == pytest.approx(fp32, rel=5e-3)  # TF32 has the mantissa of fp16
    assert bf16 == pytest.approx(fp32, rel=5e-2)


def test_bf16_is_found_faster() -> None:
    assert probe_precision("cuda") == "bf16"


def test_running_out_of_memory_is_told_from_other_errors() -> None:
    with pytest.raises(Exception, match="memory") as raised:
        torch.empty(10**14, dtype=torch.uint8, device="cuda")
    assert is_out_of_memory(raised.value)


def run(sweep: Sweep, out: Path, listen: Callable[[Event], None] = lambda event: None, **how: Any) -> dict[str, Any]:
    with prepared(sweep, out) as ready:
        finished = execute(ready, listen=listen, **how)
    assert finished.exit_code == 0
    assert {record.device for record in finished.tables.trials.itertuples()} == {"cuda"}
    return recorded_numbers(finished.results)


def test_trials_that_share_a_gpu_give_the_numbers_of_one_process(
    small_sweep: Callable[..., Sweep], tmp_path: Path
) -> None:
    together = run(small_sweep("run.gpus_per_trial=0.25"), tmp_path / "ray")
    assert together == run(small_sweep(), tmp_path / "serial", serial=True)


def test_a_killed_worker_s_trials_go_on(small_sweep: Callable[..., Sweep], tmp_path: Path) -> None:
    killed: list[int] = []

    def kill(event: Event) -> None:
        if isinstance(event, Started) and not killed:
            for worker in workers():
                killed.append(worker.pid)
                worker.kill()

    values = ("train.epochs=6", "run.checkpoint_epochs=2")
    disturbed = run(small_sweep("run.gpus_per_trial=0.5", *values), tmp_path / "killed", kill)
    assert killed
    assert disturbed == run(small_sweep(*values), tmp_path / "quiet", serial=True)


HEADS = """
name: heads
data: {image_size: 16, split: {method: fill, train_per_class: 6, val_per_class: 4}}
train: {model: plain, width: 0.05, fine_tune: head, epochs: 20, dropout: 0.2}
run: {dashboard: false}
stages:
  - name: grid
    space: {lr: {grid: [0.001, 0.002, 0.004, 0.008]}}
"""


def test_heads_in_company_are_heads_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "heads.yaml"
    file.write_text(HEADS, encoding="utf-8")
    together = run(load_sweep(str(file)), tmp_path / "together", serial=True)
    monkeypatch.setattr(job_queue, "HEADS_AT_ONCE", 1)
    assert together == run(load_sweep(str(file)), tmp_path / "alone", serial=True)
