"""Networks of a notebook or script, made known to every sweep that is loaded after them: `cnnsearch.register`.

A network in a module is known by the module's file. One in a cell has no file: its source is put together from its own
cell, those of what it uses, and the imports it needs.
"""

from __future__ import annotations

import ast
import builtins
import linecache
import symtable
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, TypeVar

from cnnsearch.errors import RequestError
from cnnsearch.spec.own_code import Snapshot, read_code, refuse_known, register as make_known, with_imports

Network = TypeVar("Network", bound="type | Callable[..., Any]")


def register(network: Network) -> Network:
    """Make a network of your own known to sweeps, by its name. Also a decorator.

    Example:
        @cnnsearch.register
        class SmallNet(nn.Module):
            def __init__(self, num_classes, depth=2): ...

        sweep = cnnsearch.load_sweep("mine.yaml")  # which may name `model: SmallNet`

    Its source is read now, with all that it uses: a change counts only after it is registered again. `cnnsearch.run`
    keeps it with the results.

    Args:
        network: a class or function. Called with `num_classes`, and with `image_size`, `width` and `dropout` where it
            takes them, it makes a `torch.nn.Module` that gives logits [B, num_classes].

    Raises RequestError where its source cannot be found, or it uses something that a source cannot say.
    """
    name = getattr(network, "__name__", None)
    if not isinstance(network, type | FunctionType) or not name or not name.isidentifier():
        raise RequestError(f"{network!r} cannot be registered: give a class or a function that is defined by its name")
    module = sys.modules.get(network.__module__)
    file = getattr(module, "__file__", None)
    if network.__module__ != "__main__" and file and file.endswith(".py"):
        snapshot = read_code(file)
        if name not in snapshot.models:
            raise RequestError(f"{name} is not defined at the top of {file}, where a sweep looks for it")
    else:
        snapshot = _gathered(network, name)
        refuse_known(snapshot)
    make_known(name, snapshot)
    return network


def _gathered(network: type | FunctionType, name: str) -> Snapshot:
    """Put together a source that defines a network of `__main__`, with all that it uses."""
    parts: dict[str, str] = {}
    imports: dict[str, str] = {}
    _gather(network, name, parts, imports)
    source = "\n".join(sorted(imports.values())) + "\n\n\n" + "\n\n\n".join(parts.values()) + "\n"
    return Snapshot(f"{name}.py", with_imports(Path.cwd() / f"{name}.py", source))


def _gather(thing: Any, name: str, parts: dict[str, str], imports: dict[str, str]) -> None:
    """Add what a class or function of `__main__` needs, then its own source."""
    source = _source(thing, name)
    parts[name] = ""  # so that what uses each other is gathered once
    known = vars(sys.modules["__main__"])
    for used in dict.fromkeys(_global_names(source)):
        if used == name or used in parts or used in imports or used not in known:
            continue
        value = known[used]
        if (line := _import_line(used, value)) is not None:
            imports[used] = line
        elif isinstance(value, type | FunctionType) and value.__module__ == "__main__":
            _gather(value, used, parts, imports)
        elif _is_literal(value):
            parts[used] = f"{used} = {value!r}"
        else:
            raise RequestError(
                f"{name} uses {used}, a {type(value).__name__} of this notebook, which is no part of its source; give "
                "it as an argument, or put the network into a file and register it from there"
            )
    del parts[name]
    parts[name] = source


def _import_line(name: str, value: Any) -> str | None:
    """The statement that imports a value under a name; None for what is not imported."""
    if isinstance(value, ModuleType):
        return f"import {value.__name__}" if value.__name__ == name else f"import {value.__name__} as {name}"
    module = getattr(value, "__module__", None)
    if not isinstance(module, str) or module == "__main__":
        return None
    original = getattr(value, "__name__", name)
    if getattr(sys.modules.get(module), original, None) is value:
        return f"from {module} import {original}" if original == name else f"from {module} import {original} as {name}"
    return None


def _is_literal(value: Any) -> bool:
    try:
        return bool(ast.literal_eval(repr(value)) == value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return False


def _global_names(source: str) -> Iterator[str]:
    """The names that a source takes from outside of it."""

    def walk(table: symtable.SymbolTable) -> Iterator[str]:
        for symbol in table.get_symbols():
            is_top = table.get_type() == "module"
            if symbol.is_referenced() and (not symbol.is_assigned() if is_top else symbol.is_global()):
                yield symbol.get_name()
        for child in table.get_children():
            yield from walk(child)

    return (name for name in walk(symtable.symtable(source, "cell", "exec")) if not hasattr(builtins, name))


def _source(thing: Any, name: str) -> str:
    """The source of a class or function of `__main__`, without `register` before it. Raises RequestError."""
    functions = [thing] if isinstance(thing, FunctionType) else [one for one in vars(thing).values() if _has_code(one)]
    for function in functions:
        lines = linecache.getlines(function.__code__.co_filename)
        try:
            cell = ast.parse("".join(lines))
        except SyntaxError:  # a cell with commands of IPython's own
            continue
        for node in cell.body:
            if not isinstance(node, ast.ClassDef | ast.FunctionDef) or node.name != name:
                continue
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            if first <= function.__code__.co_firstlineno <= (node.end_lineno or 0):
                registering = [one for one in node.decorator_list if ast.unparse(one).endswith("register")]
                left_out = {number for one in registering for number in range(one.lineno, (one.end_lineno or 0) + 1)}
                kept = [number for number in range(first, (node.end_lineno or 0) + 1) if number not in left_out]
                return "".join(lines[number - 1] for number in kept).rstrip()
    raise RequestError(
        f"the source of {name} cannot be found: define it by itself in a cell without commands of IPython's own, or "
        "put it into a file and register it from there"
    )


def _has_code(value: Any) -> bool:
    return isinstance(value, FunctionType)
