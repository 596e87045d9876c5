"""Many linear heads on the same frozen features, trained side by side as batched matrix products.

A step of one head is some twenty operations on a few thousand numbers, so most of its time goes into calls, not
arithmetic. With the trials of a bundle along the first dimension of every tensor, the same calls train all of them,
each with its own learning rate, weight decay, momentum, dropout and data order. On one thread a trial's numbers are
the same bit for bit whichever others are in its bundle. On several threads they are not: sums are divided among
threads differently, and so rounded differently.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from cnnsearch.planning.trial import EpochRow
from cnnsearch.spec.settings import Settings
from cnnsearch.training.compute.device import flushing_denormals
from cnnsearch.training.compute.optimizers import BETA1, BETA2, EPSILON
from cnnsearch.training.compute.totals import Total
from cnnsearch.training.evaluate import measured, needs_more
from cnnsearch.training.head_draws import Dropout, blocks, example_orders
from cnnsearch.training.head_scores import (
    HeadInputs,
    evaluate_heads,
    evaluate_products,
    inputs_of,
    joined,
    losses,
    padded,
    products,
)
from cnnsearch.training.history import History


@dataclass
class HeadState(History):
    """One trial: everything that training has changed; `train.TrainingState` is the same for a whole model."""

    settings: Settings
    weight: Tensor
    """[C, D] float32, current."""
    bias: Tensor
    """[C] float32, current."""
    best_weight: Tensor = field(default_factory=lambda: torch.empty(0))
    """[C, D] of the best epoch; empty before there is one."""
    best_bias: Tensor = field(default_factory=lambda: torch.empty(0))
    """[C] of the best epoch; empty before there is one."""
    moments: tuple[Tensor, ...] = ()
    """[C, D + 1] each: Adam's two moments, or SGD's velocity; empty before the first epoch, changed in place by the
    next."""

    def __post_init__(self) -> None:
        self.metric = self.settings.metric

    def state_dict(self) -> dict[str, Any]:
        """Return a checkpoint: tensors, numbers and strings only, so that `torch.load(weights_only=True)` reads it."""
        tensors = {name: getattr(self, name) for name in _TENSORS}
        return {
            "kind": "head",
            **tensors,
            **self.history_dict(),
            "moments": [moment.clone() for moment in self.moments],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a checkpoint of the same trial."""
        for name in _TENSORS:
            setattr(self, name, state[name].to(self.weight.device))
        self.load_history(state)
        self.moments = tuple(moment.to(self.weight.device) for moment in state["moments"])


_TENSORS = ("weight", "bias", "best_weight", "best_bias")
"""Attributes of a `HeadState` that a checkpoint holds as they are."""


