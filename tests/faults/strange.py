"""Folders of results as a stranger may make them, and a report on one."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from cnnsearch.cli import app
from cnnsearch.results.tables import load
from cnnsearch.storage.checksums import checksum
from cnnsearch.words import printable

PNG = "iVBORw0KGgo="


def make_pattern(folder: Path) -> Path:
    """Make a folder with every kind of file that a report reads."""
    with tarfile.open(Path(__file__).with_name("older.tar.xz")) as archive:
        archive.extractall(folder, filter="data")
    rewrite(folder / "data.json", lambda facts: facts | {"weights": [["resnet18", "imagenet", "0" * 16]]})
    examples = json.loads((folder / "data.json").read_text())["examples"]["test"]["names"]
    write(folder / "pictures.json", {"sheet": {"coat": [PNG]}, "examples": {examples[0]: PNG}})
    (folder / "studies").mkdir()
    (folder / "studies" / "0123456789abcdef.jsonl").write_text(sealed({"index": 0, "suggestion": {"lr": 0.1}}) + "\n")
    load(folder)
    return folder


def sealed(facts: dict[str, Any]) -> str:
    facts = {key: value for key, value in facts.items() if key != "checksum"}
    return json.dumps({"checksum": checksum(facts), **facts})


def write(file: Path, facts: Any) -> None:
    """Write a file whose checksum, if it can have one, is right: a stranger can compute it, too."""
    file.write_text(sealed(facts) if isinstance(facts, dict) else json.dumps(facts))


def rewrite(file: Path, change: Callable[[Any], Any]) -> None:
    write(file, change(json.loads(file.read_text())))


def vouch(file: Path) -> None:
    """Put a file's checksum where it is looked for."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    for note in (file.parent / "record.json", file.parent / "tables.json"):
        if note.exists() and note != file:
            rewrite(note, lambda facts: facts | {"files": facts["files"] | {file.name: digest}})


def report(folder: Path) -> tuple[int, str]:
    """Run the command; return its exit code and what it printed."""
    done = CliRunner().invoke(app, ["report", str(folder)])
    if not isinstance(done.exception, SystemExit | None):
        raise done.exception
    assert printable(done.output.replace("\n", "")) == done.output.replace("\n", "")
    assert bool(done.stderr) == bool(done.exit_code)
    return done.exit_code, done.output


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to every value of a tree, but only to some of a long list."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree[:3]) if isinstance(tree, list) else ()
    return [path, *(place for key, value in inner for place in places(value, (*path, key)))]


def replaced(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copied = dict(tree) if isinstance(tree, dict) else list(tree)
    if value is GONE and len(path) == 1:
        del copied[path[0]]
    else:
        copied[path[0]] = replaced(copied[path[0]], path[1:], value)
    return copied


GONE = object()
ODD = [GONE, None, True, 0, -1, 2, 0.5, -2.5, 10**15, 10**19, -(10**30), 1e308, 5e-324, "", "x", "\x1b[2J\r", "\ud800",
       "../../x", "NaN", "2026-01-01", "9" * 400, [], [[]], {}, {"": 0}, {"x": {"y": [None]}}, ["x"] * 3,
       [0.5, "a", None]]  # fmt: skip

JSON_FILES = ("data.json", "provenance.json", "pictures.json", "tables.json", "record.json", "epochs.jsonl", "study")


def file_of(folder: Path, name: str) -> Path:
    if name == "study":
        return next((folder / "studies").iterdir())
    inner = sorted((folder / "trials").glob(f"*/{name}"))
    return inner[0] if inner else folder / name
