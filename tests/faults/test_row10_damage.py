"""A truncated or bit-flipped table, record, checkpoint or cache file is found, and costs at most its trial."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given, strategies as st

from cnnsearch.errors import ResultsError
from cnnsearch.execution.machine import timing
from cnnsearch.execution.machine.hardware import Layout, detect
from cnnsearch.execution.machine.timing import calibrate
from cnnsearch.planning.plan import make_plan
from cnnsearch.planning.trial import Status
from cnnsearch.prepare import final_outcomes, prepared
from cnnsearch.results.folder import Results
from cnnsearch.results.record import Record
from cnnsearch.results.tables import Tables, load
from cnnsearch.results.trial_folder import Damage
from cnnsearch.session import execute
from cnnsearch.spec.load import load_sweep
from cnnsearch.spec.sweep import Sweep
from cnnsearch.training import features
from tests.conftest import SMALL
from tests.faults.damage import FEW, MANY, flip, truncate

pytestmark = pytest.mark.row(10)

TABLE_FILES = ("trials.parquet", "epochs.parquet", "predictions.parquet", "tables.json")
LARGE = st.integers(0, 2**40)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Part 1 at its smallest, run for real."""
    out = tmp_path_factory.mktemp("results")
    with prepared(load_sweep("part1", values=SMALL), out) as ready:
        assert execute(ready, serial=True).counts == {"done": 16}
    return out / "part1"


