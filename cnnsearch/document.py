"""A YAML document that remembers where each of its values came from, so that errors can point there.

Sweep files come from anywhere, so reading one is strict: no tags, no duplicate keys, no aliases that expand without
bound. Scalars follow YAML 1.2's core schema where 1.1 surprises people: `1e-4` is a number, `no` is a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cnnsearch.errors import SpecError

MAX_BYTES = 1_000_000
MAX_NODES = 100_000
MAX_DEPTH = 40

Key = str | int
KeyPath = tuple[Key, ...]


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with YAML 1.2 booleans and floats."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag not in _REPLACED]
    for _REPLACED in [{"tag:yaml.org,2002:bool", "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp"}]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|True|false|False)$"), list("tTfF"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.\d*|\.\d+|\d+)([eE][-+]?\d+)?$|^[-+]?\.(inf|Inf)$|^\.(nan|NaN)$"),
    list("-+.0123456789"),
)


@dataclass
class Document:
    """A tree of plain values, and for each key path where it was written."""

    name: str
    """The file's name, as errors give it."""
    tree: dict[str, Any]
    places: dict[KeyPath, str] = field(default_factory=dict)

    def place(self, path: KeyPath) -> str:
        """Where the value at `path`, or else its nearest written ancestor, came from."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.places:
                return self.places[path[:end]]
        return self.name

    def locate(self, dotted: str) -> KeyPath:
        """Turn `stages.grid.space.lr` into a key path: list items are found by their `name`."""
        path: list[Key] = []
        at: Any = self.tree
        for part in dotted.split("."):
            if isinstance(at, list):
                names = [item.get("name") if isinstance(item, dict) else None for item in at]
                if part not in names:
                    known = ", ".join(str(name) for name in names if name)
                    raise SpecError(f"{'.'.join(map(str, path))} has no item named {part!r}; there is {known}")
                path.append(names.index(part))
                at = at[names.index(part)]
            else:
                path.append(part)
                at = at.get(part) if isinstance(at, dict) else None
        return tuple(path)

    def set(self, dotted: str, value: Any, place: str) -> None:
        """Write one value, making or replacing what stands in its way."""
        try:
            path = self.locate(dotted)
        except SpecError as error:
            raise SpecError(f"{place}: {error}") from None
        at: Any = self.tree
        for part in path[:-1]:
            if isinstance(at, dict) and not isinstance(at.get(part), dict | list):
                at[part] = {}
            at = at[part]
        at[path[-1]] = value
        for known in [known for known in self.places if known[: len(path)] == path]:
            del self.places[known]
        self.places[path] = place


def read(file: Path, name: str | None = None) -> Document:
    """Read a sweep file.

    Raises SpecError where it cannot be read, is not YAML, or is not a mapping.
    """
    shown = name or str(file)
    try:
        if file.stat().st_size > MAX_BYTES:
            raise SpecError(f"{shown} has {file.stat().st_size:,} bytes; a sweep file has at most {MAX_BYTES:,}")
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise SpecError(f"{shown} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SpecError(f"{shown} is not text in UTF-8") from None
    document = Document(shown, {})
    document.tree = _parse(text, shown, document.places)
    return document


def parse_value(text: str, place: str) -> Any:
    """The YAML value in a `--set KEY=VALUE`."""
    return _construct(_compose(text, place), place, {}, with_lines=False)


def _parse(text: str, name: str, places: dict[KeyPath, str]) -> dict[str, Any]:
    tree = _construct(_compose(text, name), name, places, with_lines=True)
    if not isinstance(tree, dict):
        given = "nothing" if tree is None else f"a {type(tree).__name__}"
        raise SpecError(f"{name} holds {given}; a sweep is a mapping with name, data, train and stages")
    return tree


def _compose(text: str, name: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise SpecError(f"{name}{line} is not YAML: {error.problem or error}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise SpecError(f"{name} is not YAML: {error}") from None
    except RecursionError:
        raise SpecError(f"{name} is nested more than {MAX_DEPTH} deep") from None


def _construct(root: yaml.Node | None, name: str, places: dict[KeyPath, str], *, with_lines: bool) -> Any:
    """Build plain values from a composed document, counting nodes as aliases repeat them."""
    loader = _Loader("")
    counted = iter(range(MAX_NODES))

    def build(node: yaml.Node, path: KeyPath) -> Any:
        line = f"{name}, line {node.start_mark.line + 1}" if with_lines else name
        if next(counted, None) is None or len(path) > MAX_DEPTH:
            raise SpecError(f"{line}: too many values, or nested more than {MAX_DEPTH} deep")
        places.setdefault(path, line)
        if isinstance(node, yaml.MappingNode):
            _refuse_tag(node, "map", line)
            mapping: dict[str, Any] = {}
            for key_node, value_node in node.value:
                key_line = f"{name}, line {key_node.start_mark.line + 1}" if with_lines else name
                key = loader.construct_object(key_node) if isinstance(key_node, yaml.ScalarNode) else None
                if not isinstance(key, str):
                    raise SpecError(f"{key_line}: a key must be a word, given {key_node.value!r}")
                if key in mapping:
                    raise SpecError(f"{key_line}: {key} is given twice")
                places[(*path, key)] = key_line
                mapping[key] = build(value_node, (*path, key))
            return mapping
        if isinstance(node, yaml.SequenceNode):
            _refuse_tag(node, "seq", line)
            return [build(item, (*path, index)) for index, item in enumerate(node.value)]
        try:
            return loader.construct_object(node)
        except (yaml.YAMLError, ValueError):
            raise SpecError(f"{line}: {node.tag} is not allowed here; plain values only") from None

    return None if root is None else build(root, ())


def _refuse_tag(node: yaml.Node, kind: str, line: str) -> None:
    if node.tag != f"tag:yaml.org,2002:{kind}":
        raise SpecError(f"{line}: {node.tag} is not allowed here; plain values only")


def dotted(path: KeyPath, tree: Any) -> str:
    """The reverse of `Document.locate`: list items by their `name` where they have one."""
    return ".".join(_dotted_parts(path, tree))


def _dotted_parts(path: KeyPath, tree: Any) -> Iterator[str]:
    at = tree
    for part in path:
        try:
            at = at[part]
        except (KeyError, IndexError, TypeError):
            at = None
        named = isinstance(part, int) and isinstance(at, dict) and isinstance(at.get("name"), str)
        yield at["name"] if named and at is not None else str(part)
