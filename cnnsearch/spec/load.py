"""From a name or a file to a validated sweep: find it, apply the profile and the settings, explain what is wrong."""

from __future__ import annotations

import copy
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from cnnsearch.errors import SpecError
from cnnsearch.spec.data import SPLIT_KINDS
from cnnsearch.spec.document import Document, parse_value, read, read_back
from cnnsearch.spec.explain import did_you_mean
from cnnsearch.spec.own_code import Snapshot, read_code, registered, trust
from cnnsearch.spec.sweep import Sweep

SWEEPS = Path("sweeps")


def load_sweep(
    sweep: str | Path,
    *,
    profile: str | None = None,
    values: Sequence[str] | Mapping[str, Any] = (),
    data: str | None = None,
    seeds: Sequence[int] = (),
    confirm: int | None = None,
    code: Sequence[str | Path] = (),
) -> Sweep:
    """Load a sweep by name or path, and change it.

    Args:
        sweep: a name (`part1`: `sweeps/part1.yaml` here, else the one in the package) or a path to a YAML file.
        profile: name of one of the file's profiles.
        values: `KEY=VALUE` strings with YAML values, or a mapping of dotted keys; applied after the profile.
        data: replaces `data.source`.
        seeds: replaces `seeds`.
        confirm: replaces `confirm.seeds`; 0 turns the stage off.
        code: Python files with networks of your own, which the sweep may name. From now on they may run in this
            process; so may those that were registered, which the sweep may name too.

    Raises:
        SpecError: with the file and line, the key, what was given and what is allowed.
        RequestError: a file of code cannot be used.
    """
    document = read(*find(str(sweep)))
    profiles = _take_profiles(document)
    snapshots = [read_code(file) for file in code]
    known = _known_code(snapshots)
    for name in profiles:
        changed = _with_profile(document, profiles, name)
        _name_code(changed, known)
        Sweep.from_document(changed)
    document = _with_profile(document, profiles, profile) if profile is not None else document
    pairs = values.items() if isinstance(values, Mapping) else map(_split_pair, values)
    given = dict(pairs)
    for key, value in given.items():
        document.set(key, value, f"--set {key}")
    _follow_split(document, given)
    if data is not None:
        document.set("data.source", data, "--data")
    if seeds:
        document.set("seeds", list(seeds), "--seeds")
    if confirm is not None:
        document.set("confirm.seeds" if confirm else "confirm", confirm or None, "--confirm")
    named = _name_code(document, known)
    for one in snapshots:
        if not any(known[model] is one for model in named):
            raise SpecError(
                f"--code {one.file}: {document.name} names none of its models, {', '.join(one.models)}; "
                f"for example: --set train.model={next(iter(one.models))}"
            )
    trust(known[model] for model in named)
    return Sweep.from_document(document)


def _known_code(snapshots: Sequence[Snapshot]) -> dict[str, Snapshot]:
    """Every network of the user's own -> the code it is from: of these snapshots, or registered."""
    every = Counter(model for snapshot in snapshots for model in snapshot.models)
    if twice := [model for model, times in every.items() if times > 1]:
        places = " and ".join(one.place_of(twice[0]) for one in snapshots if twice[0] in one.models)
        raise SpecError(f"--code: there are two {twice[0]}, {places}; rename one of them")
    return {**registered(), **{model: one for one in snapshots for model in one.models}}


def _name_code(document: Document, known: Mapping[str, Snapshot]) -> list[str]:
    """Write into a document from which code the networks are that it names, and return their names."""
    named = [model for model in dict.fromkeys(_models_named(document.tree)) if model in known]
    by_digest: dict[str, dict[str, Any]] = {}
    for model in named:
        one = known[model]
        facts = by_digest.setdefault(one.digest, {"file": one.file, "digest": one.digest, "models": []})
        facts["models"].append(model)
    if by_digest:
        document.set("code", list(by_digest.values()), "--code")
    return named


