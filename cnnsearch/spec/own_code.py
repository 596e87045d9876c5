"""Files with networks of the user's own: read, hashed, and kept as they were read. Nothing here runs any of them.

A snapshot holds a file and all that it imports from beside it, found in the text of their imports. Its digest is part
of a trial's id. Code runs only from a snapshot, never from the file, so a file that changes during a sweep changes
nothing; and only from one that the user has named: see `trust`.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cnnsearch.errors import RequestError
from cnnsearch.spec.model_names import KNOWN

MOST_FILES = 200
MOST_BYTES = 2_000_000
"""Most files of a snapshot, and most bytes of each."""


@dataclass(frozen=True)
class Snapshot:
    """A Python file and all that it imports from beside it, as they were when they were read."""

    file: str
    """Path of the file, as the user gave it."""
    files: Mapping[str, str]
    """Path relative to the file's folder -> source. The file itself comes first."""

    @property
    def entry(self) -> str:
        """Name of the file in its folder."""
        return next(iter(self.files))

    @functools.cached_property
    def digest(self) -> str:
        """First 16 hex digits of a SHA-256 of all sources. The name of the file itself is not in it, nor its folder."""
        found = hashlib.sha256()
        for name, source in sorted(self.files.items()):
            for part in ("" if name == self.entry else name, source):
                content = part.encode()
                found.update(f"{len(content)} ".encode() + content)
        return found.hexdigest()[:16]

    @functools.cached_property
    def models(self) -> Mapping[str, int]:
        """Name of each class and function of the file -> its line. Those that begin with an underscore are private."""
        found = {}
        for node in _top_level(ast.parse(self.files[self.entry]).body):
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                found[node.name] = node.lineno
        return found

    def place_of(self, model: str) -> str:
        """Where a class or function of the file is, as `nets.py, line 7`."""
        return f"{self.file}, line {self.models[model]}" if model in self.models else self.file

    def shown(self, name: str) -> str:
        """Path of one of the files, as the user would give it."""
        return os.path.join(os.path.dirname(self.file), name)


def read_code(path: str | Path) -> Snapshot:
    """Read a file and all that it imports from beside it.

    Raises:
        RequestError: a file cannot be read, is no Python, or is too large; or a class or function has the name of a
            model that there is already.
    """
    given = Path(path).expanduser()
    if given.suffix != ".py":
        raise RequestError(f"--code {path}: give a Python file, whose name ends in .py")
    if not given.stem.isidentifier():
        raise RequestError(f"--code {path}: {given.stem} cannot be the name of a Python module; rename the file")
    found = Snapshot(str(given), with_imports(given))
    if not found.models:
        raise RequestError(f"--code {path}: it defines no class or function that could be a model")
    refuse_known(found)
    return found


def refuse_known(found: Snapshot) -> None:
    """Raise RequestError for a class or function with the name of a model that there is already."""
    for name, line in found.models.items():
        if name in KNOWN:
            raise RequestError(
                f"{found.file}, line {line}: {name} is the name of a model that there is already; choose another"
            )


def with_imports(file: Path, source: str | None = None) -> dict[str, str]:
    """Read a file and what it imports from beside it; with `source`, that is what the file would hold.

    Raises RequestError.
    """
    root, found = file.parent, dict[str, str]()
    waiting = [file.name]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        if len(found) == MOST_FILES:
            raise RequestError(f"--code {file}: it imports more than {MOST_FILES} files from beside it")
        found[name] = source if source is not None and not found else _source(root / name)
        waiting += _beside(root, name, _parsed(found[name], root / name))
    return found


def _source(file: Path) -> str:
    try:
        if file.stat().st_size > MOST_BYTES:
            raise RequestError(f"--code {file} has more than {MOST_BYTES:,} bytes")
        return file.read_text(encoding="utf-8-sig")  # reading makes all ends of lines the same
    except UnicodeDecodeError:
        raise RequestError(f"--code {file} is not text in UTF-8") from None
    except OSError as error:
        raise RequestError(f"--code {file} cannot be read: {error.strerror or error}") from None


def _parsed(source: str, file: Path) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError as error:
        raise RequestError(f"{file}, line {error.lineno}: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise RequestError(f"--code {file} is not Python: {error}") from None


def _top_level(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a module, also those under an `if` or `try`."""
    for node in body:
        yield node
        for part in ("body", "orelse", "finalbody", "handlers"):
            if isinstance(node, ast.If | ast.Try | ast.With | ast.ExceptHandler):
                yield from _top_level(getattr(node, part, ()))


def _beside(root: Path, name: str, tree: ast.Module) -> Iterator[str]:
    """Yield the files beside the first one that a module imports, as paths relative to its folder."""
    package = list(PurePosixPath(name).parent.parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files_of(root, alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = [*base, *(node.module.split(".") if node.module else [])]
            if not node.level and module[0] in sys.stdlib_module_names:
                continue
            yield from _files_of(root, module)
            for alias in node.names:
                yield from _files_of(root, [*module, alias.name])


def _files_of(root: Path, module: list[str]) -> Iterator[str]:
    """Yield the files that importing a module runs: those of the packages it lies in, and its own."""
    if not module or module[0] in sys.stdlib_module_names:
        return
    for end in range(1, len(module) + 1):
        place = "/".join(module[:end])
        for name in (f"{place}/__init__.py", f"{place}.py"):
            if (root / name).is_file():
                yield name
                break


_TRUSTED: dict[str, Snapshot] = {}
"""Digest -> snapshot that the user has named to this process, or to the one that started it."""
_REGISTERED: dict[str, Snapshot] = {}
"""Model -> its snapshot, of those registered in a notebook or script."""


def trust(snapshots: Iterable[Snapshot]) -> None:
    """Let code of these snapshots run in this process: the user has named the file."""
    for snapshot in snapshots:
        _TRUSTED[snapshot.digest] = snapshot


def trusted(digest: str) -> Snapshot | None:
    """The snapshot of this digest that may run here, if the user has named it."""
    return _TRUSTED.get(digest)


def files_of_own_code() -> frozenset[str]:
    """Paths, as the user gave them, of the files whose code may run in this process."""
    return frozenset(snapshot.shown(name) for snapshot in _TRUSTED.values() for name in snapshot.files)


def register(model: str, snapshot: Snapshot) -> None:
    """Make a model of a snapshot known to every sweep that is loaded in this process, and trust it."""
    trust([snapshot])
    _REGISTERED[model] = snapshot


def registered() -> Mapping[str, Snapshot]:
    """Model -> its snapshot, of those registered in this process."""
    return dict(_REGISTERED)
