"""A search begins with the best settings of earlier sweeps, and goes on with them whatever becomes of those."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cnnsearch.earlier import _in_space, with_earlier
from cnnsearch.errors import RequestError, ResultsError
from cnnsearch.evidence.configurations import axis_values
from cnnsearch.planning.plan import make_plan
from cnnsearch.planning.trial import Outcome
from cnnsearch.results.folder import Results
from cnnsearch.results.place import open_results
from cnnsearch.results.tables import load
from cnnsearch.spec.load import from_yaml, load_sweep, to_yaml
from cnnsearch.spec.settings import Settings
from cnnsearch.spec.sweep import Sweep
from cnnsearch.spec.values import Values
from tests.asking import ask
from tests.conftest import SMALL
from tests.planning.test_suggest import DATA, finish_all, in_folder
from tests.test_telling import SETTINGS

GRID = "{model: {grid: [plain, residual]}, lr: {grid: [0.01, 0.001, 0.0001]}, batch_size: {grid: [6, 12]}}"
SPACE = "{model: {choice: [plain, residual]}, lr: {loguniform: [0.0005, 0.1]}, batch_size: {choice: [6, 12, 24]}}"


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a grid."""
    out = tmp_path_factory.mktemp("earlier")
    stages = f"stages=[{{name: grid, space: {GRID}}}]"
    assert ask("part1", *SETTINGS, "--set", stages, "--serial", "--out", out).returncode == 0
    return out / "part1"


def searching(prior: Path | str, search: str = "method: tpe, trials: 24", space: str = SPACE) -> Sweep:
    stage = f"{{name: search, space: {space}, search: {{{search}, prior: ['{prior}']}}}}"
    return load_sweep("part1", values=[*SMALL, f"stages=[{stage}]"])


def first_of(sweep: Sweep, out: Path) -> list[dict[str, Any]]:
    (stage,) = with_earlier(sweep, open_results(out, sweep.name)).stages
    return list(stage.search.first)


def best_first(earlier: Path) -> pd.DataFrame:
    trials = load(earlier, store=False).trials
    return trials.sort_values("val_accuracy", ascending=False, kind="stable")


def test_the_best_that_are_in_the_space_come_first_a_tenth_of_the_trials(earlier: Path, tmp_path: Path) -> None:
    first = first_of(searching(earlier), tmp_path)
    assert len(first) == 3
    trials = best_first(earlier)
    inside = trials[trials["lr"] >= 0.0005]
    axes = ["model", "lr", "batch_size"]
    scores = [inside[(inside[axes] == pd.Series(one)).all(axis=1)]["val_accuracy"].item() for one in first]
    assert scores == inside["val_accuracy"].head(3).tolist()


def test_with_a_rule_that_compares_trials_it_is_one(earlier: Path, tmp_path: Path) -> None:
    for rule, count in (("asha", 1), ("patience", 3)):
        stage = searching(earlier).stages[0].model_dump()
        stages = [{**stage, "stop_early": {"method": rule, "min_epochs": 1}}]
        sweep = searching(earlier).with_values({"stages": stages, "train.epochs": 9})
        assert len(first_of(sweep, tmp_path)) == count


def test_arguments_of_networks_are_found_whatever_they_are() -> None:
    space = {
        "model_args.sizes": Values.model_validate({"choice": [[8], [8, 16]]}),
        "model_args.deep": Values.model_validate({"choice": [False, True]}),
        "lr": Values.model_validate({"loguniform": [0.001, 1]}),
    }
    row = {"lr": 0.01, "model_args": '{"deep": true, "sizes": [8, 16]}'}
    assert _in_space(axis_values(row), space) == {"model_args.sizes": [8, 16], "model_args.deep": True, "lr": 0.01}
    for other in ('{"deep": true}', '{"deep": 2, "sizes": [8]}', '{"deep": true, "sizes": [9]}', None):
        assert _in_space(axis_values({**row, "model_args": other}), space) is None
    assert _in_space(axis_values({**row, "lr": 2.0}), space) is None


def test_they_are_what_is_trained_first(earlier: Path, tmp_path: Path) -> None:
    sweep = with_earlier(searching(earlier), open_results(tmp_path, "part1"))
    (stage,) = sweep.stages
    results = in_folder(tmp_path / "results")
    queue = finish_all(sweep, results, {})
    trained = [trials[0].settings for trials in queue.plan.stages[0].studies[0].trials]
    chosen = [{axis: getattr(one, axis) for axis in ("model", "lr", "batch_size")} for one in trained]
    assert chosen[:3] == list(stage.search.first)
    assert len({one["lr"] for one in chosen}) > 10  # then the searcher goes on by itself


