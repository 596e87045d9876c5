"""Pretrained weights: where they come from, checking that they fit, loading them without running what they hold.

Run as `python -m cnnsearch.training.models.weights MODEL WEIGHTS`, it fetches what is missing and prints what a plan
has to know as JSON, so that the command that plans never imports torch (see `pretrained`).
"""

from __future__ import annotations

import json
import pickle
import sys
import urllib.error
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import models

from cnnsearch.errors import RequestError
from cnnsearch.spec.model_names import OWN
from cnnsearch.spec.settings import Settings
from cnnsearch.training.models.backbones import IMAGENET_CLASSES, fit_position_embedding, head_name
from cnnsearch.training.models.build import build
from cnnsearch.training.models.pretrained import OWN_IMAGES, Preprocessing
from cnnsearch.words import LISTED


def imagenet_file(model: str) -> Path:
    """torchvision's default weights of a model, fetched once into torch's hub folder with a progress bar.

    Raises RequestError where there is no network, saying which file goes where.
    """
    weights = models.get_model_weights(model).DEFAULT
    name = weights.url.rpartition("/")[2]
    file = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not file.is_file():
        try:
            weights.get_state_dict(progress=True, check_hash=True)
        except (urllib.error.URLError, OSError, RuntimeError) as error:
            reason = getattr(error, "reason", error)
            raise RequestError(
                f"the ImageNet weights of {model} cannot be fetched: {reason}\n"
                f"Fetch {weights.url} elsewhere and put it at {file},\n"
                f"or anywhere and give --set train.weights=PATH/{name}"
            ) from None
    return Path(file)


def read_state(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or a torch state dict, by name. Code in a pickle is refused, not run.

    Raises RequestError where the file cannot be read as weights.
    """
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        with warnings.catch_warnings(action="ignore"):  # it warns of pickles it does not know, and then refuses them
            state: Any = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RequestError(f"there is no file of weights {file}") from None
    except pickle.UnpicklingError:
        raise RequestError(
            f"{file} holds more than tensors, which could run code when it is opened; save it again as safetensors"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, SafetensorError) as error:
        raise RequestError(f"{file} cannot be read as weights: {str(error).splitlines()[0]}") from None
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise RequestError(f"{file} is not a state dict: names to tensors")
    return state


def load_into(model: nn.Module, state: dict[str, Tensor], classes: int, source: str) -> None:
    """Put weights into a model. Its last layer keeps its own where theirs is for another number of classes.

    Raises RequestError naming what is missing, left over or of another shape.
    """
    head = head_name(model, classes)
    wanted = model.state_dict()
    state = fit_position_embedding(_older_names(state), model)
    of_head = {name for name in wanted if name.startswith(f"{head}.")}
    if any(name not in state or state[name].shape != wanted[name].shape for name in of_head):
        state = {**state, **{name: wanted[name] for name in of_head}}
    state = {name: value for name, value in state.items() if not name.startswith(("AuxLogits.", "aux1.", "aux2."))}
    missing = [name for name in wanted if name not in state and not name.endswith("num_batches_tracked")]
    extra = [name for name in state if name not in wanted]
    shapes = [name for name in wanted if name in state and state[name].shape != wanted[name].shape]
    for what, names in (("lacks", missing), ("has, besides what the model needs,", extra)):
        if names:
            more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
            raise RequestError(f"{source} does not fit: it {what} {', '.join(names[:LISTED])}{more}")
    if shapes:
        name = shapes[0]
        given, needed = tuple(state[name].shape), tuple(wanted[name].shape)
        raise RequestError(f"{source} does not fit: {name} is {given}, the model needs {needed}")
    model.load_state_dict(state, strict=False)


def _older_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """densenet's published weights name `norm.1` what is `norm1` now, as torchvision's own loader knows."""
    renamed = {}
    for name, value in state.items():
        if ".denselayer" in name:
            for part in ("norm", "relu", "conv"):
                name = name.replace(f"{part}.1.", f"{part}1.").replace(f"{part}.2.", f"{part}2.")
        renamed[name] = value
    return renamed


def expected_preprocessing(model: str) -> Preprocessing:
    """What torchvision's default weights of a model were trained on, but for image size and cropping."""
    transforms = models.get_model_weights(model).DEFAULT.transforms()
    interpolation = transforms.interpolation.value
    assert interpolation in ("bilinear", "bicubic"), f"{model} expects {interpolation}"
    return Preprocessing(tuple(transforms.mean), tuple(transforms.std), interpolation)


def check(model: str, weights: str) -> tuple[Path, Preprocessing]:
    """Find, fetch and try weights: their file, and the preprocessing they expect.

    A file for one of torchvision's models is taken to expect what torchvision's default weights of that model do.
    """
    file = imagenet_file(model) if weights == "imagenet" else Path(weights)
    state = read_state(file)
    if model in OWN:  # fitting them needs the sweep's width and image size
        return file.absolute(), OWN_IMAGES
    load_into(build(Settings(model=model, image_size=224), IMAGENET_CLASSES), state, IMAGENET_CLASSES, str(file))
    return file.absolute(), expected_preprocessing(model)


def main() -> None:
    """Print what `check` finds, or its complaint, as JSON."""
    try:
        file, preprocessing = check(*sys.argv[1:3])
    except RequestError as error:
        print(json.dumps({"error": str(error)}))
        return
    print(json.dumps({"file": str(file), **asdict(preprocessing)}))


if __name__ == "__main__":
    main()
