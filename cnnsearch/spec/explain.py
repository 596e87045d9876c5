"""What is wrong with a sweep file, in a message for the person who wrote it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from cnnsearch.spec.arguments import ARGS
from cnnsearch.spec.document import Document, KeyPath, dotted, shown
from cnnsearch.spec.part import SpecProblemError, SpecProblemsError, value_message
from cnnsearch.spec.settings import AXES, TrainSpec, is_axis
from cnnsearch.words import listed

MOST_TOLD = 10
"""Mistakes of one file that are told at once."""
ALIASES = {
    "arch": "model", "architecture": "model", "backbone": "model", "net": "model", "network": "model",
    "batch": "batch_size", "batchsize": "batch_size", "bs": "batch_size",
    "drop": "dropout", "drop_rate": "dropout", "img_size": "image_size", "imgsz": "image_size", "size": "image_size",
    "learning_rate": "lr", "max_epochs": "epochs", "num_epochs": "epochs", "n_epochs": "epochs",
    "n_trials": "trials", "num_samples": "trials", "num_trials": "trials", "optim": "optimizer", "params": "space",
    "pretrained": "weights", "parameters": "space", "scheduler": "lr_schedule", "wd": "weight_decay",
}  # fmt: skip
"""What other tools call a key -> its name here."""
_SHOULD_BE = "Input should be "
"""How messages of pydantic begin that say what is allowed."""


def explain(error: ValidationError, document: Document, root: type[BaseModel]) -> str:
    """Describe every mistake: its place and key, what was given, what is allowed, the nearest known name.

    Args:
        error: what validating the document's tree against `root` raised.
        document: the sweep file, with the changes made to it.
        root: the model of the whole document.
    """
    found: dict[KeyPath, str] = {}
    for one, cause in _each(error, document.tree):
        path = _real_path(one["loc"], document.tree)
        if isinstance(cause, SpecProblemError):
            path = (*path, *cause.path)
        # Of a list without a sound item pydantic also says that it is empty.
        if not any(path[: len(known)] == known or known[: len(path)] == path for known in found):
            found[path] = _explained(one, cause, path, document, root)
    for path in _unknown_axes(document.tree):  # not looked for where something else is wrong with the stage
        found.setdefault(path, _unknown_key(document.place(path), path, document.tree, root))
    told = [found[path] for path in sorted(found, key=document.order)]
    if len(told) == 1:
        return told[0]
    rest = f"\nand {len(told) - MOST_TOLD} more" if len(told) > MOST_TOLD else ""
    return "\n".join([f"{len(told)} mistakes", *told[:MOST_TOLD]]) + rest


def _alternatives(error: ValidationError, tree: Any) -> list[Any]:
    """Pydantic's errors. It has one for each type that a value may have: on the same value they are made one."""
    errors = [(_real_path(one["loc"], tree), one) for one in error.errors()]
    found: dict[KeyPath, Any] = {}
    allowed: dict[KeyPath, list[str]] = {}
    others = []
    for path, one in errors:
        should_be = one["msg"].removeprefix(_SHOULD_BE)
        if should_be == one["msg"]:
            others.append(one)
            continue
        literals = one.get("ctx", {}).get("expected") if one["type"] == "literal_error" else None
        if literals and any(len(path) < len(inner) and inner[: len(path)] == path for inner, _ in errors):
            continue  # a list was given, and what is wrong is in it
        found.setdefault(path, one)
        allowed.setdefault(path, []).extend(re.split(", | or ", literals) if literals else [should_be])
    for path, one in found.items():
        one["msg"] = _SHOULD_BE + listed(list(dict.fromkeys(allowed[path])), "or")
    return [*found.values(), *others]


def _each(error: ValidationError, tree: Any) -> Iterator[tuple[Any, Any]]:
    """List pydantic's errors, each with the exception behind it, which is None for its own; several problems at a time
    come one by one."""
    for one in _alternatives(error, tree):
        cause = one.get("ctx", {}).get("error")
        for problem in cause.problems if isinstance(cause, SpecProblemsError) else [cause]:
            yield one, problem


