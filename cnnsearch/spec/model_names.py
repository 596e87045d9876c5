"""The models that a sweep may name. Free of torch, so that a sweep file is checked at once."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from contextvars import ContextVar

OWN = ("plain", "residual")
"""This package's own architectures; their width can be varied."""

TORCHVISION = (
    "alexnet",
    "convnext_base",
    "convnext_large",
    "convnext_small",
    "convnext_tiny",
    "densenet121",
    "densenet161",
    "densenet169",
    "densenet201",
    "efficientnet_b0",
    "efficientnet_b1",
    "efficientnet_b2",
    "efficientnet_b3",
    "efficientnet_b4",
    "efficientnet_b5",
    "efficientnet_b6",
    "efficientnet_b7",
    "efficientnet_v2_l",
    "efficientnet_v2_m",
    "efficientnet_v2_s",
    "googlenet",
    "inception_v3",
    "maxvit_t",
    "mnasnet0_5",
    "mnasnet0_75",
    "mnasnet1_0",
    "mnasnet1_3",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "regnet_x_16gf",
    "regnet_x_1_6gf",
    "regnet_x_32gf",
    "regnet_x_3_2gf",
    "regnet_x_400mf",
    "regnet_x_800mf",
    "regnet_x_8gf",
    "regnet_y_128gf",
    "regnet_y_16gf",
    "regnet_y_1_6gf",
    "regnet_y_32gf",
    "regnet_y_3_2gf",
    "regnet_y_400mf",
    "regnet_y_800mf",
    "regnet_y_8gf",
    "resnet101",
    "resnet152",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "resnext50_32x4d",
    "shufflenet_v2_x0_5",
    "shufflenet_v2_x1_0",
    "shufflenet_v2_x1_5",
    "shufflenet_v2_x2_0",
    "squeezenet1_0",
    "squeezenet1_1",
    "swin_b",
    "swin_s",
    "swin_t",
    "swin_v2_b",
    "swin_v2_s",
    "swin_v2_t",
    "vgg11",
    "vgg11_bn",
    "vgg13",
    "vgg13_bn",
    "vgg16",
    "vgg16_bn",
    "vgg19",
    "vgg19_bn",
    "vit_b_16",
    "vit_b_32",
    "vit_h_14",
    "vit_l_16",
    "vit_l_32",
    "wide_resnet101_2",
    "wide_resnet50_2",
)
"""torchvision's classification models under torchvision's names (0.21 to 0.29)."""

KNOWN = (*OWN, *TORCHVISION)

TIMM = "timm:"
"""What the names of timm's models begin with. Which there are, timm says: see `training.models.checked_timm`."""


def is_timm(model: str) -> bool:
    """Whether a name is formed as one of timm's: timm:ARCHITECTURE or timm:ARCHITECTURE.WEIGHTS."""
    return re.fullmatch(r"timm:\w[\w-]*(\.[\w-]+)?", model, re.ASCII) is not None


PUBLISHED = ("imagenet", "pretrained")
"""Weights that come with a model: torchvision's may be asked for by either name."""

_OF_CODE: ContextVar[tuple[str, ...]] = ContextVar("models of the user's own code", default=())


def known() -> tuple[str, ...]:
    """The names that a model may have here."""
    return (*KNOWN, *_OF_CODE.get())


@contextlib.contextmanager
def knowing(models: Iterable[str]) -> Iterator[None]:
    """Accept these names too in the block: of networks in the user's own code."""
    before = _OF_CODE.set((*_OF_CODE.get(), *models))
    try:
        yield
    finally:
        _OF_CODE.reset(before)


PATCH_SIZES = {"vit_b_16": 16, "vit_b_32": 32, "vit_h_14": 14, "vit_l_16": 16, "vit_l_32": 32}
"""Vision transformers -> the patch size of which their image's side must be a multiple."""

IMAGE_SIZES: dict[str, tuple[int, int | None]] = {
    "alexnet": (63, None),
    **dict.fromkeys((name for name in TORCHVISION if name.startswith("convnext_")), (32, None)),
    **dict.fromkeys((name for name in TORCHVISION if name.startswith("densenet")), (29, None)),
    "googlenet": (15, None),
    "inception_v3": (75, None),
    "maxvit_t": (221, 224),
    "squeezenet1_0": (21, None),
    "squeezenet1_1": (17, None),
    **dict.fromkeys((name for name in TORCHVISION if name.startswith("vgg")), (32, None)),
}
"""Models that cannot take every image size from 8 on -> the least side they take, and the largest where there is one.

Found by halving: at a smaller size a layer has no pixel left, and the windows of maxvit_t have no other size."""


def size_problem(model: str, image_size: int) -> str | None:
    """Say why a network cannot take images of this size, in pixels; None where it can, or there is no such network."""
    patch = PATCH_SIZES.get(model, 1)
    if image_size % patch:
        return f"image_size {image_size} with model {model}: it must be a multiple of {patch}"
    least, most = IMAGE_SIZES.get(model, (0, None))
    if image_size < least or (most is not None and image_size > most):
        allowed = f"at least {least}" if most is None else f"{least} to {most}"
        return f"image_size {image_size} with model {model}: it must be {allowed}"
    return None
