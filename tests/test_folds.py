"""A sweep with folds, from its file to its report: a trial for each fold, compared by fold."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnsearch import load, report, run
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.evidence.mistakes import counts
from cnnsearch.execution.events import Ended, Event
from cnnsearch.explanation import explanation
from cnnsearch.inputs import recorded_data
from cnnsearch.report.rows import trials
from cnnsearch.results.folder import Results
from cnnsearch.results.tables import Tables
from cnnsearch.spec.data import AutoSplit, FoldsSplit
from cnnsearch.spec.load import load_sweep
from cnnsearch.spec.metric import METRICS
from cnnsearch.spec.sweep import Sweep
from cnnsearch.status import looks_at, status_text
from cnnsearch.training import features
from tests.asking import ask
from tests.data.making import fill_folder
from tests.training.models.making import save_weights

FILE = """
name: folded
data: {image_size: 8, split: {method: folds, k: 3, test: 4}}
train: {model: residual, width: 0.05, epochs: 2, batch_size: 8, precision: fp32}
run: {dashboard: false}
stages:
  - name: grid
    space: {lr: {grid: [0.001, 0.01]}}
  - name: dropout
    start_from: {stage: grid, best: val_accuracy}
    space: {dropout: {grid: [0.2]}}
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results root with a whole sweep."""
    root = tmp_path_factory.mktemp("folds")
    fill_folder(root / "photos", {"cat": 16, "dog": 16, "owl": 13})
    (root / "folded.yaml").write_text(FILE)
    run(sweep_of(root), root / "results", serial=True)
    return root


def sweep_of(root: Path, *values: str) -> Sweep:
    return load_sweep(str(root / "folded.yaml"), data=str(root / "photos"), values=values)


@pytest.fixture(scope="module")
def tables(root: Path) -> Tables:
    return load(root / "results" / "folded")


def test_each_setting_is_trained_once_for_each_fold(tables: Tables) -> None:
    trials = tables.trials
    assert len(trials) == 9
    for _, members in trials.groupby(["stage", "lr", "dropout"]):
        assert members["fold"].tolist() == [0, 1, 2]
        assert members["repeat"].tolist() == [0, 0, 0]
        assert members["seed"].tolist() == [0, 1, 2]
    parents = trials.set_index("trial_id")
    for row in trials[trials["stage"] == "dropout"].to_dict("records"):
        assert parents.loc[row["parent_id"], "fold"] == row["fold"]


def test_every_image_outside_test_is_validated_once_by_a_setting(tables: Tables) -> None:
    found = tables.predictions.merge(tables.trials[["trial_id", "stage", "lr", "fold"]], on="trial_id")
    found = found[found["moment"] == "best"]
    for _, members in found.groupby(["stage", "lr"], observed=True):
        val, test = (members[members["split"] == split] for split in ("val", "test"))
        assert len(val) == val["example"].nunique() == 45 - 12
        assert test["example"].nunique() == 12
        assert len(test) == 3 * 12
        assert not set(val["example"]) & set(test["example"])
    for row in tables.trials.to_dict("records"):
        own = found[(found["trial_id"] == row["trial_id"]) & (found["split"] == "val")]
        assert (own["label"].astype(str) == own["predicted"].astype(str)).mean() == pytest.approx(row["val_accuracy"])


def test_settings_are_compared_by_fold_and_single_images_by_who_was_not_trained_on_them(tables: Tables) -> None:
    evidence = Evidence(tables)
    assert evidence.judged_on == "val"
    one, other = evidence.stage("grid")
    comparison = evidence.compare([(one, other)])
    assert comparison is not None
    assert (comparison.basis, comparison.seeds, comparison.unit) == ("seeds", 3, "fold")
    by_trial = tables.trials.set_index("trial_id")["val_accuracy"]
    gaps = np.array([by_trial[a] - by_trial[b] for a, b in zip(one.trial_ids, other.trial_ids, strict=True)])
    assert comparison.difference.value == pytest.approx(gaps.mean())
    least = abs(gaps.mean()) * (1 - abs(gaps.mean())) / 11
    assert comparison.between == pytest.approx(max(gaps.var(ddof=1), least) * (1 / 3 + 1 / 2))
    matrix = counts(evidence, one)
    assert matrix is not None
    assert matrix.sum() == 33
    found = evidence.table(one)
    assert found is not None
    assert found.shape == (1, 33)
    assert matrix.diagonal().sum() == found.sum()


def test_the_report_speaks_of_folds(tables: Tables, tmp_path: Path) -> None:
    report.write(tables, tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "The images were dealt into 3 folds. Each setting was trained once for every fold" in text
    assert "on the 12 test images, which are in no fold" in text
    assert "Nadeau and Bengio" in text
    assert re.search(r"of 33 validation images right, the mean of 3 folds|No setting can be said to work", text)
    assert "3 seeds" not in text
    assert "confirm" not in text


def test_one_more_repeat_trains_only_new_folds(root: Path, tables: Tables) -> None:
    ended: list[Any] = []

    def listen(event: Event) -> None:
        ended.extend([event.trial.id] if isinstance(event, Ended) else [])

    more = run(sweep_of(root, "data.split.repeats=2"), root / "results", serial=True, listen=listen)
    before = tables.trials.set_index("trial_id")
    kept = more.trials[more.trials["repeat"] == 0].set_index("trial_id")
    grid = before[before["stage"] == "grid"].index
    assert set(grid) <= set(kept.index)
    assert not set(ended) & set(before.index)
    assert (
        more.trials[more.trials["stage"] == "grid"].groupby("lr")["repeat"].apply(list).tolist()
        == [[0] * 3 + [1] * 3] * 2
    )
    assert sorted(more.trials["seed"].unique()) == [0, 1, 2, 3, 4, 5]
    best = Evidence(more).best
    assert best is not None
    table = Evidence(more).table(best)
    assert table is not None
    assert table.shape == (2, 33)


def test_searchers_and_rules_take_the_mean_over_folds(root: Path) -> None:
    values = (
        "name=searched",
        "stages.grid.space.lr={loguniform: [0.001, 0.1]}",
        "stages.grid.search={method: tpe, trials: 3, at_once: 1}",
        "stages.grid.stop_early={method: median, min_epochs: 1}",
        "train.epochs=3",
    )
    tables = run(sweep_of(root, *values), root / "results", serial=True)
    grid = tables.trials[tables.trials["stage"] == "grid"]
    assert grid.groupby("lr").size().tolist() == [3, 3, 3]
    # Folds of a setting are stopped together or not at all, after the same epoch.
    assert (grid.groupby("lr")["epochs_done"].nunique() == 1).all()
    assert (grid.groupby("lr")["status"].nunique() == 1).all()


def test_sealed_other_metrics_and_all_commands_know_folds(root: Path) -> None:
    values = ("name=sealed", "metric=macro_f1", "evidence.test=sealed")
    tables = run(sweep_of(root, *values), root / "results", serial=True)
    evidence = Evidence(tables)
    best = evidence.best
    assert best is not None
    assert tables.trials["test_accuracy"].isna().all()
    score = evidence.score(best)
    assert score is not None
    rows = tables.trials[tables.trials["trial_id"].isin(best.trial_ids)]
    assert score.value == pytest.approx(rows["val_macro_f1"].mean())
    assert score.low < score.value < score.high


def test_what_was_found_with_folds_is_explained_repeated_exported_and_compared(root: Path, tmp_path: Path) -> None:
    folder = root / "results" / "folded"
    for command, arguments in (
        ("explain", (folder, "best")),
        ("reproduce", (folder, "best")),
        ("diff", (folder, root / "results" / "searched")),
        ("status", (folder,)),
        ("predict", (folder, root / "photos" / "owl", "--out", tmp_path / "said.csv")),
        ("export", (folder, tmp_path / "net", "--format", "safetensors")),
        ("report", (folder, root / "results" / "searched", "--out", tmp_path / "both")),
    ):
        answer = ask(*arguments, command=command)
        assert answer.returncode == 0, (command, answer.stderr)


def test_frozen_layers_of_pretrained_weights_are_computed_once_for_all_folds(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []

    def compute(*inputs: Any) -> Any:
        made.append(inputs)
        return features.compute(*inputs)

    monkeypatch.setattr("cnnsearch.execution.start.compute", compute)
    weights = save_weights(tmp_path, "resnet18")
    values = ("name=heads", "train.model=resnet18", f"train.weights={weights}", "train.fine_tune=head", "train.width=1")
    one = ("stages=[{name: only, space: {lr: {grid: [0.001]}}}]",)
    tables = run(sweep_of(root, *values, *one), root / "results", serial=True)
    assert len(tables.trials) == 3
    assert len(made) == 1


def test_a_folder_keeps_its_folds_unless_seeds_are_asked_for(root: Path) -> None:
    results, sweep = Results(root / "results" / "folded"), sweep_of(root)
    auto = sweep.model_copy(update={"data": sweep.data.model_copy(update={"split": AutoSplit()})})
    kept, given_way = recorded_data(results, auto), recorded_data(results, auto.model_copy(update={"seeds": (0, 1)}))
    assert kept is not None
    assert isinstance(kept.split, FoldsSplit)
    assert given_way is not None
    assert isinstance(given_way.split, AutoSplit)


def test_an_interval_is_that_of_the_images_of_the_trials_own_fold(tmp_path: Path) -> None:
    """In the log, in what is said of running sweeps, in the explanation and in the report's table of trials."""
    fill_folder(tmp_path / "photos", {"cat": 9, "dog": 9})
    file, results = tmp_path / "folded.yaml", Results(tmp_path / "results" / "folded")
    file.write_text(FILE[: FILE.index("  - name: dropout")].replace("0.001, ", "").replace("test: 4", "test: 2"))
    log = ask(file, "--data", tmp_path / "photos", "--serial", "--out", tmp_path / "results").stdout
    tables = load(results.path)
    sizes = tables.predictions.query("split == 'val' and moment == 'best'").groupby("trial_id", observed=True).size()
    assert sorted(sizes) == [4, 5, 5]
    rows = dict(zip(tables.trials["trial_id"], trials(Evidence(tables)).rows, strict=True))
    for record in results.records({}).values():
        shown = METRICS["accuracy"].shown(record.reached or 0, sizes[record.trial_id])
        assert f"seed {record.settings.seed}: done, val {shown} at epoch " in log
        told = explanation(str(results.path), record.trial_id)
        assert told.validation is not None
        assert told.validation.images == sizes[record.trial_id]
        assert shown in [cell.text for cell in rows[record.trial_id].cells]
        alone = tmp_path / record.trial_id
        alone.mkdir()
        for name in ("sweep.yaml", "data.json"):
            shutil.copy(results.path / name, alone)
        shutil.copytree(results.trial(record.trial_id).path, alone / "trials" / record.trial_id)
        (look,) = looks_at(alone)
        assert look.best_shown == shown
        assert f": val {shown} at epoch " in status_text([look])
