"""Outputs of many linear heads on the same frozen features: products, losses and evaluations, trials first."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from cnnsearch.training.compute.totals import Total
from cnnsearch.training.evaluate import Evaluation

EVALUATED_ROWS = 512
"""Examples evaluated in one product. Fixed, so that the numbers repeat bit for bit."""
ALIGNED = 16
"""Rows of weights and inputs are padded to a multiple of this many numbers, which take 64 bytes. Without it, matrices
begin at other alignments, their products were found to be rounded differently with AVX2, and a trial's numbers depend
on its place in the bundle."""


@dataclass(frozen=True)
class HeadInputs:
    """Inputs of a head for every example: the outputs of the frozen layers, which are constant."""

    values: Tensor
    """[N, D] float32 inputs."""
    labels: Tensor
    """[N] int64 label of each example."""
    rows: dict[str, Tensor]
    """Split name -> [n] int64 rows of that split."""


def evaluate_heads(features: HeadInputs, split: str, weight: Tensor, bias: Tensor) -> list[Evaluation]:
    """Evaluate T heads on one split.

    Args:
        features: where the split is read from.
        split: train, val or test.
        weight: [T, C, D] float32.
        bias: [T, C] float32.

    Returns:
        [T] the results of each head.
    """
    inputs, labels = inputs_of(features, split)
    loss, correct, confidences, predicted = evaluate_products(joined(weight, bias), inputs, labels)
    n, true = len(labels), labels.cpu().numpy()
    return [
        Evaluation(
            trial_loss / n,
            trial_correct / n,
            trial_predicted,
            trial_confidence,
            true,
            functools.partial(_probabilities_of, features, split, weight[trial], bias[trial]),
        )
        for trial, (trial_loss, trial_correct, trial_predicted, trial_confidence) in enumerate(
            zip(loss.value.tolist(), correct.tolist(), predicted.cpu().numpy(), confidences.cpu().numpy(), strict=True)
        )
    ]


def _probabilities_of(features: HeadInputs, split: str, weight: Tensor, bias: Tensor) -> NDArray[np.float32]:
    """Every class's probability by one head, [n, C]: of one at a time, since those of all heads may not fit."""
    chunks = features.values[features.rows[split]].split(EVALUATED_ROWS)
    return torch.cat([probabilities(chunk, weight, bias) for chunk in chunks]).cpu().numpy()


@torch.inference_mode()
def probabilities(values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the probability of each class by one head, computed as `evaluate_heads` does.

    Args:
        values: [n, D] float32 inputs of the head; at most `EVALUATED_ROWS` of them.
        weight: [C, D] float32.
        bias: [C] float32.

    Returns:
        [n, C] float32.
    """
    logits = weight.new_empty(1, len(weight), len(values))
    products(joined(weight, bias)[None], joined(values, values.new_ones(len(values)))[None], out=logits)
    return logits.softmax(dim=1)[0].T


@torch.no_grad()
def evaluate_products(weight: Tensor, inputs: Tensor, labels: Tensor) -> tuple[Total, Tensor, Tensor, Tensor]:
    """Evaluate weights [T, C, K] on inputs [n, K] with labels [n].

    Returns:
        Sum of losses, [T]; number of correct predictions [T]; probabilities of the predicted classes [T, n]; and the
        predicted classes [T, n].
    """
    trials = len(weight)
    loss = Total(weight.device.type, trials)
    correct = torch.zeros(trials, dtype=torch.int64, device=weight.device)
    confidences, predicted = [], []
    for chunk, chunk_labels in zip(inputs.split(EVALUATED_ROWS), labels.split(EVALUATED_ROWS), strict=True):
        logits = weight.new_empty(trials, weight.shape[1], len(chunk))
        products(weight, chunk.expand(trials, -1, -1), out=logits)
        loss.add(losses(logits.unsqueeze(1), chunk_labels.expand(trials, 1, -1)))
        top, label = logits.softmax(dim=1).max(dim=1)
        confidences.append(top)
        predicted.append(label)
        correct += (label == chunk_labels).sum(dim=1)
    return loss, correct, torch.cat(confidences, 1), torch.cat(predicted, 1)


def products(weight: Tensor, inputs: Tensor, *, out: Tensor) -> None:
    """Multiply weights [T, C, K] by inputs [T, B, K] into logits [T, C, B]."""
    if inputs.shape[1] > 1:
        torch.bmm(weight, inputs.mT, out=out)
    else:
        # For a single vector, `bmm` uses another routine, whose sums were found to depend on T.
        torch.sum(weight * inputs, dim=2, keepdim=True, out=out)


def losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute cross-entropies in nats: logits [T, S, C, B] and labels [T, S, B] -> [T, S · B]."""
    each = F.log_softmax(logits, dim=2).gather(2, labels.unsqueeze(2)).neg_()
    return each.reshape(len(logits), -1)


def inputs_of(features: HeadInputs, split: str) -> tuple[Tensor, Tensor]:
    """Return inputs [n, K] and labels [n] of a split. Inputs are the features, a 1 for the bias, and zeros."""
    rows = features.rows[split]
    values = features.values[rows]
    return joined(values, values.new_ones(len(values))), features.labels[rows]


def joined(values: Tensor, last: Tensor) -> Tensor:
    """Join [..., D] and [...] to [..., K]: weights and their bias, or inputs and the 1 that it is multiplied by."""
    return padded(torch.cat([values.detach(), last.detach().unsqueeze(-1)], dim=-1))


def padded(values: Tensor) -> Tensor:
    """Pad [..., D + 1] to [..., K], the next multiple of `ALIGNED`, with zeros, which stay zeros in training."""
    return F.pad(values, (0, -values.shape[-1] % ALIGNED))
