"""torchvision's classification models with a new last layer."""

from __future__ import annotations

import warnings
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models

from cnnsearch.spec.settings import Settings
from cnnsearch.training.compute.small_maps import for_small_maps

IMAGENET_CLASSES = 1000
HEADS = "cnnsearch_heads"
"""Attribute of networks that know the names of their last layers: some have several, whose outputs are averaged."""


class DropoutLinear(nn.Linear):
    """A linear layer with dropout on its inputs; its parameters have the same names as those of `nn.Linear`.

    Shapes: [B, in_features] -> [B, out_features].
    """

    def __init__(self, in_features: int, out_features: int, dropout: float) -> None:
        super().__init__(in_features, out_features)
        self.dropout = dropout

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.dropout(input, self.dropout, self.training))


def make(name: str, settings: Settings, classes: int) -> nn.Module:
    """Make a torchvision model whose last layer is replaced by one that gives `classes` logits.

    Names, parameters and results are torchvision's, but wide convolutions over small maps are computed by
    `SmallMapConv2d`.

    Args:
        name: of one of torchvision's classification models.
        settings: `image_size`, for vision transformers; and `dropout`. Above zero, that is the dropout before the last
            layer: the architecture's own if it has one there, else one in the new layer. Zero leaves the architecture
            as it is.
        classes: number of classes.

    Returns:
        A model with random weights: images [B, 3, S, S] -> logits [B, classes].
    """
    options: dict[str, object] = {}
    if name.startswith("vit_"):
        options["image_size"] = settings.image_size
    if name in ("googlenet", "inception_v3"):
        options |= {"aux_logits": False, "init_weights": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = cast(nn.Module, models.get_model(name, weights=None, **options))
    replace_head(model, classes, settings.dropout)
    for_small_maps(model)
    return model


def head_names(model: nn.Module, classes: int) -> tuple[str, ...]:
    """Return the dotted names of the layers that give the logits: one, unless the network says that it has several."""
    return getattr(model, HEADS, None) or (head_name(model, classes),)


def head_name(model: nn.Module, classes: int = IMAGENET_CLASSES) -> str:
    """Return the dotted name of the layer that gives the logits: the last linear or convolutional one with that many.

    Raises:
        ValueError: there is none.
    """
    found = [
        name
        for name, module in model.named_modules()
        if (isinstance(module, nn.Linear) and module.out_features == classes)
        or (isinstance(module, nn.Conv2d) and module.out_channels == classes)
    ]
    if not found:
        raise ValueError(f"{type(model).__name__} has no layer with {classes} outputs")
    return str(found[-1])


def replace_head(model: nn.Module, classes: int, dropout: float) -> None:
    """Put a fresh last layer of `classes` outputs in place of the one for ImageNet, with dropout as `make` says."""
    name = head_name(model)
    parent_name, _, attribute = name.rpartition(".")
    parent = model.get_submodule(parent_name)
    old = model.get_submodule(name)
    before = _neighbour(parent, attribute)
    inside = dropout
    if dropout and isinstance(before, nn.Dropout):
        before.p, inside = dropout, 0.0
    new: nn.Module
    if isinstance(old, nn.Conv2d):
        new = nn.Conv2d(old.in_channels, classes, 1)
    else:
        assert isinstance(old, nn.Linear)
        new = DropoutLinear(old.in_features, classes, inside)
    setattr(parent, attribute, new)


def _neighbour(parent: nn.Module, attribute: str) -> nn.Module | None:
    """Return the module right before one in a Sequential; None if there is none."""
    if isinstance(parent, nn.Sequential) and attribute.isdigit() and int(attribute) > 0:
        return parent[int(attribute) - 1]
    return None


def fit_position_embedding(weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Fit the weights of a vision transformer to the image size of a model by interpolating the position embedding.

    As torchvision does (`torchvision.models.vision_transformer.interpolate_embeddings`): bicubic, class token kept.
    Weights of other models, or of that image size, are returned as they are.
    """
    key = "encoder.pos_embedding"
    wanted = model.state_dict().get(key)
    if wanted is None or key not in weights or weights[key].shape == wanted.shape:
        return weights
    if weights[key].ndim != 3 or weights[key].shape[1] < 2 or weights[key].layout is not torch.strided:
        return weights  # which do not fit
    token, grid = weights[key][:, :1], weights[key][:, 1:]
    old, new = round(grid.shape[1] ** 0.5), round((wanted.shape[1] - 1) ** 0.5)
    if (len(grid), grid.shape[1], grid.shape[2]) != (1, old**2, wanted.shape[2]):
        return weights
    square = grid.permute(0, 2, 1).reshape(1, -1, old, old)
    resized = F.interpolate(square, size=(new, new), mode="bicubic", align_corners=True)
    return {**weights, key: torch.cat([token, resized.flatten(2).permute(0, 2, 1)], dim=1)}
