"""Sweep files and settings that are made to run code, or to fill memory and time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.asking import ask
from tests.faults.running import assert_refused, call, sweep_file

MOST_SECONDS = 3.0
"""Of processor time that a refusal may take."""


def alias_bomb() -> str:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    return "\n".join([*levels, *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10))])


def many_cells() -> str:
    values = ", ".join(str(value) for value in range(1, 3000))
    axes = ", ".join(f"{axis}: {{grid: [{values}]}}" for axis in ("epochs", "batch_size", "seed"))
    return f"name: a\nstages: [{{name: a, space: {{{axes}}}}}]"


FILES = {
    "nesting of 10 MB": ("a: " + "[" * 10_000_000, "at most 1,000,000"),
    "nesting within the limit of size": ("a: " + "[" * 900_000, "nested more than 40 deep"),
    "nested mappings": ("a: " + "{a: " * 200_000, "nested more than 40 deep"),
    "alias bomb": (alias_bomb(), "too many values"),
    "alias of itself": ("name: a\nx: &a {b: *a}\nstages: []", "nested more than 40 deep"),
    "alias of itself as a key": ("? &a [*a]\n: 1", "a key must be a word"),
    "a long list": ("a: [" + "x, " * 300_000 + "]", "too many values"),
    "many keys": ("\n".join(f"a{index}: 1" for index in range(80_000)), "too many values"),
    "a number of 900,000 digits": (f"name: a\nseeds: [0x{'f' * 900_000}]", "a number of 900,002 characters"),
    "bytes": ("name: !!binary aGVsbG8=", "tag:yaml.org,2002:binary is not allowed"),
    "more trials than atoms": (many_cells(), "makes 26,973,008,999 trials"),
    "a key that moves the cursor": ('"\\e[2Jname": a', r"a key must be a word, given '\x1b[2Jname'"),
}


@pytest.mark.row(16)
@pytest.mark.parametrize("case", FILES)
@pytest.mark.after
def test_a_sweep_file_that_is_too_much_is_refused_quickly(tmp_path: Path, case: str) -> None:
    text, complaint = FILES[case]
    ended = call(sweep_file(tmp_path, text), "--out", tmp_path / "results", module="cnnsearch.sweep")
    assert_refused(ended, complaint)
    assert ended.cpu_seconds < MOST_SECONDS
    assert len(ended.stderr) < 1000
    assert not (tmp_path / "results").exists()


@pytest.mark.row(16)
@pytest.mark.parametrize("way", ["file", "profile", "--set", "sweep.yaml of results"])
def test_object_tags_run_no_code(tmp_path: Path, way: str) -> None:
    proof = tmp_path / "code-ran"
    tag = f'!!python/object/apply:os.system ["touch {proof}"]'
    if way == "--set":
        ended = ask("part1", "--set", f"train.lr={tag}", "--out", tmp_path)
    elif way == "file":
        ended = ask(sweep_file(tmp_path, f"name: {tag}\n"), "--out", tmp_path)
    elif way == "profile":
        ended = ask(sweep_file(tmp_path, f"name: a\nprofiles: {{quick: {{train.lr: {tag}}}}}\n"), "--out", tmp_path)
    else:
        sweep_file(tmp_path, f"name: {tag}\n", name="sweep.yaml")
        ended = ask(tmp_path, command="report")
    assert_refused(ended, "tag:yaml.org,2002:python/object/apply:os.system is not allowed here")
    assert not proof.exists()


@pytest.mark.row(16)
def test_an_alias_bomb_in_a_setting_or_a_results_folder(tmp_path: Path) -> None:
    bomb = "[&a [x, x, x, x, x, x, x, x], " + ", ".join(
        f"&{name} [{', '.join([f'*{before}'] * 8)}]" for before, name in zip("abcdefg", "bcdefgh", strict=True)
    )
    assert_refused(
        call("part1", "--set", f"train.lr={bomb}]", "--out", tmp_path, module="cnnsearch.sweep"), "too many values"
    )
    sweep_file(tmp_path, alias_bomb(), name="sweep.yaml")
    ended = call(tmp_path, module="cnnsearch.report")
    assert_refused(ended, "too many values")
    assert ended.peak_bytes < 1 << 30
