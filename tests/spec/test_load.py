from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cnnsearch.errors import SpecError
from cnnsearch.planning.plan import make_plan
from cnnsearch.spec.load import find, from_yaml, load_sweep, to_yaml
from cnnsearch.spec.sweep import Sweep

MINIMAL = "name: mine\nstages:\n  - name: grid\n    space:\n      lr: {grid: [0.1, 0.01]}\n"


def test_shipped_part1_is_the_assignment() -> None:
    sweep = load_sweep("part1")
    grid, dropout = sweep.stages
    assert {axis: values.args for axis, values in grid.space.items()} == {
        "model": ("plain", "residual"),
        "lr": (0.0001, 0.001),
        "batch_size": (16, 32),
    }
    assert dropout.start_from is not None
    assert (dropout.start_from.stage, dropout.start_from.per) == ("grid", ("model",))
    assert dropout.space["dropout"].args == (0.01, 0.1, 0.25, 0.5)
    assert (sweep.data.image_size, sweep.train.epochs, sweep.train.width) == (64, 100, 1.0)


def test_shipped_sweep_is_found_without_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file, shown = find("part1")
    assert shown == "part1.yaml (shipped)"
    assert load_sweep("part1").name == "part1"
    assert file.is_file()


def test_later_requests_win(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(MINIMAL + "profiles:\n  fast: {train.epochs: 3, train.lr: 0.5}\n", encoding="utf-8")
    sweep = load_sweep(file, profile="fast", values=["train.epochs=7"], data="/pictures", seeds=[1, 2])
    assert (sweep.train.epochs, sweep.train.lr, sweep.data.source, sweep.seeds) == (7, 0.5, "/pictures", (1, 2))
    assert load_sweep(file).train.epochs == 100


def test_resolved_sweep_reads_back_equal() -> None:
    sweep = load_sweep("part1", profile="quick", seeds=[3, 4], values=["data.split={method: stratified, train: 0.5}"])
    assert from_yaml(to_yaml(sweep), "sweep.yaml") == sweep


def test_the_quick_part1_is_as_its_comment_says() -> None:
    sweep = load_sweep("part1", profile="quick")
    trials = make_plan(sweep, "f" * 16, {}).total
    size, epochs, width = sweep.data.image_size, sweep.train.epochs, {0.125: "an eighth"}[sweep.train.width]
    said = f"--profile quick    {trials} trials at {size}×{size}, {width} of the width, {epochs} epochs"
    assert said in (Path(__file__).parents[2] / "sweeps" / "part1.yaml").read_text(encoding="utf-8")
    assert sweep.stage("grid").space["model"].args == ("plain", "residual")


def test_changed_in_python() -> None:
    sweep = load_sweep("part1").with_values({"stages.grid.space.lr.grid": [0.5], "train.epochs": 2})
    assert sweep.stage("grid").space["lr"].args == (0.5,)
    assert sweep.train.epochs == 2
    with pytest.raises(SpecError, match=r"Did you mean train\.epochs"):
        sweep.with_values({"train.epoch": 2})


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("train: {epoch: 5}", "mine.yaml, line 6: train.epoch is not a key. Did you mean train.epochs?"),
        ("train: {epochs: -5}", "mine.yaml, line 6: train.epochs given -5; it should be greater than or equal to 1"),
        ("train: {epochs: 5.5}", "train.epochs given 5.5"),
        ("train: {lr: '0.1'}", "train.lr given '0.1'"),
        ("train: {lr: true}", "train.lr given True"),
        ("train: {lr: .nan}", "train.lr given nan"),
        ("train: {model: resnet}", "torchvision classification model. Did you mean resnet50?"),
        ("train: {dropout: 1.0}", "train.dropout given 1.0; it should be less than 1"),
        ("data: {split: {method: fil}}", "data.split.method given 'fil'; allowed: 'auto', 'fill', 'stratified'"),
        ("data: {split: {method: fill, train: 3}}", "known keys of data.split: method, train_per_class"),
        ("run: {gpus_per_trial: 1.5}", "run.gpus_per_trial given 1.5; allowed: a fraction up to 1"),
        ("run: {gpus_per_trial: 0}", "run.gpus_per_trial given 0; allowed: a fraction up to 1"),
        ("run: {gpus_per_trial: 65}", "a whole number up to 64, or auto"),
        ("data: {jpeg: fast}", "data.jpeg given 'fast'; it should be 'auto', 'exact' or 'scaled'"),
        ("data: {grey_range: [0, white]}", "6: data.grey_range.1 given 'white'; it should be a valid integer"),
        ("run: {gpus_per_trial: some}", "run.gpus_per_trial given 'some'; it should be 'auto' or a valid number"),
        ("run: {trials_at_once: 0}", "run.trials_at_once given 0; allowed: auto"),
        ("seeds: [1, 1]", "seeds has a seed twice"),
        ("stage: []", "stage is not a key. Did you mean stages?"),
        ("profiles: {fast: {train.epoch: 3}}", "mine.yaml, line 6: train.epoch is not a key"),
    ],
)
def test_mistakes_are_explained(tmp_path: Path, line: str, complaint: str) -> None:
    (tmp_path / "mine.yaml").write_text(MINIMAL + line + "\n", encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_sweep(tmp_path / "mine.yaml")
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("space", "complaint"),
    [
        ("lrr: {grid: [1]}", "stages.grid.space.lrr is not a key. Did you mean stages.grid.space.lr?"),
        ("lr: {grid: [0]}", "stages.grid.space.lr.grid given 0; it should be greater than 0"),
        ("lr: [0.1, 0.2]", "a list needs a kind: {grid: [0.1, 0.2]}"),
        ("lr: {grid: []}", "grid needs a list of values"),
        ("lr: {grid: [0.1, 0.1]}", "grid has 0.1 twice"),
        ("lr: {uniform: [0.1, 0.2]}", "uniform cannot be enumerated"),
        ("lr: {loguniform: [0, 1]}", "loguniform needs low > 0"),
        ("lr: {uniform: [2, 1]}", "low < high"),
        ("lr: {normal: [0, 1]}", "allowed: a constant, or one of grid, choice"),
        ("lr: {grid: [0.1], when: plain}", "when needs axes with their values, such as {model: plain}"),
        ("lr: {grid: [0.1], when: {model: plain}}", "allowed: an axis that stands before lr"),
        (
            "{model: {grid: [plain, residual]}, lr: {grid: [0.1], when: {model: plane}}}",
            "given 'plane'; allowed: ['plain', 'residual']",
        ),
        ("model: {grid: [plain, resnet]}", "Did you mean resnet50?"),
        ("{model: resnet18, width: 0.5}", "width 0.5 with model resnet18: only plain and residual have a width"),
        ("{model: plain, weights: imagenet}", "only torchvision's models have them"),
        ("{model: vit_b_16, image_size: 40}", "it must be a multiple of 16"),
        (
            "{model: {grid: [vgg16, alexnet]}, image_size: 31}",
            "image_size 31 with model vgg16: it must be at least",
        ),
        (
            "{model: {grid: [resnet18, alexnet]}, image_size: {grid: [32, 64]}}",
            "image_size 32 with model alexnet: it must be at least",
        ),
        ("{model: vgg16, image_size: {grid: [64, 31]}}", "image_size 31 with model vgg16: it must be at least 32"),
        ("{model: maxvit_t, image_size: 256}", "image_size 256 with model maxvit_t: it must be 221 to 224"),
        ("{fine_tune: {grid: [head, last-0-convs]}}", "given 'last-0-convs'; allowed: full, head, last-N-convs"),
        ("augment: {grid: [rand-11]}", "given 'rand-11'; allowed: none, flip, flip+crop, rand-1 (weak) to rand-10"),
    ],
)
def test_impossible_spaces_are_refused(tmp_path: Path, space: str, complaint: str) -> None:
    text = f"name: mine\nstages:\n  - name: grid\n    space:\n      {space}\n"
    if space.startswith("{"):
        text = f"name: mine\nstages:\n  - name: grid\n\n    space: {space}\n"
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_sweep(tmp_path / "mine.yaml")
    assert complaint in str(caught.value)
    assert "line 5" in str(caught.value)


