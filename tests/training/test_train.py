from __future__ import annotations

import contextlib
import copy
import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from cnnsearch.data.dataset import Dataset
from cnnsearch.planning.trial import EpochRow
from cnnsearch.spec.settings import ResolvedPrecision, Settings
from cnnsearch.training.compute.device import reset_process
from cnnsearch.training.models.build import initial_model
from cnnsearch.training.pixels import Pixels
from cnnsearch.training.train import TrainingState, train

SMALL = {"model": "residual", "image_size": 8, "width": 0.1, "epochs": 3, "batch_size": 5, "lr": 1e-3}


def settings(**changes: Any) -> Settings:
    return Settings.model_validate({**SMALL, **changes})


def trained(dataset: Dataset, chosen: Settings) -> tuple[list[EpochRow], TrainingState]:
    reset_process(threads=1)
    state = TrainingState.start(initial_model(chosen, 2, "cpu"), chosen)
    return list(train(state, Pixels.of(dataset, "cpu"), chosen, precision="fp32")), state


def numbers(rows: list[EpochRow]) -> list[tuple[Any, ...]]:
    return [(r.epoch, r.train_loss, r.train_accuracy, r.val_loss, r.val_accuracy, r.lr) for r in rows]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_it_learns(dataset: Dataset) -> None:
    rows, state = trained(dataset, settings(epochs=20))
    assert [row.epoch for row in rows] == list(range(1, 21))
    assert rows[-1].train_loss is not None
    assert rows[0].train_loss is not None
    assert rows[-1].train_loss < rows[0].train_loss / 2
    assert state.best is not None
    assert state.best.val_accuracy == 1.0


@pytest.mark.parametrize("changes", [{}, {"model": "plain"}, {"dropout": 0.3}, {"optimizer": "sgd"}])
def test_same_seed_same_numbers_bit_for_bit(dataset: Dataset, changes: dict[str, Any]) -> None:
    first, one = trained(dataset, settings(**changes))
    torch.manual_seed(99)  # what another trial may leave behind
    torch.set_grad_enabled(False)
    second, two = trained(dataset, settings(**changes))
    assert numbers(first) == numbers(second)
    assert same(one.best_weights, two.best_weights)
    other, _ = trained(dataset, settings(seed=1, **changes))
    assert numbers(other) != numbers(first)


def denormals(state: TrainingState) -> int:
    """Numbers in the optimizer's moments that a CPU is slow with."""
    moments = (value for one in state.optimizer.state_dict()["state"].values() for value in one.values())
    smallest = torch.finfo(torch.float32).smallest_normal
    return sum(int(((value != 0) & (value.abs() < smallest)).sum()) for value in moments)


