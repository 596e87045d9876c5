"""Small models and their weights for the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from cnnsearch.spec.settings import Settings
from cnnsearch.training.models.build import build, initial_model

BACKBONES = {
    "resnet18": 64,
    "resnet50": 32,
    "squeezenet1_1": 64,
    "mobilenet_v3_small": 32,
    "efficientnet_b0": 32,
    "convnext_tiny": 32,
    "vit_b_16": 32,
    "plain": 16,
    "residual": 16,
}


CLASSES = 5


def settings(model: str, **values: Any) -> Settings:
    width = {"width": 0.1} if model in ("plain", "residual") else {}
    return Settings.model_validate({"model": model, "image_size": BACKBONES[model], **width, **values})


def seeded(model: str, **values: Any) -> nn.Module:
    torch.set_num_threads(1)
    return initial_model(settings(model, **values), CLASSES, "cpu")


def save_weights(folder: Path, model: str = "resnet18", classes: int = 1000) -> Path:
    """Seeded weights as torchvision publishes them."""
    torch.manual_seed(7)
    file = folder / f"{model}.pth"
    torch.save(build(settings(model), classes).state_dict(), file)
    return file
