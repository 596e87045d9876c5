"""Pretrained weights: fetch them, check that they fit, load them without running code that a file may hold.

`python -m cnnsearch.training.models.weights MODEL WEIGHTS` fetches what is missing and prints, as JSON, what planning
needs to know, so that the command that plans never imports torch (see `pretrained`).
"""

from __future__ import annotations

import json
import sys
import urllib.error
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision import models

from cnnsearch.errors import RequestError
from cnnsearch.spec.model_names import PUBLISHED, TORCHVISION, is_timm
from cnnsearch.spec.settings import Settings
from cnnsearch.storage.paths import typed_path
from cnnsearch.training.models.backbones import HEADS, IMAGENET_CLASSES, fit_position_embedding, head_names
from cnnsearch.training.models.build import build
from cnnsearch.training.models.pretrained import OWN_IMAGES, Preprocessing
from cnnsearch.training.models.weights_file import State, read_states
from cnnsearch.words import LISTED, listed, printable


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


def load_file_into(model: nn.Module, file: Path, classes: int) -> str:
    """Load the weights in a file into a model, wherever in the file they are and whatever prefix their names have.

    Args:
        model: gives `classes` logits.
        file: safetensors, or a torch file with a dictionary of tensors in it.
        classes: number of classes.

    Returns:
        Which part of the file was taken, in words: where it was, what was left out of its names, how many tensors were
        not taken, and whether the last layer keeps the model's own weights because the file has none, or for another
        number of classes. Empty if the file
        holds the model's weights as they are.

    Raises:
        RequestError: the file cannot be read, or nothing in it fits, or more than one dictionary does.
    """
    states = read_states(file)
    fitting = {
        key: (prefix, part, fitted)
        for key, state in states.items()
        for prefix, part in _parts(state)
        if not _problem(model, fitted := _fitted(model, part, classes))
    }
    if not fitting:
        key = max(states, key=lambda key: len(model.state_dict().keys() & _shortest(states[key]).keys()))
        what = f"{file} ({printable(key)})" if key else str(file)
        raise RequestError(f"{what} does not fit: {_problem(model, _fitted(model, _shortest(states[key]), classes))}")
    chosen = next((key for key in _USUAL if key in fitting), "")
    if chosen not in fitting and len(fitting) > 1:
        several = listed([printable(key) for key in fitting])
        raise RequestError(f"{file} holds several weights that fit: {several}; save those that are meant alone")
    key = chosen if chosen in fitting else next(iter(fitting))
    prefix, part, fitted = fitting[key]
    model.load_state_dict(fitted, strict=False)
    found = [f"under {printable(key)}"] * bool(key) + [f"without the prefix {printable(prefix)}"] * bool(prefix)
    if skipped := len(states[key]) - len(part):
        found.append(f"without {skipped:,} of its {len(states[key]):,} tensors")
    theirs = _renamed(part, model)
    given = [theirs[name] for name in _of_heads(model, classes) if name in theirs]
    if not given:
        found.append("with a new last layer, which it lacks")
    elif (outputs := len(given[0])) != classes:
        found.append(f"with its last layer, for {outputs:,} classes, only if there are as many")
    return ", ".join(found)


_USUAL = ("", "state_dict", "state_dict.model", "model", "teacher", "params")
"""Keys of weights, the most likely first. What is under others is taken only if nothing else fits."""


def _prefixes(state: State) -> list[str]:
    """What may be left out of the beginning of every name: nothing, or one or more whole words that all share."""
    first, *rest = next(iter(state)).split(".")
    shared, found = "", [""]
    while rest and all(name.startswith(f"{shared}{first}.") for name in state):
        shared = f"{shared}{first}."
        found.append(shared)
        first, *rest = rest
    return found


_BACKBONE = "backbone."
"""What the names of a network begin with where a method without labels, such as DINO, has put more on top of it."""


def _parts(state: State) -> Iterator[tuple[str, State]]:
    """Yield what may be meant of a dictionary: what its names begin with, and the tensors without that."""
    for prefix in _prefixes(state):
        whole = _without(state, prefix)
        yield prefix, whole
        below = {name: value for name, value in whole.items() if name.startswith(_BACKBONE)}
        if below and len(below) < len(whole):
            yield f"{prefix}{_BACKBONE}", _without(below, _BACKBONE)