@pytest.mark.parametrize("method", ["tpe", "gp", "cmaes", "qmc", "nsga2"])
def test_every_searcher_begins_with_them_and_completes_them(method: str, tmp_path: Path) -> None:
    more = ", objectives: [val_accuracy, seconds]" if method == "nsga2" else ""
    search = f"{{method: {method}, trials: 4, first: [{{lr: 0.02}}, {{lr: 0.03, batch_size: 24}}]{more}}}"
    sweep = load_sweep("part1", values=[*SMALL, f"stages=[{{name: search, space: {SPACE}, search: {search}}}]"])

    def trained(*stops: int) -> list[Settings]:
        results, outcomes = in_folder(tmp_path / f"{len(stops)}"), dict[str, Outcome]()
        for stop in (*stops, -1):
            queue = finish_all(sweep, results, outcomes, stop_after=stop)
        return [trials[0].settings for trials in queue.plan.stages[0].studies[0].trials]

    whole = trained()
    assert [(one.lr, one.batch_size) for one in whole[:2]] == [(0.02, whole[0].batch_size), (0.03, 24)]
    assert len({one.lr for one in whole}) == 4
    assert trained(1, 1) == whole  # also when the command starts again


def test_a_search_goes_on_when_the_earlier_results_are_gone(earlier: Path, tmp_path: Path) -> None:
    gone = Path(shutil.copytree(earlier, tmp_path / "gone"))
    sweep = searching(gone)
    resolved = with_earlier(sweep, open_results(tmp_path / "out", sweep.name))
    results = Results(tmp_path / "out" / "part1")
    results.path.mkdir(parents=True)
    results.sweep_file.write_text(to_yaml(resolved), encoding="utf-8")
    shutil.rmtree(gone)
    assert first_of(sweep, tmp_path / "out") == list(resolved.stages[0].search.first)
    assert with_earlier(from_yaml(to_yaml(resolved), ""), open_results(tmp_path / "out", "part1")) == resolved
    with pytest.raises(ResultsError, match=r"stages\.search\.search\.prior: .*gone"):  # another space is another search
        first_of(searching(gone, space=SPACE.replace("24", "48")), tmp_path / "out")


def test_another_beginning_is_another_study(earlier: Path, tmp_path: Path) -> None:
    def study(sweep: Sweep) -> str:
        return make_plan(sweep, DATA, {}).stages[0].studies[0].id

    place = open_results(tmp_path, "part1")
    assert study(with_earlier(searching(earlier), place)) != study(searching(earlier))


def test_a_command_says_with_what_it_begins(earlier: Path, tmp_path: Path) -> None:
    stage = f"{{name: search, space: {SPACE}, search: {{method: tpe, trials: 10, prior: ['{earlier}']}}}}"
    shown = ask("part1", *SETTINGS, "--set", f"stages=[{stage}]", "--serial", "--dry-run", "--out", tmp_path)
    assert shown.returncode == 0
    best = best_first(earlier).iloc[0]
    assert f"begins with 1 setting, the best of {earlier}: {best['model']}, lr" in shown.stdout


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ("{lr: {uniform: [1, 2]}}", "has no finished trial in the space of this stage, whose axes are lr"),
        ("{lr: {loguniform: [0.0001, 1]}, optimizer: sgd}", "whose axes are lr and optimizer"),
    ],
)
def test_results_that_do_not_overlap_are_refused(earlier: Path, tmp_path: Path, space: str, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        first_of(searching(earlier, space=space), tmp_path)
    with pytest.raises(RequestError, match=r"search\.prior takes folders"):
        first_of(searching("s3://b/x"), tmp_path)


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ("method: grid, prior: [a]", "method grid has no suggestions"),
        ("method: random, trials: 3, first: [{lr: 0.01}]", "method random has no suggestions"),
        ("method: tpe, trials: 3, first: [{lr: 3}]", r"given 3; allowed: from 0.0005 to 0.1"),
        ("method: tpe, trials: 3, first: [{batch_size: 5}]", r"given 5; allowed: \[6, 12, 24\]"),
        ("method: tpe, trials: 3, first: [{momentum: 0.5}]", "momentum is not in the space"),
        ("method: tpe, trials: 1, first: [{lr: 0.01}, {lr: 0.02}]", "has 2 settings for 1 trials"),
    ],
)
def test_what_cannot_come_first_is_refused(search: str, said: str) -> None:
    space = GRID if "grid" in search else SPACE
    with pytest.raises(RequestError, match=said):
        load_sweep("part1", values=[*SMALL, f"stages=[{{name: search, space: {space}, search: {{{search}}}}}]"])
