"""The network of a trial that ended, for other images: built from the weights that the trial kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cnnsearch.data.dataset import Dataset
from cnnsearch.data.images import Interpolation
from cnnsearch.errors import ResultsError
from cnnsearch.execution.context import Choices, SharedContext
from cnnsearch.execution.jobs import only_head
from cnnsearch.execution.start import starting_model
from cnnsearch.planning.job import head_key
from cnnsearch.planning.trial import Trial
from cnnsearch.results.folder import Results
from cnnsearch.results.record import Inputs, Record
from cnnsearch.spec.settings import ResolvedPrecision
from cnnsearch.training import evaluate, head_scores
from cnnsearch.training.features import compute
from cnnsearch.training.models.pretrained import Key, Pretrained
from cnnsearch.training.pixels import Pixels, normalised


@dataclass(frozen=True)
class Network:
    """A trained network and how a decoded image becomes its input. It computes as the trial was evaluated."""

    model: nn.Module
    """In eval mode: normalised images [B, 3, S, S] -> logits [B, classes]."""
    inputs: Inputs
    choices: Choices
    """Device, threads and precision of the trial."""
    head: Head | None
    """Where the trial trained nothing but a head in company, which is computed in fp32, whatever the precision."""

    @cached_property
    def _statistics(self) -> tuple[Tensor, Tensor]:
        mean, std = (torch.tensor(values, dtype=torch.float32) for values in (self.inputs.mean, self.inputs.std))
        return mean.to(self.choices.device), std.to(self.choices.device)

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the probability of each class: images [B, S, S, 3] -> [B, classes]. Several threads may call it."""
        pixels, precision = torch.from_numpy(images).to(self.choices.device), self.choices.precision
        if self.head is None:
            found = evaluate.probabilities(self.model, normalised(pixels, *self._statistics), precision=precision)
        else:
            found = self.head.probabilities(pixels, self._statistics, precision)
        return found.cpu().numpy()


@dataclass(frozen=True)
class Head:
    """A network in two parts, as trials that train only a head compute it."""

    prefix: nn.Module
    """The frozen layers."""
    weight: Tensor
    """[classes, D] float32."""
    bias: Tensor
    """[classes] float32."""

    def probabilities(self, images: Tensor, statistics: tuple[Tensor, Tensor], precision: ResolvedPrecision) -> Tensor:
        """Return the probability of each class: uint8 images [B, S, S, 3] -> [B, classes]."""
        pixels = Pixels(images, torch.zeros(len(images), device=images.device), {}, *statistics)
        (values,) = compute(self.prefix, pixels, precision)
        parts = values.float().split(head_scores.EVALUATED_ROWS)
        return torch.cat([head_scores.probabilities(part, self.weight, self.bias) for part in parts])


def trained_network(
    results: Path,
    record: Record,
    classes: tuple[str, ...],
    inputs: Inputs,
    device: str,
    weights: Mapping[Key, Pretrained] | None = None,
) -> Network:
    """Build the network of a trial that ended, with the weights of its best epoch.

    Args:
        results: folder of its sweep.
        record: of the trial.
        classes: of the sweep.
        inputs: how decoded images become its inputs.
        device: cpu, cuda, xpu or mps.
        weights: the pretrained weights that it started from, where it has frozen layers.

    Raises ResultsError where weights are missing or not what was recorded.
    """
    settings = record.settings
    choices = Choices(device, record.threads or 1, "bf16" if record.precision == "bf16" else "fp32")
    known = _without_images(settings.image_size, classes, record.data)
    forms = {(settings.image_size, way): known for way in get_args(Interpolation)}
    context = SharedContext(results, forms, choices, 0.0, weights or {})
    # What it has become is what a trial would start with that goes on from it.
    next_one = Trial(record.stage, settings, record.data, parent_id=record.trial_id)
    model = starting_model(next_one, context).eval()
    return Network(model, inputs, choices, _head(model, next_one, len(classes)))


def _without_images(size: int, classes: tuple[str, ...], fingerprint: str) -> Dataset:
    return Dataset("", size, classes, (), np.zeros(0, np.int64), {}, Path(), fingerprint)


def _head(model: nn.Module, trial: Trial, classes: int) -> Head | None:
    """Cut a model as training did, where that trained its head in company; None where it did not."""
    if head_key(trial) is None:
        return None
    from cnnsearch.training.models.cut import cut_for, freeze

    halves = cut_for(trial.settings, freeze(model, trial.settings.fine_tune, classes))
    found = halves and only_head(halves.suffix)
    if halves is None or not found or "+" in halves.name:
        return None
    layer = model.get_submodule(found[0])
    assert isinstance(layer, nn.Linear)
    return Head(halves.prefix.eval(), layer.weight.detach(), layer.bias.detach())


def weights_below(results: Results, record: Record) -> Key | None:
    """The pretrained weights that a trial's frozen layers come from, if it has any such.

    A fine-tuned trial keeps only what its training changed; the rest is in what it started from.

    Raises ResultsError where a trial that it started from has no record, or has not kept its weights.
    """
    while record.settings.fine_tune != "full":
        if record.parent_id is None:
            settings = record.settings
            return None if settings.weights == "none" else (settings.model, settings.weights)
        parent = results.trial(record.parent_id)
        found = parent.record()
        if found is None or not parent.weights_file.is_file():
            raise ResultsError(
                f"trial {record.trial_id} kept only the weights that its training changed; the others are those of "
                f"trial {record.parent_id}, and {parent.weights_file} is missing"
            )
        record = found
    return None