def train_heads(
    features: HeadInputs, states: Sequence[HeadState], has_ended: Callable[[int], bool] = lambda index: False
) -> Iterator[list[EpochRow | None]]:
    """Train heads side by side, each from its own state.

    This is `train.train` on `nn.Sequential(nn.Dropout(p), nn.Linear(D, C))`: the same data order, losses, updates and
    measurements, in fp32, up to rounding. Only dropout draws other masks than `nn.Dropout` would; see `Dropout`.

    Args:
        features: what to train and validate on.
        states: one for each trial, up to date at every yield. All share batch size, epochs, optimizer and metric,
            and have trained the same number of epochs.
        has_ended: index in `states` -> whether that trial is to stop here; asked before each epoch.

    Yields:
        After each epoch, a row for each trial in the order of `states`, or None for one that had stopped before. A
        trial stops after a row with a loss that is not finite, and when `has_ended` says so; when all have stopped,
        the generator ends. A row's seconds are an equal share of the epoch's, so that they add up over trials.
    """
    shared = states[0].settings
    for name in ("batch_size", "epochs", "optimizer", "metric"):
        assert len({getattr(state.settings, name) for state in states}) == 1, f"heads of one call differ in {name}"
    done = states[0].epoch
    assert all(state.epoch == done for state in states), "heads of one call go on from the same epoch"
    inputs, labels = inputs_of(features, "train")
    val_inputs, val_labels = inputs_of(features, "val")
    # Trials with dropout come first, so that their inputs are one slice.
    live = sorted(range(len(states)), key=lambda index: states[index].settings.dropout == 0)
    steps = done * -(-len(labels) // shared.batch_size)
    heads = _Heads.start([states[index] for index in live], steps)
    for epoch in range(done + 1, shared.epochs + 1):
        going = [trial for trial, index in enumerate(live) if not has_ended(index)]
        if len(going) < len(live):
            heads, live = heads.only(going), [live[trial] for trial in going]
        if not live:
            return
        start = time.perf_counter()
        train_losses, train_accuracies = _train_epoch(heads, epoch, inputs, labels)
        val_loss, val_correct, _, _ = evaluate_products(heads.weight, val_inputs, val_labels)
        val_losses, val_accuracies = _means(val_loss, val_correct, len(val_labels))
        weights, biases = heads.weight[:, :, : heads.inputs], heads.weight[:, :, heads.inputs]
        added = [dict[str, float | None]() for _ in live]
        if needs_more(shared.metric):
            added = [measured(shared.metric, one) for one in evaluate_heads(features, "val", weights, biases)]
        seconds = (time.perf_counter() - start) / len(live)
        rows: list[EpochRow | None] = [None] * len(states)
        for trial, index in enumerate(live):
            state = states[index]
            row = EpochRow(
                epoch=epoch,
                train_loss=train_losses[trial],
                train_accuracy=train_accuracies[trial],
                val_loss=val_losses[trial],
                val_accuracy=val_accuracies[trial],
                lr=state.settings.lr,
                **added[trial],
                seconds=seconds,
            )
            rows[index] = row
            state.weight, state.bias = weights[trial].clone(), biases[trial].clone()
            state.moments = tuple(moment[trial, :, : heads.inputs + 1] for moment in heads.moments)
            if state.add(row):
                state.best_weight, state.best_bias = state.weight.clone(), state.bias.clone()
        finite = [trial for trial, index in enumerate(live) if states[index].rows[-1].is_finite]
        if len(finite) < len(live):
            heads, live = heads.only(finite), [live[trial] for trial in finite]
        yield rows
        if not live:
            return


@dataclass
class _Heads:
    """T trials in training, along the first dimension of every tensor, those with dropout first."""

    settings: list[Settings]
    inputs: int
    """D, the number of inputs without the one for the bias."""
    weight: Tensor
    """[T, C, K]: the D weights, the bias, and zeros; see `_joined`."""
    gradient: Tensor
    """[T, C, K]; scratch memory between steps."""
    moments: tuple[Tensor, ...]
    """[T, C, K] each: Adam's two moments, or SGD's velocity."""
    lr: Tensor
    """[T, 1, 1] float32, as are the next three."""
    momentum: Tensor
    decay: Tensor
    kept: Tensor
    """Factor by which decoupled weight decay shrinks the weights at a step: 1 − lr · weight decay."""
    decays: bool
    """Whether any trial has weight decay; if none has, those operations are skipped."""
    steps: int = 0
    """Updates made so far, in all epochs."""

    @classmethod
    def start(cls, states: list[HeadState], steps: int) -> _Heads:
        weight = joined(torch.stack([s.weight for s in states]), torch.stack([s.bias for s in states]))
        settings = [state.settings for state in states]

        def column(numbers: Iterator[float]) -> Tensor:
            return torch.tensor(list(numbers), dtype=torch.float32, device=weight.device)[:, None, None]

        return cls(
            settings,
            states[0].weight.shape[1],
            weight,
            gradient=torch.empty_like(weight),
            moments=tuple(
                padded(torch.stack([s.moments[index] for s in states])) if steps else torch.zeros_like(weight)
                for index in range(_MOMENTS[settings[0].optimizer])
            ),
            lr=column(s.lr for s in settings),
            momentum=column(s.momentum for s in settings),
            decay=column(s.weight_decay for s in settings),
            kept=column(1 - s.lr * s.weight_decay for s in settings),
            decays=any(s.weight_decay for s in settings),
            steps=steps,
        )

    def only(self, trials: list[int]) -> _Heads:
        """Return these trials alone, by their indices."""
        index = torch.tensor(trials, dtype=torch.int64, device=self.weight.device)
        return replace(
            self,
            settings=[self.settings[trial] for trial in trials],
            weight=self.weight[index],
            gradient=self.gradient[index],
            moments=tuple(moment[index] for moment in self.moments),
            lr=self.lr[index],
            momentum=self.momentum[index],
            decay=self.decay[index],
            kept=self.kept[index],
        )


@torch.no_grad()
@flushing_denormals()
def _train_epoch(heads: _Heads, epoch: int, inputs: Tensor, labels: Tensor) -> tuple[list[float], list[float]]:
    """Train one epoch.

    The gradient of the mean cross-entropy is written out as (softmax(z) − onehot(y)) xᵀ / B for logits z = W x (Bishop,
    Pattern Recognition and Machine Learning, eq. 4.109): two products per step into tensors that exist already.
    Autograd would compute the same, but allocate memory for each of its results at every step.

    Classes come before examples, [T, C, B], so that both products read their operands along rows, and softmax works on
    whole vectors of examples (measured: 20 times faster than over a last dimension of 10).

    Args:
        heads: changed in place.
        epoch: number of the epoch.
        inputs: [n, K] inputs of the training examples; see `_split`.
        labels: [n] int64.

    Returns:
        Each trial's mean loss and its accuracy, over the examples as they were met in the epoch.
    """
    weight, gradient, settings = heads.weight, heads.gradient, heads.settings
    update = _UPDATES[settings[0].optimizer]
    trials, classes, width = weight.shape
    dropout = Dropout.of(settings, epoch, min(settings[0].batch_size, len(labels)), heads.inputs, weight.device)
    loss = Total(weight.device.type, trials)
    correct = torch.zeros(trials, dtype=torch.int64, device=weight.device)
    order = example_orders(settings, epoch, len(labels)).to(weight.device)
    if dropout is None and len({s.seed for s in settings}) == 1:
        order = order[:1]  # All trials see the same inputs, so one copy serves them all.
    for rows in blocks(order, settings[0].batch_size):
        steps, orders, size = rows.shape
        block_labels = labels[rows]
        targets = weight.new_zeros(steps, orders, classes, size).scatter_(2, block_labels.unsqueeze(2), 1.0)
        logits = weight.new_empty(steps, trials, classes, size)
        error = torch.empty_like(logits[0])
        batch = weight.new_empty(orders, size, width)
        batches = batch.expand(trials, -1, -1)
        for step_rows, step_targets, step_logits in zip(rows.view(steps, -1), targets, logits, strict=True):
            torch.index_select(inputs, 0, step_rows, out=batch.view(-1, width))
            if dropout:
                dropout.apply(batch)
            products(weight, batches, out=step_logits)
            torch.softmax(step_logits, 1, out=error)
            error.sub_(step_targets)
            torch.baddbmm(gradient, error, batches, beta=0, alpha=1 / size, out=gradient)
            heads.steps += 1
            update(heads)
        trial_logits, trial_labels = logits.transpose(0, 1), block_labels.transpose(0, 1).expand(trials, -1, -1)
        loss.add(losses(trial_logits, trial_labels))
        correct += (trial_logits.max(dim=2).indices == trial_labels).sum(dim=(1, 2))
    return _means(loss, correct, len(labels))


def _means(loss: Total, correct: Tensor, n: int) -> tuple[list[float], list[float]]:
    """Return each trial's mean loss and its accuracy, from sums [T] over n examples."""
    return (loss.value / n).tolist(), (correct.cpu().numpy() / n).tolist()


def _adam(heads: _Heads) -> None:
    """Adam with L2 weight decay: Kingma and Ba, arXiv:1412.6980, algorithm 1; β and ε are torch's defaults."""
    if heads.decays:
        heads.gradient.addcmul_(heads.weight, heads.decay)
    _adam_step(heads)


def _adamw(heads: _Heads) -> None:
    """Adam with decoupled weight decay, scaled as torch does: Loshchilov and Hutter, arXiv:1711.05101, algorithm 2."""
    if heads.decays:
        heads.weight.mul_(heads.kept)
    _adam_step(heads)


def _adam_step(heads: _Heads) -> None:
    """w −= lr/c₁ · m / (√(v/c₂) + ε), cᵢ = 1 − βᵢᵗ; expanded by √c₂, which saves a pass over the weights."""
    gradient, (mean, square) = heads.gradient, heads.moments
    root = math.sqrt(1 - BETA2**heads.steps)
    mean.lerp_(gradient, 1 - BETA1)
    square.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
    # The gradient is no longer needed. Its memory, still in the cache, holds the denominator and then the change.
    torch.sqrt(square, out=gradient)
    gradient.add_(EPSILON * root)
    torch.div(mean, gradient, out=gradient)
    heads.weight.addcmul_(gradient, heads.lr, value=-root / (1 - BETA1**heads.steps))


def _sgd(heads: _Heads) -> None:
    """v = momentum · v + gradient; w −= lr · v: Sutskever et al. 2013, in torch's form (lr outside the velocity)."""
    if heads.decays:
        heads.gradient.addcmul_(heads.weight, heads.decay)
    (velocity,) = heads.moments
    velocity.mul_(heads.momentum).add_(heads.gradient)
    heads.weight.addcmul_(velocity, heads.lr, value=-1)


_UPDATES: dict[str, Callable[[_Heads], None]] = {"adam": _adam, "adamw": _adamw, "sgd": _sgd}
_MOMENTS = {"adam": 2, "adamw": 2, "sgd": 1}
