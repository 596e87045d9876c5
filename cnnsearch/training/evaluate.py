"""Loss, accuracy and predictions of a model over one split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from cnnsearch.spec.settings import ResolvedPrecision
from cnnsearch.training.compute.device import autocast
from cnnsearch.training.features import Examples

MEASURED = ("val", "test")
"""Splits a trial is measured on before it is trained further, and at its best epoch."""
NUMBERS_AT_ONCE = {"cpu": 400_000, "cuda": 4_000_000}
"""Device -> inputs evaluated at once: 128 images of 32×32 on a CPU, where more gains nothing and their activations take
memory."""


def batch_size(numbers: int, device: str) -> int:
    """Examples evaluated at once where each is so many numbers: from 16 to 256, a power of two."""
    return int(2 ** (min(max(NUMBERS_AT_ONCE[device] // numbers, 16), 256).bit_length() - 1))


@dataclass(frozen=True)
class Evaluation:
    """What a model makes of the examples of a split, in the split's order."""

    loss: float
    """Mean cross-entropy over examples, nats."""
    accuracy: float
    """Fraction in [0, 1]."""
    predicted: NDArray[np.int64]
    """[n] most probable class."""
    confidence: NDArray[np.float32]
    """[n] probability of that class."""


@torch.inference_mode()
def evaluate(model: nn.Module, examples: Examples, split: str, *, precision: ResolvedPrecision) -> Evaluation:
    """Evaluate in eval mode and leave the model in eval mode. Results are those of each example by itself."""
    model.eval()
    device = examples.device
    loss = torch.zeros((), dtype=torch.float64, device=device)
    probabilities, predicted, correct = [], [], torch.zeros((), dtype=torch.int64, device=device)
    for rows in examples.rows[split].split(batch_size(examples.numbers, device)):
        inputs, labels = examples.batch(rows)
        with autocast(device, precision):
            logits = model(*inputs)
        logits = logits.float()
        loss += F.cross_entropy(logits, labels, reduction="none").double().sum()
        top, label = logits.softmax(dim=1).max(dim=1)
        probabilities.append(top)
        predicted.append(label)
        correct += (label == labels).sum()
    n = len(examples.rows[split])
    return Evaluation(
        loss=loss.item() / n,
        accuracy=int(correct.item()) / n,
        predicted=torch.cat(predicted).cpu().numpy(),
        confidence=torch.cat(probabilities).cpu().numpy(),
    )
