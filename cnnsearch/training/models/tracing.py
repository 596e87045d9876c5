"""Graphs of what models compute, traced with `torch.fx`."""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torchvision.ops import StochasticDepth

from cnnsearch.training.compute.convolution import Conv3x3
from cnnsearch.training.compute.linear import LongLinear
from cnnsearch.training.compute.small_maps import SmallMapConv2d
from cnnsearch.training.models.backbones import HEADS, DropoutLinear


def graph_of(model: nn.Module) -> fx.Graph | None:
    """Trace a model; None for one of timm's models that cannot be traced, not even with some of its parts as a whole.

    timm's models are traced as they are in evaluation.
    """
    if not hasattr(model, HEADS):
        return _Tracer().trace(model)
    was_training = model.training
    try:
        return _PatientTracer().trace(model.eval())
    except Exception:  # whatever a model's own code makes of a symbol instead of a tensor
        return None
    finally:
        model.train(was_training)


class _Tracer(fx.Tracer):
    """A tracer that does not look inside layers that are random in training, or computed by this package."""

    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        kept = isinstance(module, DropoutLinear | StochasticDepth | Conv3x3 | SmallMapConv2d | LongLinear)
        return kept or super().is_leaf_module(module, qualified_name)


class _PatientTracer(_Tracer):
    """A tracer that takes a part as one layer if its code cannot be traced, or does something else in training."""

    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        code = getattr(inspect.unwrap(type(module).forward), "__code__", None)
        reads_mode = code is not None and "training" in code.co_names
        return reads_mode or super().is_leaf_module(module, qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = self.path_of_module(m)
        if self.is_leaf_module(m, name):
            return super().call_module(m, forward, args, kwargs)
        before, stack, scope = len(self.graph.nodes), self.module_stack.copy(), copy.copy(self.scope)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:  # as in `graph_of`
            self.module_stack, self.scope = stack, scope
            for node in reversed(list(self.graph.nodes)[before:]):
                self.graph.erase_node(node)
            return self.create_proxy("call_module", name, args, kwargs)


class BeforeHead(nn.Module):
    """A model without its last layer: images -> what that layer is given, as a tuple of one tensor.

    It shares its parameters and buffers with the model. It is for models that compute nothing after their last layer.
    """

    def __init__(self, model: nn.Module, head: str) -> None:
        super().__init__()
        shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
        self.model = copy.deepcopy(model, dict(shared))
        parent, _, attribute = head.rpartition(".")
        setattr(self.model.get_submodule(parent), attribute, nn.Identity())

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (self.model(images),)


def only(model: nn.Module, layer: str) -> fx.GraphModule:
    """Make a module that computes one layer of a model, which it shares with it."""
    graph = fx.Graph()
    graph.output(graph.call_module(layer, (graph.placeholder("before_head"),)))
    return fx.GraphModule(model, graph)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Take errors of graphs that are wrong as the end of the block; torch would print them as well."""
    with contextlib.suppress(Exception), contextlib.redirect_stderr(io.StringIO()):
        yield


@torch.no_grad()
def computes_the_same(prefix: nn.Module, suffix: nn.Module, model: nn.Module, image_size: int) -> bool:
    """Whether two parts of a model together compute what it does, in evaluation, for some random images."""
    modes = {name: module.training for name, module in model.named_modules()}
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, 3, image_size, image_size, generator=generator).to(next(model.parameters()).device)
    try:
        model.eval()
        prefix.eval()
        found: list[Tensor] = []
        with quietly():
            found += [model(images), suffix(*prefix(images))]
        if len(found) < 2 or found[0].shape != found[1].shape:
            return False
        return torch.allclose(found[0], found[1], rtol=1e-3, atol=1e-4)
    finally:
        for name, module in model.named_modules():
            module.training = modes[name]
