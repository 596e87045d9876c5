"""From a name or a file to a validated sweep: find it, apply the profile and the settings, explain what is wrong."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from cnnsearch.errors import SpecError
from cnnsearch.spec.document import Document, KeyPath, dotted, parse_value, read, read_back, shown
from cnnsearch.spec.settings import (
    AXES,
    DataSpec,
    FillSplit,
    SpecProblemError,
    StratifiedSplit,
    TrainSpec,
    value_message,
)
from cnnsearch.spec.stage import Asha, Hyperband, Median, Patience, Search, Stage, StartFrom
from cnnsearch.spec.sweep import RunSpec, Sweep

SWEEPS = Path("sweeps")


def load_sweep(
    sweep: str | Path,
    *,
    profile: str | None = None,
    values: Sequence[str] | Mapping[str, Any] = (),
    data: str | None = None,
    seeds: Sequence[int] = (),
) -> Sweep:
    """Load a sweep by name or path, and change it.

    Args:
        sweep: a name (`part1`: `sweeps/part1.yaml` here, else the one in the package) or a path to a YAML file.
        profile: name of one of the file's profiles.
        values: `KEY=VALUE` strings with YAML values, or a mapping of dotted keys; applied after the profile.
        data: replaces `data.source`.
        seeds: replaces `seeds`.

    Raises:
        SpecError: with the file and line, the key, what was given and what is allowed.
    """
    document = read(*find(str(sweep)))
    profiles = _take_profiles(document)
    for name in profiles:
        _validated(_with_profile(document, profiles, name))
    document = _with_profile(document, profiles, profile) if profile is not None else document
    pairs = values.items() if isinstance(values, Mapping) else map(_split_pair, values)
    for key, value in pairs:
        document.set(key, value, f"--set {key}")
    if data is not None:
        document.set("data.source", data, "--data")
    if seeds:
        document.set("seeds", list(seeds), "--seeds")
    return _validated(document)


def find(sweep: str) -> tuple[Path, str]:
    """The file of a sweep, and the name errors give it."""
    if sweep.endswith((".yaml", ".yml")) or "/" in sweep:
        if not Path(sweep).is_file():
            raise SpecError(f"there is no sweep file {sweep}{_nearest_file(Path(sweep))}")
        return Path(sweep), sweep
    if (local := SWEEPS / f"{sweep}.yaml").is_file():
        return local, str(local)
    shipped = resources.files("cnnsearch") / "shipped"
    file = Path(str(shipped)) / f"{sweep}.yaml"
    if file.is_file():
        return file, f"{sweep}.yaml (shipped)"
    known = sorted({path.stem for folder in (SWEEPS, Path(str(shipped))) for path in folder.glob("*.yaml")})
    raise SpecError(
        f"there is no sweep named {sweep!r}.{_did_you_mean(sweep, known)}\n"
        f"known sweeps: {', '.join(known)}; or give the path of a YAML file"
    )


def changed(sweep: Sweep, values: Mapping[str, Any]) -> Sweep:
    """The sweep with dotted keys set. Raises SpecError."""
    document = Document(sweep.name, copy.deepcopy(sweep.to_dict()))
    for key, value in values.items():
        document.set(key, value, key)
    return _validated(document)


def from_yaml(text: str, name: str) -> Sweep:
    """Read back a resolved `sweep.yaml`. Raises SpecError."""
    return _validated(Document(name, read_back(text, name)))


def to_yaml(sweep: Sweep) -> str:
    """The resolved sweep as YAML, keys in the order of the spec."""
    return yaml.safe_dump(sweep.to_dict(), sort_keys=False, allow_unicode=True, width=110)


def _take_profiles(document: Document) -> dict[str, Any]:
    profiles = document.tree.pop("profiles", None) or {}
    if not isinstance(profiles, dict):
        raise SpecError(f"{document.place(('profiles',))}: profiles is a mapping of names to settings")
    return profiles


def _with_profile(document: Document, profiles: dict[str, Any], name: str) -> Document:
    if name not in profiles:
        known = ", ".join(profiles) or "none"
        raise SpecError(
            f"{document.name} has no profile {name!r}.{_did_you_mean(name, profiles)}\nprofiles there: {known}"
        )
    if not isinstance(profiles[name], dict):
        raise SpecError(f"{document.place(('profiles', name))}: a profile is a mapping of dotted keys to values")
    changed = Document(document.name, copy.deepcopy(document.tree), dict(document.places))
    for key, value in profiles[name].items():
        changed.set(key, copy.deepcopy(value), document.place(("profiles", name, key)))
    return changed


def _split_pair(pair: str) -> tuple[str, Any]:
    key, equals, text = pair.partition("=")
    if not equals or not key:
        raise SpecError(f"--set {pair}: give KEY=VALUE, such as train.epochs=5")
    return key, parse_value(text, f"--set {key}")


def _validated(document: Document) -> Sweep:
    try:
        return Sweep.model_validate(document.tree)
    except ValidationError as error:
        raise SpecError(_explain(error, document)) from None


def _explain(error: ValidationError, document: Document) -> str:
    """The first mistake, as place, key, what was given, what is allowed, nearest known name."""
    first = error.errors()[0]
    path = _real_path(first["loc"], document.tree)
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, SpecProblemError):
        path = (*path, *cause.path)
    place, key = document.place(path), dotted(path, document.tree)
    if first["type"] == "extra_forbidden" or (isinstance(cause, SpecProblemError) and str(cause) == "unknown axis"):
        return _unknown_key(place, path, document.tree)
    if first["type"] == "union_tag_invalid":
        tag = repr(first["ctx"]["tag"])
        return f"{place}: {key}.method given {shown(tag)}; allowed: {first['ctx']['expected_tags']}"
    if first["type"] == "missing":
        return f"{place}: {key} is missing"
    if isinstance(cause, SpecProblemError):
        return f"{place}: {key} {cause}"
    if cause is not None and not isinstance(first["input"], str):  # of several values, and says which
        return f"{place}: {key}: {cause}"
    return f"{place}: {key} {value_message(first['input'], first['msg'])}"


def _real_path(loc: tuple[int | str, ...], tree: Any) -> KeyPath:
    """Pydantic's location without the names of union members, which are no keys."""
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


