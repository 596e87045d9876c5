"""A YAML document that remembers where each of its values came from, so that errors can point there.

Sweep files may come from anyone, so reading is strict: no tags, no duplicate keys, no aliases that expand without
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
MAX_NODES = 20_000
"""Most values of all kinds in a file: about a second's reading."""
MAX_DEPTH = 40
MAX_KEY = 200
"""Most characters of a key."""
MAX_NUMBER = 40
"""Most characters of a number: turning digits into a number takes time quadratic in their count."""

Key = str | int
KeyPath = tuple[Key, ...]


_TAG = "tag:yaml.org,2002:"
_PLAIN = {f"{_TAG}{kind}" for kind in ("str", "int", "float", "bool", "null")}
"""YAML tags that a scalar may have."""


_TOO_MANY = f"has too many values; a sweep has at most {MAX_NODES:,}"
_TOO_DEEP = f"is nested more than {MAX_DEPTH} deep"


class _TooLargeError(Exception):
    """Raised if a file has more values, or is nested deeper, than a sweep file may."""


class _Bounded(yaml.SafeLoader):
    """PyYAML's safe loader, which stops reading as soon as a document is too large."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._nodes = self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise _TooLargeError(_TOO_MANY)
        if self._depth > MAX_DEPTH:
            raise _TooLargeError(_TOO_DEEP)
        self._depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _Loader(_Bounded):
    """The same loader with YAML 1.2 booleans and numbers."""


def _whole_number(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = node.value.replace("_", "")
    return int(text, 16 if "x" in text else 10)


_REPLACED = {f"{_TAG}{kind}" for kind in ("bool", "int", "float", "timestamp", "merge", "value")}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag not in _REPLACED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_constructor(f"{_TAG}int", _whole_number)
_Loader.add_implicit_resolver(
    f"{_TAG}int", re.compile(r"^[-+]?\d[\d_]*$|^[-+]?0x[\da-fA-F]+$", re.ASCII), list("-+0123456789")
)
_Loader.add_implicit_resolver(f"{_TAG}bool", re.compile(r"^(true|True|false|False)$"), list("tTfF"))
_Loader.add_implicit_resolver(
    f"{_TAG}float",
    re.compile(r"^[-+]?(\d+\.\d*|\.\d+|\d+)([eE][-+]?\d+)?$|^[-+]?\.(inf|Inf)$|^\.(nan|NaN)$"),
    list("-+.0123456789"),
)


@dataclass
class Document:
    """A tree of plain values, with the place where each was written."""

    name: str
    """The file's name, as errors show it."""
    tree: dict[str, Any]
    places: dict[KeyPath, str] = field(default_factory=dict)

    def place(self, path: KeyPath) -> str:
        """Where the value at `path` was written, or else its nearest written ancestor."""
        return self.places.get(self._written(path), self.name)

    def order(self, path: KeyPath) -> int:
        """Sort key by which paths come as their values, or nearest written ancestors, were written."""
        written = self._written(path)
        return list(self.places).index(written) if written in self.places else -1

    def _written(self, path: KeyPath) -> KeyPath:
        """The path, or the nearest of its ancestors that was written."""
        return next((path[:end] for end in range(len(path), -1, -1) if path[:end] in self.places), ())

    def locate(self, dotted: str) -> KeyPath:
        """Turn `stages.grid.space.lr` into a key path; list items are found by their `name`. Raises SpecError."""
        path: list[Key] = []
        at: Any = self.tree
        # An axis whose name has a dot stays whole.
        parts = re.split(r"(?<!\.space\.model_args)(?<!\.space\.optimizer_args)\.", dotted)
        for part in parts:
            if isinstance(at, list):
                names = [item.get("name") if isinstance(item, dict) else None for item in at]
                if part not in names:
                    known = ", ".join(shown(name) for name in names if name)
                    raise SpecError(f"{'.'.join(map(str, path))} has no item named {part!r}; there is {known}")
                path.append(names.index(part))
                at = at[names.index(part)]
            else:
                path.append(part)
                at = at.get(part) if isinstance(at, dict) else None
        return tuple(path)

    def set(self, dotted: str, value: Any, place: str) -> None:
        """Write one value, creating or replacing mappings on the way to it. Raises SpecError."""
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

    Raises:
        SpecError: it cannot be read, is not YAML, or is not a mapping.
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