@pytest.fixture(scope="module")
def whole(finished: Path) -> Tables:
    """Its tables."""
    return load(finished)


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of it to harm."""
    return Path(shutil.copytree(finished, tmp_path / "results" / "part1"))


def assert_same(one: Tables, other: Tables) -> None:
    pd.testing.assert_frame_equal(one.trials, other.trials)
    pd.testing.assert_frame_equal(one.epochs, other.epochs)
    assert one.predictions.equals(other.predictions)  # pandas' own way to assert it compares labels one by one
    assert one.planned == other.planned


@pytest.mark.parametrize("name", TABLE_FILES)
@given(place=LARGE)
@FEW
def test_any_flipped_bit_in_a_table_is_found_and_it_is_built_again(
    finished: Path, whole: Tables, name: str, place: int
) -> None:
    file = finished / name
    before = file.read_bytes()
    flip(file, place)
    assert_same(load(finished), whole)
    # Built again to the byte; a flip that leaves what JSON says alone may stay.
    after = file.read_bytes()
    assert after == before or (name == "tables.json" and json.loads(after) == json.loads(before))


@pytest.mark.parametrize("name", TABLE_FILES)
@pytest.mark.parametrize("harm", [truncate, Path.unlink, lambda file: file.write_bytes(b"")])
def test_a_table_that_is_cut_off_or_gone_is_built_again(
    folder: Path, finished: Path, name: str, harm: Callable[[Path], None]
) -> None:
    harm(folder / name)
    assert_same(load(folder), load(finished))
    if name != "tables.json" or harm is truncate:
        assert (folder / name).read_bytes() == (finished / name).read_bytes()


@pytest.mark.parametrize("name", TABLE_FILES)
def test_damaged_tables_without_records_are_an_error_that_names_the_file(folder: Path, name: str) -> None:
    shutil.rmtree(folder / "trials")
    assert len(load(folder).trials) == 16
    truncate(folder / name)
    with pytest.raises(ResultsError, match=f"{name} is damaged"):
        load(folder)


def test_predictions_that_change_after_loading_are_not_mixed_in(folder: Path) -> None:
    tables = load(folder)
    flip(folder / "predictions.parquet", 4000)
    with pytest.raises(ResultsError, match="load them again"):
        tables.predictions  # noqa: B018
    assert len(load(folder).predictions) > 0


def _done(folder: Path) -> tuple[Results, Record]:
    """A finished trial that starts from another, and whose weights are kept."""
    results = Results(folder)
    later = (record for record in results.records().values() if record.stage == "dropout")
    return results, next(record for record in later if results.trial(record.trial_id).weights_file.exists())


@given(place=LARGE)
@MANY
def test_any_flipped_bit_in_a_record_makes_it_none_or_changes_nothing(finished: Path, place: int) -> None:
    results, record = _done(finished)
    file = results.trial(record.trial_id).record_file
    whole = file.read_bytes()
    flip(file, place)
    found = results.trial(record.trial_id).record()
    damaged = results.damaged(results.records())
    file.write_bytes(whole)
    assert found is None or found == record
    assert damaged == ({record.trial_id: {"record.json": Damage.CHANGED}} if found is None else {})


@pytest.mark.parametrize("name", ["record.json", "epochs.jsonl", "predictions.safetensors"])
@pytest.mark.parametrize("harm", [lambda file: flip(file, 1000), truncate])
def test_a_trial_with_a_damaged_file_is_named_left_out_and_trained_again(
    folder: Path, name: str, harm: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    results, record = _done(folder)
    expected = load(folder)
    harm(results.trial(record.trial_id).path / name)
    (folder / "tables.json").unlink()
    (folder / "trials.parquet").unlink()
    tables = load(folder)
    assert tables.damaged == (record.trial_id,)
    assert len(tables.trials) == 15
    assert record.trial_id not in set(tables.predictions["trial_id"])
    with caplog.at_level(logging.WARNING), prepared(load_sweep("part1", values=SMALL), folder.parent) as ready:
        assert ready.remaining == 1
        assert f"{record.trial_id}: {name} is changed" in caplog.text
        healed = execute(ready, serial=True).tables
    assert healed.damaged == ()
    timeless = ["seconds", "images_per_second", "started_at", "peak_memory_bytes"]
    pd.testing.assert_frame_equal(healed.trials.drop(columns=timeless), expected.trials.drop(columns=timeless))


def test_missing_and_changed_files_are_told_apart(folder: Path) -> None:
    results, record = _done(folder)
    trial = results.trial(record.trial_id)
    assert trial.damage(record) == {}
    trial.weights_file.unlink()
    flip(trial.epochs_file, 77)
    assert trial.damage(record) == {"best.safetensors": Damage.MISSING, "epochs.jsonl": Damage.CHANGED}
    assert trial.damage(record, ["best.safetensors"]) == {"best.safetensors": Damage.MISSING}
    assert trial.damage(record, ["predictions.safetensors"]) == {}


@given(place=LARGE)
@MANY
def test_any_flipped_bit_in_a_checkpoint_is_found(tmp_path: Path, place: int) -> None:
    trial = Results(tmp_path).trial("0" * 16)
    trial.path.mkdir(parents=True, exist_ok=True)
    trial.save_checkpoint({"model": {"w": torch.ones(3)}})
    flip(trial.checkpoint_file, place)
    assert Results(tmp_path).damaged({}, checkpoints=True) == {"0" * 16: {"checkpoint.pt": Damage.CHANGED}}
    assert trial.load_checkpoint("model") is None


@pytest.mark.parametrize("name", ["data.json", "pictures.json", "provenance.json", "choices.json"])
@pytest.mark.parametrize("harm", [lambda file: flip(file, 2000), truncate])
def test_a_damaged_file_of_the_folder_is_named_and_a_sweep_writes_it_again(
    folder: Path, name: str, harm: Callable[[Path], None]
) -> None:
    expected = load(folder)
    harm(folder / name)
    with pytest.raises(ResultsError, match=f"{name} is damaged"):
        Results(folder).read(name)
    if name == "data.json":  # without which there is nothing to report
        with pytest.raises(ResultsError, match=f"{name} is damaged"):
            load(folder)
    else:
        left_out = load(folder).left_out
        assert [f"{name} is damaged" in sentence for sentence in left_out] == [True] * (name != "choices.json")
    with prepared(load_sweep("part1", values=SMALL), folder.parent) as ready:
        assert ready.remaining == 0
        finished = execute(ready, serial=True)
    assert (folder / f"{name}.damaged").is_file()
    assert Results(folder).read(name)
    assert_same(finished.tables, expected)
    assert finished.tables.pictures == expected.pictures


def test_choices_come_back_from_the_history(folder: Path) -> None:
    chosen = Results(folder).read("choices.json")
    truncate(folder / "choices.json")
    assert Results(folder).set_damaged_aside() == ["choices.json"]
    assert Results(folder).read("choices.json") == chosen


@pytest.mark.parametrize("harm", [lambda file: flip(file, 9000), truncate, Path.unlink])
@pytest.mark.parametrize("suffix", [".pt", ".json"])
def test_damaged_features_are_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: Callable[[Path], None], suffix: str
) -> None:
    monkeypatch.setenv("CNNSEARCH_CACHE", str(tmp_path))
    values = (torch.arange(600.0).reshape(20, 30),)
    calls = []

    def make(part: slice) -> tuple[torch.Tensor, ...]:
        calls.append(1)
        return (values[0][part],)

    for _ in range(2):
        assert torch.equal(features.shared("key", make, 20, "cpu")[0], values[0])
    assert len(calls) == 1
    (file,) = (tmp_path / "features").glob(f"*{suffix}")
    harm(file)
    features._CHECKED.clear()  # as in another process
    assert torch.equal(features.shared("key", make, 20, "cpu")[0], values[0])
    assert len(calls) == 2


@given(place=LARGE)
@MANY
def test_damaged_timings_are_not_known(tmp_path_factory: pytest.TempPathFactory, place: int) -> None:
    layout, hardware = Layout("cpu", 2, 1, 0.0), detect()
    trial = next(iter(make_plan(load_sweep("part1", values=SMALL), "d" * 16, {}).trials.values()))
    timed = {"step_seconds": 0.5, "eval_image_seconds": 0.1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CNNSEARCH_CACHE", str(tmp_path_factory.mktemp("timings")))
        found = {"precision": "fp32", "import_seconds": 1.0, "workloads": [timed]}
        patch.setattr(timing, "answer", lambda *given: found)
        first = calibrate([trial], 10, layout, hardware)
        flip(timing._cache_file(hardware, layout), place)
        assert calibrate([trial], 10, layout, hardware).workloads == first.workloads


def test_a_record_of_a_failed_trial_does_not_vouch_for_the_next_attempt(folder: Path) -> None:
    results, record = _done(folder)
    ended = final_outcomes(results, results.records())
    trial = make_plan(load_sweep("part1", values=SMALL), record.data, ended).trials[record.trial_id]
    results.trial(trial.id).commit_failure(trial, "broke")
    assert results.records()[trial.id].status is Status.FAILED
    results.trial(trial.id).begin(trial, [])
    assert trial.id not in results.records()
    assert results.damaged(results.records()) == {}


def test_a_damaged_trial_is_not_adopted(folder: Path, small_sweep: Callable[..., Sweep]) -> None:
    results, record = _done(folder)
    flip(results.trial(record.trial_id).weights_file, 3000)
    assert Results(folder.parent / "other").adopt([record.trial_id]) == []
