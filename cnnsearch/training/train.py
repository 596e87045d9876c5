"""Training: one loop that reads top to bottom and yields a row after each epoch. It knows neither files nor Ray."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cnnsearch.planning.trial import EpochRow
from cnnsearch.spec.settings import ResolvedPrecision, Settings
from cnnsearch.training.augment import Augmentation
from cnnsearch.training.average import Average
from cnnsearch.training.batches import batches, normalises_one_value
from cnnsearch.training.compute.device import autocast, derived_seed, flushing_denormals, seed_draws
from cnnsearch.training.compute.graphs import RECORDERS, ReplayedStep
from cnnsearch.training.compute.optimizers import Optimizer, optimizer_of
from cnnsearch.training.compute.totals import Total
from cnnsearch.training.evaluate import evaluate, measured, needs_more
from cnnsearch.training.features import Examples
from cnnsearch.training.history import History
from cnnsearch.training.loss import Loss
from cnnsearch.training.mixing import Mixing

Weights = dict[str, Tensor]

_RISE = 0.3
"""Share of the steps in which the one-cycle schedule rises. This and the next two are the defaults of torch's
OneCycleLR, after Smith and Topin, arXiv:1708.07120."""
_FIRST = 1 / 25
"""First rate of one-cycle, as a fraction of the highest."""
_LAST = _FIRST / 1e4
"""Last rate of one-cycle, as a fraction of the highest."""


@dataclass
class TrainingState(History):
    """Everything that training has changed: enough to go on from it."""

    model: nn.Module
    """The whole model, frozen layers included."""
    trained: nn.Module
    """The part that runs in training: the whole model, or what follows its frozen layers."""
    train_mode: Callable[[], object]
    """Puts the layers that train into training mode, and the others into eval mode."""
    keep: frozenset[str]
    """Names in the model's state dict that training can change; only these are kept of the best epoch."""
    optimizer: Optimizer
    average: Average | None = None
    """Of the weights; evaluated and kept in their place."""
    best_weights: Weights = field(default_factory=dict)

    @classmethod
    def start(
        cls,
        model: nn.Module,
        settings: Settings,
        trained: nn.Module | None = None,
        train_mode: Callable[[], object] | None = None,
        keep: frozenset[str] | None = None,
        heads: Collection[str] = (),
    ) -> TrainingState:
        """Return the state before the first epoch.

        Args:
            model: already on its device; parameters that do not require gradients stay as they are.
            settings: optimizer and its hyperparameters.
            trained: the part that runs in training; by default the whole model.
            train_mode: called before each epoch; by default puts the whole model into training mode.
            keep: names in the state dict that can change; by default all of them.
            heads: names of the last layers, where settings treat them otherwise than the others.
        """
        names = frozenset(model.state_dict()) if keep is None else keep
        average = Average(model, names, settings.ema) if settings.ema else None
        optimizer = optimizer_of(model, settings, heads)
        return cls(
            model, trained or model, train_mode or model.train, names, optimizer, average, metric=settings.metric
        )

    def as_evaluated(self) -> contextlib.AbstractContextManager[None]:
        """Give the model the weights that are evaluated, for the time of the block: their average, if there is one."""
        return contextlib.nullcontext() if self.average is None else self.average.in_place()

    def state_dict(self) -> dict[str, Any]:
        """Return a checkpoint: tensors, numbers and strings only, so that `torch.load(weights_only=True)` reads it."""
        return {
            "kind": "model",
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            **self.history_dict(),
            "best_weights": self.best_weights,
            **({} if self.average is None else {"average": self.average.values}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a checkpoint of the same trial."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.load_history(state)
        self.best_weights = state["best_weights"]
        if self.average is not None:
            self.average.load(state["average"])


def train(
    state: TrainingState, examples: Examples, settings: Settings, *, precision: ResolvedPrecision
) -> Iterator[EpochRow]:
    """Train from where `state` stands to the last epoch, or to the first epoch whose loss is not finite.

    What is drawn at random in an epoch depends on the trial's seed and the number of the epoch alone, so stopping
    between epochs and going on later changes nothing. A last batch of one image that batch normalisation could not
    normalise goes into the batch before it.

    Args:
        state: up to date at every yield.
        examples: what to train and validate on.
        settings: hyperparameters of the trial.
        precision: of matrix products and convolutions.

    Yields:
        One row per epoch. Training loss and accuracy are means over the examples as they were met in the epoch, mixed
        ones by the label of the first image; validation loss is the cross-entropy, whatever is minimised. Seconds
        include validation.
    """
    model, optimizer, device = state.trained, state.optimizer, examples.device
    train_rows = examples.rows["train"]
    # Summed on the model's device, so that a GPU need not wait for the host at every step.
    loss_sum = Total(device)
    correct = torch.zeros((), dtype=torch.int64, device=device)

    augmentation = Augmentation.of(settings, len(examples.labels), device)
    mixing = Mixing.of(settings, train_rows, len(examples.labels))
    loss_of = Loss(settings, balanced(examples.labels, train_rows) if settings.class_weights == "balanced" else None)

    def taken(rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        inputs, labels = examples.batch(rows)
        return inputs if augmentation is None else (augmentation(inputs[0], rows),), labels

    def step(rows: Tensor) -> None:
        inputs, labels = taken(rows)
        if mixing is not None:
            (other,), others = taken(mixing.partner[rows])
            inputs = (mixing(inputs[0], other, rows),)
        with autocast(device, precision):
            logits = model(*inputs)
        logits = logits.float()
        mixed = None if mixing is None else (others, mixing.share[rows])
        loss = loss_of(logits, labels, mixed)
        loss.backward()
        optimizer.step()
        loss_sum.add(loss.detach() * len(rows))
        correct.add_((logits.detach().argmax(dim=1) == labels).sum())

    take_step: Callable[[Tensor], None] = step
    if device in RECORDERS and settings.has_fused_steps:
        take_step = ReplayedStep(step, optimizer.zero_grad, settings.batch_size, RECORDERS[device]())
    joins_last = len(train_rows) % settings.batch_size == 1 and needs_company(state, examples, precision)
    order_generator = torch.Generator()
    for epoch in range(state.epoch + 1, settings.epochs + 1):
        start = time.perf_counter()
        order_generator.manual_seed(derived_seed("order", settings.seed, epoch))
        order = train_rows[torch.randperm(len(train_rows), generator=order_generator).to(device)]
        seed_draws(derived_seed("dropout", settings.seed, epoch), device)
        state.train_mode()
        loss_sum.clear()
        correct.zero_()
        if augmentation is not None:
            augmentation.draw(epoch)
        if mixing is not None:
            mixing.draw(epoch)
        split = batches(order, settings.batch_size, joins_last=joins_last)
        with flushing_denormals():
            for number, rows in enumerate(examples.ahead(split), start=(epoch - 1) * len(split)):
                lr = learning_rate(settings, number, len(split))
                optimizer.set_lr(lr)
                take_step(rows)
                if state.average is not None:
                    state.average.update(number)
        with state.as_evaluated():
            validation = evaluate(model, examples, "val", precision=precision, whole=needs_more(settings.metric))
        row = EpochRow(
            epoch=epoch,
            train_loss=loss_sum.value.item() / len(train_rows),
            train_accuracy=int(correct.item()) / len(train_rows),
            val_loss=validation.loss,
            val_accuracy=validation.accuracy,
            lr=lr,
            **measured(settings.metric, validation),
            seconds=time.perf_counter() - start,
        )
        if state.add(row):
            everything = state.model.state_dict() if state.average is None else state.average.values
            state.best_weights = {name: everything[name].clone() for name in sorted(state.keep)}
        yield row
        if not row.is_finite:
            return


def needs_company(state: TrainingState, examples: Examples, precision: ResolvedPrecision) -> bool:
    """Whether a model cannot train on a batch of one image; see `batches.normalises_one_value`."""
    inputs, _ = examples.batch(examples.rows["train"][:1])
    with autocast(examples.device, precision):
        return normalises_one_value(state.trained, state.train_mode, inputs)


def balanced(labels: Tensor, rows: Tensor) -> Tensor:
    """Return class weights [classes] float32 that give each class the same share of the loss.

    Their mean over the training examples is 1: weight = n / (classes · examples of the class).

    Args:
        labels: [N] int64, labels of all examples.
        rows: [n] int64, rows of the examples that are trained on.
    """
    counts = torch.bincount(labels[rows], minlength=int(labels.max()) + 1)
    return len(rows) / (len(counts) * counts.clamp(min=1)).float()


def learning_rate(settings: Settings, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of a step: a pure function, so a trial can go on from anywhere with nothing stored.

    Args:
        settings: schedule, warm-up, epochs, and `lr`, the highest rate.
        step: number of the step, counted from 0 over all epochs.
        steps_per_epoch: steps in one epoch of the trial.
    """
    steps = settings.epochs * steps_per_epoch
    if settings.lr_schedule == "one-cycle":
        top = _RISE * steps
        if step < top:
            return settings.lr * _between(_FIRST, 1.0, step / top)
        return settings.lr * _between(1.0, _LAST, (step - top) / max(steps - 1 - top, 1))
    warm = round(settings.warmup_epochs * steps_per_epoch)
    if step < warm:
        return settings.lr * (step + 1) / warm
    if settings.lr_schedule == "cosine":
        return settings.lr * _between(1.0, 0.0, (step - warm) / max(steps - warm, 1))
    return settings.lr


def _between(begin: float, end: float, part: float) -> float:
    """Interpolate along half a cosine from `begin` (part 0) to `end` (part 1 and more)."""
    return end + (begin - end) * (1 + math.cos(math.pi * min(part, 1.0))) / 2