def read_back(text: str, name: str) -> Any:
    """Read back the plain values that `yaml.safe_dump` wrote, under the same limits as a user's file.

    Words and numbers are those of YAML 1.1, as it wrote them: `1e-4` without a dot is a word there.
    """
    return _construct(_compose(text, name, _Bounded), name, {}, loader=_Bounded(""))


def parse_value(text: str, place: str) -> Any:
    """Parse the YAML value of a `--set KEY=VALUE`."""
    return _construct(_compose(text, place), place, {}, with_lines=False)


def _parse(text: str, name: str, places: dict[KeyPath, str]) -> dict[str, Any]:
    tree = _construct(_compose(text, name), name, places)
    if not isinstance(tree, dict):
        given = "nothing" if tree is None else f"a {type(tree).__name__}"
        raise SpecError(f"{name} holds {given}; a sweep is a mapping with name, data, train and stages")
    return tree


def _compose(text: str, name: str, loader: type[_Bounded] = _Loader) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=loader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise SpecError(f"{name}{line} is not YAML: {error.problem or error}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise SpecError(f"{name} is not YAML: {error}") from None
    except _TooLargeError as error:
        raise SpecError(f"{name} {error}") from None


def _construct(
    root: yaml.Node | None,
    name: str,
    places: dict[KeyPath, str],
    *,
    with_lines: bool = True,
    loader: _Bounded | None = None,
) -> Any:
    """Build plain values from a composed document. Nodes that aliases repeat count each time."""
    loader = loader or _Loader("")
    counted = iter(range(MAX_NODES))

    def build(node: yaml.Node, path: KeyPath) -> Any:
        line = f"{name}, line {node.start_mark.line + 1}" if with_lines else name
        if next(counted, None) is None or len(path) > MAX_DEPTH:
            raise SpecError(f"{name} {_TOO_DEEP if len(path) > MAX_DEPTH else _TOO_MANY}")
        places.setdefault(path, line)
        if isinstance(node, yaml.MappingNode):
            _refuse_tag(node, "map", line)
            mapping: dict[str, Any] = {}
            for key_node, value_node in node.value:
                key_line = f"{name}, line {key_node.start_mark.line + 1}" if with_lines else name
                key = key_node.value if isinstance(key_node, yaml.ScalarNode) else "a list or mapping"
                if key_node.tag != f"{_TAG}str" or len(key) > MAX_KEY or not key.isprintable():
                    raise SpecError(f"{key_line}: a key must be a word, given {shown(key)}")
                if key in mapping:
                    raise SpecError(f"{key_line}: {key} is given twice")
                places[(*path, key)] = key_line
                mapping[key] = build(value_node, (*path, key))
            return mapping
        if isinstance(node, yaml.SequenceNode):
            _refuse_tag(node, "seq", line)
            return [build(item, (*path, index)) for index, item in enumerate(node.value)]
        if node.tag not in _PLAIN:
            _refuse_tag(node, "str", line)
        if node.tag in (f"{_TAG}int", f"{_TAG}float") and len(node.value) > MAX_NUMBER:
            raise SpecError(f"{line}: a number of {len(node.value):,} characters; at most {MAX_NUMBER}")
        try:
            return loader.construct_object(node)
        except (yaml.YAMLError, ValueError, KeyError):
            raise SpecError(f"{line}: {shown(node.value)} is not what its tag says, {shown(node.tag)}") from None

    return None if root is None else build(root, ())


def _refuse_tag(node: yaml.Node, kind: str, line: str) -> None:
    if node.tag != f"{_TAG}{kind}":
        raise SpecError(f"{line}: {shown(node.tag)} is not allowed here; plain values only")


def shown(value: Any) -> str:
    """Show a value from a file in a message: short, on one line, without characters that move a terminal's cursor."""
    text = value if isinstance(value, str) and value.isprintable() else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def dotted(path: KeyPath, tree: Any) -> str:
    """Reverse `Document.locate`: name list items by their `name` where they have one."""
    return ".".join(_dotted_parts(path, tree))


def _dotted_parts(path: KeyPath, tree: Any) -> Iterator[str]:
    at = tree
    for part in path:
        try:
            at = at[part]
        except (KeyError, IndexError, TypeError):
            at = None
        named = isinstance(part, int) and isinstance(at, dict) and isinstance(at.get("name"), str)
        yield shown(at["name"]) if named and at is not None else str(part)
