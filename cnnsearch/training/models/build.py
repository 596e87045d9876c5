"""Build a model from a trial's settings."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from cnnsearch.spec.model_names import is_timm
from cnnsearch.spec.settings import Settings
from cnnsearch.training.compute.device import derived_seed
from cnnsearch.training.compute.device_kinds import DEVICES
from cnnsearch.training.compute.optimizers import needs_head
from cnnsearch.training.models.own import Plain, Residual

MODELS: dict[str, Callable[[int, Settings], nn.Module]] = {
    "plain": lambda classes, s: Plain(classes, image_size=s.image_size, width=s.width, dropout=s.dropout),
    "residual": lambda classes, s: Residual(classes, width=s.width, dropout=s.dropout),
}
"""This package's own models. Name -> (number of classes, settings) -> a freshly initialised module."""


def build(settings: Settings, classes: int) -> nn.Module:
    """Build the model of a trial with random weights, which are drawn from torch's global generator alone."""
    if settings.code:
        from cnnsearch.training.models.code import make as make_own

        return make_own(settings, classes)
    if settings.model in MODELS:
        return MODELS[settings.model](classes, settings)
    if is_timm(settings.model):
        from cnnsearch.training.models.timm_models import make as make_timm

        return make_timm(settings.model, settings, classes)
    from cnnsearch.training.models.backbones import make  # torchvision takes seconds to import

    return make(settings.model, settings, classes)


def heads_apart(model: nn.Module, settings: Settings, classes: int) -> tuple[str, ...]:
    """Names of the last layer, or layers, where settings step them otherwise than the others; else none."""
    if not needs_head(settings):
        return ()
    from cnnsearch.training.models.backbones import head_names

    return head_names(model, classes)


def reset_head(model: nn.Module, classes: int, seed: int) -> None:
    """Draw the last layer anew from its own seed, so that a head alone can be drawn the same without its backbone."""
    from cnnsearch.training.models.backbones import head_names

    torch.manual_seed(derived_seed("head", seed))
    for name in head_names(model, classes):
        head = model.get_submodule(name)
        assert isinstance(head, nn.Linear | nn.Conv2d)
        head.reset_parameters()


def initial_model(settings: Settings, classes: int, device: str) -> nn.Module:
    """Build a model on a device, with weights drawn from the trial's seed, in the order that the device takes them in.

    Networks of the user's own keep torch's usual order: their code may depend on it, as `view` does.
    """
    torch.manual_seed(derived_seed("weights", settings.seed))
    model = build(settings, classes).to(device)
    return model if settings.code else model.to(memory_format=DEVICES[device].memory_format)