def _without(state: State, prefix: str) -> State:
    return {name.removeprefix(prefix): value for name, value in state.items()}


def _shortest(state: State) -> State:
    return _without(state, _prefixes(state)[-1])


def _fitted(model: nn.Module, state: State, classes: int) -> State:
    """Return the weights under the model's names.

    The last layer keeps the model's own weights if those given are for another number of classes.
    """
    wanted, of_head = model.state_dict(), _of_heads(model, classes)
    state = _renamed(state, model)
    if any(name not in state or state[name].shape != wanted[name].shape for name in of_head):
        state = {**state, **{name: wanted[name] for name in of_head}}
    return {name: value for name, value in state.items() if not name.startswith(("AuxLogits.", "aux1.", "aux2."))}


def _renamed(state: State, model: nn.Module) -> State:
    """Bring weights into the layout of a model, and fit them to its image size."""
    state = fit_position_embedding(_older_names(state), model)
    if hasattr(model, HEADS):
        from cnnsearch.training.models.timm_models import adapted

        return adapted(state, model)
    return state


def _of_heads(model: nn.Module, classes: int) -> set[str]:
    """Names of the parameters of the last layers."""
    heads = tuple(f"{head}." for head in head_names(model, classes))
    return {name for name in model.state_dict() if name.startswith(heads)}


def _problem(model: nn.Module, state: State) -> str:
    """Say what weights lack or have besides what a model needs; empty if they fit."""
    wanted = model.state_dict()
    missing = [name for name in wanted if name not in state and not name.endswith("num_batches_tracked")]
    extra = [name for name in state if name not in wanted]
    shapes = [name for name in wanted if name in state and state[name].shape != wanted[name].shape]
    for what, names in (("lacks", missing), ("has, besides what the model needs,", extra)):
        if names:
            more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
            return f"it {what} {', '.join(map(printable, names[:LISTED]))}{more}"
    if shapes:
        name = shapes[0]
        given, needed = tuple(state[name].shape), tuple(wanted[name].shape)
        return f"{name} is {given}, the model needs {needed}"
    odd = next((name for name, value in state.items() if not _is_plain(value)), None)
    return f"{odd} is not a plain tensor" if odd else ""


def _is_plain(value: Tensor) -> bool:
    return value.layout is torch.strided and not (value.is_meta or value.is_quantized or value.is_complex())


def _older_names(state: State) -> State:
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


class Checked(NamedTuple):
    """Weights that can be used."""

    file: Path
    preprocessing: Preprocessing
    """What the weights expect of their images."""
    note: str = ""
    """Which part of the file was taken, in words; empty if all of it."""


def check(model: str, weights: str) -> Checked:
    """Find or fetch weights, and try whether they fit.

    A file for one of torchvision's models is assumed to expect the same preprocessing as torchvision's default weights
    of that model.

    Args:
        model: name of the model.
        weights: imagenet, pretrained, or a path.

    Raises:
        RequestError: weights are missing, cannot be read, or do not fit.
    """
    if is_timm(model):
        return _check_timm(model, weights)
    file = imagenet_file(model) if weights in PUBLISHED else typed_path(weights)
    if model not in TORCHVISION:  # whether they fit depends on the sweep's width and image size, or on code of its own
        read_states(file)
        return Checked(file.absolute(), OWN_IMAGES)
    note = load_file_into(build(Settings(model=model, image_size=224), IMAGENET_CLASSES), file, IMAGENET_CLASSES)
    return Checked(file.absolute(), expected_preprocessing(model), note)


def _check_timm(model: str, weights: str) -> Checked:
    """Find or fetch weights of one of timm's models, and try whether they fit at the image size that it is made for."""
    from cnnsearch.training.models.timm_models import own_size, preprocessing, published_file

    file = published_file(model) if weights in PUBLISHED else typed_path(weights)
    settings = Settings(model=model, image_size=own_size(model))
    note = load_file_into(build(settings, IMAGENET_CLASSES), file, IMAGENET_CLASSES)
    return Checked(file.absolute(), preprocessing(model), note)


def main() -> None:
    """Print as JSON what `check` finds, or its error message."""
    try:
        found = check(*sys.argv[1:3])
    except RequestError as error:
        print(json.dumps({"error": str(error)}))
        return
    print(json.dumps({"file": str(found.file), "note": found.note, **asdict(found.preprocessing)}))


if __name__ == "__main__":
    main()
