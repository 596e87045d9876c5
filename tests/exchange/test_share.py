"""`cnnsearch share`: what other tools read of a sweep, with the tools themselves; and that nothing is there twice."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from cnnsearch import progress
from cnnsearch.errors import ResultsError
from cnnsearch.exchange.going import gathered
from cnnsearch.exchange.writing import writer_of
from cnnsearch.progress import Noting
from cnnsearch.results.tables import load
from tests.asking import ask
from tests.conftest import SMALL
from tests.recorded import numbers
from tests.test_telling import TWO, valid


def shared(results: Path, to: str) -> dict[str, Any]:
    answer = ask(results, "--to", to, "--json", command="share")
    assert answer.returncode == 0, answer.stderr
    return valid(answer)


def counts(found: dict[str, Any]) -> tuple[int, int, int, int]:
    return found["added"], found["updated"], found["same"], found["epochs"]


def storage_of(place: str) -> Any:
    return place if place.startswith("sqlite") else JournalStorage(JournalFileBackend(place))


@pytest.mark.parametrize("place", ["sqlite:///{}/study.db", "{}/journal.log"])
def test_optuna_reads_every_trial(results: Path, tmp_path: Path, place: str) -> None:
    place = place.format(tmp_path)
    before = numbers(results)
    rows = load(results, store=False).trials.set_index("trial_id")
    found = shared(results, f"optuna:{place}")
    assert counts(found) == (6, 0, 0, load(results).epochs["val_accuracy"].notna().sum())
    grid = optuna.load_study(study_name="part1/grid", storage=storage_of(place))
    assert grid.metric_names == ["val_accuracy"]
    assert grid.direction.name == "MAXIMIZE"
    assert grid.user_attrs["report"] == (results / "report.html").as_uri()
    assert grid.user_attrs["question"] == "Which?"
    assert len(grid.trials) == 4
    for trial in grid.trials:
        row = rows.loc[trial.user_attrs["trial_id"]]
        assert trial.params == {"optimizer": row["optimizer"], "lr": row["lr"]}
        assert trial.distributions["lr"] == CategoricalDistribution([0.01, 100])
        assert trial.user_attrs["status"] == row["status"]
        assert trial.user_attrs["settings"]["model"] == "plain"
        if row["status"] == "done":
            assert trial.state is TrialState.COMPLETE
            assert trial.value == row["val_accuracy"]
            assert trial.user_attrs["scores"]["test_accuracy"] == row["test_accuracy"]
            epochs = load(results).epochs.query(f"trial_id == '{trial.user_attrs['trial_id']}'")
            assert trial.intermediate_values == dict(zip(epochs["epoch"], epochs["val_accuracy"], strict=True))
            assert trial.duration is not None
            assert trial.duration.total_seconds() == pytest.approx(row["seconds"], abs=1e-3)
    assert [trial.state for trial in grid.trials].count(TrialState.FAIL) == 1
    best = load(results).trials.query("stage == 'grid' and status == 'done'")["val_accuracy"].max()
    assert grid.best_value == best
    children = optuna.load_study(study_name="part1/dropout", storage=storage_of(place))
    assert {trial.params["dropout"] for trial in children.trials} == {0.1, 0.2}
    assert {*children.trials[0].params} == {"optimizer", "lr", "dropout"}  # also those of the stage they start from
    assert counts(shared(results, f"optuna:{place}")) == (0, 0, 6, 0)
    again = optuna.load_study(study_name="part1/grid", storage=storage_of(place))
    assert [trial.user_attrs["trial_id"] for trial in again.trials] == [
        trial.user_attrs["trial_id"] for trial in grid.trials
    ]
    assert numbers(results) == before


def test_a_searchers_ranges_objectives_and_conditions(tmp_path: Path) -> None:
    stages = (
        "[{name: search, search: {method: nsga2, trials: 4, at_once: 1, objectives: [val_loss, parameters]}, space: "
        "{model: {choice: [plain, residual]}, lr: {loguniform: [0.0001, 0.1]}, "
        "dropout: {uniform: [0, 0.5], when: {model: plain}}}}]"
    )
    settings = [part for value in [*SMALL, "train.epochs=1", f"stages={stages}"] for part in ("--set", value)]
    assert ask("part1", *settings, "--serial", "--out", tmp_path).returncode == 0
    shared(tmp_path / "part1", f"optuna:{tmp_path}/journal.log")
    study = optuna.load_study(study_name="part1/search", storage=storage_of(f"{tmp_path}/journal.log"))
    assert study.metric_names == ["val_loss", "parameters"]
    assert [one.name for one in study.directions] == ["MINIMIZE", "MINIMIZE"]
    rows = load(tmp_path / "part1").trials.set_index("trial_id")
    for trial in study.trials:
        row = rows.loc[trial.user_attrs["trial_id"]]
        assert trial.values == [row["val_loss"], row["parameters"]]
        assert ("dropout" in trial.params) == (row["model"] == "plain")
        assert trial.distributions["lr"] == FloatDistribution(0.0001, 0.1, log=True)
    assert len(study.best_trials) >= 1


def test_while_a_sweep_runs_only_what_is_new_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[dict[str, Any]] = []
    note, journal = Noting.__call__, f"optuna:{tmp_path}/journal.log"
    places = (journal, f"tensorboard:{tmp_path}/runs", f"csv:{tmp_path}/csv")

    seen: list[Any] = []

    def note_and_share(noting: Noting) -> None:
        note(noting)
        now = {id_: row and row.epoch for id_, (_, row) in noting._state.running.items()}
        if (tmp_path / "part1" / "data.json").exists() and now not in seen:
            seen.append(now)
            found.append({to: shared(tmp_path / "part1", to) for to in places})

    monkeypatch.setattr(progress, "NOTE_SECONDS", 0.0)
    monkeypatch.setattr(Noting, "__call__", note_and_share)
    assert ask("part1", *TWO, "--serial", "--out", tmp_path).returncode == 0
    monkeypatch.undo()
    last = {to: shared(tmp_path / "part1", to) for to in places}
    epochs = len(load(tmp_path / "part1").epochs)
    for to in places:
        assert any(one[to]["running"] for one in found)
        assert any(one[to]["updated"] for one in found)
        assert sum(one[to]["added"] for one in [*found, last]) == 2
        assert sum(one[to]["epochs"] for one in [*found, last]) == epochs
    (study,) = optuna.study.get_all_study_summaries(storage_of(f"{tmp_path}/journal.log"))
    trials = optuna.load_study(study_name=study.study_name, storage=storage_of(f"{tmp_path}/journal.log")).trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 2
    assert [list(trial.intermediate_values) for trial in trials] == [[1, 2], [1, 2]]
    assert all(trial.user_attrs["scores"]["val_accuracy"] == trial.value for trial in trials)


@pytest.mark.usefixtures("tools")
def test_tensorboard_reads_curves_and_hyperparameters(results: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata

    found = shared(results, f"tensorboard:{tmp_path}")
    tables = load(results)
    assert counts(found) == (6, 0, 0, len(tables.epochs))
    runs = {folder.name: folder for folder in tmp_path.glob("part1/*/*")}
    assert set(runs) == set(tables.trials["trial_id"])
    for row in tables.trials.to_dict("records"):
        events = EventAccumulator(str(runs[str(row["trial_id"])]))
        events.Reload()
        epochs = tables.epochs[tables.epochs["trial_id"] == row["trial_id"]].dropna(subset=["train_loss"])
        written = [(one.step, one.value) for one in events.Scalars("loss/train")] if len(epochs) else []
        assert [step for step, _ in written] == list(epochs["epoch"])
        assert [value for _, value in written] == pytest.approx(list(epochs["train_loss"]), rel=1e-6)
        plugin = events.summary_metadata
        start = metadata.parse_session_start_info_plugin_data(
            plugin["_hparams_/session_start_info"].plugin_data.content
        )
        assert start.hparams["lr"].number_value == row["lr"]
        assert start.hparams["optimizer"].string_value == row["optimizer"]
        end = metadata.parse_session_end_info_plugin_data(plugin["_hparams_/session_end_info"].plugin_data.content)
        assert (end.status == 1) == (row["status"] == "done")  # STATUS_SUCCESS
        experiment = metadata.parse_experiment_plugin_data(plugin["_hparams_/experiment"].plugin_data.content)
        assert [one.name.tag for one in experiment.metric_infos] == ["best/val_accuracy"]
        (rates,) = [one for one in experiment.hparam_infos if one.name == "lr"]
        assert [one.number_value for one in rates.domain_discrete.values] == [0.01, 100]
        if row["status"] == "done":
            (best,) = events.Scalars("best/val_accuracy")
            assert (best.step, best.value) == (row["best_epoch"], pytest.approx(row["val_accuracy"]))
    before = {file: file.stat().st_size for file in tmp_path.rglob("events*")}
    assert counts(shared(results, f"tensorboard:{tmp_path}")) == (0, 0, 6, 0)
    assert {file: file.stat().st_size for file in tmp_path.rglob("events*")} == before


def test_an_event_file_that_was_cut_off_is_gone_on_with(results: Path, tmp_path: Path) -> None:
    shared(results, f"tensorboard:{tmp_path}")
    file = next(tmp_path.rglob("events*"))
    file.write_bytes(file.read_bytes()[:-20])
    assert counts(shared(results, f"tensorboard:{tmp_path}")) == (0, 1, 5, 0)
    assert counts(shared(results, f"tensorboard:{tmp_path}")) == (0, 0, 6, 0)


@pytest.mark.usefixtures("tools")
def test_mlflow_reads_every_trial(results: Path, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    tables = load(results)
    assert counts(shared(results, f"mlflow:{uri}")) == (6, 0, 0, len(tables.epochs))
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("part1")
    assert json.loads(experiment.tags["cnnsearch.space.grid"])["lr"] == {"grid": [0.01, 100]}
    runs = client.search_runs([experiment.experiment_id])
    rows = tables.trials.set_index("trial_id")
    assert {run.data.tags["cnnsearch.trial_id"] for run in runs} == set(rows.index)
    for run in runs:
        row = rows.loc[run.data.tags["cnnsearch.trial_id"]]
        assert run.info.status == ("FINISHED" if row["status"] == "done" else "FAILED")
        assert (float(run.data.params["lr"]), run.data.params["optimizer"]) == (row["lr"], row["optimizer"])
        assert run.data.tags["cnnsearch.report"] == (results / "report.html").as_uri()
        if row["status"] == "done":
            assert run.data.metrics["best.test_accuracy"] == row["test_accuracy"]
            history = client.get_metric_history(run.info.run_id, "val_loss")
            epochs = tables.epochs[tables.epochs["trial_id"] == row.name]
            assert [one.step for one in history] == list(epochs["epoch"])
            assert [one.value for one in history] == list(epochs["val_loss"])
    assert counts(shared(results, f"mlflow:{uri}")) == (0, 0, 6, 0)
    assert len(client.search_runs([experiment.experiment_id])) == 6


def test_without_mlflow_it_says_what_to_install(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    answer = ask(results, "--to", "mlflow:sqlite:///x.db", command="share")
    assert answer.returncode == 2
    assert answer.stderr == "error: --to mlflow: needs MLflow: pip install 'cnnsearch[mlflow]'\n"


def test_csv_has_every_trial_and_epoch(results: Path, tmp_path: Path) -> None:
    assert counts(shared(results, f"csv:{tmp_path}")) == (6, 0, 0, len(load(results).epochs))
    tables = load(results)
    trials, epochs = pd.read_csv(tmp_path / "trials.csv"), pd.read_csv(tmp_path / "epochs.csv")
    wanted = tables.trials[["trial_id", "status", "lr", "seed", "val_accuracy", "test_loss"]]
    pd.testing.assert_frame_equal(trials[list(wanted)], wanted, check_dtype=False)
    assert list(epochs["epoch"]) == list(tables.epochs["epoch"])
    facts = json.loads((tmp_path / "sweep.json").read_text())
    assert facts["stages"]["grid"]["objectives"] == {"val_accuracy": "maximize"}
    assert facts["stages"]["dropout"]["space"]["dropout"] == {"grid": [0.1, 0.2]}
    assert counts(shared(results, f"csv:{tmp_path}")) == (0, 0, 6, 0)


def test_what_people_read(results: Path, tmp_path: Path) -> None:
    answer = ask(results, "--to", f"csv:{tmp_path}", command="share")
    assert answer.stdout.splitlines()[:2] == [
        f"written  csv:{tmp_path}",
        "trials   6 trials new, 0 updated, 0 there already",
    ]


@pytest.mark.parametrize("tool", ["optuna:sqlite:///{}/study.db", "optuna:{}/journal.log", "tensorboard:{}", "csv:{}"])
def test_a_trial_that_is_stopped_and_one_that_is_tried_again(results: Path, tmp_path: Path, tool: str) -> None:
    sweep, write = gathered(results), writer_of(tool.format(tmp_path))
    first, *rest = [trial for trial in sweep.trials if trial.status == "done"]
    stopped = dataclasses.replace(first, status="pruned")
    assert write(dataclasses.replace(sweep, trials=(stopped, *rest[:1]))).added == 2
    assert write(dataclasses.replace(sweep, trials=(stopped, *rest[:1]))).same == 2
    again = write(dataclasses.replace(sweep, trials=(first, *rest[:1])))
    assert (again.added + again.updated, again.same) == (1, 1)
    if tool.startswith("optuna"):
        study = optuna.load_study(study_name="part1/grid", storage=storage_of(tool.format(tmp_path).partition(":")[2]))
        mine = [trial for trial in study.trials if trial.user_attrs["trial_id"] == first.id]
        assert [trial.state for trial in mine] == [TrialState.PRUNED, TrialState.COMPLETE]
        assert mine[0].value == mine[1].value == first.scores["val_accuracy"]


@pytest.mark.parametrize(
    ("to", "complaint"),
    [
        ("wandb:x", "--to wandb:x: allowed are optuna:journal.log, optuna:sqlite:///study.db, tensorboard:DIR"),
        ("optuna", "--to optuna: allowed are"),
        ("csv:", "--to csv:: allowed are"),
        ("optuna:mysql://x", "--to optuna:mysql://x: allowed are a journal file and sqlite:///FILE"),
        ("optuna:{}", "give a file, not a folder"),
        ("optuna:{}/text", "is no journal of Optuna: line 1: it is not JSON"),
        ("optuna:{}/lines", "is no journal of Optuna: line 1 has no op_code"),
        ("optuna:sqlite:///{}/text", "is no database of this Optuna"),
        ("csv:{}/text", "cannot be written: File exists"),
        ("csv:{}/foreign", "was not written by share: give another folder"),
        ("tensorboard:{}/text", "cannot be written: Not a directory"),
    ],
)
def test_a_place_that_cannot_be_written(results: Path, tmp_path: Path, to: str, complaint: str) -> None:
    (tmp_path / "text").write_text("my notes, which nothing may change\n")
    (tmp_path / "lines").write_text('{"a": 1}\n')
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "trials.csv").write_text("a,b\n1,2\n")
    answer = ask(results, "--to", to.format(tmp_path), command="share")
    assert answer.returncode == 2
    assert complaint in answer.stderr
    assert len(answer.stderr.splitlines()) == 1
    assert (tmp_path / "text").read_text() == "my notes, which nothing may change\n"
    assert (tmp_path / "foreign" / "trials.csv").read_text() == "a,b\n1,2\n"


def test_another_search_space_needs_another_file(results: Path, tmp_path: Path) -> None:
    shared(results, f"optuna:{tmp_path}/journal.log")
    settings = [part for value in [*SMALL, "train.epochs=1"] for part in ("--set", value)]
    stages = "stages=[{name: grid, space: {model: plain, lr: {grid: [0.001, 0.01]}, optimizer: {grid: [sgd, adam]}}}]"
    assert ask("part1", *settings, "--set", stages, "--serial", "--out", tmp_path).returncode == 0
    answer = ask(tmp_path / "part1", "--to", f"optuna:{tmp_path}/journal.log", command="share")
    assert answer.returncode == 2
    assert answer.stderr == "error: study part1/grid there has other values of lr; give another file\n"


def test_no_results_is_one_clear_error(tmp_path: Path) -> None:
    answer = ask(tmp_path, "--to", f"csv:{tmp_path}/out", "--json", command="share")
    assert answer.returncode == 2
    assert valid(answer)["kind"] == "error"
    assert not (tmp_path / "out").exists()


def test_names_that_would_lead_out_of_the_folder_are_refused(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = load(results, store=False)
    odd = tables.trials.assign(trial_id=[f"../{id_}" for id_ in tables.trials["trial_id"]])
    monkeypatch.setattr("cnnsearch.exchange.going.load", lambda *_, **__: dataclasses.replace(tables, trials=odd))
    with pytest.raises(ResultsError, match=r"trial_id holds \.\./"):
        gathered(results)
