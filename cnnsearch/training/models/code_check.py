"""Tries networks of the user's own before the first trial, so that what is wrong with them is said in seconds.

It runs as `python -m cnnsearch.training.models.code_check`, with JSON on standard input and output, so that the command
that plans a sweep imports neither torch nor the user's code. `checked_code` starts it.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from cnnsearch.errors import RequestError
from cnnsearch.spec.own_code import Snapshot, trust
from cnnsearch.spec.settings import ResolvedPrecision, Settings
from cnnsearch.training.compute.device import autocast
from cnnsearch.training.models.build import initial_model
from cnnsearch.training.models.checked_code import as_snapshots
from cnnsearch.training.models.code import OwnCodeError, lines_of, snapshot_of, told
from cnnsearch.training.models.foreign_draws import foreign_draws

IMAGES = 4
"""Images that networks are tried on."""
STEPS = 2
"""Steps of training after which it is looked at what has changed."""


class Case(NamedTuple):
    """A network to try."""

    settings: Settings
    parent: Settings | None = None
    """Settings of the trial whose weights it starts from."""
    weights: Path | None = None
    """File of weights that it starts from."""


def main() -> None:
    """Answer one request: `{"code": [...], "classes": n, "cases": [{"settings", "parent", "weights"}, ...]}`.

    The answer is empty, or says what is wrong: `{"error": ...}`.
    """
    request = json.load(sys.stdin)
    trust(as_snapshots(request["code"]))
    cases = [
        Case(
            Settings.model_validate(one["settings"]),
            Settings.model_validate(one["parent"]) if one["parent"] else None,
            Path(one["weights"]) if one["weights"] else None,
        )
        for one in request["cases"]
    ]
    answer = {}
    with contextlib.redirect_stdout(sys.stderr):  # what the user's code prints is no answer
        try:
            for case in cases:
                check(case, request["classes"])
        except RequestError as error:
            answer = {"error": str(error)}
    json.dump(answer, sys.stdout)


def check(case: Case, classes: int) -> None:
    """Try a network: make it, train it for some steps, restore it, and freeze and load it as its settings ask.

    Raises OwnCodeError, or RequestError of what is wrong with a file of weights.
    """
    settings = case.settings
    trial = _Trial(settings, classes, snapshot_of(settings))
    with trial.no_foreign_draws():
        model, twin = trial.made(), trial.made()
        trial.refuse_hidden_layers(model)
        trial.refuse_different(model, twin)
        trial.try_outputs(model, twin)
        trial.try_training(model)
    trial.try_restoring(model)
    trial.refuse_random_answers(model)
    if settings.fine_tune != "full":
        trial.try_freezing(trial.made())
    if case.parent is not None:
        trial.refuse_other_shapes(case.parent)
    if case.weights is not None:
        trial.try_weights(case.weights)


class _Trial:
    """A network that is tried, and the words for what is wrong with it."""

    def __init__(self, settings: Settings, classes: int, snapshot: Snapshot) -> None:
        self.settings, self.classes, self.snapshot = settings, classes, snapshot
        self.name = settings.model
        generator = torch.Generator().manual_seed(0)
        size = settings.image_size
        self.images = torch.randn(IMAGES, 3, size, size, generator=generator).to(memory_format=torch.channels_last)
        self.labels = torch.arange(IMAGES) % classes

    def made(self, seed: int | None = None) -> nn.Module:
        settings = self.settings if seed is None else self.settings.model_copy(update={"seed": seed})
        return initial_model(settings, self.classes, "cpu")

    def wrong(self, what: str, place: str = "") -> OwnCodeError:
        return OwnCodeError(f"{place or self.snapshot.place_of(self.name)}: {what}")

    def forward_place(self, model: nn.Module) -> str:
        """Where the network computes its output."""
        for kind in type(model).__mro__:
            code = getattr(vars(kind).get("forward"), "__code__", None)
            if code is not None and code.co_filename in {self.snapshot.shown(name) for name in self.snapshot.files}:
                return f"{code.co_filename}, line {code.co_firstlineno}"
        return self.snapshot.place_of(self.name)

    def called(self, model: nn.Module, images: Tensor, seed: int = 0, precision: ResolvedPrecision = "fp32") -> Tensor:
        """The output of the network. Raises OwnCodeError where it fails, with the line."""
        torch.manual_seed(seed)
        try:
            with autocast("cpu", precision):
                return cast(Tensor, model(images))
        except Exception as error:
            how = f"{tuple(images.shape)}, as {precision}"
            raise OwnCodeError(
                f"{told(error, self.snapshot, self.name)}\nwhile {self.name} computes images {how}"
            ) from error

    @contextlib.contextmanager
    def no_foreign_draws(self) -> Iterator[None]:
        """Refuse draws from Python's or numpy's global generator in the block: no trial seeds or restores those."""
        files = {self.snapshot.shown(name) for name in self.snapshot.files}
        with foreign_draws(files) as draws:
            try:
                yield
            except OwnCodeError:
                if not draws.places:
                    raise  # else that explains the error
        if draws.were_made:
            raise self.wrong(
                f"{self.name} draws random numbers from Python's random or from numpy, which a trial's seed does not "
                "decide; draw them with torch",
                draws.places[0] if draws.places else "",
            )

    def refuse_hidden_layers(self, model: nn.Module) -> None:
        """Refuse layers in plain lists and dictionaries, which torch neither trains nor saves."""
        known = {id(module) for module in model.modules()} | {id(one) for one in model.parameters()}
        for path, module in model.named_modules():
            for key, value in vars(module).items():
                items = list(value.values()) if isinstance(value, dict) else value
                if key.startswith("_") or not isinstance(items, list | tuple):
                    continue
                if any(isinstance(one, nn.Module | nn.Parameter) and id(one) not in known for one in items):
                    raise self.wrong(
                        f"{self._attribute(path, key)} keeps layers in a {type(value).__name__}, where torch does not "
                        "find them, so they are not trained; use nn.ModuleList, nn.ModuleDict or nn.ParameterList",
                        self._assigned(key),
                    )

    def refuse_different(self, model: nn.Module, twin: nn.Module) -> None:
        """Refuse a network that is made otherwise each time, though torch draws the same numbers."""
        own = {id(part) for part in (*model.modules(), *model.parameters(), *model.buffers())}
        if any(id(part) in own for part in (*twin.modules(), *twin.parameters(), *twin.buffers())):
            raise self.wrong(
                f"{self.name} gives the same layers each time that it is called, so that trials would go on from each "
                "other; make new ones"
            )
        mine, other = model.state_dict(), twin.state_dict()
        if odd := [name for name, value in mine.items() if not isinstance(value, Tensor)]:
            raise self.wrong(f"{odd[0]} in the state_dict of {self.name} is no tensor, so it cannot be saved")
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise self.wrong(f"{self.name} has no parameters that could be trained")
        if mine.keys() != other.keys():
            raise self.wrong(f"{self.name} has other layers each time that it is made with the same arguments")
        if differing := [name for name in mine if not _same(mine[name], other[name])]:
            raise self.wrong(
                f"{differing[0]} of {self.name} begins with other values each time, though the seed is the same; draw "
                "them with torch's own generator, as torch.randn does"
            )

    def try_outputs(self, model: nn.Module, twin: nn.Module) -> None:
        """Look at what the network computes: its shape, whether these are numbers, and the same ones each time."""
        model.train()
        logits = self.called(model, self.images)
        self._refuse_shape(model, logits, IMAGES)
        if not torch.isfinite(logits).all():
            raise self.wrong(f"{self.name} gives NaN or infinite values before any training", self.forward_place(model))
        if not _same(logits, self.called(twin.train(), self.images)):
            raise self.wrong(
                f"{self.name} gives other values each time, though the seed is the same; draw random numbers with "
                "torch's own generator",
                self.forward_place(model),
            )
        if self.settings.precision != "fp32":
            self.called(model, self.images, precision="bf16")
        with torch.no_grad():
            one = self.called(model.eval(), self.images[:1])
            self._refuse_shape(model, one, 1)

    def refuse_random_answers(self, model: nn.Module) -> None:
        """Refuse a network that is random in evaluation, too."""
        model.eval()
        with torch.no_grad():
            if not _same(self.called(model, self.images, 1), self.called(model, self.images, 2)):
                raise self.wrong(
                    f"{self.name} gives random values in evaluation, too; F.dropout, for one, needs "
                    "training=self.training, which nn.Dropout has by itself",
                    self.forward_place(model),
                )

    def _refuse_shape(self, model: nn.Module, logits: object, images: int) -> None:
        wanted = f"logits of the shape [{images}, {self.classes}], one row an image and one column a class"
        found = f"a {type(logits).__name__}"
        if isinstance(logits, Tensor):
            found = f"{str(logits.dtype).removeprefix('torch.')} of the shape {list(logits.shape)}"
            if logits.shape == (images, self.classes) and logits.is_floating_point():
                return
        raise self.wrong(f"{self.name} gives {found} for {images} images, not {wanted}", self.forward_place(model))

    def try_training(self, model: nn.Module) -> None:
        """Take some steps."""
        model.train()
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        for step in range(STEPS):
            loss = F.cross_entropy(self.called(model, self.images, step).float(), self.labels)
            try:
                loss.backward()
            except Exception as error:
                raise OwnCodeError(f"{told(error, self.snapshot, self.name)}\nwhile training {self.name}") from error
            if all(parameter.grad is None for parameter in parameters):
                raise self.wrong(
                    f"the loss of {self.name} depends on none of its parameters", self.forward_place(model)
                )
            with torch.no_grad():
                for parameter in parameters:
                    if parameter.grad is not None:
                        parameter.sub_(1e-3 * parameter.grad / (1 + parameter.grad.norm()))
                        parameter.grad = None

    def try_restoring(self, model: nn.Module) -> None:
        """Refuse state that is not in the state dict: it would be lost with a checkpoint."""
        restored = self.made(seed=self.settings.seed + 1)
        restored.load_state_dict(model.state_dict())
        changed = self._unsaved(model, restored)
        for mode in (False, True):
            with torch.no_grad():
                found = [self.called(one.train(mode), self.images) for one in (model, restored)]
            if not _same(*found):
                which = f": {changed[0]}" if changed else ""
                key = changed[0].rpartition(".")[2] if changed else ""
                raise self.wrong(
                    f"{self.name} has state that is not in its state_dict{which}, and so is lost when it is saved; "
                    "keep it as a parameter or with register_buffer",
                    self._assigned(key) if key else self.forward_place(model),
                )

    def _unsaved(self, model: nn.Module, restored: nn.Module) -> list[str]:
        """Attributes that differ between a network and what was restored from its state dict."""
        found = []
        others = dict(restored.named_modules())
        for path, module in model.named_modules():
            there = others.get(path)
            if there is None:
                continue
            for key, value in [*vars(module).items(), *module.named_buffers(recurse=False)]:
                if not key.startswith("_") and key != "training" and not _same(value, getattr(there, key, None)):
                    found.append(self._attribute(path, key))
        return found

    def try_freezing(self, model: nn.Module) -> None:
        """Freeze the network as its settings ask, and refuse one that computes something else when it is traced."""
        from cnnsearch.training.models.cut import cut, freeze

        settings, why = self.settings, f"fine_tune {self.settings.fine_tune} with model {self.name}"
        try:
            frozen = freeze(model, settings.fine_tune, self.classes)
        except RequestError as error:
            raise self.wrong(f"{why}: {error}") from None
        except Exception as error:
            if "layer with" in str(error) and not lines_of(error, self.snapshot):
                raise self.wrong(
                    f"{why}: it has no last linear or convolutional layer with {self.classes} outputs, which would be "
                    "its head"
                ) from error
            raise OwnCodeError(
                f"{told(error, self.snapshot, self.name)}\n{why} needs a network that torch.fx can trace: what it "
                "computes may not depend on the values of its images. With fine_tune full it need not be traced"
            ) from error
        assert frozen.graph is not None  # without it, `freeze` has raised
        graph = fx.GraphModule(model, frozen.graph)
        halves = cut(frozen, settings.image_size)
        for prepare in (model.eval, frozen.train_mode):
            prepare()
            if halves is not None:
                halves.prefix.eval()
            graph.training = model.training
            with torch.no_grad():
                found = self.called(model, self.images)
                traced = [self.called(graph, self.images)]
                if halves is not None and prepare == model.eval:
                    torch.manual_seed(0)
                    traced.append(halves.suffix(*halves.prefix(self.images)))
            if not all(torch.allclose(found, one, rtol=1e-3, atol=1e-4) for one in traced):
                raise self.wrong(
                    f"{why}: traced, it computes something else; what depends on self.training or is random has to be "
                    "a layer of its own, such as nn.Dropout in place of F.dropout",
                    self.forward_place(model),
                )

    def try_weights(self, file: Path) -> None:
        """Load a file of weights as a trial does. Raises RequestError where it does not fit."""
        from cnnsearch.training.models.weights import load_file_into

        try:
            load_file_into(self.made(), file, self.classes)
        except ValueError as error:
            raise self.wrong(
                f"weights with model {self.name}: it has no last linear or convolutional layer with {self.classes} "
                "outputs, which would be its head"
            ) from error

    def refuse_other_shapes(self, parent: Settings) -> None:
        """Refuse a network into which the weights of the one that it starts from do not fit."""
        before = initial_model(parent, self.classes, "cpu").state_dict()
        now = self.made().state_dict()
        for name in dict.fromkeys([*now, *before]):
            if name not in before or name not in now or before[name].shape != now[name].shape:
                args = sorted(
                    axis for axis in {*parent.flat(), *self.settings.flat()}
                    if parent.value(axis) != self.settings.value(axis) and axis.startswith("model_args.")
                )  # fmt: skip
                given = ", ".join(f"{axis} {self.settings.value(axis)}" for axis in args)
                raise self.wrong(
                    f"{self.name} with {given} cannot start from the weights of an earlier stage: {name} differs"
                )

    def _attribute(self, path: str, key: str) -> str:
        return ".".join(part for part in (self.name, path, key) if part)

    def _assigned(self, key: str) -> str:
        """Where the code assigns an attribute last; empty where that is not found."""
        found = ""
        for name, source in self.snapshot.files.items():
            for number, line in enumerate(source.splitlines(), start=1):
                if re.search(rf"\bself\.{re.escape(key)}\b\s*(\[.*\]\s*)?([-+*/|&]?=)(?!=)|\"{re.escape(key)}\"", line):
                    found = f"{self.snapshot.shown(name)}, line {number}"
        return found


def _same(a: object, b: object) -> bool:
    """Whether two values are the same; of values of other kinds than these it is not known, and they count as such."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and bool(torch.equal(a.nan_to_num(), b.nan_to_num()))
    if isinstance(a, int | float | str | bool | None) and isinstance(b, int | float | str | bool | None):
        return a == b
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return isinstance(a, Tensor) == isinstance(b, Tensor)


if __name__ == "__main__":
    main()
