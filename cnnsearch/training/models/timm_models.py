"""timm's models: built for a size and a number of classes, with their published weights and what these expect."""

from __future__ import annotations

import difflib
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from cnnsearch.errors import RequestError
from cnnsearch.spec.model_names import TIMM
from cnnsearch.spec.settings import Settings
from cnnsearch.training.compute.small_maps import for_small_maps
from cnnsearch.training.models.backbones import HEADS, DropoutLinear
from cnnsearch.training.models.checked_timm import refuse_without_timm
from cnnsearch.training.models.pretrained import Preprocessing

State = dict[str, Tensor]


class NothingToTrainError(RequestError):
    """A model that has no last layer for classes."""


NEAREST = 3
"""Most names that are suggested."""
FILTERS = ("checkpoint_filter_fn", "_filter_fn", "pretrained_filter_fn", "_filter_torchvision_pretrained")
"""What the modules of timm's models call the function that brings weights of other layouts into their own."""


def make(name: str, settings: Settings, classes: int) -> nn.Module:
    """Make one of timm's models, whose last layer, or layers, give `classes` logits.

    Names, parameters and results are timm's, but wide convolutions over small maps are computed by `SmallMapConv2d`.

    Args:
        name: `timm:NAME`.
        settings: `image_size`, for models that are built for one; and `dropout`. Above zero, that is the dropout before
            the last layer, in place of the architecture's own there. Zero leaves the architecture as it is.
        classes: number of classes.

    Returns:
        A model with random weights, drawn from torch's global generator: images [B, 3, S, S] -> logits [B, classes].

    Raises:
        RequestError: timm is not installed, has no such model, or cannot make it as asked.
    """
    model = _made(name, settings.image_size, classes)
    heads = _heads(model, classes)
    if not heads:
        raise NothingToTrainError(f"model {name}: it has no last layer with an output for each class; choose another")
    if settings.dropout:
        for head in heads:
            _drop_before(model, head, settings.dropout)
    for_small_maps(model)
    setattr(model, HEADS, heads)
    return model


def _made(name: str, image_size: int, classes: int) -> nn.Module:
    import timm

    config = config_of(name)
    create = functools.partial(timm.create_model, name.removeprefix(TIMM), pretrained=False, num_classes=classes)
    try:
        if config.fixed_input_size:
            try:
                return create(img_size=image_size)
            except TypeError as error:  # it cannot be built for another size
                if "img_size" not in str(error):
                    raise
        return create()
    except RequestError:
        raise
    except Exception as error:  # timm asserts, divides and indexes by sizes
        raise RequestError(f"model {name} cannot be made at image_size {image_size}: {_line(error)}") from error


def config_of(name: str) -> Any:
    """timm's facts about the weights that a name means: `timm.models.PretrainedCfg`.

    Raises RequestError where timm is not installed or has no such model; the message names the nearest ones.
    """
    refuse_without_timm([name])
    import timm

    asked = name.removeprefix(TIMM)
    architecture, _, tag = asked.partition(".")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(asked, [*timm.list_models(), *timm.list_pretrained()], NEAREST)
        hint = f" Did you mean {' or '.join(TIMM + one for one in near)}?" if near else ""
        raise RequestError(f"model {name}: timm {timm.__version__} has no model {architecture}.{hint}")
    tags = [
        one.partition(".")[2] for one in timm.list_pretrained(f"{architecture}.*") if one.startswith(f"{architecture}.")
    ]
    if tag and tag not in tags:
        near = difflib.get_close_matches(tag, tags, NEAREST, 0.0)
        has = f"has the weights {', '.join(near)}" if near else "has no published weights"
        raise RequestError(f"model {name}: timm {timm.__version__} has no weights {tag} of {architecture}; it {has}")
    found = timm.get_pretrained_cfg(asked)
    return found if found is not None else timm.models.PretrainedCfg()


def _heads(model: nn.Module, classes: int) -> tuple[str, ...]:
    """Names of the last layers; none where the model has no such."""
    named = cast(Any, model).pretrained_cfg.get("classifier") or ()
    modules = dict(model.named_modules())
    found = [modules.get(name) for name in ((named,) if isinstance(named, str) else named)]
    names = {id(module): name for name, module in modules.items()}
    heads = [names[id(one)] for one in found if one is not None and _outputs(one) == classes]
    if heads and len(heads) == len(found):
        return tuple(heads)
    last = [name for name, module in modules.items() if _outputs(module) == classes]
    return tuple(last[-1:])