@pytest.mark.parametrize(
    "optimizer", ["adam", *(pytest.param(name, marks=pytest.mark.after) for name in ("adamw", "sgd"))]
)
def test_gradients_that_have_become_zero_leave_no_denormals_and_change_nothing(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    chosen = settings(model="plain", epochs=14, optimizer=optimizer, batch_size=2)

    def after_its_units_have_died() -> TrainingState:
        reset_process(threads=1)
        state = TrainingState.start(initial_model(chosen, 2, "cpu"), chosen)
        epochs = train(state, Pixels.of(dataset, "cpu"), chosen, precision="fp32")
        next(epochs)
        saved = state.optimizer.state_dict()
        for moments in saved["state"].values():  # as some hundred steps later
            first = moments.get("exp_avg", moments.get("momentum_buffer"))
            assert first is not None
            first *= 1e-32
        state.optimizer.load_state_dict(saved)
        with torch.no_grad():
            for name, parameter in state.model.named_parameters():
                if name.startswith("convs") and name.endswith("bias"):
                    parameter.fill_(-1e3)
        list(epochs)
        return state

    flushed = after_its_units_have_died()
    monkeypatch.setattr("cnnsearch.training.train.flushing_denormals", contextlib.nullcontext)
    kept = after_its_units_have_died()
    assert denormals(flushed) == 0
    assert denormals(kept) > 100
    assert numbers(flushed.rows) == numbers(kept.rows)
    assert same(dict(flushed.model.state_dict()), dict(kept.model.state_dict()))


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_going_on_from_a_checkpoint_changes_nothing(dataset: Dataset, optimizer: str) -> None:
    chosen = settings(epochs=5, dropout=0.2, optimizer=optimizer)
    whole, end = trained(dataset, chosen)
    pixels = Pixels.of(dataset, "cpu")
    state = TrainingState.start(initial_model(chosen, 2, "cpu"), chosen)
    steps = train(state, pixels, chosen, precision="fp32")
    for _ in range(2):
        next(steps)
    saved = copy.deepcopy(state.state_dict())
    torch.manual_seed(5)
    resumed = TrainingState.start(initial_model(chosen, 2, "cpu"), chosen)
    resumed.load_state_dict(saved)
    list(train(resumed, pixels, chosen, precision="fp32"))
    assert numbers(resumed.rows) == numbers(whole)
    assert same(dict(resumed.model.state_dict()), dict(end.model.state_dict()))
    assert same(resumed.best_weights, end.best_weights)


def test_optimizers_lr_and_decay_matter(dataset: Dataset) -> None:
    variants = [
        settings(),
        settings(lr=2e-3),
        settings(optimizer="sgd"),
        settings(optimizer="sgd", momentum=0.0),
        settings(weight_decay=0.1),
        settings(optimizer="adamw", weight_decay=0.1),
        settings(batch_size=6),
        settings(dropout=0.2),
    ]
    losses = [trained(dataset, chosen)[0][-1].train_loss for chosen in variants]
    assert len(set(losses)) == len(variants)


def test_losses_are_means_over_examples_not_batches(dataset: Dataset) -> None:
    """24 images in batches of 5 leave one of 4: with a learning rate too small to matter the mean shows which it is."""
    chosen = settings(model="plain", lr=1e-30, optimizer="sgd", epochs=1)
    rows, state = trained(dataset, chosen)
    pixels = Pixels.of(dataset, "cpu")
    (images,), labels = pixels.batch(pixels.rows["train"])
    with torch.inference_mode():
        logits = state.model.eval()(images)
    assert rows[0].train_loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert rows[0].train_accuracy == pytest.approx((logits.argmax(1) == labels).float().mean().item())


def test_the_earliest_of_equally_good_epochs_is_best(dataset: Dataset) -> None:
    rows, state = trained(dataset, settings(epochs=20))
    best = max(row.val_accuracy or 0 for row in rows)
    first = next(row for row in rows if row.val_accuracy == best)
    assert sum(row.val_accuracy == best for row in rows) > 1
    assert state.best == first


def test_divergence_stops_the_trial(dataset: Dataset) -> None:
    rows, state = trained(dataset, settings(model="plain", optimizer="sgd", lr=100.0, epochs=10))
    assert len(rows) < 10
    assert not rows[-1].is_finite
    assert state.best is None or state.best.is_finite


def test_bf16_and_fp32_agree_on_the_first_loss(dataset: Dataset) -> None:
    pixels = Pixels.of(dataset, "cpu")
    losses = {}
    precisions: tuple[ResolvedPrecision, ...] = ("fp32", "bf16")
    for precision in precisions:
        state = TrainingState.start(initial_model(settings(epochs=1), 2, "cpu"), settings(epochs=1))
        row = next(train(state, pixels, settings(epochs=1), precision=precision))
        losses[precision] = row.train_loss
        assert all(p.dtype == torch.float32 for p in state.model.parameters())
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)
    assert losses["bf16"] != losses["fp32"]


def test_rows_that_are_not_numbers_are_told() -> None:
    assert EpochRow(0, None, None, 1.0, 0.5, 0.1, 0.0).is_finite
    assert not EpochRow(1, math.nan, 0.1, 1.0, 0.5, 0.1, 0.0).is_finite
    assert not EpochRow(1, 1.0, 0.1, math.inf, 0.5, 0.1, 0.0).is_finite
