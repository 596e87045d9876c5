"""Loss, accuracy and predictions of a model over one split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from cnnsearch.scores import Predicted, score
from cnnsearch.spec.metric import ADDED, METRICS
from cnnsearch.spec.settings import ResolvedPrecision
from cnnsearch.training.compute.device import autocast
from cnnsearch.training.compute.device_kinds import DEVICES
from cnnsearch.training.compute.totals import Total
from cnnsearch.training.features import Examples


def batch_size(numbers: int, device: str) -> int:
    """Return how many examples to evaluate at once: a power of two from 16 to 256.

    Args:
        numbers: numbers in the inputs of one example.
        device: cpu, cuda, xpu or mps.
    """
    return int(2 ** (min(max(DEVICES[device].evaluated_numbers // numbers, 16), 256).bit_length() - 1))


@dataclass(frozen=True)
class Evaluation:
    """Results of a model on one split, examples in the split's order."""

    loss: float
    """Mean cross-entropy over examples, nats."""
    accuracy: float
    """Fraction of examples classified correctly, in [0, 1]."""
    predicted: NDArray[np.int64]
    """[n] most probable class of each example."""
    confidence: NDArray[np.float32]
    """[n] probability of that class, in [0, 1]."""
    labels: NDArray[np.int64]
    """[n] true class of each example."""
    ask: Callable[[], NDArray[np.float32]] | None = None
    """Returns the probability of every class; None where these were not asked for."""

    @cached_property
    def probabilities(self) -> NDArray[np.float32]:
        """[n, classes] probability of every class. Asked for once."""
        assert self.ask is not None
        return self.ask()

    @cached_property
    def whole(self) -> Predicted:
        """All that was predicted, beside the labels: what metrics are computed from."""
        classes = self.probabilities.shape[1]
        return Predicted(self.labels, classes, self.predicted, self.confidence, self.probabilities)


def needs_more(metric: str) -> bool:
    """Whether a metric is computed from all predictions, and not known with loss and accuracy."""
    return metric in ADDED


def measured(metric: str, found: Evaluation) -> dict[str, float | None]:
    """Return the column of an epoch's row that a sweep's metric adds: name -> value; empty for accuracy and loss."""
    return {METRICS[metric].measure: score(metric, found.whole)} if needs_more(metric) else {}


@torch.inference_mode()
def probabilities(model: nn.Module, images: Tensor, *, precision: ResolvedPrecision) -> Tensor:
    """Return the probability of each class, computed as `evaluate` does.

    Args:
        model: in eval mode; images of a batch -> logits [B, classes].
        images: [n, 3, S, S] normalised, of any number: they are taken a batch at a time.
        precision: as for `evaluate`.

    Returns:
        [n, classes] float32.
    """
    device = images.device.type
    batches = images.split(batch_size(images[0].numel(), device))
    return torch.cat([_logits(model, (batch,), device, precision).softmax(dim=1) for batch in batches])


def _logits(model: nn.Module, inputs: tuple[Tensor, ...], device: str, precision: ResolvedPrecision) -> Tensor:
    with autocast(device, precision):
        logits: Tensor = model(*inputs)
    return logits.float()


@torch.inference_mode()
def evaluate(
    model: nn.Module, examples: Examples, split: str, *, precision: ResolvedPrecision, whole: bool = False
) -> Evaluation:
    """Evaluate a model on one split; the model is left in eval mode.

    The result for an example does not depend on which others share its batch.

    Args:
        model: inputs of a batch -> logits [B, classes].
        examples: where the split is read from.
        split: train, val or test.
        precision: of matrix products and convolutions; losses and probabilities are fp32.
        whole: whether the probabilities of all classes will be asked for.
    """
    model.eval()
    device = examples.device
    loss = Total(device)
    confidences, predicted, correct = [], [], torch.zeros((), dtype=torch.int64, device=device)
    of_classes = []
    for rows in examples.ahead(examples.rows[split].split(batch_size(examples.numbers, device))):
        inputs, labels = examples.batch(rows)
        logits = _logits(model, inputs, device, precision)
        loss.add(F.cross_entropy(logits, labels, reduction="none"))
        chances = logits.softmax(dim=1)
        top, label = chances.max(dim=1)
        if whole:
            of_classes.append(chances)
        confidences.append(top)
        predicted.append(label)
        correct += (label == labels).sum()
    n = len(examples.rows[split])
    return Evaluation(
        loss=loss.value.item() / n,
        accuracy=int(correct.item()) / n,
        predicted=torch.cat(predicted).cpu().numpy(),
        confidence=torch.cat(confidences).cpu().numpy(),
        labels=examples.labels[examples.rows[split]].cpu().numpy(),
        ask=(lambda: torch.cat(of_classes).cpu().numpy()) if whole else None,
    )
