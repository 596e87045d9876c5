"""Folders of results that a stranger made: whatever their files hold, a report on them says what cannot be read."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save as save_numpy
from typer.testing import CliRunner

from cnnsearch.cli import app
from cnnsearch.errors import ResultsError
from cnnsearch.results.tables import load
from tests.faults.strange import (
    file_of,
    make_pattern,
    replaced,
    report,
    rewrite,
    vouch,
)

pytestmark = pytest.mark.usefixtures("figures_left_blank")


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pattern(tmp_path_factory.mktemp("results") / "part1")


@pytest.fixture
def folder(pattern: Path, tmp_path: Path) -> Path:
    return shutil.copytree(pattern, tmp_path / "part1")


def first_trial(folder: Path) -> Path:
    return min((folder / "trials").iterdir())


def put(folder: Path, name: str, path: str, value: Any) -> None:
    """Set one value of a file, given its dotted place."""
    file = folder / name if (folder / name).exists() else first_trial(folder) / name
    way = [int(part) if part.isdigit() else part for part in path.split(".")]
    rewrite(file, lambda facts: replaced(facts, tuple(way), value))


NOT_NEEDED = [
    ("provenance.json", "runs.0.seconds", "x", r"is damaged \(runs\.0\.seconds: .* number.* given x\)"),
    ("provenance.json", "runs", {}, r"provenance\.json is damaged \(runs: it should be a valid list\)"),
    ("provenance.json", "runs.0.started_at", "2026-01-01", r"runs\.0\.started_at: it should be a moment with its time"),
    ("pictures.json", "sheet.coat.0", "<b>", r"pictures\.json is damaged \(sheet\.coat\.0: it should be base64"),
    ("pictures.json", "examples", [], r"pictures\.json is damaged \(examples: it should be a valid dictionary"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "path", "value", "told"), NOT_NEEDED)
@pytest.mark.after
def test_what_a_report_can_do_without_is_left_out_and_named(
    folder: Path, name: str, path: str, value: Any, told: str
) -> None:
    put(folder, name, path, value)
    code, _ = report(folder)
    assert code == 0
    page = (folder / "report.md").read_text().replace("\\", "")
    assert re.search(told, page), page


TRIALS = [
    ("settings.lr", "x", "settings.lr"),
    ("best.val_accuracy", 50, r"best\.val_accuracy: .* less than or equal to 1, given 50"),
    ("best.test_loss", "inf", r"best\.test_loss: .* finite"),
    ("epochs_done", -1, "epochs_done"),
    ("files", {"../../sweep.yaml": "0" * 64}, r"files\.\.\./\.\./sweep\.yaml.*: String should match"),
    ("files", {"/etc/passwd": "0" * 64}, "files"),
    ("files", {".lock": "0" * 64}, "files"),
]


@pytest.mark.parametrize(("path", "value", "told"), TRIALS)
@pytest.mark.after
def test_a_trial_with_an_odd_record_is_left_out_and_named(folder: Path, path: str, value: Any, told: str) -> None:
    name = first_trial(folder).name
    put(folder, "record.json", path, value)
    assert report(folder)[0] == 0
    tables = load(folder, store=False)
    assert len(tables.trials) == 2
    assert name not in set(tables.trials["trial_id"])
    assert [f"Trial {name} is left out" in one and bool(re.search(told, one)) for one in tables.left_out] == [True]
    assert name in (folder / "report.md").read_text()


def answers(**changes: NDArray[Any]) -> bytes:
    held = {
        f"{split}/{moment}/{what}": np.zeros(count, kind)
        for split, count in (("val", 600), ("test", 100))
        for moment in ("before", "best")
        for what, kind in (("predicted", np.int32), ("confidence", np.float32))
    }
    return save_numpy(held | {name.replace("_", "/"): value for name, value in changes.items()})


EPOCH = {
    "epoch": 1,
    "train_loss": 1.0,
    "train_accuracy": 0.5,
    "val_loss": 1.0,
    "val_accuracy": 0.5,
    "lr": 0.1,
    "seconds": 1,
}
FILES = [
    ("epochs.jsonl", json.dumps(EPOCH | {"epoch": "1"}), r"line 1, is no row of an epoch: epoch: .* integer, given 1"),
    ("epochs.jsonl", json.dumps(EPOCH).replace("1.0", "1e400", 1), "line 1, .* number out of range: 1e400"),
    ("epochs.jsonl", "[" * 9999, "line 1, is no row of an epoch: it is nested more than"),
    ("epochs.jsonl", json.dumps(EPOCH | {"epoch": 10**6}), "has more epochs than the trial"),
    ("predictions.safetensors", answers(test_best_predicted=np.full(100, 10, np.int32)), "11 or more classes"),
    ("predictions.safetensors", answers(test_best_predicted=np.full(100, -1, np.int32)), "test/best holds no answers"),
    ("predictions.safetensors", answers(test_best_predicted=np.zeros(99, np.int32)), "test/best holds no answers"),
    ("predictions.safetensors", answers(test_best_confidence=np.full(100, 7, np.float32)), "holds no answers"),
    ("predictions.safetensors", answers(test_best_confidence=np.zeros((100, 1), np.float32)), "holds no answers"),
    ("predictions.safetensors", answers(test_worst_predicted=np.zeros(1, np.int32)), "which is no prediction"),
    ("predictions.safetensors", save_numpy({"val/best/predicted": np.zeros(0, np.int32)}), "val/best holds no answers"),
    ("predictions.safetensors", b"x" * 999, "is not what was written"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "told"), FILES)
def test_a_trial_whose_files_hold_something_else_is_left_out_and_named(
    folder: Path, name: str, content: str | bytes, told: str
) -> None:
    file = first_trial(folder) / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    vouch(file)
    tables = load(folder)
    assert len(tables.trials) == 2
    assert re.search(told, "".join(tables.left_out)), tables.left_out
    assert len(load(folder, store=False).left_out) == 1, "it has to be found again"


NEEDED = [
    ("data.json", "classes", "ab", r"data\.json is damaged \(classes: it should be a valid list, given ab\)"),
    ("data.json", "classes.1", "t-shirt", r"\(classes: t-shirt is there twice"),
    ("data.json", "counts.val", [1], r"\(counts\.val has 1 numbers for 10 classes\)"),
    ("data.json", "examples.val.labels.0", 10, r"\(examples\.val\.labels names class 10 of 10\)"),
    ("data.json", "examples.val.labels", [], r"\(examples\.val has 600 names and 0 labels\)"),
    ("data.json", "fingerprint", None, r"\(fingerprint: it should be a valid string, given None\)"),
    ("data.json", "source", "\ud800", "half a character"),
]


@pytest.mark.parametrize(("name", "path", "value", "told"), NEEDED)
def test_without_what_a_report_needs_there_is_one_message(
    folder: Path, name: str, path: str, value: Any, told: str
) -> None:
    put(folder, name, path, value)
    code, output = report(folder)
    assert code == 2
    assert re.search(told, output), output
    assert output.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\xff", "is not text in UTF-8"),
        (b"a: " + b"[" * 100, "is nested more than"),
        (b"", "should be a"),
        (b"name: part1\nstages: [{name: a, space: {lr: {kind: loguniform, args: [x]}}}]\n", "allowed: a constant"),
    ],
)
def test_a_sweep_of_another_shape_is_an_error(folder: Path, content: bytes, told: str) -> None:
    (folder / "sweep.yaml").write_bytes(content)
    code, output = report(folder)
    assert (code, told in output) == (2, True), output


TABLES = [
    (lambda facts: facts | {"files": {"../sweep.yaml": "0"}}, "files"),
    (lambda facts: facts | {"files": {"/dev/zero": "0", **facts["files"]}}, "files"),
    (lambda facts: facts | {"planned": 10**18}, "planned"),
    (lambda facts: facts | {"planned": "9"}, "planned"),
    (lambda facts: {"planned": 3, "files": facts["files"]}, "digest"),
    (lambda facts: [facts], "tables.json is damaged"),
]


@pytest.mark.parametrize(("change", "told"), TABLES)
def test_an_odd_note_of_the_tables_is_named_or_they_are_made_again(
    folder: Path, change: Callable[[Any], Any], told: str
) -> None:
    before = load(folder).trials
    rewrite(folder / "tables.json", change)
    pd.testing.assert_frame_equal(load(folder, store=False).trials, before)
    shutil.rmtree(folder / "trials")
    code, output = report(folder)
    assert (code, told in output) == (2, True), output


def column(name: str, values: pa.Array | None) -> Callable[[pa.Table], pa.Table]:
    """Replace a column by values, or drop it."""

    def change(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index(name)
        return table.remove_column(place) if values is None else table.set_column(place, name, values)

    return change


PARQUET = [
    ("trials", column("status", pa.array(["done", "won", "done"])), "status holds won"),
    ("trials", column("trial_id", pa.array(["a", "a", "b"])), "a trial_id is there twice"),
    ("trials", column("trial_id", None), "trial_id is missing in 3 rows"),
    ("trials", column("stage", pa.array(["grid", "x", "x"])), "the sweep has no stage x"),
    ("trials", column("val_accuracy", pa.array([0.5, 5.0, 0.1])), "val_accuracy holds numbers from 0.1 to 5"),
    ("trials", column("lr", pa.array([0.1, float("inf"), 0.1])), "lr holds what is no number"),
    ("trials", column("lr", pa.array(["a", "b", "c"])), "is damaged"),
    ("trials", column("model", pa.array([[1], [2], [3]])), "is damaged"),
    ("trials", column("error", pa.array(["x" * 401] * 3)), "error holds too long words"),
    ("trials", column("error", pa.array([b"\xff"] * 3).view(pa.string())), "is damaged"),
    ("epochs", column("trial_id", pa.array([b"\xff"] * 10).view(pa.string())), "is damaged"),
    ("trials", lambda table: table.set_column(3, "parent_id", table["trial_id"]), "a trial starts from itself"),
    ("epochs", lambda table: table.set_column(1, "epoch", pa.nulls(len(table), pa.int64())), "epoch is missing in"),
    ("predictions", lambda table: table.set_column(4, "label", table["confidence"]), "label holds float"),
    ("predictions", lambda table: table.set_column(4, "label", table["example"]), "data.json has no class ankle-boot/"),
    ("predictions", lambda table: table.set_column(6, "confidence", pc.add(table["confidence"], 1)), "confidence"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "told"), PARQUET)
def test_a_table_that_no_sweep_can_give_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, change: Callable[[pa.Table], pa.Table], told: str
) -> None:
    monkeypatch.setattr("cnnsearch.results.stored_table.MOST_TEXT", 1200)
    shutil.rmtree(folder / "trials")
    file = folder / f"{name}.parquet"
    pq.write_table(change(pq.read_table(file)), file)
    vouch(file)
    code, output = report(folder)
    assert (code, told in output) == (2, True), output


def test_a_table_of_more_rows_than_any_sweep_has_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cnnsearch.results.stored_table.MOST_ROWS", 2)
    shutil.rmtree(folder / "trials")
    code, output = report(folder)
    assert (code, "it holds 3 rows" in output) == (2, True), output


def test_trials_that_start_from_each_other_are_left_out(folder: Path) -> None:
    ids = [trial.name for trial in sorted((folder / "trials").iterdir())]
    for one, other in zip(ids, [*ids[1:], ids[0]], strict=True):
        put(folder, f"trials/{one}/record.json", "parent_id", other)
    assert report(folder)[0] == 0
    assert len(load(folder).trials) == 0


@pytest.mark.parametrize("name", ["trials", "plots", "studies", ".lock"])
def test_no_link_in_the_place_of_a_folder_is_followed(folder: Path, tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    if (folder / name).exists():
        (folder / name).rename(elsewhere)
    elsewhere.mkdir(exist_ok=True)
    (elsewhere / "precious.png").write_text("kept")
    (folder / name).symlink_to(elsewhere)
    code, output = report(folder)
    assert (code, f"{name} is a link" in output) == (2, True), output
    assert (elsewhere / "precious.png").read_text() == "kept"


def test_a_report_writes_no_pictures_through_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious.png").write_text("kept")
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper" / "plots").symlink_to(tmp_path / "elsewhere")
    done = CliRunner().invoke(app, ["report", str(folder), "--out", str(tmp_path / "paper")])
    assert (done.exit_code, "plots is a link" in done.output) == (2, True), done.output
    assert [file.name for file in (tmp_path / "elsewhere").iterdir()] == ["precious.png"]


FILES_OF_A_FOLDER = ["sweep.yaml", "data.json", "provenance.json", "pictures.json", "tables.json", "trials.parquet",
                     "predictions.parquet", "record.json", "epochs.jsonl", "predictions.safetensors"]  # fmt: skip


@pytest.mark.parametrize("kind", ["FIFO", "link to a device", "link", "folder"])
@pytest.mark.parametrize("name", FILES_OF_A_FOLDER)
def test_special_files_neither_hang_nor_fill_the_memory(folder: Path, tmp_path: Path, name: str, kind: str) -> None:
    file = file_of(folder, name)
    file.rename(tmp_path / "moved")
    if kind == "FIFO":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        file.symlink_to("/dev/zero" if "device" in kind else tmp_path / "moved")
    if name in ("sweep.yaml", "data.json"):
        with pytest.raises(ResultsError, match=rf"{name} .*it is a (FIFO|link|folder)"):
            load(folder, store=False)
        return
    in_a_trial = file.parent != folder
    if in_a_trial:  # tables that were made before are as good as ever
        rewrite(folder / "tables.json", lambda facts: facts | {"digest": "of others"})
    found = load(folder, store=False)
    assert len(found.trials) == 3 - in_a_trial
    assert len(found.damaged) == in_a_trial
    assert len(found.left_out) == (name in ("provenance.json", "pictures.json"))


def test_names_of_folders_cannot_act_on_a_terminal_or_a_page(folder: Path) -> None:
    first_trial(folder).rename(folder / "trials" / "\x1b[2J\nerror: all is lost")
    assert report(folder)[0] == 0
    assert "\\x1b" in (folder / "report.md").read_text().replace("\\\\", "\\")
    assert "\x1b" not in (folder / "report.md").read_text() + (folder / "report.html").read_text()
    assert "\\x1b[2J" in report(folder.with_name("no \x1b[2J"))[1]
