"""Networks of the user's own code: their modules, imported from a snapshot, and the networks that these make.

A snapshot is imported as a package of its own, so that two versions of a file may be in one process. Its modules find
each other by the names they have beside the file; what else they import is the installed packages.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from cnnsearch.errors import RequestError
from cnnsearch.spec.own_code import Snapshot, trusted
from cnnsearch.spec.settings import Settings

_PACKAGE = "cnnsearch_code_"
"""What the names of snapshots' packages begin with; a digest follows."""
MOST_OF_ERROR = 300
"""Most characters of an error's own message that are shown."""


class OwnCodeError(RequestError):
    """Code of the user's own that cannot be used, with the line of it."""


def snapshot_of(settings: Settings) -> Snapshot:
    """The code of a trial's network. Raises RequestError unless the user has named it."""
    found = trusted(settings.code)
    if found is None:
        raise RequestError(
            f"model {settings.model} is of code with the digest {settings.code}, which was not given: name its file "
            "with --code, or register it"
        )
    return found


def load(snapshot: Snapshot) -> ModuleType:
    """Import the file of a snapshot. Raises OwnCodeError with the line at which that fails."""
    _Finder.install()
    try:
        return importlib.import_module(f"{_PACKAGE}{snapshot.digest}.{snapshot.entry.removesuffix('.py')}")
    except Exception as error:
        for name in [name for name in sys.modules if name.startswith(f"{_PACKAGE}{snapshot.digest}")]:
            del sys.modules[name]
        raise OwnCodeError(f"{told(error, snapshot)}\n{snapshot.file} cannot be imported") from error


def make(settings: Settings, classes: int) -> nn.Module:
    """Make a network of the user's own, with fresh weights.

    Returns:
        images [B, 3, S, S] -> logits [B, classes]. It is given its images in torch's usual order in memory.

    Raises OwnCodeError where it takes no such arguments, fails, or makes something else than a network.
    """
    snapshot = snapshot_of(settings)
    maker = getattr(load(snapshot), settings.model, None)
    place = snapshot.place_of(settings.model)
    if not callable(maker):
        raise OwnCodeError(f"{place}: {settings.model} is no class or function")
    arguments = _arguments(maker, settings, classes, place)
    try:
        made = maker(**arguments)
    except Exception as error:
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        raise OwnCodeError(
            f"{told(error, snapshot, settings.model)}\nwhile making {settings.model}({given})"
        ) from error
    if not isinstance(made, nn.Module):
        raise OwnCodeError(f"{place}: {settings.model} makes a {type(made).__name__}, not a torch.nn.Module")
    return _in_usual_order(made, place)


def _arguments(maker: Callable[..., Any], settings: Settings, classes: int, place: str) -> dict[str, Any]:
    """What to call a class or function with. Raises OwnCodeError where it does not take what the settings say."""
    name = settings.model
    parameters = inspect.signature(maker).parameters
    by_name = {
        key for key, one in parameters.items() if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
    }  # those that a call can name
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    if "num_classes" not in by_name and not takes_any:
        raise OwnCodeError(f"{place}: {name} takes no num_classes, the number of outputs that it is called with")
    for key, absent in (("width", 1.0), ("dropout", 0.0)):
        if key not in by_name and getattr(settings, key) != absent:
            raise OwnCodeError(
                f"{key} {getattr(settings, key):g} with model {name}: its code takes no {key} ({place})\n"
                f"allowed: models with a parameter {key}; in a sweep with others, "
                f"{key}: {{grid: [...], when: {{model: ...}}}}"
            )
    for key in settings.model_args:
        if key not in by_name and not takes_any:
            allowed = ", ".join(sorted(by_name - {"num_classes", "image_size", "width", "dropout"})) or "none"
            raise OwnCodeError(
                f"model_args.{key} with model {name}: its code takes no {key} ({place}); allowed: {allowed}"
            )
    known = {"image_size": settings.image_size, "width": settings.width, "dropout": settings.dropout}
    taken = {key: value for key, value in known.items() if key in by_name}
    found = {"num_classes": classes, **taken, **settings.model_args}
    needed = [key for key, one in parameters.items() if key in by_name and one.default is one.empty]
    if missing := [key for key in needed if key not in found]:
        raise OwnCodeError(f"{place}: {name} needs {missing[0]}: give model_args.{missing[0]}")
    return found