@pytest.mark.parametrize("method", ["grid", "random, trials: 9", "tpe, trials: 9"])
@pytest.mark.parametrize("size", ["", ", image_size: 32", ", image_size: {LISTED: [16, 32]}"])
def test_a_network_that_cannot_take_the_size_is_left_out_of_its_axis(tmp_path: Path, method: str, size: str) -> None:
    listed = "grid" if method == "grid" else "choice"
    models = f"model: {{{listed}: [resnet18, alexnet, plain]}}{size.replace('LISTED', listed)}"
    drops = f"dropout: {{{listed}: [0.0, 0.5], when: {{model: alexnet}}}}"
    rates = f"lr: {{{listed}: [0.1, 0.2], when: {{model: [alexnet, plain]}}}}"
    stage = f"{{name: s, search: {{method: {method}}}, space: {{{models}, {drops}, {rates}}}}}"
    (tmp_path / "mine.yaml").write_text(f"name: mine\ndata: {{image_size: 32}}\nstages: [{stage}]", encoding="utf-8")
    asked = load_sweep(tmp_path / "mine.yaml")
    sweep, needs = asked.without_misfits()
    space = sweep.stages[0].space
    assert space["model"].args == ("resnet18", "plain")
    assert "dropout" not in space
    assert space["lr"].when == {"model": ("plain",)}
    assert [problem.partition(" with ")[2] for problem in needs] == ["model alexnet: it must be at least 63"]
    assert from_yaml(to_yaml(sweep), "again") == sweep
    assert sweep.without_misfits() == (sweep, ())
    larger, needs = asked.with_values({"data.image_size": 64}).without_misfits()
    assert ("alexnet" in larger.stages[0].space["model"].args) is (size == "")


