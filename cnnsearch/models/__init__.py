"""The models a sweep can name, and building one from a trial's settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from cnnsearch.models.plain import Plain
from cnnsearch.models.residual import Residual
from cnnsearch.spec import Settings

__all__ = ["MODELS", "ModelInfo", "Plain", "Residual", "build"]


@dataclass(frozen=True)
class ModelInfo:
    """What there is to know of a model."""

    make: Callable[[int, Settings], nn.Module]
    """(number of classes, settings) -> a freshly initialised module."""
    source: str
    """Where the architecture comes from."""


MODELS: dict[str, ModelInfo] = {
    "plain": ModelInfo(
        lambda classes, s: Plain(classes, image_size=s.image_size, width=s.width, dropout=s.dropout),
        "course assignment on CNN image classification: six convs, no normalisation",
    ),
    "residual": ModelInfo(
        lambda classes, s: Residual(classes, width=s.width, dropout=s.dropout),
        "course assignment, after He et al., arXiv:1512.03385",
    ),
}


def build(settings: Settings, classes: int) -> nn.Module:
    """The model of a trial with random weights; what it draws depends on torch's global generator alone."""
    return MODELS[settings.model].make(classes, settings)
