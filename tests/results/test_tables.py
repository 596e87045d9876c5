from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from cnnsearch.errors import ResultsError
from cnnsearch.prepare import prepared
from cnnsearch.results.folder import Results
from cnnsearch.results.parquet import EPOCHS, PREDICTIONS, TRIALS
from cnnsearch.results.tables import Tables, load
from cnnsearch.session import execute
from cnnsearch.spec.sweep import Sweep


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Part 1 at its smallest, run once for this module."""
    from cnnsearch.spec.load import load_sweep
    from tests.conftest import SMALL

    out = tmp_path_factory.mktemp("results")
    with prepared(load_sweep("part1", values=SMALL), out) as ready:
        finished = execute(ready, serial=True)
    assert finished.exit_code == 0
    assert finished.counts == {"done": 16}
    assert finished.tables.provenance["runs"][0]["command"] == ""  # no command line: pytest's own is none
    return finished.results


@pytest.fixture
def tables(folder: Path) -> Tables:
    return load(folder)


def test_columns_are_the_contract(tables: Tables, folder: Path) -> None:
    contract = (
        "trial_id sweep stage parent_id status error model weights fine_tune lr batch_size dropout optimizer "
        "image_size epochs seed precision best_epoch train_loss train_accuracy val_loss val_accuracy "
        "test_loss test_accuracy val_accuracy_before test_accuracy_before val_loss_before "
        "test_loss_before seconds images_per_second peak_memory_bytes device threads host started_at schema_version"
    )
    assert set(contract.split()) <= set(tables.trials.columns)
    assert list(tables.trials.columns) == TRIALS.names
    assert list(tables.epochs.columns) == EPOCHS.names
    assert list(tables.predictions.columns) == PREDICTIONS.names
    for name in ("trials", "epochs", "predictions"):
        assert pq.read_metadata(folder / f"{name}.parquet").num_rows == len(getattr(tables, name))


def test_every_planned_trial_has_one_row(tables: Tables) -> None:
    assert tables.planned == len(tables.trials) == 16
    assert tables.trials["trial_id"].is_unique
    assert tables.trials["stage"].value_counts().to_dict() == {"grid": 8, "dropout": 8}
    roots = tables.trials["stage"] == "grid"
    assert tables.trials.loc[roots, "parent_id"].isna().all()
    assert tables.trials.loc[roots, "test_accuracy_before"].isna().all()
    assert tables.trials.loc[~roots, "test_accuracy_before"].notna().all()
    assert set(tables.trials.loc[~roots, "parent_id"]) <= set(tables.trials.loc[roots, "trial_id"])


def test_accuracies_agree_with_the_predictions(tables: Tables) -> None:
    right = tables.predictions["label"] == tables.predictions["predicted"]
    mean = right.groupby([tables.predictions[key] for key in ("trial_id", "split", "moment")]).mean().to_dict()
    for row in tables.trials.itertuples():
        assert mean[row.trial_id, "val", "best"] == pytest.approx(row.val_accuracy)
        assert mean[row.trial_id, "test", "best"] == pytest.approx(row.test_accuracy)
        if row.stage == "dropout":
            assert mean[row.trial_id, "test", "before"] == pytest.approx(row.test_accuracy_before)


def test_a_child_begins_where_its_parent_was_best(tables: Tables) -> None:
    """Dropout changes nothing in eval mode: before training, a child scores exactly what its parent scored."""
    by_id = {row["trial_id"]: row for row in tables.trials.to_dict("records")}
    for child in tables.trials[tables.trials["stage"] == "dropout"].itertuples():
        parent = by_id[child.parent_id]
        assert child.test_accuracy_before == parent["test_accuracy"]
        assert child.val_loss_before == parent["val_loss"]


def test_best_numbers_are_those_of_the_best_epoch(tables: Tables) -> None:
    for row in tables.trials.itertuples():
        epochs = tables.epochs[(tables.epochs["trial_id"] == row.trial_id) & (tables.epochs["epoch"] > 0)]
        assert len(epochs) == row.epochs
        best = epochs.iloc[int(epochs["val_accuracy"].argmax())]
        assert best["epoch"] == row.best_epoch
        assert best["val_accuracy"] == row.val_accuracy
        assert best["val_loss"] == pytest.approx(row.val_loss)
        assert best["train_loss"] == row.train_loss
    before = tables.epochs[tables.epochs["epoch"] == 0]
    assert len(before) == 8
    assert before["train_loss"].isna().all()


def test_tables_are_rebuilt_when_they_are_lost_or_damaged(folder: Path, tables: Tables) -> None:
    (folder / "epochs.parquet").unlink()
    (folder / "trials.parquet").write_bytes(b"PAR1 damaged")
    again = load(folder)
    pd.testing.assert_frame_equal(again.trials, tables.trials)
    pd.testing.assert_frame_equal(again.epochs, tables.epochs)
    assert pq.read_metadata(folder / "epochs.parquet").num_rows == len(tables.epochs)


def test_tables_are_left_alone_when_nothing_changed(folder: Path, tables: Tables) -> None:
    before = (folder / "trials.parquet").stat().st_mtime_ns
    load(folder)
    assert (folder / "trials.parquet").stat().st_mtime_ns == before


def test_tables_follow_the_records(folder: Path, tables: Tables) -> None:
    child = tables.trials[tables.trials["stage"] == "dropout"]["trial_id"].iloc[0]
    record = Results(folder).trial(child).record_file
    hidden = record.with_name("hidden")
    record.rename(hidden)
    try:
        fewer = load(folder)
        assert len(fewer.trials) == 15
        assert fewer.planned == 16
        assert child not in set(fewer.epochs["trial_id"])
    finally:
        hidden.rename(record)
    assert len(load(folder).trials) == 16


def test_results_of_an_older_schema_read_with_nulls(folder: Path, tables: Tables, tmp_path: Path) -> None:
    """A folder with tables alone, written before there was a column."""
    for name in ("sweep.yaml", "data.json", "provenance.json", "pictures.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    for name in ("trials", "epochs", "predictions"):
        table = pq.read_table(folder / f"{name}.parquet")
        pq.write_table(table.drop_columns(["parameters"]) if name == "trials" else table, tmp_path / f"{name}.parquet")
    old = load(tmp_path)
    assert old.trials["parameters"].isna().all()
    pd.testing.assert_frame_equal(old.trials.drop(columns="parameters"), tables.trials.drop(columns="parameters"))


def test_what_is_no_results_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="there is no folder"):
        load(tmp_path / "none")
    with pytest.raises(ResultsError, match=r"has no sweep\.yaml"):
        load(tmp_path)


def test_finished_trials_of_another_sweep_are_not_trained_again(
    folder: Path, small_sweep: Callable[..., Sweep]
) -> None:
    with prepared(small_sweep("name=other"), folder.parent) as ready:
        assert ready.remaining == 0
        assert execute(ready, serial=True).counts == {"done": 16}
    assert set(load(folder.parent / "other").trials["sweep"]) == {"other"}


def test_new_data_is_new_work(folder: Path, small_sweep: Callable[..., Sweep]) -> None:
    split = "data.split={method: fill, train_per_class: 7, val_per_class: 4}"
    with prepared(small_sweep(split), folder.parent, dry_run=True) as ready:
        assert ready.done == 0
    with prepared(small_sweep("train.weight_decay=0.1"), folder.parent, dry_run=True) as ready:
        assert ready.done == 0


def test_who_only_looks_writes_nothing(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    for name in ("tables.json", "trials.parquet", "epochs.parquet", "predictions.parquet"):
        (copy / name).unlink()
    before = {file: file.stat().st_mtime_ns for file in [copy, *copy.rglob("*")]}
    seen = load(copy, store=False)
    assert {file: file.stat().st_mtime_ns for file in [copy, *copy.rglob("*")]} == before
    stored = load(copy)
    for name in ("trials", "epochs", "predictions"):
        assert getattr(seen, name).equals(getattr(stored, name))
    assert seen.planned == stored.planned


def test_what_describes_the_data_is_asked_for_by_name(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    for name in ("tables.json", "data.json"):
        (copy / name).unlink()
    with pytest.raises(ResultsError, match=r"has no data\.json"):
        load(copy, store=False)


def test_excel_takes_the_tables() -> None:
    """pandas refuses to write times with a zone into a workbook."""
    folder = Path(__file__).parents[2] / "results" / "example"
    tables = load(folder, store=False)
    for frame in (tables.trials, tables.epochs, tables.predictions):
        assert not [name for name, kind in frame.dtypes.items() if isinstance(kind, pd.DatetimeTZDtype)]
    stored = pq.read_table(folder / "trials.parquet", columns=["started_at"]).to_pandas()["started_at"]
    assert (tables.trials["started_at"].dt.tz_localize("UTC") == stored).all()