@pytest.mark.parametrize("search", ["{method: tpe, trials: 9}", "{method: random, trials: 9}"])
def test_a_search_that_would_have_one_network_left_is_refused(tmp_path: Path, search: str) -> None:
    stage = f"{{name: s, search: {search}, space: {{model: {{choice: [resnet18, alexnet]}}}}}}"
    (tmp_path / "mine.yaml").write_text(f"name: mine\ndata: {{image_size: 32}}\nstages: [{stage}]", encoding="utf-8")
    with pytest.raises(SpecError, match=r"line 3: .*image_size 32 with model alexnet: it must be at least 63"):
        load_sweep(tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    ("search", "space", "complaint"),
    [
        ("method: tpe", "lr: {uniform: [0.1, 1]}", "search method tpe needs trials: N"),
        ("method: tpee, trials: 3", "lr: {grid: [0.1, 1]}", "search.method given 'tpee'; "),
        ("method: tpe, trials: 3", "lr: 0.1", "space method tpe needs an axis with more than one value"),
        ("method: cmaes, trials: 3", "lr: {choice: [0.1, 1]}", "cmaes needs an axis with a range: one of uniform"),
        ("method: random, trials: 3, at_once: 2", "lr: {choice: [0.1, 1]}", "at_once method random looks at no outcom"),
        ("method: qmc, trials: 3, at_once: 2", "lr: {choice: [0.1, 1]}", "at_once method qmc looks at no outcomes"),
        ("objectives: [val_loss]", "lr: {grid: [0.1, 1]}", "objectives method grid looks at no outcomes"),
        ("method: nsga2, trials: 3", "lr: {choice: [0.1, 1]}", "method nsga2 needs objectives: two or more of val_ac"),
        ("method: nsga2, trials: 3, objectives: [bytes, bytes]", "lr: {choice: [0.1, 1]}", "has bytes twice"),
        (
            "method: nsga2, trials: 3, objectives: [speed, bytes]",
            "lr: {choice: [0.1, 1]}",
            "given 'speed'; it should be 'val_acc",
        ),
        ("method: tpe, trials: 3, objectives: [seconds]", "lr: {choice: [0.1, 1]}", "allowed with tpe: one of val_acc"),
        ("method: gp, trials: 3, objectives: [val_loss, bytes]", "lr: {choice: [0.1, 1]}", "need method: nsga2"),
        ("method: tpe, trials: 3, at_once: 0", "lr: {choice: [0.1, 1]}", "at_once given 0"),
        ("method: tpe, trials: 3", "image_size: {int: [8, 64]}", "give {choice: [...]}, not int"),
        ("method: random, trials: 3", "batch_size: {uniform: [8, 64]}", "batch_size is a whole number; use {int: ["),
    ],
)
def test_impossible_searches_are_refused(tmp_path: Path, search: str, space: str, complaint: str) -> None:
    stage = f"  - name: search\n    space: {{{space}}}\n    search: {{{search}}}\n"
    (tmp_path / "mine.yaml").write_text(f"name: mine\nstages:\n{stage}", encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_sweep(tmp_path / "mine.yaml")
    assert complaint in str(caught.value)
    assert "mine.yaml, line " in str(caught.value)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("stages.dropout.start_from.stage=x", "stages.dropout.start_from.stage given 'x'; allowed: grid"),
        ("stages.dropout.start_from.per=lrr", "stages.dropout.start_from.per given 'lrr'"),
        ("stages.dropout.space.width=0.5", "width comes with the weights of stage grid"),
        ("stages.dropout.space.weights=imagenet", "weights comes with the weights of stage grid"),
        ("stages.dropout.name=grid", "two stages are named 'grid'"),
        ("confirm=2", "confirm.seeds given 2; allowed: 3 to 1,000; a statement about settings needs 3 seeds"),
        ("confirm={seeds: 5, contenders: 1}", "confirm.contenders given 1; allowed: auto, or a whole number from 2"),
        ("confirm={contenders: best}", "confirm.contenders given 'best'; it should be 'auto' or a valid integer"),
        ("confirm={seed: 5}", "confirm.seed is not a key. Did you mean confirm.seeds?"),
        ("stages.grid.search={method: random}", "method random needs trials"),
        ("stages.grid.search={trials: 3}", "a grid has as many trials as cells"),
        ("train.epochs", "--set train.epochs: give KEY=VALUE"),
        ("name=../up", "name given '../up'; allowed: up to 80 letters, digits, - and _, of which the first is a "),
    ],
)
def test_impossible_settings_are_refused(value: str, complaint: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_sweep("part1", values=[value])
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("grid", "tune", "fits"),
    [
        ("warmup_epochs: 1.0", "lr_schedule: one-cycle", False),
        ("warmup_epochs: {grid: [0.0, 1.0]}", "lr_schedule: {grid: [cosine, one-cycle]}", False),
        ("warmup_epochs: 1.0", "lr_schedule: {grid: [constant, cosine]}", True),
        ("warmup_epochs: 1.0", "{warmup_epochs: 0.0, lr_schedule: one-cycle}", True),
        (
            "{lr_schedule: {grid: [cosine, constant]}, warmup_epochs: {grid: [1.0, 2.0], when: {lr_schedule: cosine}}}",
            "lr_schedule: one-cycle",
            False,
        ),
    ],
)
def test_what_a_stage_inherits_must_fit_too(tmp_path: Path, grid: str, tune: str, fits: bool) -> None:
    spaces = [space if space.startswith("{") else f"{{{space}}}" for space in (grid, tune)]
    text = f"name: mine\nstages:\n  - {{name: grid, space: {spaces[0]}}}\n"
    text += f"  - {{name: tune, start_from: {{stage: grid}}, space: {spaces[1]}}}\n"
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    if fits:
        load_sweep(tmp_path / "mine.yaml")
        return
    with pytest.raises(SpecError, match=r"stages.tune.space.* one-cycle: it has a warm-up of its own"):
        load_sweep(tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    ("value", "seeds"), [("true", 5), ("7", 7), ("{}", 5), ("{seeds: 4}", 4), ("false", None), ("null", None)]
)
def test_confirm_can_be_given_briefly(value: str, seeds: int | None) -> None:
    sweep = load_sweep("part1", values=[f"confirm={value}"])
    assert (sweep.confirm and sweep.confirm.seeds) == seeds
    assert from_yaml(to_yaml(sweep), "sweep.yaml") == sweep
    assert ("confirm" in sweep.to_dict()) == (seeds is not None)


