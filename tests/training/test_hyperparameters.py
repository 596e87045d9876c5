"""Hyperparameters of a step do what they say: shown by their effect."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F

from cnnsearch.data.dataset import Dataset
from cnnsearch.execution.context import Choices, SharedContext
from cnnsearch.execution.start import arrange
from cnnsearch.planning.job import head_key
from cnnsearch.planning.trial import Trial
from cnnsearch.spec.settings import ADDED, Settings
from cnnsearch.training.compute.device import reset_process
from cnnsearch.training.compute.optimizers import UPDATES
from cnnsearch.training.evaluate import evaluate
from cnnsearch.training.features import Features
from cnnsearch.training.models.build import initial_model
from cnnsearch.training.pixels import Pixels
from cnnsearch.training.train import TrainingState, balanced, learning_rate, train
from tests.training import test_train
from tests.training.test_train import settings


def started(chosen: Settings) -> TrainingState:
    reset_process(threads=1)
    return TrainingState.start(initial_model(chosen, 2, "cpu"), chosen)


def trained(dataset: Dataset, **changes: Any) -> TrainingState:
    return test_train.trained(dataset, settings(**changes))[1]


def weights(state: TrainingState) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in state.model.parameters()])


@pytest.mark.parametrize(
    "changes",
    [
        {"lr_schedule": "cosine"},
        {"lr_schedule": "one-cycle"},
        {"warmup_epochs": 1.5},
        {"label_smoothing": 0.1},
        {"augment": "flip"},
        {"augment": "flip+crop"},
        {"augment": "rand-3"},
    ],
)
def test_each_changes_what_is_learned_and_makes_another_trial(dataset: Dataset, changes: dict[str, Any]) -> None:
    assert not torch.equal(weights(trained(dataset, **changes)), weights(trained(dataset)))
    ids = {Trial("s", settings(**one), "d").id for one in ({}, changes)}
    assert len(ids) == 2


def test_trials_that_do_without_keep_their_names() -> None:
    assert not set(ADDED) & settings().deciding().keys()
    assert settings(augment="flip").deciding()["augment"] == "flip"


def run_torchs(scheduler: Any, steps: int) -> list[float]:
    rates = []
    for _ in range(steps):
        rates.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return rates


@given(st.integers(1, 9), st.integers(2, 20), st.floats(1e-5, 1))
def test_schedules_are_torchs(epochs: int, per_epoch: int, lr: float) -> None:
    steps = epochs * per_epoch

    def sgd() -> torch.optim.Optimizer:
        return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)

    theirs = {
        "constant": [lr] * steps,
        "cosine": run_torchs(torch.optim.lr_scheduler.CosineAnnealingLR(sgd(), steps), steps),
    }
    for schedule, expected in theirs.items():
        chosen = settings(lr=lr, epochs=epochs, lr_schedule=schedule)
        ours = [learning_rate(chosen, step, per_epoch) for step in range(steps)]
        np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=lr * 1e-9)


def test_one_cycle_rises_to_lr_and_falls_to_almost_nothing() -> None:
    chosen = settings(lr=0.5, epochs=10, lr_schedule="one-cycle")
    rates = [learning_rate(chosen, step, 10) for step in range(100)]
    assert rates[0] == pytest.approx(0.5 / 25)
    assert max(rates) == rates[30] == 0.5
    assert rates[-1] == pytest.approx(0.5 / 25 / 1e4)
    assert np.all(np.diff(rates[:31]) > 0)
    assert np.all(np.diff(rates[30:]) < 0)


def test_warm_up_rises_in_equal_steps_before_the_schedule_begins() -> None:
    for schedule in ("constant", "cosine"):
        chosen = settings(lr=1.0, epochs=10, lr_schedule=schedule, warmup_epochs=0.5)
        rates = [learning_rate(chosen, step, 8) for step in range(80)]
        assert rates[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
        assert rates[-1] == pytest.approx(1.0 if schedule == "constant" else 0.0, abs=1e-3)
    with pytest.raises(ValidationError, match="one-cycle: it has a warm-up of its own"):
        settings(lr_schedule="one-cycle", warmup_epochs=1.0)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_the_rate_reaches_the_optimizer_and_the_rows(
    dataset: Dataset, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings(lr_schedule="cosine", optimizer=name)
    state = started(chosen)
    seen: list[float | torch.Tensor] = []

    def update(*about: Any) -> None:
        seen.append(about[-1])
        UPDATES[name](*about)

    monkeypatch.setattr(state.optimizer, "_update", update)
    rows = list(train(state, Pixels.of(dataset, "cpu"), chosen, precision="fp32"))
    per_epoch = -(-len(dataset.indices["train"]) // chosen.batch_size)
    assert seen == [learning_rate(chosen, step, per_epoch) for step in range(3 * per_epoch)]
    assert [row.lr for row in rows] == [seen[n * per_epoch - 1] for n in (1, 2, 3)]


@pytest.mark.parametrize("changes", [{"lr_schedule": "one-cycle"}, {"augment": "rand-5"}, {"warmup_epochs": 2.5}])
def test_going_on_from_a_checkpoint_changes_nothing(dataset: Dataset, changes: dict[str, Any]) -> None:
    chosen, pixels = settings(**changes), Pixels.of(dataset, "cpu")
    whole = trained(dataset, **changes)
    first = started(chosen)
    next(train(first, pixels, chosen, precision="fp32"))
    second = started(chosen)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for _ in train(second, pixels, chosen, precision="fp32"):
        pass
    assert torch.equal(weights(whole), weights(second))


def first_loss(dataset: Dataset, **changes: Any) -> tuple[float, torch.Tensor, torch.Tensor]:
    """Training loss of the first epoch, which is one step; the logits and labels it was of."""
    chosen = settings(epochs=1, batch_size=1000, **changes)
    pixels, state = Pixels.of(dataset, "cpu"), started(chosen)
    (images,), labels = pixels.batch(pixels.rows["train"])
    with torch.no_grad():
        logits = copy.deepcopy(state.model).train()(images)
    (row,) = train(state, pixels, chosen, precision="fp32")
    assert row.train_loss is not None
    return row.train_loss, logits, labels


def test_label_smoothing_by_hand(dataset: Dataset) -> None:
    loss, logits, labels = first_loss(dataset, label_smoothing=0.2)
    wanted = 0.8 * F.one_hot(labels, 2) + 0.2 / 2
    assert loss == pytest.approx(float(-(wanted * logits.log_softmax(1)).sum(1).mean()), rel=1e-4)


def test_balanced_classes_by_hand(dataset: Dataset) -> None:
    """With 12 images of one class and 4 of the other, those count three times as much."""
    rows = np.r_[0:12, 20:24]
    uneven = copy.copy(dataset)
    object.__setattr__(uneven, "indices", {**dataset.indices, "train": rows})
    loss, logits, labels = first_loss(uneven, class_weights="balanced")
    each = F.cross_entropy(logits, labels, reduction="none")
    by_class = [float(each[labels == label].mean()) for label in (0, 1)]
    assert loss == pytest.approx(sum(by_class) / 2, rel=1e-4)
    found = balanced(torch.from_numpy(dataset.labels), torch.from_numpy(rows))
    assert found.tolist() == pytest.approx([16 / 24, 2.0])


def test_evaluation_sees_the_images_as_they_are(dataset: Dataset) -> None:
    chosen, pixels = settings(augment="rand-10"), Pixels.of(dataset, "cpu")
    state = started(chosen)
    rows = list(train(state, pixels, chosen, precision="fp32"))
    assert evaluate(state.model, pixels, "val", precision="fp32").loss == rows[-1].val_loss


def test_frozen_layers_that_see_changed_images_are_not_computed_once(dataset: Dataset, tmp_path: Path) -> None:
    place = SharedContext(tmp_path, {(8, "bilinear"): dataset}, Choices("cpu", 1, "fp32"), 60, features_bytes=2**30)
    pixels = Pixels.of(dataset, "cpu")
    for augment, kind in (("none", Features), ("flip", Pixels)):
        trial = Trial("s", settings(fine_tune="head", augment=augment), dataset.fingerprint)
        _, examples = arrange(initial_model(trial.settings, 2, "cpu"), trial, place, pixels)
        assert isinstance(examples, kind)
        assert (head_key(trial) is None) == (augment == "flip")
