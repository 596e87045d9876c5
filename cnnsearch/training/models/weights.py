"""Pretrained weights: fetch them, check that they fit, load them without running code that a file may hold.

`python -m cnnsearch.training.models.weights MODEL WEIGHTS` fetches what is missing and prints, as JSON, what planning
needs to know, so that the command that plans never imports torch (see `pretrained`).
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
from cnnsearch.storage.paths import typed_path
from cnnsearch.training.models.backbones import IMAGENET_CLASSES, fit_position_embedding, head_name
from cnnsearch.training.models.build import build
from cnnsearch.training.models.pretrained import OWN_IMAGES, Preprocessing
from cnnsearch.words import LISTED


def imagenet_file(model: str) -> Path:
    """Return the file of torchvision's default weights of a model, fetched once into torch's hub folder.

    A progress bar is shown meanwhile.

    Raises:
        RequestError: the file cannot be fetched; the message says which file to put where by hand.
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
    """Read the tensors of a safetensors file or a torch state dict, by name. Code in a pickle is refused, not run.

    Raises:
        RequestError: the file cannot be read as weights.
    """
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        with warnings.catch_warnings(action="ignore"):  # torch warns of unknown pickles before it refuses them
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
    """Load weights into a model. Its last layer keeps its own weights if those given are for another number of classes.

    Args:
        model: gives `classes` logits.
        state: name -> tensor.
        classes: number of classes.
        source: what messages call the weights.

    Raises:
        RequestError: weights are missing, left over or of another shape; the message names them.
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
    """Rename `norm.1` to `norm1` and the like in densenet's published weights, as torchvision's own loader does."""
    renamed = {}
    for name, value in state.items():
        if ".denselayer" in name:
            for part in ("norm", "relu", "conv"):
                name = name.replace(f"{part}.1.", f"{part}1.").replace(f"{part}.2.", f"{part}2.")
        renamed[name] = value
    return renamed


def expected_preprocessing(model: str) -> Preprocessing:
    """Return how images were prepared for torchvision's default weights of a model, but for image size and cropping."""
    transforms = models.get_model_weights(model).DEFAULT.transforms()
    interpolation = transforms.interpolation.value
    assert interpolation in ("bilinear", "bicubic"), f"{model} expects {interpolation}"
    return Preprocessing(tuple(transforms.mean), tuple(transforms.std), interpolation)


def check(model: str, weights: str) -> tuple[Path, Preprocessing]:
    """Find or fetch weights, and try whether they fit.

    A file for one of torchvision's models is assumed to expect the same preprocessing as torchvision's default weights
    of that model.

    Args:
        model: name of the model.
        weights: imagenet, or a path.

    Returns:
        The file, and the preprocessing that its weights expect.

    Raises:
        RequestError: weights are missing, cannot be read, or do not fit.
    """
    file = imagenet_file(model) if weights == "imagenet" else typed_path(weights)
    state = read_state(file)
    if model in OWN:  # whether they fit depends on the sweep's width and image size
        return file.absolute(), OWN_IMAGES
    load_into(build(Settings(model=model, image_size=224), IMAGENET_CLASSES), state, IMAGENET_CLASSES, str(file))
    return file.absolute(), expected_preprocessing(model)


def main() -> None:
    """Print as JSON what `check` finds, or its error message."""
    try:
        file, preprocessing = check(*sys.argv[1:3])
    except RequestError as error:
        print(json.dumps({"error": str(error)}))
        return
    print(json.dumps({"file": str(file), **asdict(preprocessing)}))


if __name__ == "__main__":
    main()
