from __future__ import annotations

import io
import math
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings as hypothesis_settings, strategies as st
from torch import Tensor
from torch.nn import functional as F

from cnnsearch.planning.trial import EpochRow
from cnnsearch.spec.settings import Settings
from cnnsearch.training import heads as heads_module
from cnnsearch.training.compute.device import derived_seed
from cnnsearch.training.head_draws import Dropout
from cnnsearch.training.head_scores import EVALUATED_ROWS, HeadInputs, evaluate_heads, probabilities
from cnnsearch.training.heads import HeadState, train_heads

pytestmark = pytest.mark.usefixtures("one_thread")
WIDTH, CLASSES = 24, 3
LOSS_TOLERANCE = 2e-5
"""Relative, against autograd and `torch.optim`: the same arithmetic in another order, in fp32."""


def settings(**changes: Any) -> Settings:
    return Settings.model_validate({"lr": 1e-2, "batch_size": 8, "epochs": 12, **changes})


def made(train: int = 43, val: int = 20, width: int = WIDTH, classes: int = CLASSES, seed: int = 0) -> HeadInputs:
    """Classes that overlap, rows of both splits shuffled together; 43 in batches of 8 leave one of 3."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (train + val,), generator=generator)
    centres = torch.randn(classes, width, generator=generator)
    values = centres[labels] + 1.5 * torch.randn(train + val, width, generator=generator)
    rows = torch.randperm(train + val, generator=generator)
    return HeadInputs(values, labels, {"train": rows[:train], "val": rows[train:]})


def head(chosen: Settings, width: int = WIDTH, classes: int = CLASSES) -> HeadState:
    generator = torch.Generator().manual_seed(derived_seed("weights", chosen.seed))
    weight = 0.1 * torch.randn(classes, width, generator=generator)
    return HeadState(chosen, weight, 0.1 * torch.randn(classes, generator=generator))


def trained(features: HeadInputs, *chosen: Settings) -> list[HeadState]:
    states = [head(one, features.values.shape[1], int(features.labels.max()) + 1) for one in chosen]
    for _ in train_heads(features, states):
        pass
    return states


def numbers(rows: list[EpochRow]) -> str:
    """All but the seconds, to the last bit; as text, in which a nan equals a nan."""
    return repr([(r.epoch, r.train_loss, r.train_accuracy, r.val_loss, r.val_accuracy, r.lr) for r in rows])


def same(a: HeadState, b: HeadState) -> bool:
    pairs = [(a.weight, b.weight), (a.bias, b.bias), (a.best_weight, b.best_weight), (a.best_bias, b.best_bias)]
    return numbers(a.rows) == numbers(b.rows) and all(torch.allclose(*pair, 0, 0, equal_nan=True) for pair in pairs)


def masks(chosen: list[Settings], epoch: int, shape: tuple[int, int, int], steps: int = 1) -> Tensor:
    """[steps, T, B, D]: what dropout makes of inputs that are all one, the bias's input checked and cut off."""
    dropout = Dropout.of(chosen, epoch, shape[1], shape[2], torch.device("cpu"))
    found = torch.ones(steps, shape[0], shape[1], shape[2] + 1)
    for batch in found if dropout else ():
        assert dropout is not None
        dropout.apply(batch)
    assert bool((found[..., -1] == 1).all())
    return found[..., :-1]


OPTIMIZERS: dict[str, Callable[[list[Tensor], Settings], torch.optim.Optimizer]] = {
    "adam": lambda p, s: torch.optim.Adam(p, lr=s.lr, weight_decay=s.weight_decay),
    "adamw": lambda p, s: torch.optim.AdamW(p, lr=s.lr, weight_decay=s.weight_decay),
    "sgd": lambda p, s: torch.optim.SGD(p, lr=s.lr, weight_decay=s.weight_decay, momentum=s.momentum),
}