def test_a_number_of_seeds_keeps_the_rest_of_confirm() -> None:
    tune = load_sweep("tune", profile="quick", confirm=6).confirm
    assert tune is not None
    assert (tune.seeds, tune.contenders) == (6, 3)
    assert load_sweep("tune", confirm=0).confirm is None


def test_unknown_sweeps_files_and_profiles_are_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"no sweep named 'prt1'. Did you mean part1"):
        load_sweep("prt1")
    with pytest.raises(SpecError, match=r"no sweep file .*none\.yaml"):
        load_sweep(tmp_path / "none.yaml")
    with pytest.raises(SpecError, match=r"no profile 'quik'. Did you mean quick"):
        load_sweep("part1", profile="quik")


def test_a_table_of_images_is_no_sweep(tmp_path: Path) -> None:
    (tmp_path / "all.CSV").write_text("path,label\n")
    with pytest.raises(SpecError, match=r"all\.CSV is no sweep file.*\n  cnnsearch init .*all\.CSV"):
        load_sweep(tmp_path / "all.CSV")


def test_sweeps_folder_holds_the_shipped_sweeps() -> None:
    shipped = Path(__file__).parents[2] / "cnnsearch" / "shipped"
    for file in shipped.glob("*.yaml"):
        assert (shipped.parents[1] / "sweeps" / file.name).read_bytes() == file.read_bytes()