def _unknown_axes(tree: Any) -> Iterator[KeyPath]:
    """Find the axes of all stages that there are none of."""
    stages = tree.get("stages") if isinstance(tree, dict) else None
    for index, stage in enumerate(stages if isinstance(stages, list) else []):
        space = stage.get("space") if isinstance(stage, dict) else None
        for axis in space if isinstance(space, dict) else {}:
            if not is_axis(str(axis)):
                yield "stages", index, "space", axis


def _explained(first: Any, cause: Any, path: KeyPath, document: Document, root: type[BaseModel]) -> str:
    place, key = document.place(path), dotted(path, document.tree)
    if first["type"] == "extra_forbidden" or (isinstance(cause, SpecProblemError) and str(cause) == "unknown axis"):
        return _unknown_key(place, path, document.tree, root)
    if first["type"] == "union_tag_invalid":
        tag = repr(first["ctx"]["tag"])
        return f"{place}: {key}.method given {shown(tag)}; allowed: {first['ctx']['expected_tags']}"
    if first["type"] == "missing":
        return f"{place}: {key} is missing"
    if isinstance(cause, SpecProblemError):
        return f"{place}: {key} {cause}"
    if cause is not None and not isinstance(first["input"], str):  # it concerns several values, and says which
        return f"{place}: {key}: {cause}"
    return f"{place}: {key} {value_message(first['input'], first['msg'])}"


def did_you_mean(word: str, known: Iterable[str], prefix: str = "", cutoff: float = 0.5) -> str:
    """Return ` Did you mean train.epochs?` with the known word nearest to a mistyped one; empty where none is near.

    The likeness that `cutoff` asks for is that of `difflib.get_close_matches`.
    """
    names = list(known)
    if ALIASES.get(word) in names:
        return f" Did you mean {prefix}{ALIASES[word]}?"
    near = difflib.get_close_matches(word, names, n=1, cutoff=cutoff)
    return f" Did you mean {prefix}{near[0]}?" if near else ""


def _real_path(loc: tuple[int | str, ...], tree: Any) -> KeyPath:
    """Strip the names of union members, which are no keys, from pydantic's location."""
    path: list[int | str] = []
    at = tree
    for position, part in enumerate(loc):
        if isinstance(at, dict | list):
            is_tag = part not in at and position + 1 < len(loc) if isinstance(at, dict) else isinstance(part, str)
            if is_tag:
                continue
            path.append(part)
            try:
                at = at[part]  # type: ignore[index]
            except (KeyError, IndexError, TypeError):
                at = None
    return tuple(path)


def _unknown_key(place: str, path: KeyPath, tree: Any, root: type[BaseModel]) -> str:
    known = _known_keys(path[:-1], tree, root)
    parent = dotted(path[:-1], tree)
    prefix = f"{parent}." if parent else ""
    hint = did_you_mean(str(path[-1]), known, prefix)
    word = ALIASES.get(str(path[-1]), str(path[-1]))
    if not parent and word in TrainSpec.model_fields:
        hint = f" Did you mean train.{word}?"
    message = f"{place}: {prefix}{path[-1]} is not a key.{hint}"
    return f"{message}\nknown keys of {parent or 'a sweep'}: {', '.join(known)}" if known else message


def _known_keys(parent: KeyPath, tree: Any, root: type[BaseModel]) -> list[str]:
    """List the keys that the mapping at a key path may have; empty where that is not known."""
    if parent and parent[-1] == "space":
        return [*AXES, *(f"{group}NAME" for group in ARGS)]
    model: type[BaseModel] = root
    for part in parent:
        tree = tree[part]
        if isinstance(part, str):
            members = list(_models_in(model.model_fields[part].annotation)) if part in model.model_fields else []
            if len(members) > 1:  # told apart by their method
                members = [one for one in members if one.model_fields["method"].default == tree.get("method")]
            if not members:
                return []
            model = members[0]
    return [*model.model_fields, *(["profiles"] if not parent else [])]


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Find the models that an annotation such as `tuple[Stage, ...]` or `Fill | Stratified` is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