def reference(features: HeadInputs, chosen: Settings) -> tuple[list[EpochRow], Tensor, Tensor]:
    """One head by itself as `train.train` goes about it: autograd and torch's optimizers."""
    start = head(chosen)
    weight, bias = start.weight.requires_grad_(), start.bias.requires_grad_()
    optimizer = OPTIMIZERS[chosen.optimizer]([weight, bias], chosen)
    train_rows, val_rows = features.rows["train"], features.rows["val"]
    rows = []
    for epoch in range(1, chosen.epochs + 1):
        generator = torch.Generator().manual_seed(derived_seed("order", chosen.seed, epoch))
        order = train_rows[torch.randperm(len(train_rows), generator=generator)]
        steps = math.ceil(len(order) / chosen.batch_size)
        dropped = masks([chosen], epoch, (1, chosen.batch_size, WIDTH), steps)[:, 0]
        loss_sum, correct = 0.0, 0
        for batch, mask in zip(order.split(chosen.batch_size), dropped, strict=True):
            logits = F.linear(features.values[batch] * mask[: len(batch)], weight, bias)
            loss = F.cross_entropy(logits, features.labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss_sum += loss.item() * len(batch)
            correct += int((logits.argmax(1) == features.labels[batch]).sum())
        logits, labels = F.linear(features.values[val_rows], weight, bias).detach(), features.labels[val_rows]
        val_accuracy = int((logits.argmax(1) == labels).sum()) / len(labels)
        n = len(order)
        val_loss = F.cross_entropy(logits, labels).item()
        rows.append(EpochRow(epoch, loss_sum / n, correct / n, val_loss, val_accuracy, chosen.lr, 0.0))
    return rows, weight.detach(), bias.detach()


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "adam"},
        {"optimizer": "adam", "weight_decay": 0.3},
        {"optimizer": "adamw"},
        {"optimizer": "adamw", "weight_decay": 3.0},
        {"optimizer": "sgd"},
        {"optimizer": "sgd", "weight_decay": 0.3},
        {"optimizer": "sgd", "momentum": 0.0},
        {"optimizer": "adam", "dropout": 0.4},
        {"optimizer": "sgd", "dropout": 0.1, "weight_decay": 0.1},
        {"optimizer": "adam", "batch_size": 14},  # the last batch is one example
        {"optimizer": "adam", "batch_size": 1},  # more steps than a block has
        {"optimizer": "adam", "batch_size": 43},
    ],
    ids=str,
)
def test_a_head_alone_against_autograd_and_torchs_optimizers(changes: dict[str, Any]) -> None:
    features, chosen = made(), settings(seed=3, **changes)
    rows, weight, bias = reference(features, chosen)
    (state,) = trained(features, chosen)
    assert [row.epoch for row in state.rows] == list(range(1, 13))
    for name in ("train_loss", "val_loss"):
        expected = [getattr(row, name) for row in rows]
        assert [getattr(row, name) for row in state.rows] == pytest.approx(expected, rel=LOSS_TOLERANCE)
    for name in ("train_accuracy", "val_accuracy", "lr"):
        assert [getattr(r, name) for r in state.rows] == [getattr(r, name) for r in rows]
    torch.testing.assert_close(state.weight, weight, rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(state.bias, bias, rtol=1e-4, atol=2e-5)
    assert state.weight.shape == (CLASSES, WIDTH)
    assert rows[-1].train_loss != rows[0].train_loss


def test_a_batch_larger_than_the_split_is_the_whole_split() -> None:
    features = made()
    whole, larger = trained(features, settings(batch_size=43)), trained(features, settings(batch_size=1000))
    assert same(whole[0], larger[0])
    dropped = [trained(features, settings(batch_size=size, dropout=0.2))[0] for size in (43, 1000)]
    assert same(*dropped)


TRIALS = st.lists(
    st.builds(
        lambda lr, decay, momentum, dropout, seed: {
            "lr": lr,
            "weight_decay": decay,
            "momentum": momentum,
            "dropout": dropout,
            "seed": seed,
        },
        st.sampled_from([1e-4, 1e-2, 1.0, 100.0]),
        st.sampled_from([0.0, 0.1, 100.0]),
        st.sampled_from([0.0, 0.9]),
        st.sampled_from([0.0, 0.0, 0.25, 0.5]),
        st.integers(0, 3),
    ),
    min_size=2,
    max_size=6,
)


@hypothesis_settings(max_examples=40, deadline=None)
@given(
    TRIALS,
    st.sampled_from(["adam", "adamw", "sgd"]),
    st.integers(1, 40),
    st.integers(2, 12),
    st.integers(1, 17),
    st.integers(1, 40),
    st.integers(1, 20),
)
def test_company_changes_nothing(
    trials: list[dict[str, Any]], optimizer: str, width: int, classes: int, batch_size: int, train: int, val: int
) -> None:
    """Bit for bit, whatever the others are and whether they diverge; learning rate and decay 100 together do."""
    features = made(train, val, width, classes)
    chosen = [settings(**trial, optimizer=optimizer, batch_size=batch_size, epochs=3) for trial in trials]
    for state in trained(features, *chosen):
        assert same(state, trained(features, state.settings)[0])


def test_company_changes_nothing_at_the_size_of_a_resnets_last_layer() -> None:
    features = made(50, 30, 512, 10)
    chosen = [settings(lr=1e-3 * (1 + i), seed=i % 5, dropout=(i % 3) / 4, batch_size=16, epochs=2) for i in range(17)]
    for state in trained(features, *chosen):
        assert same(state, trained(features, state.settings)[0])


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_diverged_trial_stops_and_the_others_go_on(optimizer: str) -> None:
    features = made()
    good = [settings(optimizer=optimizer, seed=seed, momentum=0.5 * seed) for seed in (0, 1)]
    bad = settings(optimizer=optimizer, lr=100.0, weight_decay=100.0, dropout=0.2)
    states = [head(one) for one in (good[0], bad, good[1])]
    yielded = list(train_heads(features, states))
    assert len(yielded) == 12
    ended = len(states[1].rows)
    assert 1 <= ended < 12
    assert not states[1].rows[-1].is_finite
    assert all(row.is_finite for row in states[1].rows[:-1])
    for epoch, rows in enumerate(yielded, start=1):
        assert rows[0] is states[0].rows[epoch - 1]
        assert rows[2] is states[2].rows[epoch - 1]
        assert rows[1] is (states[1].rows[epoch - 1] if epoch <= ended else None)
    assert states[1].best is None or states[1].best.is_finite
    for state, alone in zip(states[::2], (trained(features, one)[0] for one in good), strict=True):
        assert same(state, alone)


def test_a_step_of_any_length_harms_no_one_else() -> None:
    """1e6 is more than a sweep may ask for."""
    chosen, wild = settings(optimizer="sgd"), settings(optimizer="sgd", weight_decay=0.1).model_copy(update={"lr": 1e6})
    quiet, gone = trained(made(), chosen, wild)
    assert not gone.rows[-1].is_finite
    assert same(quiet, trained(made(), chosen)[0])


def test_the_call_ends_when_all_have_diverged() -> None:
    features = made()
    features.values[features.rows["train"][0], 0] = math.inf
    states = [head(settings(seed=seed)) for seed in range(3)]
    yielded = list(train_heads(features, states))
    assert len(yielded) == 1
    assert [len(state.rows) for state in states] == [1, 1, 1]
    assert not any(row is None or row.is_finite for row in yielded[0])
    assert [(state.best, state.best_weight.numel()) for state in states] == [(None, 0)] * 3


def test_the_best_epoch_is_the_earliest_of_equals_and_its_weights_are_kept() -> None:
    features, chosen = made(), [settings(epochs=30, seed=seed, dropout=0.2 * seed) for seed in range(3)]
    states = [head(one) for one in chosen]
    weights: list[list[tuple[Tensor, Tensor]]] = []
    for _ in train_heads(features, states):
        weights.append([(state.weight, state.bias) for state in states])
    for trial, state in enumerate(states):
        assert state.best is not None
        accuracies = [row.val_accuracy or 0.0 for row in state.rows]
        best = accuracies.index(max(accuracies))
        assert accuracies.count(max(accuracies)) > 1
        assert state.best is state.rows[best]
        assert torch.equal(state.best_weight, weights[best][trial][0])
        assert torch.equal(state.best_bias, weights[best][trial][1])
        assert not torch.equal(state.best_weight, state.weight)
    evaluations = evaluate_heads(
        features, "val", torch.stack([s.best_weight for s in states]), torch.stack([s.best_bias for s in states])
    )
    assert [(e.loss, e.accuracy) for e in evaluations] == [
        (s.best.val_loss, s.best.val_accuracy) for s in states if s.best
    ]


def test_the_caller_keeps_its_tensors() -> None:
    state = head(settings())
    weight, bias = state.weight, state.bias
    before = weight.clone(), bias.clone()
    for _ in train_heads(made(), [state]):
        pass
    assert torch.equal(weight, before[0])
    assert torch.equal(bias, before[1])
    assert not torch.equal(state.weight, weight)
    assert state.weight.untyped_storage().nbytes() == 4 * CLASSES * WIDTH  # not a view that keeps the bundle alive


def test_masks_differ_by_seed_epoch_and_step_and_repeat() -> None:
    chosen = [settings(dropout=0.5, seed=0), settings(dropout=0.5, seed=1), settings(dropout=0.5, seed=0)]
    first = masks(chosen, 1, (3, 16, 100), steps=2)
    assert torch.equal(first, masks(chosen, 1, (3, 16, 100), steps=2))
    assert torch.equal(first[:, 0], first[:, 2])
    second = masks(chosen, 2, (3, 16, 100))
    for one, other in [(first[0, 0], first[0, 1]), (first[0, 0], first[1, 0]), (first[0, 0], second[0, 0])]:
        assert (one == other).float().mean().item() == pytest.approx(0.5, abs=0.05)  # 4 σ


def test_masks_do_not_depend_on_company() -> None:
    chosen = [settings(dropout=0.1 * (1 + i), seed=i % 2) for i in range(4)]
    together = masks([*chosen, settings()], 1, (5, 7, 33), steps=3)
    for index, one in enumerate(chosen):
        assert torch.equal(together[:, index], masks([one], 1, (1, 7, 33), steps=3)[:, 0])
    assert bool((together[:, 4] == 1).all())


@pytest.mark.parametrize("dropout", [0.01, 0.1, 0.25, 0.5, 0.9])
def test_masks_drop_as_often_as_asked_and_preserve_the_mean(dropout: float) -> None:
    found = masks([settings(dropout=dropout)], 1, (1, 1000, 500))
    values = found.unique().tolist()
    assert len(values) == 2
    assert values[0] == 0
    assert values[1] == pytest.approx(1 / (1 - dropout), rel=1e-4)
    spread = math.sqrt(dropout * (1 - dropout) / found.numel())
    assert (found == 0).double().mean().item() == pytest.approx(dropout, abs=4 * spread + 2**-17)
    assert found.double().mean().item() == pytest.approx(1, abs=4 * spread / (1 - dropout))


@pytest.mark.parametrize("dropout", [1e-9, 1 - 1e-9])
def test_masks_at_the_ends_are_finite(dropout: float) -> None:
    assert bool(masks([settings(dropout=dropout)], 1, (1, 8, 8)).isfinite().all())


def test_dropout_is_for_training_only() -> None:
    features, chosen = made(), [settings(dropout=0.5, epochs=3), settings(epochs=3)]
    dropped, plain = trained(features, *chosen)
    assert dropped.rows[0].train_loss != plain.rows[0].train_loss
    (found,) = evaluate_heads(features, "val", dropped.weight[None], dropped.bias[None])
    assert (found.loss, found.accuracy) == (dropped.rows[-1].val_loss, dropped.rows[-1].val_accuracy)


@pytest.mark.parametrize("n", [1, 30])
def test_probabilities_are_those_of_the_evaluation(n: int) -> None:
    features = made(5, n, 40, 7)
    weight, bias = torch.randn(7, 40), torch.randn(7)
    (wanted,) = evaluate_heads(features, "val", weight[None], bias[None])
    found = probabilities(features.values[features.rows["val"]], weight, bias)
    assert found.shape == (n, 7)
    assert found.argmax(1).tolist() == wanted.predicted.tolist()
    assert torch.equal(found.max(1).values, torch.from_numpy(wanted.confidence))


@pytest.mark.parametrize("n", [1, 30, EVALUATED_ROWS + 1])
def test_evaluation_against_the_plain_way(n: int) -> None:
    features = made(5, n, 40, 7)
    weight, bias = torch.randn(4, 7, 40), torch.randn(4, 7)
    values, labels = features.values[features.rows["val"]], features.labels[features.rows["val"]]
    found = evaluate_heads(features, "val", weight, bias)
    assert len(found) == 4
    for evaluation, one_weight, one_bias in zip(found, weight, bias, strict=True):
        logits = F.linear(values, one_weight, one_bias)
        assert evaluation.loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
        assert evaluation.predicted.tolist() == logits.argmax(1).tolist()
        assert evaluation.accuracy == int((logits.argmax(1) == labels).sum()) / n
        assert evaluation.confidence == pytest.approx(logits.softmax(1).max(1).values.numpy(), rel=1e-4)
        assert (str(evaluation.predicted.dtype), str(evaluation.confidence.dtype)) == ("int64", "float32")


def test_seconds_add_up_over_trials() -> None:
    features, states = made(), [head(settings(seed=seed, epochs=1)) for seed in range(4)]
    start = time.perf_counter()
    rows = next(train_heads(features, states))
    seconds = [row.seconds for row in rows if row]
    assert len(seconds) == 4
    assert len(set(seconds)) == 1
    assert 0 < sum(seconds) <= time.perf_counter() - start


@pytest.mark.parametrize("changes", [{"batch_size": 16}, {"epochs": 13}, {"optimizer": "sgd"}], ids=str)
def test_trials_of_one_call_share_what_they_must(changes: dict[str, Any]) -> None:
    with pytest.raises(AssertionError, match=f"differ in {next(iter(changes))}"):
        next(train_heads(made(), [head(settings()), head(settings(**changes))]))


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_heads_go_on_from_a_checkpoint_as_if_never_stopped(optimizer: str) -> None:
    """Through a file, to the bit; also where another of the bundle diverged before."""
    features = made()
    chosen = [
        settings(optimizer=optimizer, dropout=0.3, seed=1),
        settings(optimizer=optimizer, lr=0.1, weight_decay=1e-3),
        settings(optimizer=optimizer, lr=0.02, seed=2),
    ]
    whole = trained(features, *chosen)
    stopped = [head(one) for one in chosen]
    for epoch in train_heads(features, stopped):
        if epoch[0] is not None and epoch[0].epoch == 5:
            break
    saved = io.BytesIO()
    torch.save([state.state_dict() for state in stopped], saved)
    saved.seek(0)
    states = [head(one) for one in chosen]
    for state, kept in zip(states, torch.load(saved, weights_only=True), strict=True):
        state.load_state_dict(kept)
    assert [state.epoch for state in states] == [5, 5, 5]
    for _ in train_heads(features, states):
        pass
    assert all(same(one, other) for one, other in zip(whole, states, strict=True))


def test_heads_that_have_come_unequally_far_are_not_trained_together() -> None:
    features = made()
    ahead = trained(features, settings(epochs=1))[0]
    with pytest.raises(AssertionError, match="same epoch"):
        next(train_heads(features, [ahead, head(settings(epochs=1))]))


def test_denormals_are_zero_in_training_and_not_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def watched(heads: Any) -> None:
        seen.append(bool((torch.full((8,), 1e-39) * 0.5).count_nonzero()))

    monkeypatch.setitem(heads_module._UPDATES, "adam", watched)
    trained(made(), settings(epochs=1))
    assert seen
    assert not any(seen)
    assert (torch.full((8,), 1e-39) * 0.5).count_nonzero()
