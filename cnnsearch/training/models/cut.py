"""Which parameters a fine-tuning mode trains, and where to cut a model between constant layers and the rest.

Both depend on the order in which a model computes, so both are read from its traced graph. Parts of timm's models that
cannot be traced count as one layer.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torchvision.ops import StochasticDepth

from cnnsearch.errors import RequestError
from cnnsearch.spec.settings import Settings
from cnnsearch.training.models.backbones import HEADS, head_names
from cnnsearch.training.models.tracing import BeforeHead, computes_the_same, graph_of, only, quietly

RANDOM = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, StochasticDepth)
"""Layers whose output is random in training mode."""


@dataclass(frozen=True)
class Frozen:
    """A model in which the parameters that are not trained are frozen; with fine-tuning mode `full`, none are."""

    model: nn.Module
    graph: fx.Graph | None
    """What it computes; None where it cannot be traced, as some of timm's models."""
    heads: tuple[str, ...]
    """Names of the last layers."""
    trained: frozenset[str]
    """Names of the parameters that train."""
    active: frozenset[str]
    """Names of the random layers (dropout, stochastic depth) that stay random in training."""

    def train_mode(self) -> None:
        """Put what trains into training mode, what is frozen into eval mode: BatchNorm statistics there do not move."""
        for name, module in self.model.named_modules():
            own = {f"{name}.{key}" if name else key for key, _ in module.named_parameters(recurse=False)}
            module.training = bool(own & self.trained) or name in self.active


def freeze(model: nn.Module, fine_tune: str, classes: int) -> Frozen:
    """Freeze all parameters but those that a fine-tuning mode trains.

    Args:
        model: gives `classes` logits.
        fine_tune: `head` (the last layer), `last-N-convs` (the last N convolutions in the order they compute, and
            the last layer), or `full`.

    Raises:
        RequestError: the model has fewer than N convolutions.
    """
    graph = graph_of(model)
    modules = dict(model.named_modules())
    called = [name for name in modules if name]
    if graph is not None:
        called = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    heads = head_names(model, classes)
    if fine_tune == "full":
        trained = {name for name, _ in model.named_parameters()}
    else:
        layers = set(heads)
        if match := re.fullmatch(r"last-(\d+)-convs", fine_tune):
            inside = (f"{name}.{key}" if key else name for name in called for key, _ in modules[name].named_modules())
            ordered = [name for name in dict.fromkeys(inside) if name not in heads]
            convs = [name for name in ordered if isinstance(modules[name], nn.Conv2d)]
            count = int(match[1])
            if count > len(convs):
                raise RequestError(
                    f"fine_tune {fine_tune}: the model has {len(convs)} convolutions before its last layer"
                )
            layers |= set(convs[len(convs) - count :])
        trained = {f"{layer}.{key}" for layer in layers for key, _ in modules[layer].named_parameters()}
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name in trained
    active = _active(graph, model, trained) if graph else ()
    return Frozen(model, graph, heads, frozenset(trained), frozenset(active))


def _active(graph: fx.Graph, model: nn.Module, trained: set[str]) -> Iterable[str]:
    """Yield the names of random layers that feed only layers that train.

    Those before a frozen layer are off, as in the pretrained model when it is used.
    """
    names = [str(node.target) if node.op in ("call_module", "get_attr") else "" for node in graph.nodes]
    used = [_parameters(model, name) if name else set() for name in names]
    first = next(i for i, parameters in enumerate(used) if parameters & trained)
    begin = max((i + 1 for i in range(first) if used[i]), default=0)
    return (name for name in names[begin:] if name and isinstance(_attribute(model, name), RANDOM))


def _parameters(model: nn.Module, name: str) -> set[str]:
    """Return names of the parameters that a graph node uses: those of the layer it calls, or the one it reads."""
    found = _attribute(model, name)
    if isinstance(found, nn.Module):
        return {f"{name}.{key}" for key, _ in found.named_parameters()}
    return {name} if isinstance(found, nn.Parameter) else set()


def _attribute(model: nn.Module, name: str) -> Any:
    return operator.attrgetter(name)(model)


@dataclass(frozen=True)
class Cut:
    """A model in two parts: layers whose output for an image is the same in every epoch, and the rest."""

    prefix: nn.Module
    """images [B, 3, S, S] -> tuple of tensors, each [B, ...]."""
    suffix: fx.GraphModule
    """Those tensors -> logits [B, classes]. It shares its modules with the model."""
    name: str
    """Names of the layers whose outputs cross the cut, joined by +."""