def _outputs(module: nn.Module) -> int | None:
    if isinstance(module, nn.Linear):
        return module.out_features
    return module.out_channels if isinstance(module, nn.Conv2d) else None


def _drop_before(model: nn.Module, name: str, dropout: float) -> None:
    """Put dropout into a last layer, and take it out of the layers that timm has before it."""
    parent_name, _, attribute = name.rpartition(".")
    parent, head = model.get_submodule(parent_name), model.get_submodule(name)
    for place in (parent, model):
        for own in ("drop", "head_drop"):
            if isinstance(layer := getattr(place, own, None), nn.Dropout):
                layer.p = 0.0
        if isinstance(getattr(place, "drop_rate", None), float):
            cast(Any, place).drop_rate = 0.0
    if isinstance(head, nn.Linear):
        new = DropoutLinear(1, 1, dropout)
        new.in_features, new.out_features = head.in_features, head.out_features
        new.weight, new.bias = head.weight, head.bias
        setattr(parent, attribute, new)
    else:
        assert isinstance(head, nn.Conv2d)
        head.register_forward_pre_hook(functools.partial(_dropped, dropout=dropout))


def _dropped(layer: nn.Module, inputs: tuple[Tensor, ...], dropout: float) -> tuple[Tensor, ...]:
    return (nn.functional.dropout(inputs[0], dropout, layer.training),)


def preprocessing(name: str) -> Preprocessing:
    """How images were prepared for the weights that a name means, but for image size and cropping."""
    config = config_of(name)
    interpolation = "bilinear" if config.interpolation == "bilinear" else "bicubic"  # timm has these two alone
    return Preprocessing(tuple(config.mean), tuple(config.std), cast(Any, interpolation))


def own_size(name: str) -> int:
    """The side of the images that a model's weights were trained for."""
    return int(config_of(name).input_size[-1])


def published_file(name: str) -> Path:
    """Return the file of the weights that a name means, fetched once into the cache of the Hugging Face hub.

    Raises:
        RequestError: there are none, or they cannot be fetched; the message says what to do by hand.
    """
    config = config_of(name)
    if not config.hf_hub_id and not config.url:
        raise RequestError(f"weights pretrained with model {name}: timm has no published weights of it")
    if not config.hf_hub_id:
        return _from_url(name, config.url)
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # of its retries it would tell one by one
    files = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    for file in files:
        if isinstance(here := try_to_load_from_cache(config.hf_hub_id, file), str):
            return Path(here)
    for file in files:
        try:
            return Path(hf_hub_download(config.hf_hub_id, file))
        except LocalEntryNotFoundError as error:
            reason = error.__cause__ or error
        except EntryNotFoundError as error:
            reason = error
            continue
        except Exception as error:  # of the hub, of its HTTP library, of the disk
            reason = error
        break
    url = f"https://huggingface.co/{config.hf_hub_id}/resolve/main/{files[0]}"
    raise _not_fetched(name, reason, url, files[0])


def _from_url(name: str, url: str) -> Path:
    place = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not place.is_file():
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(place))
        except OSError as error:  # URLError is one
            raise _not_fetched(name, getattr(error, "reason", error), url, place.name) from None
    return place


def _not_fetched(name: str, reason: object, url: str, file: str) -> RequestError:
    return RequestError(
        f"the pretrained weights of {name} cannot be fetched: {_line(reason)}\n"
        f"Fetch {url} elsewhere, put it anywhere and give --set train.weights=PATH/{file}"
    )


def adapted(state: State, model: nn.Module) -> State:
    """Bring weights into a model's own layout and fit them to its image size, as timm does when it loads them.

    What timm does not know is returned as it is.
    """
    module = sys.modules[type(model).__module__]
    known: Callable[..., State] | None = next((f for f in (getattr(module, name, None) for name in FILTERS) if f), None)
    if known is None or not hasattr(model, HEADS):
        return state
    try:
        return dict(known(dict(state), model))
    except Exception:  # weights of another model: what does not fit is said of their own names
        return state


def _line(error: object) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