def _in_usual_order(model: nn.Module, place: str) -> nn.Module:
    """Have a network get its images in torch's usual order in memory, whatever order they come in.

    Names, parameters and methods stay as they are; the network's class becomes a subclass of its own.
    """
    kind = type(model)

    def forward(self: nn.Module, images: Tensor) -> Any:
        return kind.forward(self, images.contiguous())

    if isinstance(model, torch.jit.ScriptModule):
        raise OwnCodeError(f"{place}: {kind.__name__} is a TorchScript program, which cannot be trained here")
    about = {
        "forward": forward,
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
    }
    model.__class__ = type(kind.__name__, (kind,), about)
    return model


def lines_of(error: BaseException, snapshot: Snapshot) -> list[tuple[str, int]]:
    """The lines of a snapshot that an error passed through, as (file, line), the innermost last."""
    files = {snapshot.shown(name) for name in snapshot.files}
    frames = traceback.extract_tb(error.__traceback__)
    return [(one.filename, one.lineno or 0) for one in frames if one.filename in files]


def told(error: BaseException, snapshot: Snapshot, model: str = "") -> str:
    """An error in words, with the user's own line: `nets.py, line 12: ...`."""
    lines = lines_of(error, snapshot)
    if isinstance(error, SyntaxError) and error.filename:
        lines = [(error.filename, error.lineno or 0)]
    place = f"{lines[-1][0]}, line {lines[-1][1]}" if lines else snapshot.place_of(model)
    said = " ".join(str(error).split())[:MOST_OF_ERROR]
    return f"{place}: {type(error).__name__}: {said}" if said else f"{place}: {type(error).__name__}"


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the packages of trusted snapshots and the modules in them."""

    @classmethod
    def install(cls) -> None:
        if not any(isinstance(one, cls) for one in sys.meta_path):
            sys.meta_path.append(cls())

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        package, _, module = fullname.partition(".")
        snapshot = trusted(package.removeprefix(_PACKAGE)) if package.startswith(_PACKAGE) else None
        if snapshot is None:
            return None
        place = module.replace(".", "/")
        found = next((name for name in (f"{place}/__init__.py", f"{place}.py") if name in snapshot.files), None)
        is_folder = not module or any(name.startswith(f"{place}/") for name in snapshot.files)
        if found is None and not is_folder:
            return None
        loader = _Loader(snapshot, found)
        return importlib.util.spec_from_loader(
            fullname, loader, is_package=is_folder and not (found or "").endswith(f"{place}.py")
        )


class _Loader(importlib.abc.Loader):
    """Runs the source of one module of a snapshot; a folder without an `__init__.py` has none."""

    def __init__(self, snapshot: Snapshot, name: str | None) -> None:
        self._snapshot, self._name = snapshot, name

    def get_source(self, fullname: str) -> str:
        """What tracebacks show lines of."""
        return self._snapshot.files[self._name] if self._name is not None else ""

    def exec_module(self, module: ModuleType) -> None:
        if self._name is None:
            return
        file = self._snapshot.shown(self._name)
        module.__file__ = file
        package = f"{_PACKAGE}{self._snapshot.digest}"
        importing = functools.partial(_import, package, _beside(self._snapshot))
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": importing}
        exec(compile(self.get_source(module.__name__), file, "exec", dont_inherit=True), vars(module))


def _beside(snapshot: Snapshot) -> frozenset[str]:
    """Names by which the modules of a snapshot import each other."""
    return frozenset(name.partition("/")[0].removesuffix(".py") for name in snapshot.files)


def _import(
    package: str,
    beside: frozenset[str],
    name: str,
    globals: Any = None,
    locals: Any = None,
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> Any:
    """What an import statement in a snapshot does: modules beside the file are those of the snapshot."""
    first = name.partition(".")[0]
    if level or first not in beside:
        return builtins.__import__(name, globals, locals, fromlist or (), level)
    found = importlib.import_module(f"{package}.{name}")
    if not fromlist:
        return sys.modules[f"{package}.{first}"]
    for one in fromlist:
        if not hasattr(found, one) and importlib.util.find_spec(f"{package}.{name}.{one}"):
            importlib.import_module(f"{package}.{name}.{one}")
    return found
