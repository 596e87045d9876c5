"""Training: one loop that reads top to bottom and yields a row an epoch. It knows nothing of files or of Ray."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnnsearch.planning.trial import EpochRow
from cnnsearch.spec.settings import ResolvedPrecision, Settings
from cnnsearch.training.augment import Augmentation
from cnnsearch.training.compute.device import autocast, derived_seed, flushing_denormals, seed_draws
from cnnsearch.training.compute.graphs import RECORDERS, ReplayedStep
from cnnsearch.training.compute.optimizers import Optimizer
from cnnsearch.training.evaluate import evaluate
from cnnsearch.training.features import Examples
from cnnsearch.training.history import History

Weights = dict[str, Tensor]

_RISE = 0.3
"""Share of the steps in which one-cycle rises. This and what follows: the defaults of torch's OneCycleLR, after
Smith and Topin, arXiv:1708.07120."""
_FIRST = 1 / 25
"""One-cycle's first rate, in parts of the highest."""
_LAST = _FIRST / 1e4
"""Its last."""


@dataclass
class TrainingState(History):
    """All that training has changed: enough to go on from."""

    model: nn.Module
    """All of it, frozen layers included."""
    trained: nn.Module
    """What runs in training: the model, or what follows its frozen layers."""
    train_mode: Callable[[], object]
    """Puts into training mode what is to be in it."""
    keep: frozenset[str]
    """Names in the model's state dict that training can change: what is kept of the best epoch."""
    optimizer: Optimizer
    best_weights: Weights = field(default_factory=dict)

    @classmethod
    def start(
        cls,
        model: nn.Module,
        settings: Settings,
        trained: nn.Module | None = None,
        train_mode: Callable[[], object] | None = None,
        keep: frozenset[str] | None = None,
    ) -> TrainingState:
        """The state before the first epoch.

        Args:
            model: on its device; parameters that do not require gradients stay as they are.
            settings: optimizer and its hyperparameters.
            trained: the part that runs in training; the whole model by default.
            train_mode: by default, the whole model's.
            keep: names in the state dict that can change; all by default.
        """
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        names = frozenset(model.state_dict()) if keep is None else keep
        return cls(model, trained or model, train_mode or model.train, names, Optimizer(parameters, settings))

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and strings only: `torch.load(weights_only=True)` reads it."""
        return {
            "kind": "model",
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            **self.history_dict(),
            "best_weights": self.best_weights,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a state of the same trial."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.load_history(state)
        self.best_weights = state["best_weights"]


def train(
    state: TrainingState, examples: Examples, settings: Settings, *, precision: ResolvedPrecision
) -> Iterator[EpochRow]:
    """Train from where `state` stands to the last epoch; a row that is not finite is the last one.

    The draws of an epoch depend on the trial's seed and the epoch's number alone, so stopping between epochs and going
    on later changes nothing.
    """
    model, optimizer, device = state.trained, state.optimizer, examples.device
    train_rows = examples.rows["train"]
    # Summed where the model is: a GPU is not made to wait for the host at every step.
    loss_sum = torch.zeros((), dtype=torch.float64, device=device)
    correct = torch.zeros((), dtype=torch.int64, device=device)

    augmentation = Augmentation.of(settings, len(examples.labels), device)
    class_weights = balanced(examples.labels, train_rows) if settings.class_weights == "balanced" else None

    def step(rows: Tensor) -> None:
        inputs, labels = examples.batch(rows)
        if augmentation is not None:
            inputs = (augmentation(inputs[0], rows),)
        with autocast(device, precision):
            logits = model(*inputs)
        logits = logits.float()
        loss = F.cross_entropy(logits, labels, weight=class_weights, label_smoothing=settings.label_smoothing)
        loss.backward()
        optimizer.step()
        loss_sum.add_(loss.detach() * len(rows))
        correct.add_((logits.detach().argmax(dim=1) == labels).sum())

    take_step: Callable[[Tensor], None] = step
    if device in RECORDERS:
        take_step = ReplayedStep(step, optimizer.zero_grad, settings.batch_size, RECORDERS[device]())
    order_generator = torch.Generator()
    for epoch in range(state.epoch + 1, settings.epochs + 1):
        start = time.perf_counter()
        order_generator.manual_seed(derived_seed("order", settings.seed, epoch))
        order = train_rows[torch.randperm(len(train_rows), generator=order_generator).to(device)]
        seed_draws(derived_seed("dropout", settings.seed, epoch), device)
        state.train_mode()
        loss_sum.zero_()
        correct.zero_()
        if augmentation is not None:
            augmentation.draw(epoch)
        batches = order.split(settings.batch_size)
        with flushing_denormals():
            for number, rows in enumerate(batches, start=(epoch - 1) * len(batches)):
                lr = learning_rate(settings, number, len(batches))
                optimizer.set_lr(lr)
                take_step(rows)
        validation = evaluate(model, examples, "val", precision=precision)
        row = EpochRow(
            epoch=epoch,
            train_loss=loss_sum.item() / len(train_rows),
            train_accuracy=int(correct.item()) / len(train_rows),
            val_loss=validation.loss,
            val_accuracy=validation.accuracy,
            lr=lr,
            seconds=time.perf_counter() - start,
        )
        if state.add(row):
            everything = state.model.state_dict()
            state.best_weights = {name: everything[name].clone() for name in sorted(state.keep)}
        yield row
        if not row.is_finite:
            return


def balanced(labels: Tensor, rows: Tensor) -> Tensor:
    """Weights [classes] float32 by which each class has the same share of the loss; their mean over examples is 1.

    Args:
        labels: [N] int64, of all examples.
        rows: [n] int64, of those that are trained on.
    """
    counts = torch.bincount(labels[rows], minlength=int(labels.max()) + 1)
    return len(rows) / (len(counts) * counts.clamp(min=1)).float()


def learning_rate(settings: Settings, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step.

    Args:
        settings: `lr` is the highest rate.
        step: counted from 0 over all epochs.
        steps_per_epoch: of the trial.
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
    """Half a cosine from one value to another."""
    return end + (begin - end) * (1 + math.cos(math.pi * min(part, 1.0))) / 2
