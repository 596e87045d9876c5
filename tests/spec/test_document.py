from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cnnsearch.errors import SpecError
from cnnsearch.spec.document import MAX_NODES, Document, dotted, parse_value, read, read_back


def document(tmp_path: Path, text: str) -> Document:
    file = tmp_path / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    return read(file, "mine.yaml")


def test_remembers_the_line_of_every_value(tmp_path: Path) -> None:
    found = document(tmp_path, "name: a\ntrain:\n  epochs: 3\nstages:\n  - name: grid\n    space: {lr: 1}\n")
    assert found.place(("train", "epochs")) == "mine.yaml, line 3"
    assert found.place(("stages", 0, "space", "lr")) == "mine.yaml, line 6"
    assert found.place(("train", "unknown", "deeper")) == "mine.yaml, line 2"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("0.5", 0.5),
        ("5", 5),
        ("no", "no"),
        ("on", "on"),
        ("1_000", 1000),
        ("010", 10),
        ("0x1f", 31),
        ("1:30", "1:30"),
        ("=", "="),
        ("true", True),
        ("2020-01-01", "2020-01-01"),
    ],
)
def test_scalars_are_what_people_mean(text: str, value: object) -> None:
    parsed = parse_value(text, "--set x")
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: 1\na: 2\n", "line 2: a is given twice"),
        ("a: !!python/object/apply:os.system ['touch /tmp/never']\n", "line 1: tag:yaml.org,2002:python/object"),
        ("a: !!set {x}\n", "line 1: tag:yaml.org,2002:set is not allowed"),
        ("a: [1\n", "is not YAML"),
        ("- 1\n", "holds a list"),
        ("", "holds nothing"),
        ("1: 2\n", "line 1: a key must be a word"),
        ("<<: {a: 1}\n? [a]\n: 1\n", "line 2: a key must be a word, given a list or mapping"),
        ("a: !!int x\n", "line 1: x is not what its tag says"),
        ("a: " + "[" * 60 + "]" * 60, "nested more than"),
        ("a: " + "[" * 5000, "nested more than"),
    ],
)
def test_refuses_what_is_not_plain(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(SpecError, match=r"mine\.yaml") as caught:
        document(tmp_path, text)
    assert complaint in str(caught.value)


def test_alias_bomb_is_refused_quickly(tmp_path: Path) -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    with pytest.raises(SpecError, match="too many values"):
        document(tmp_path, "\n".join(levels))


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    plain = {"title": "1e-4", "numbers": [1e-5, 0.1, 3, True, None], "words": ["no", "<<", "2020-01-01", "0o17", "="]}
    assert read_back(yaml.safe_dump(plain), "sweep.yaml") == plain
    with pytest.raises(SpecError, match="too many values"):
        read_back(yaml.safe_dump(list(range(MAX_NODES))), "sweep.yaml")


def test_ten_megabytes_are_refused_unread(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="at most 1,000,000"):
        document(tmp_path, "a: " + "[" * 10_000_000)


def test_set_replaces_and_remembers_where_it_came_from(tmp_path: Path) -> None:
    found = document(tmp_path, "stages:\n  - name: grid\n    space:\n      lr: {grid: [1, 2]}\n")
    found.set("stages.grid.space.lr", 3, "--set stages.grid.space.lr")
    found.set("train.epochs", 5, "--set train.epochs")
    assert found.tree == {"stages": [{"name": "grid", "space": {"lr": 3}}], "train": {"epochs": 5}}
    assert found.place(("stages", 0, "space", "lr", "grid")) == "--set stages.grid.space.lr"
    assert dotted(("stages", 0, "space", "lr"), found.tree) == "stages.grid.space.lr"


def test_set_in_an_unknown_stage_names_the_known_ones(tmp_path: Path) -> None:
    found = document(tmp_path, "stages: [{name: grid}, {name: dropout}]\n")
    with pytest.raises(SpecError, match="no item named 'gird'; there is grid, dropout"):
        found.set("stages.gird.space.lr", 3, "--set stages.gird.space.lr")


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"title: caf\xe9\n")
    with pytest.raises(SpecError, match=r"latin.yaml is not text in UTF-8"):
        read(tmp_path / "latin.yaml")
    with pytest.raises(SpecError, match=r"none.yaml cannot be read"):
        read(tmp_path / "none.yaml")
