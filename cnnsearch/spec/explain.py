"""What is wrong with a sweep file, in a message for the person who wrote it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from cnnsearch.spec.document import Document, KeyPath, dotted, shown
from cnnsearch.spec.settings import AXES, SpecProblemError, value_message


def explain(error: ValidationError, document: Document, root: type[BaseModel]) -> str:
    """Describe the first mistake: its place and key, what was given, what is allowed, the nearest known name.

    Args:
        error: what validating the document's tree against `root` raised.
        document: the sweep file, with the changes made to it.
        root: the model of the whole document.
    """
    first = error.errors()[0]
    path = _real_path(first["loc"], document.tree)
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, SpecProblemError):
        path = (*path, *cause.path)
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


def did_you_mean(word: str, known: Iterable[str], prefix: str = "") -> str:
    """Return ` Did you mean train.epochs?` with the known word nearest to a mistyped one; empty where none is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean {prefix}{near[0]}?" if near else ""


def _real_path(loc: tuple[int | str, ...], tree: Any) -> KeyPath:
    """Strip the names of union members, which are no keys, from pydantic's location."""
    path: list[int | str] = []
    at = tree
    for position, part in enumerate(loc):
        if isinstance(at, dict | list):
            is_tag = isinstance(at, dict) and part not in at and position + 1 < len(loc)
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
    message = f"{place}: {prefix}{path[-1]} is not a key.{did_you_mean(str(path[-1]), known, prefix)}"
    return f"{message}\nknown keys of {parent or 'a sweep'}: {', '.join(known)}" if known else message


def _known_keys(parent: KeyPath, tree: Any, root: type[BaseModel]) -> list[str]:
    """List the keys that the mapping at a key path may have; empty where that is not known."""
    if parent and parent[-1] == "space":
        return list(AXES)
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
