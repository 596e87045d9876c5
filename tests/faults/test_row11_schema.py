"""A results folder of an older version reads, and gives a report; columns it did not have are null.

older.tar.xz is such a folder, without weights and pictures: part 1 with one model, two learning rates and one dropout,
run by a version before there was fine-tuning, whose trial ids are therefore not those of today.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from cnnsearch import report
from cnnsearch.planning.plan import make_plan
from cnnsearch.results.folder import Results
from cnnsearch.results.parquet import EPOCHS, PREDICTIONS, TRIALS
from cnnsearch.results.tables import load
from cnnsearch.spec.load import from_yaml
from cnnsearch.spec.metric import ADDED as ADDED_METRICS, METRICS
from cnnsearch.spec.settings import ADDED
from cnnsearch.storage.checksums import checksum
from cnnsearch.storage.durable import write_checked

pytestmark = [pytest.mark.row(11), pytest.mark.usefixtures("figures_left_blank")]

SCORES = [METRICS[name].measure for name in ADDED_METRICS]
"""Metrics that came after, on the validation images."""
TEST_SCORES = [f"test_{name}" for name in ADDED_METRICS]
NEW = [
    "weights", "fine_tune", "stopped_by", *ADDED, "model_bytes",
    "model_args", "optimizer_args", "code", "metric", "fold", "repeat",
    *SCORES, *TEST_SCORES,
]  # fmt: skip
"""Settings and measures that came after."""


@pytest.fixture
def older(tmp_path: Path) -> Path:
    with tarfile.open(Path(__file__).with_name("older.tar.xz")) as archive:
        archive.extractall(tmp_path / "part1", filter="data")
    return tmp_path / "part1"


def _without_tables(folder: Path) -> None:
    for file in folder.glob("*.parquet"):
        file.unlink()


def test_the_folder_is_older(older: Path) -> None:
    assert not (older / "tables.json").exists()
    records = Results(older).records()
    written = json.loads(Results(older).trial(next(iter(records))).record_file.read_text())
    assert not set(NEW) & written["settings"].keys()
    data = Results(older).read("data.json")
    sweep = from_yaml((older / "sweep.yaml").read_text(), "sweep.yaml")
    outcomes = {trial_id: record.outcome for trial_id, record in records.items()}
    assert not records.keys() & make_plan(sweep, data["fingerprint"], outcomes).trials.keys()


@pytest.mark.parametrize("tables_too", [True, False])
def test_an_older_folder_reads_with_nulls_and_gives_a_report(older: Path, tables_too: bool) -> None:
    written = {name: pq.read_table(older / f"{name}.parquet") for name in ("trials", "epochs", "predictions")}
    if not tables_too:
        _without_tables(older)
    tables = load(older)
    assert list(tables.trials.columns) == TRIALS.names
    assert list(tables.epochs.columns) == EPOCHS.names
    assert list(tables.predictions.columns) == PREDICTIONS.names
    assert tables.planned == 3
    assert tables.trials[NEW].isna().all().all()
    missing = (*NEW, "confirms", "epochs_done")  # the last of these was recorded, but no column
    kept = [name for name in TRIALS.names if name not in missing]
    trials = written["trials"].to_pandas()[kept]
    trials["started_at"] = trials["started_at"].dt.tz_localize(None)
    pd.testing.assert_frame_equal(tables.trials[kept], trials)
    assert tables.epochs[SCORES].isna().all(axis=None)
    pd.testing.assert_frame_equal(tables.epochs.drop(columns=SCORES), written["epochs"].to_pandas())
    assert tables.predictions.astype(str).equals(written["predictions"].to_pandas().astype(str))
    page = report.write(tables, older).read_text()
    assert "lr 0.001" in page
    assert "dropout" in page


def test_older_tables_are_used_where_they_are_of_the_same_records(older: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = load(older)
    (older / "tables.json").unlink()  # which older versions did not write
    monkeypatch.setattr("cnnsearch.results.tables._built", None)
    pd.testing.assert_frame_equal(load(older).trials, made.trials)


def test_older_tables_read_where_the_records_are_gone(older: Path, tmp_path: Path) -> None:
    (older / "trials").rename(tmp_path / "elsewhere")
    written = pq.read_table(older / "trials.parquet")
    pq.write_table(written.drop_columns(["parameters", "width"]), older / "trials.parquet")
    tables = load(older)
    assert len(tables.trials) == 3
    assert tables.trials[["parameters", "width"]].isna().all().all()
    assert tables.trials["val_accuracy"].tolist() == written["val_accuracy"].to_pylist()
    assert report.write(tables, older).is_file()


def test_fields_a_record_did_not_have_are_null(older: Path) -> None:
    """Still older: no parameters, memory or settings of the optimizer, and a lower schema version."""
    results = Results(older)
    for trial_id in results.records():
        file = results.trial(trial_id).record_file
        plain = json.loads(file.read_text())
        for name in ("checksum", "parameters", "peak_memory_bytes"):
            del plain[name]
        for name in ("weight_decay", "momentum"):
            del plain["settings"][name]
        write_checked(file, {**plain, "schema_version": 0})
        assert results.trial(trial_id).record().checksum == checksum({**plain, "schema_version": 0})  # type: ignore[union-attr]
    _without_tables(older)
    tables = load(older)
    assert len(tables.trials) == 3
    assert (tables.trials["schema_version"] == 0).all()
    assert tables.trials[["parameters", "peak_memory_bytes", "weight_decay", "momentum", *NEW]].isna().all().all()
    assert tables.trials["val_accuracy"].notna().all()
    assert report.write(tables, older).is_file()


def test_once_a_trial_is_recorded_by_this_version_the_older_ones_stand_back(older: Path) -> None:
    results = Results(older)
    plan = make_plan(
        from_yaml((older / "sweep.yaml").read_text(), "sweep.yaml"), results.read("data.json")["fingerprint"], {}
    )
    trial = next(iter(plan.trials.values()))
    results.trial(trial.id).commit_failure(trial, "broke")
    assert list(load(older).trials["trial_id"]) == [trial.id]
