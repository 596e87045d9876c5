"""A sweep that goes by another metric than accuracy, from the file to the tables and to what people see."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cnnsearch import run
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.results.folder import Results
from cnnsearch.results.tables import load
from cnnsearch.scores import Predicted, score
from cnnsearch.spec.metric import METRICS
from cnnsearch.spec.sweep import Sweep
from tests.asking import ask
from tests.data.making import fill_folder

STAGES = (
    "stages=[{name: grid, space: {lr: {loguniform: [0.001, 0.1]}, model: plain}, search: {method: tpe, trials: 3}, "
    "stop_early: {method: median, min_epochs: 2}}, "
    "{name: heads, start_from: {stage: grid}, space: {fine_tune: head, lr: {grid: [0.01, 0.1]}}}]"
)


def finished(make: Callable[..., Sweep], out: Path, metric: str) -> pd.DataFrame:
    run(make(STAGES, f"metric={metric}", "train.epochs=4"), out, serial=True)
    return load(out / "part1").trials


@pytest.mark.parametrize("metric", ["macro_f1", "brier"])
def test_the_metric_chooses_epochs_and_parents_and_the_best(
    tmp_path: Path, small_sweep: Callable[..., Sweep], metric: str
) -> None:
    trials = finished(small_sweep, tmp_path, metric)
    tables, known = load(tmp_path / "part1"), METRICS[metric]
    results = Results(tables.folder)
    assert set(trials["metric"]) == {metric}
    others = [name for name in METRICS if name not in (metric, "accuracy", "loss")]
    assert tables.epochs[[METRICS[name].measure for name in others]].isna().all(axis=None)
    for row in trials.to_dict("records"):
        curve = tables.epochs[(tables.epochs["trial_id"] == row["trial_id"]) & (tables.epochs["epoch"] > 0)]
        values = known.sign * curve[known.measure]
        assert row["best_epoch"] == curve["epoch"].iloc[values.argmax()]
        assert row[known.measure] == curve[known.measure].iloc[values.argmax()]
    done = trials[trials["status"] == "done"]
    grid = done[done["stage"] == "grid"]
    best = grid["trial_id"].iloc[(known.sign * grid[known.measure]).argmax()]
    assert set(trials["parent_id"].dropna()) == {best}
    winner = Evidence(tables).best_trial
    assert winner == done["trial_id"].iloc[(known.sign * done[known.measure]).argmax()]
    assert winner is not None
    assert results.has_weights(winner)
    kept = {row["trial_id"] for row in trials.to_dict("records") if results.trial(row["trial_id"]).probabilities()}
    assert (kept == set(done["trial_id"])) is known.needs_probabilities

    told = ask(tables.folder, "--json", command="status").told["sweeps"][0]["best"]
    assert (told["metric"], told["id"]) == (metric, winner)
    assert told["validation_score"] == done.set_index("trial_id")[known.measure][winner]
    seen = ask(tables.folder, command="status").stdout
    assert f"val {known.shown(told['validation_score'])} at epoch {told['epoch']}" in seen
    explained = ask(tables.folder, "best", command="explain").stdout
    assert f"scores      validation {known.words} {known.text(told['validation_score'])}\n" in explained
    assert "accuracy: validation" in explained


def test_the_weights_kept_are_those_of_the_epoch_that_the_metric_chose(
    tmp_path: Path, small_sweep: Callable[..., Sweep]
) -> None:
    trials = finished(small_sweep, tmp_path, "auroc")
    results = Results(tmp_path / "part1")
    data = results.read("data.json")
    labels = np.array(data["examples"]["val"]["labels"])
    for row in trials[trials["status"] == "done"].to_dict("records"):
        chances = results.trial(row["trial_id"]).probabilities()["val"]
        found = Predicted(labels, len(data["classes"]), chances.argmax(axis=1), chances.max(axis=1), chances)
        assert score("auroc", found) == row["val_auroc"]


def test_settings_are_compared_by_probabilities_that_all_trials_keep(
    tmp_path: Path, small_sweep: Callable[..., Sweep]
) -> None:
    grid = "stages=[{name: grid, space: {lr: {grid: [0.001, 0.1]}, model: plain}}]"
    run(small_sweep(grid, "metric=auroc", "seeds=[0, 1, 2]"), tmp_path, serial=True)
    tables = load(tmp_path / "part1")
    evidence = Evidence(tables)
    assert len(evidence.statements) == 1
    scores = {}
    for c in evidence.configurations:
        found = evidence.score(c)
        assert found is not None
        scores[c.values["lr"]] = found.value
        rows = tables.trials[tables.trials["trial_id"].isin(c.trial_ids)]
        assert found.value == pytest.approx(rows["test_auroc"].mean())
        assert found.low < found.value < found.high
    ((key, comparison),) = evidence.statements.items()
    assert comparison.difference.value == pytest.approx(scores[key[3]] - scores[key[4]])

    file = Results(tables.folder).trial(evidence.configurations[0].key).probabilities_file
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # changed, and still probabilities
    assert Evidence(load(tables.folder)).statements == {}
    file.write_bytes(whole)
    assert len(Evidence(load(tables.folder)).statements) == 1
    for c in evidence.configurations:  # a copy without them says less
        for trial_id in c.trial_ids:
            Results(tables.folder).trial(trial_id).probabilities_file.unlink()
    assert Evidence(load(tables.folder)).statements == {}


def test_a_metric_that_makes_no_sense_is_refused_before_anything_runs(tmp_path: Path) -> None:
    fill_folder(tmp_path / "images", {"cat": 12, "dog": 12})
    given = ("part1", "--data", tmp_path / "images", "--out", tmp_path / "out", "--profile", "quick", "--serial")
    found = ask(*given, "--set", "metric=top5_accuracy")
    assert found.returncode == 2
    assert "metric: top5_accuracy needs more than 5 classes; the data has 2; allowed: accuracy, loss" in found.stderr
    assert not (tmp_path / "out").exists()