def test_a_sweep_is_frozen() -> None:
    sweep: Sweep = load_sweep("part1")
    with pytest.raises(ValueError, match="frozen"):
        sweep.train.epochs = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "split"),
    [
        (["data.split.train=0.7"], {"method": "stratified", "train": 0.7, "val": 0.2, "seed": 0}),
        (["data.split.val=5", "data.split.seed=3"], {"method": "stratified", "train": 0.6, "val": 5, "seed": 3}),
        (["data.split.train_per_class=7"], {"method": "fill", "train_per_class": 7, "val_per_class": 20}),
        (
            ["data.split={method: stratified}", "data.split.train_per_class=7"],
            {"method": "fill", "train_per_class": 7, "val_per_class": 20},
        ),
    ],
)
def test_a_key_of_a_split_says_which_kind(given: list[str], split: dict[str, Any]) -> None:
    assert load_sweep("part1", values=given).to_dict()["data"]["split"] == split


@pytest.mark.parametrize("given", [["data.split.train=0.7", "data.split.train_per_class=7"], ["data.split.trian=0.7"]])
def test_keys_of_no_kind_of_split_are_refused(given: list[str]) -> None:
    with pytest.raises(SpecError, match=r"data\.split\.(train|trian|train_per_class) is not a key"):
        load_sweep("part1", values=given)


def test_all_mistakes_of_a_file_are_told_at_once() -> None:
    with pytest.raises(SpecError) as told:
        load_sweep("part1", values=["train.lr=x", "train.epochs=-1", "data.foo=1", "train.learning_rate=1"])
    lines = str(told.value).splitlines()
    assert lines[0] == "4 mistakes"
    assert [line for line in lines if "train.lr given 'x'" in line]
    assert [line for line in lines if "train.epochs given -1" in line]
    assert [line for line in lines if "data.foo is not a key" in line]
    assert [line for line in lines if "Did you mean train.lr?" in line]


SEVERAL = """name: mine
seeds: [1, 1]
train: {epochs: -1, modle: plain}
stages:
  - name: a
    space: {lrr: {grid: [1]}, lr: {uniform: [0.1, 0.2]}, dropout: {grid: [2, 3]}}
  - name: b
    space: {learning_rate: 0.1, model: {gird: [plain]}}
"""
TOGETHER = """name: mine
data: {image_size: 20}
stages:
  - name: a
    space: {model: vit_b_16}
  - name: a
    start_from: {stage: none}
    space: {lr: 0.1}
    stop_early: {method: asha, min_epochs: 999}
"""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            SEVERAL,
            [
                "line 2: seeds has a seed twice: [1, 1]",
                "line 3: train.epochs given -1; ",
                "line 3: train.modle is not a key. Did you mean train.model?",
                "line 6: stages.a.space.lrr is not a key. Did you mean stages.a.space.lr?",
                "line 6: stages.a.space.lr uniform cannot be enumerated; ",
                "line 6: stages.a.space.dropout.grid given 2; ",
                "line 8: stages.b.space.learning_rate is not a key. Did you mean stages.b.space.lr?",
                "line 8: stages.b.space.model: given {'gird': ['plain']}; allowed: ",
            ],
        ),
        (
            TOGETHER,
            [
                "line 5: stages.a.space image_size 20 with model vit_b_16: it must be a multiple of 16",
                "line 6: stages.a.name two stages are named 'a'",
                "line 7: stages.a.start_from.stage given 'none'; allowed: a",
                "line 9: stages.a.stop_early.min_epochs given 999; ",
            ],
        ),
    ],
)
def test_mistakes_of_all_kinds_are_told_at_once(tmp_path: Path, text: str, told: list[str]) -> None:
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_sweep(tmp_path / "mine.yaml")
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{len(told)} mistakes"
    for start in told:
        assert any(start in line for line in lines), (start, lines)
