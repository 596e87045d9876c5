"""Loss, accuracy and predictions of a model over one split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from cnnsearch.spec.settings import ResolvedPrecision
from cnnsearch.training.compute.device import autocast
from cnnsearch.training.features import Examples

NUMBERS_AT_ONCE = {"cpu": 400_000, "cuda": 4_000_000}
"""Device -> count of input numbers that are evaluated at once. On a CPU that is 128 images of 32×32; more is no faster,
and the activations take memory."""


def batch_size(numbers: int, device: str) -> int:
    """Return how many examples to evaluate at once: a power of two from 16 to 256.

    Args:
        numbers: numbers in the inputs of one example.
        device: cpu or cuda.
    """
    return int(2 ** (min(max(NUMBERS_AT_ONCE[device] // numbers, 16), 256).bit_length() - 1))


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
def evaluate(model: nn.Module, examples: Examples, split: str, *, precision: ResolvedPrecision) -> Evaluation:
    """Evaluate a model on one split; the model is left in eval mode.

    The result for an example does not depend on which others share its batch.

    Args:
        model: inputs of a batch -> logits [B, classes].
        examples: where the split is read from.
        split: train, val or test.
        precision: of matrix products and convolutions; losses and probabilities are fp32.
    """
    model.eval()
    device = examples.device
    loss = torch.zeros((), dtype=torch.float64, device=device)
    confidences, predicted, correct = [], [], torch.zeros((), dtype=torch.int64, device=device)
    for rows in examples.rows[split].split(batch_size(examples.numbers, device)):
        inputs, labels = examples.batch(rows)
        logits = _logits(model, inputs, device, precision)
        loss += F.cross_entropy(logits, labels, reduction="none").double().sum()
        top, label = logits.softmax(dim=1).max(dim=1)
        confidences.append(top)
        predicted.append(label)
        correct += (label == labels).sum()
    n = len(examples.rows[split])
    return Evaluation(
        loss=loss.item() / n,
        accuracy=int(correct.item()) / n,
        predicted=torch.cat(predicted).cpu().numpy(),
        confidence=torch.cat(confidences).cpu().numpy(),
    )