_PARTS: dict[KeyPath, type[BaseModel]] = {
    (): Sweep,
    ("data",): DataSpec,
    ("train",): TrainSpec,
    ("run",): RunSpec,
    ("stages", 0): Stage,
    ("stages", 0, "start_from"): StartFrom,
    ("stages", 0, "search"): Search,
}


_RULES: dict[str, type[BaseModel]] = {
    "asha": Asha,
    "hyperband": Hyperband,
    "median": Median,
    "patience": Patience,
}


def _known_keys(path: KeyPath, tree: Any) -> list[str]:
    parent: KeyPath = tuple(0 if isinstance(part, int) else part for part in path[:-1])
    if parent == ("stages", 0, "space"):
        return list(AXES)
    if parent == ("data", "split"):
        method = tree["data"]["split"].get("method")
        return list((StratifiedSplit if method == "stratified" else FillSplit).model_fields)
    if parent == ("stages", 0, "stop_early"):
        method = tree["stages"][path[1]]["stop_early"].get("method")
        return list(_RULES[method].model_fields) if method in _RULES else []
    extra = ["profiles"] if parent == () else []
    return [*_PARTS[parent].model_fields, *extra] if parent in _PARTS else []


def _unknown_key(place: str, path: KeyPath, tree: Any) -> str:
    known = _known_keys(path, tree)
    parent = dotted(path[:-1], tree)
    prefix = f"{parent}." if parent else ""
    message = f"{place}: {prefix}{path[-1]} is not a key.{_did_you_mean(str(path[-1]), known, prefix)}"
    return f"{message}\nknown keys of {parent or 'a sweep'}: {', '.join(known)}" if known else message


def _did_you_mean(word: str, known: Iterable[str], prefix: str = "") -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean {prefix}{near[0]}?" if near else ""


def _nearest_file(path: Path) -> str:
    siblings = [str(file) for file in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
    return "." + _did_you_mean(str(path), siblings) if siblings else ""