def _models_named(tree: dict[str, Any]) -> Iterator[str]:
    """Yield what a document gives as models, sound or not."""
    train, stages = tree.get("train"), tree.get("stages")
    spaces = [stage.get("space") for stage in stages if isinstance(stage, dict)] if isinstance(stages, list) else []
    for given in (train, *spaces):
        values = given.get("model") if isinstance(given, dict) else None
        if isinstance(values, dict):
            values = [one for some in values.values() if isinstance(some, list) for one in some]
        yield from (one for one in (values if isinstance(values, list) else [values]) if isinstance(one, str))


def find(sweep: str) -> tuple[Path, str]:
    """Find the file of a sweep, and the name by which errors call it. Raises SpecError."""
    _refuse_images(sweep)
    if sweep.endswith((".yaml", ".yml")) or "/" in sweep:
        if not Path(sweep).is_file():
            _refuse_folder(sweep)
            raise SpecError(f"there is no sweep file {sweep}{_nearest_file(Path(sweep))}")
        return Path(sweep), sweep
    if (local := SWEEPS / f"{sweep}.yaml").is_file():
        return local, str(local)
    shipped = resources.files("cnnsearch") / "shipped"
    file = Path(str(shipped)) / f"{sweep}.yaml"
    if file.is_file():
        return file, f"{sweep}.yaml (shipped)"
    _refuse_folder(sweep)
    known = sorted({path.stem for folder in (SWEEPS, Path(str(shipped))) for path in folder.glob("*.yaml")})
    raise SpecError(
        f"there is no sweep named {sweep!r}.{did_you_mean(sweep, known)}\n"
        f"known sweeps: {', '.join(known)}; or give the path of a YAML file"
    )


DATA_FILES = (".csv", ".tsv", ".parquet", ".tar")
"""Endings of files that hold images or their paths."""


def _refuse_images(given: str) -> None:
    """Raise SpecError with the command that writes a sweep, where a file of images or paths was given for one."""
    if Path(given).suffix.lower() in DATA_FILES and Path(given).is_file():
        raise SpecError(
            f"{given} is no sweep file. If it holds images or their paths, this writes a sweep:\n"
            f"  cnnsearch init {shlex.quote(given)}"
        )


def _refuse_folder(given: str) -> None:
    """Raise SpecError with the command that writes a sweep, where a folder was given for one."""
    if given.strip("./") and Path(given).is_dir():
        raise SpecError(
            f"{given} is a folder, not a sweep. If it holds images, with a folder per class, this writes a sweep:\n"
            f"  cnnsearch init {shlex.quote(given)}"
        )


def sweeps_there_are() -> list[tuple[str, str]]:
    """List the sweeps that can be asked for by name, each with its title."""
    shipped = Path(str(resources.files("cnnsearch") / "shipped"))
    files = {path.stem: path for folder in (shipped, SWEEPS) for path in folder.glob("*.yaml")}
    found = []
    for name, path in sorted(files.items()):
        try:
            title = yaml.safe_load(path.read_text(encoding="utf-8"))["title"]
        except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
            title = ""
        found.append((name, str(title)))
    return found


def from_yaml(text: str, name: str) -> Sweep:
    """Read back a resolved `sweep.yaml`. Raises SpecError."""
    return Sweep.from_document(Document(name, read_back(text, name)))


def to_yaml(sweep: Sweep) -> str:
    """Write the resolved sweep as YAML, keys in the order of the spec."""
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
            f"{document.name} has no profile {name!r}.{did_you_mean(name, profiles)}\nprofiles there: {known}"
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


def _follow_split(document: Document, given: Mapping[str, Any]) -> None:
    """Where keys of another kind of split were set, take that kind: `data.split.train` says enough."""
    keys = {key.removeprefix("data.split.") for key in given if key.startswith("data.split.")}
    split = document.tree.get("data", {}).get("split") if isinstance(document.tree.get("data"), dict) else None
    if not keys or "method" in keys or not isinstance(split, dict):
        return
    fits = [kind for kind in SPLIT_KINDS if keys <= kind.model_fields.keys()]
    if len(fits) == 1 and split.get("method") != fits[0].model_fields["method"].default:
        for key in set(split) - keys:  # the method too: those that were set say which it is
            del split[key]


def _nearest_file(path: Path) -> str:
    siblings = [str(file) for file in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
    return "." + did_you_mean(str(path), siblings) if siblings else ""
