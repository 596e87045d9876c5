"""`cnnsearch convert`: search spaces of other tools become sweep files that run, and what is lost is said."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from cnnsearch.spec.load import load_sweep
from cnnsearch.spec.sweep import Sweep
from tests import pages
from tests.asking import ask
from tests.test_telling import valid

COMMANDS = pages.take("convert.md", "convert")
KERAS = {
    "ongoing_trials": {},
    "tried_so_far": [],
    "hyperparameters": {
        "space": [
            {"class_name": "Choice", "config": {"name": "model", "default": "plain", "conditions": [], "values": ["plain", "residual"], "ordered": False}},  # noqa: E501
            {"class_name": "Float", "config": {"name": "learning_rate", "default": 0.001, "conditions": [], "min_value": 0.0001, "max_value": 0.01, "step": None, "sampling": "log"}},  # noqa: E501
            {"class_name": "Float", "config": {"name": "dropout", "default": 0.1, "conditions": [{"class_name": "Parent", "config": {"name": "model", "values": ["plain"]}}], "min_value": 0.0, "max_value": 0.5, "step": 0.25, "sampling": "linear"}},  # noqa: E501
            {"class_name": "Int", "config": {"name": "units", "default": 32, "conditions": [], "min_value": 32, "max_value": 512, "step": 32, "sampling": "linear"}},  # noqa: E501
            {"class_name": "Int", "config": {"name": "batch_size", "default": 32, "conditions": [], "min_value": 8, "max_value": 64, "step": 2, "sampling": "log"}},  # noqa: E501
            {"class_name": "Boolean", "config": {"name": "bn", "default": False, "conditions": []}},
            {"class_name": "Fixed", "config": {"name": "epochs", "value": 12, "conditions": []}},
        ],
        "values": {"model": "plain"},
    },
}  # fmt: skip
"""In the form in which KerasTuner writes oracle.json."""


def files_of_the_page() -> dict[str, str]:
    return {**pages.files("convert.md"), "oracle.json": json.dumps(KERAS)}


def converted(tmp_path: Path, name: str, content: str) -> tuple[Sweep, dict[str, Any], str]:
    """The sweep, what was told, and the text of the file."""
    (tmp_path / name).write_text(content, encoding="utf-8")
    out = tmp_path / "made.yaml"
    out.unlink(missing_ok=True)
    answer = ask(tmp_path / name, "--out", out, "--json", command="convert")
    assert answer.returncode == 0, answer.stderr
    found, text = valid(answer), out.read_text(encoding="utf-8")
    comments = " ".join(line for line in text.splitlines() if line.strip().startswith("#"))
    for one in found["lost"]:  # nothing is lost silently, in either place
        assert one["why"][:40] in comments
        assert one["what"] in answer.stderr
    return load_sweep(out), found, text


def lost(found: dict[str, Any]) -> dict[str, str]:
    return {one["what"]: one["why"] for one in found["lost"]}


def test_a_sweep_of_wandb(tmp_path: Path) -> None:
    sweep, found, text = converted(tmp_path, "wandb-sweep.yaml", files_of_the_page()["wandb-sweep.yaml"])
    (stage,) = sweep.stages
    assert {axis: (values.kind, values.args) for axis, values in stage.space.items()} == {
        "lr": ("loguniform", (0.0001, 0.1)),
        "batch_size": ("choice", (16, 32, 64)),
        "optimizer": ("choice", ("adam", "sgd")),
    }
    assert (stage.search.method, stage.search.trials, sweep.train.epochs) == ("tpe", 40, 20)
    assert stage.stop_early is not None
    assert (stage.stop_early.method, stage.stop_early.min_epochs) == ("hyperband", 3)
    assert (found["kind"], found["tool"], found["axes"]) == ("converted", "W&B", ["lr", "batch_size", "optimizer"])
    assert set(lost(found)) == {
        "method: bayes",
        "iterations of early_terminate",
        "program: train.py",
        "optimizer: Adam, SGD, Lion",
        "units: int 32, 256",
    }
    assert text.splitlines()[0].startswith("# yaml-language-server: $schema=file://")
    assert "      # no match: units: int 32, 256: it is no setting of trials here. A network of your own" in text


def test_a_space_of_ray_tune(tmp_path: Path) -> None:
    sweep, found, _ = converted(tmp_path, "ray-space.json", files_of_the_page()["ray-space.json"])
    (stage,) = sweep.stages
    assert (sweep.name, sweep.metric, sweep.train.momentum) == ("from-ray", "loss", 0.9)
    assert stage.space["lr"].args == (0.0001, 0.1)
    assert stage.space["dropout"].args == (0, 0.1, 0.2, 0.3, 0.4, 0.5)
    assert (stage.search.method, stage.search.trials) == ("tpe", 25)
    assert stage.stop_early is not None
    assert stage.stop_early.model_dump()["reduction_factor"] == 4
    assert set(lost(found)) == {"scheduler.max_t: 50", "layers: int 1, 3"}
    assert lost(found)["scheduler.max_t: 50"] == "how long a trial trains at most is train.epochs here"
    assert "Did you mean" not in lost(found)["layers: int 1, 3"]


def test_hyperparameters_of_keras_tuner(tmp_path: Path) -> None:
    sweep, found, _ = converted(tmp_path, "oracle.json", files_of_the_page()["oracle.json"])
    (stage,) = sweep.stages
    assert stage.space["dropout"].args == (0, 0.25, 0.5)
    assert stage.space["dropout"].when == {"model": ("plain",)}
    assert stage.space["lr"].kind == "loguniform"
    assert (stage.space["batch_size"].kind, stage.space["batch_size"].args) == ("int", (8, 64))
    assert sweep.train.epochs == 12
    assert {"the tuner", "trials", "bn: False, True", "batch_size.step: 2"} <= set(lost(found))
    assert "a logarithmic scale becomes an even one" in lost(found)["batch_size: logint 8, 64"]


def test_a_file_that_keras_tuner_has_written(tmp_path: Path) -> None:
    written = Path(__file__).with_name("oracle.json").read_text(encoding="utf-8")  # by its version 1.4.8
    sweep, found, _ = converted(tmp_path, "oracle.json", written)
    assert list(sweep.stages[0].space) == ["dropout", "lr", "batch_size"]
    assert set(lost(found)) == {"the tuner", "trials"}


def test_a_configuration_of_hydra(tmp_path: Path) -> None:
    sweep, found, _ = converted(tmp_path, "config.yaml", files_of_the_page()["config.yaml"])
    (stage,) = sweep.stages
    assert (stage.space["lr"].kind, stage.space["lr"].args) == ("loguniform", (0.0001, 0.1))
    assert stage.space["model"].args == ("resnet18", "resnet34")
    assert stage.space["batch_size"].args == (16, 32)
    assert (stage.search.method, stage.search.trials) == ("tpe", 20)
    assert "data.workers: 1, 2" in lost(found)
    assert lost(found)["batch_size: 16"] == "the program's default, where the sweep gives values of its own"
    _, found, _ = converted(tmp_path, "more.yaml", f"{files_of_the_page()['config.yaml']}\ndropout: 0.2\nport: 1\n")
    assert lost(found)["dropout: 0.2"] == "the program's default; if it should hold here, too: train.dropout"
    assert lost(found)["port: 1"] == "it is about the program, which is another one here"


def test_only_names_that_are_close_are_taken_for_misspelt_ones(tmp_path: Path) -> None:
    text = wandb("  lr: {values: [0.1, 0.2]}\n  weight_decy: {values: [0.1, 0.2]}\n  units: {values: [1, 2]}")
    _, found, _ = converted(tmp_path, "sweep.yaml", text)
    close, other = (why for what, why in lost(found).items() if what.startswith(("weight_decy", "units")))
    assert "Did you mean weight_decay?" in close
    assert "Did you mean" not in other


def wandb(params: str, more: str = "method: random\nrun_cap: 4\n") -> str:
    return f"{more}parameters:\n{params}\n"


@pytest.mark.parametrize(
    ("line", "axis", "kind", "args"),
    [
        ("  lr: {min: 0.1, max: 0.2}", "lr", "uniform", (0.1, 0.2)),
        ("  lr: {distribution: log_uniform, min: -2, max: 0}", "lr", "loguniform", (0.1353352832366127, 1.0)),
        ("  batch_size: {min: 8, max: 64}", "batch_size", "int", (8, 64)),
        ("  batch_size: {distribution: q_uniform, min: 8, max: 32, q: 8}", "batch_size", "choice", (8, 16, 24, 32)),
        ("  dropout: {distribution: q_uniform, min: 0, max: 0.9, q: 0.001}", "dropout", "uniform", (0, 0.9)),
        ("  model: {parameters: {bs: {values: [16, '32']}}}", "batch_size", "choice", (16, 32)),
        ("  image_size: {min: 32, max: 34}", "image_size", "choice", (32, 33, 34)),
        ("  Learning-Rate: {values: [1e-3, 0.00001]}", "lr", "choice", (0.001, 0.00001)),
    ],
)
def test_ranges_keep_ends_and_scale(tmp_path: Path, line: str, axis: str, kind: str, args: tuple[Any, ...]) -> None:
    sweep, _, _ = converted(tmp_path, "a.yaml", wandb(line))
    (stage,) = sweep.stages
    assert (stage.space[axis].kind, stage.space[axis].args) == (kind, args)


@pytest.mark.parametrize(
    ("params", "what", "why"),
    [
        ("  lr: {distribution: normal, mu: 0, sigma: 1}", "lr: ", "normal is no distribution here"),
        ("  lr: {values: [0.1, 0], probabilities: [0.9, 0.1]}", "lr.probabilities", "as likely as the others"),
        ("  lr: {values: [0.1, 0]}", "lr: 0.1, 0", "no match: 0: it should be greater than 0"),
        ("  lr: {min: 0.0, max: 1.0}", "lr: uniform 0.0, 1.0", "no match: a range to 0: it should be greater than 0"),
        ("  lr: {value: 0.1}\n  learning_rate: {value: 0.2}", "learning_rate: 0.2", "lr is there already"),
        ("  image_size: {min: 32, max: 224}", "image_size: ", "images are resized beforehand"),
        ("  model: {values: [resnet-18]}", "model: resnet-18", "torchvision classification model"),
        ("  optimizer: {min: 1, max: 2}", "optimizer: ", "optimizer takes words, not a range"),
        ("  heads: {values: [1, 2]}", "heads: 1, 2", "A network of your own may take it"),
    ],
)
def test_what_has_no_match_is_said(tmp_path: Path, params: str, what: str, why: str) -> None:
    _, found, text = converted(tmp_path, "a.yaml", wandb(f"{params}\n  batch_size: {{values: [16, 32]}}"))
    (one,) = [reason for name, reason in lost(found).items() if name.startswith(what)]
    assert why in one
    assert why in text


def test_methods_and_rules(tmp_path: Path) -> None:
    grid, _, _ = converted(tmp_path, "a.yaml", wandb("  lr: {values: [0.1, 0.2]}", "method: grid\n"))
    assert (grid.stages[0].search.method, grid.stages[0].space["lr"].kind) == ("grid", "grid")
    small, _, _ = converted(tmp_path, "a.yaml", wandb("  batch_size: {min: 8, max: 10}", "method: grid\n"))
    assert small.stages[0].space["batch_size"].args == (8, 9, 10)
    ranges, found, _ = converted(tmp_path, "a.yaml", wandb("  lr: {min: 0.1, max: 0.2}", "method: grid\n"))
    assert (ranges.stages[0].search.method, ranges.stages[0].search.trials) == ("random", 30)
    assert "method: grid" in lost(found)
    assert lost(found)["trials"] == "their number is not said there: 30"
    ray = {"param_space": {"lr": {"grid_search": [0.1, 0.2]}}, "scheduler": "PopulationBasedTraining"}
    _, found, _ = converted(tmp_path, "a.json", json.dumps(ray))
    assert "there are asha, hyperband, median and patience" in str(lost(found))
    late = wandb(
        "  lr: {values: [0.1, 0.2]}\n  epochs: {value: 2}",
        "method: random\nearly_terminate: {type: hyperband, min_iter: 5}\n",
    )
    sweep, found, _ = converted(tmp_path, "a.yaml", late)
    assert sweep.stages[0].stop_early is not None
    assert lost(found)["min_epochs: 5"] == "trials have 2 epochs"


@pytest.mark.parametrize(
    ("metric", "name", "said"),
    [
        ("{name: val/AUC, goal: maximize}", "auroc", ""),
        ("{name: Validation Loss, goal: minimize}", "loss", ""),
        ("{name: speed, goal: maximize}", "accuracy", "accuracy decides"),
        ("{name: accuracy, goal: minimize}", "accuracy", "it is always the other way"),
    ],
)
def test_metrics(tmp_path: Path, metric: str, name: str, said: str) -> None:
    text = wandb("  lr: {values: [0.1, 0.2]}", f"method: random\nrun_cap: 3\nmetric: {metric}\n")
    sweep, found, _ = converted(tmp_path, "a.yaml", text)
    assert sweep.metric == name
    assert said in str(found["lost"])
    assert bool(found["lost"]) == bool(said)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.yaml", "name: mine\nstages: []\n", "is no search space that is known; allowed are a sweep of W&B"),
        ("a.yaml", "- a\n", "a.yaml holds a list"),
        ("a.yaml", "method: grid\nparameters: {lr: {values: []}}\n", "is not what its tool writes"),
        ("a.yaml", "method: grid\nparameters: {lr: {min: a, max: b}}\n", "is not what its tool writes"),
        ("a.yaml", "a: !!python/object/apply:os.system [ls]\n", "is not allowed here; plain values only"),
        ("a.json", "[1", "cannot be read: it is not JSON"),
        ("a.json", "[1]", "holds no mapping"),
        ("a.json", '{"param_space": {"lr": {"uniform": [1]}}}', "is not what its tool writes"),
        ("a.json", '{"space": [{"class_name": "Choice"}]}', "is not what its tool writes"),
    ],
)
def test_what_is_no_space_is_one_clear_error(tmp_path: Path, name: str, content: str, complaint: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    answer = ask(tmp_path / name, "--out", tmp_path / "made.yaml", command="convert")
    assert answer.returncode == 2, answer.stdout
    assert complaint in answer.stderr
    assert len(answer.stderr.splitlines()) == 1
    assert not (tmp_path / "made.yaml").exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(wandb("  lr: {values: [0.1]}"), encoding="utf-8")
    for out, complaint in (("a.yaml", "is there already"), ("b.json", "give a name that ends in .yaml")):
        answer = ask(tmp_path / "a.yaml", "--out", tmp_path / out, command="convert")
        assert answer.returncode == 2
        assert complaint in answer.stderr
    assert ask(tmp_path / "none.yaml", command="convert").returncode == 2


def test_commands_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in files_of_the_page().items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    assert len(COMMANDS) == 4
    for line in COMMANDS:
        answer = ask(*shlex.split(line), command="convert")
        assert answer.returncode == 0, answer.stderr
        assert "no match" in answer.stdout
    for name in ("mine", "from-ray", "keras", "hydra"):
        assert load_sweep(tmp_path / f"{name}.yaml")
        assert yaml.safe_load((tmp_path / f"{name}.yaml").read_text(encoding="utf-8"))["stages"]