def cut_for(settings: Settings, frozen: Frozen) -> Cut | None:
    """Cut a model with `cut`; return None also if the frozen layers see other images in every epoch."""
    return None if settings.changes_images else cut(frozen, settings.image_size)


def cut(frozen: Frozen, image_size: int) -> Cut | None:
    """Cut a model at the deepest place where its values for an image are still constant.

    A value varies if it depends on a trained parameter or an active random layer.

    Args:
        frozen: from `freeze`.
        image_size: side of the images, pixels.

    Returns:
        None if not even the first layer is constant, or if what crosses the cut is not one row for each image. For
        timm's models also if the parts would compute something else than the model.
    """
    model = frozen.model
    if not hasattr(model, HEADS):
        assert frozen.graph is not None
        return _cut(model, frozen.graph, frozen, image_size)
    found = None
    with quietly():  # a graph may be wrong: it is compared with what the model computes
        found = _cut(model, frozen.graph, frozen, image_size) if frozen.graph else None
    if found is not None and computes_the_same(found.prefix, found.suffix, model, image_size):
        return found
    return _cut_before_head(frozen, image_size)


def _cut_before_head(frozen: Frozen, image_size: int) -> Cut | None:
    """Cut a model of which only the last layer trains right before that, without tracing it."""
    model, heads = frozen.model, frozen.heads
    if len(heads) > 1 or any(name.rpartition(".")[0] not in heads for name in frozen.trained):
        return None
    prefix, suffix = BeforeHead(model, heads[0]), only(model, heads[0])
    is_same = computes_the_same(prefix, suffix, model, image_size) and _one_row_an_image(prefix, model, image_size)
    return Cut(prefix, suffix, "before_head") if is_same else None


def _cut(model: nn.Module, graph: fx.Graph, frozen: Frozen, image_size: int) -> Cut | None:
    """Cut a model's graph: see `cut`."""
    varying: set[fx.Node] = set()
    from_images: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder":
            from_images.add(node)
        if any(source in varying for source in node.all_input_nodes) or _varies(node, frozen):
            varying.add(node)
        if any(source in from_images for source in node.all_input_nodes):
            from_images.add(node)
    constant = [node for node in graph.nodes if node not in varying and node in from_images]
    crossing = [node for node in constant if any(user in varying for user in node.users)]
    if not crossing or any(node.op == "placeholder" or node.target == "contiguous" for node in crossing):
        return None  # the images themselves, or a copy of them
    prefix = _module(model, _prefix(graph, varying, crossing))
    if not _one_row_an_image(prefix, model, image_size):
        return None
    return Cut(prefix, _module(model, _suffix(graph, constant, crossing)), "+".join(n.name for n in crossing))


def _module(model: nn.Module, graph: fx.Graph) -> fx.GraphModule:
    """Make a module of a graph over a model's own layers, without nodes that nothing uses."""
    made = fx.GraphModule(model, graph)
    made.graph.eliminate_dead_code()
    made.recompile()
    return made


def _varies(node: fx.Node, frozen: Frozen) -> bool:
    target = str(node.target)
    if node.op == "get_attr":
        return target in frozen.trained
    if node.op != "call_module":
        return False
    return target in frozen.active or bool(_parameters(frozen.model, target) & frozen.trained)


def _prefix(graph: fx.Graph, varying: set[fx.Node], crossing: list[fx.Node]) -> fx.Graph:
    made = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if node not in varying and node.op != "output":
            copies[node] = made.node_copy(node, copies.__getitem__)
    made.output(tuple(copies[node] for node in crossing))
    return made


def _suffix(graph: fx.Graph, constant: list[fx.Node], crossing: list[fx.Node]) -> fx.Graph:
    made = fx.Graph()
    copies = {node: made.placeholder(node.name) for node in crossing}
    done = set(constant)
    for node in graph.nodes:
        if node not in done:
            copies[node] = made.node_copy(node, copies.__getitem__)
    return made


def _one_row_an_image(prefix: nn.Module, model: nn.Module, size: int) -> bool:
    """Whether everything that crosses the cut is a tensor whose first axis is the image."""
    parameter = next(model.parameters())
    modes = {name: module.training for name, module in model.named_modules()}
    try:
        model.eval()
        with torch.no_grad():
            values: tuple[Any, ...] = prefix(torch.zeros(3, 3, size, size, device=parameter.device))
    finally:
        for name, module in model.named_modules():
            module.training = modes[name]
    return all(isinstance(value, Tensor) and value.shape[:1] == (3,) for value in values)
