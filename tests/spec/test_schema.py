"""The JSON Schema of sweep files and the loader agree, but for what no schema can know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from cnnsearch.errors import SpecError
from cnnsearch.spec.document import read
from cnnsearch.spec.load import load_sweep, to_yaml
from cnnsearch.spec.schema import FILE, schema_text, sweep_schema
from cnnsearch.spec.settings import AXES
from cnnsearch.spec.sweep import Sweep

ROOT = Path(__file__).parents[2]
SCHEMA = Draft7Validator(sweep_schema())
GRID = "name: mine\nstages: [{name: grid, space: {lr: {grid: [0.1, 0.01]}}}]\n"
OF_A_STAGE = "name: mine\nstages:\n  - {{name: one, {}}}\n"
OF_A_SPACE = "name: mine\nstages:\n  - {{name: one, search: {{method: random, trials: 4}}, space: {{{}}}}}\n"
OF_A_GRID = "name: mine\nstages:\n  - {{name: one, space: {{{}}}}}\n"
OF_A_SEARCH = "name: mine\nstages:\n  - {{name: one, search: {{{}}}, space: {{lr: {{uniform: [0.1, 0.2]}}}}}}\n"
OF_A_RULE = "name: mine\nstages:\n  - {{name: one, space: {{lr: 0.1}}, stop_early: {{method: asha, {}}}}}\n"

GOOD = [
    GRID,
    *(
        GRID + line
        for line in (
            "title: Mine\nquestion: Which?",
            "metric: macro_f1",
            "data: {source: photos, image_size: 32}",
            "data: {split: {}}",
            "data: {split: {train: 0.7}}",
            "data: {split: {method: fill, train_per_class: 5}}",
            "data: {split: {val_per_class: 5}}",
            "data: {grey_range: [0, 4095], on_bad_image: skip, layout: classes, follow_links: true}",
            "train: {epochs: 3, lr: 1, dropout: 0.5, optimizer: sgd, fine_tune: last-2-convs}",
            "train: {lr: 1e-4, augment: rand-10, model: resnet18, weights: pretrained}",
            "train: {model: timm:convnext_atto.d2_in1k}",
            "train: {max_seconds: 20, weights: some/file.pth}",
            "seeds: [0, 1, 2]",
            "run: {trials_at_once: 2, gpus_per_trial: 0.25, keep: all, dashboard: false}",
            "run: {gpus_per_trial: 4, threads_per_trial: auto, checkpoint_epochs: 2}",
            "evidence: {test: sealed}",
            "confirm: true",
            "confirm: false",
            "confirm: 0",
            "confirm: 7",
            "confirm: {seeds: 3, contenders: 4, margin: 0.5 points}",
            "confirm: {margin: 1, contenders: auto}",
            "profiles: {quick: {train.epochs: 3, data.image_size: 32, seeds: [1], metric: loss}}",
            "profiles: {quick: {stages.grid.space.lr.grid: [0.5], confirm: 5, data.split.train: 0.5}}",
            "profiles: {quick: {train: {epochs: 2}, run.keep: state, data.split: {method: auto}}}",
            "profiles: {quick: {}}",
            "profiles:",
        )
    ),
    *(
        OF_A_GRID.format(line)
        for line in (
            "",
            "lr: 0.1",
            "model: {grid: [plain, residual]}, batch_size: {grid: [16, 32]}",
            "model: {grid: [plain, residual]}, dropout: {grid: [0, 0.2], when: {model: plain}}",
            "model: {grid: [plain, residual]}, dropout: {grid: [0, 0.2], when: {model: [plain]}}",
            "fine_tune: {grid: [full, head, last-3-convs]}, image_size: {grid: [16, 32]}",
            "augment: {grid: [none, flip+crop, rand-1]}",
            "seed: {grid: [0, 1]}, width: {grid: [1, 0.5]}",
        )
    ),
    *(
        OF_A_SPACE.format(line)
        for line in (
            "lr: {loguniform: [1e-4, 1]}",
            "dropout: {uniform: [0, 0.5]}, batch_size: {int: [8, 64]}",
            "weight_decay: {choice: [0, 0.1]}, epochs: {int: [1, 5]}",
            "warmup_epochs: {int: [0, 3]}",
        )
    ),
    *(
        OF_A_SEARCH.format(line)
        for line in (
            "method: random, trials: 5",
            "method: tpe, trials: 5, at_once: 2, seed: 3",
            "method: tpe, trials: 5, objectives: [val_loss]",
            "method: gp, trials: 5, first: [{lr: 0.15}], prior: [results/a]",
            "method: qmc, trials: 8",
            "method: nsga2, trials: 5, objectives: [val_accuracy, seconds]",
            "method: cmaes, trials: 1000000",
        )
    ),
    OF_A_STAGE.format("space: {lr: 0.1}, search: {}"),
    OF_A_STAGE.format("space: {lr: 0.1}, search: {method: grid, trials: null}"),
    OF_A_STAGE.format("space: {lr: 0.1}, stop_early: null"),
    OF_A_STAGE.format("space: {lr: 0.1}, stop_early: {method: asha, reduction_factor: 2, metric: val_loss}"),
    OF_A_STAGE.format("space: {lr: 0.1}, stop_early: {method: patience, patience: 3, min_change: 0.1}"),
    OF_A_STAGE.format("space: {lr: 0.1}") + "  - {name: two, start_from: {stage: one, per: lr}, space: {dropout: 0.1}}",
    OF_A_STAGE.format("space: {lr: 0.1}") + "  - {name: two, start_from: {stage: one, per: [lr]}, space: {}}",
]
BAD = [
    "name: mine\n",
    "stages: [{name: grid, space: {}}]\n",
    "name: mine\nstages: []\n",
    "name: my sweep\nstages: [{name: grid, space: {}}]\n",
    "name: mine\nstages: [{space: {}}]\n",
    "name: mine\nstages: [{name: grid}]\n",
    "name: mine\nstages: [{name: Grid, space: {}}]\n",
    "name: mine\nstages: {name: grid, space: {}}\n",
    *(
        GRID + line
        for line in (
            "stage: []",
            "title: 3",
            "metric: f1",
            "data: photos",
            "data: {image_size: 4}",
            "data: {image_size: '32'}",
            "data: {split: {method: fil}}",
            "data: {split: {method: fill, train: 3}}",
            "data: {split: {train: 0}}",
            "data: {split: {train_per_class: 5, val: 3}}",
            "data: {grey_range: [0]}",
            "data: {grey_range: [0, 70000]}",
            "data: {follow_links: 1}",
            "data: {on_bad_image: ignore}",
            "train: {epoch: 5}",
            "train: {epochs: -5}",
            "train: {epochs: 5.5}",
            "train: {lr: '0.1'}",
            "train: {lr: true}",
            "train: {dropout: 1.0}",
            "train: {model: resnet-50}",
            "train: {model: 'timm:a b'}",
            "train: {fine_tune: last-0-convs}",
            "train: {augment: rand-11}",
            "train: {weights: ''}",
            "train: {optimizer: lion}",
            "train: {image_size: 32}",
            "train: {model_args: {num_classes: 3}}",
            "train: {max_seconds: 0}",
            "seeds: 3",
            "seeds: [1, 1]",
            "seeds: [-1]",
            "run: {gpus_per_trial: 1.5}",
            "run: {gpus_per_trial: 65}",
            "run: {gpus_per_trial: some}",
            "run: {trials_at_once: 0}",
            "run: {max_retries: 101}",
            "evidence: {test: closed}",
            "confirm: 2",
            "confirm: yes",
            "confirm: {seeds: 2}",
            "confirm: {contenders: 1}",
            "confirm: {margin: much}",
            "profiles: {quick: {train.epoch: 3}}",
            "profiles: {quick: {train.epochs: 0}}",
            "profiles: {quick: 3}",
            "profiles: [quick]",
        )
    ),
    *(
        OF_A_GRID.format(line)
        for line in (
            "learning_rate: 0.1",
            "lr: [0.1]",
            "lr: {grid: 0.1}",
            "lr: {grid: []}",
            "lr: {grid: [0.1, 0.1]}",
            "lr: {grid: [0.1], choice: [0.1]}",
            "lr: {grid: [0.1, 0]}",
            "lr: {list: [0.1]}",
            "lr: {choice: [0.1]}",
            "lr: {uniform: [0.1, 0.2]}",
            "lr: 0",
            "model: {grid: [plain, 3]}",
            "augment: {grid: [none, turn]}",
            "max_seconds: 5",
            "dropout: {grid: [0.1], when: {}}",
            "model_args.num_classes: 5",
        )
    ),
    *(
        OF_A_SPACE.format(line)
        for line in (
            "lr: {loguniform: [0, 1]}",
            "lr: {uniform: [0.1]}",
            "lr: {uniform: [0.1, 0.2, 0.3]}",
            "lr: {uniform: [low, high]}",
            "batch_size: {uniform: [8, 64]}",
            "batch_size: {int: [8, 64.5]}",
            "model: {int: [1, 2]}",
            "dropout: {uniform: [0, 1]}",
        )
    ),
    *(
        OF_A_SEARCH.format(line)
        for line in (
            "",
            "method: random",
            "method: tpe",
            "method: bayes, trials: 3",
            "method: random, trials: 0",
            "method: random, trials: 3, at_once: 2",
            "method: random, trials: 3, first: [{lr: 0.1}]",
            "method: qmc, trials: 3, objectives: [val_loss]",
            "method: nsga2, trials: 3",
            "method: nsga2, trials: 3, objectives: [val_loss]",
            "method: nsga2, trials: 3, objectives: [val_loss, val_loss]",
            "method: tpe, trials: 3, objectives: [seconds]",
            "method: tpe, trials: 3, objectives: [val_loss, val_accuracy]",
        )
    ),
    OF_A_STAGE.format("space: {lr: 0.1}, search: {trials: 3}"),
    OF_A_STAGE.format("space: {lr: 0.1}, stop_early: {}"),
    OF_A_STAGE.format("space: {lr: 0.1}, stop_early: {method: asha, patience: 3}"),
    OF_A_STAGE.format("space: {lr: 0.1}, stop_early: {method: asha, reduction_factor: 1}"),
    OF_A_STAGE.format("space: {lr: 0.1}, start_from: {best: val_loss}"),
    OF_A_STAGE.format("space: {lr: 0.1}, start_from: {stage: one, per: learning}"),
    OF_A_STAGE.format("space: {lr: 0.1}, start_from: {stage: one, best: accuracy}"),
]
UNKNOWABLE = {
    "bounds in order": OF_A_SPACE.format("lr: {uniform: [0.2, 0.1]}"),
    "a whole number with a point": GRID + "train: {epochs: 5.0}",
    "the user's own network without `--code`": GRID + "train: {model: SmallNet}",
    "an argument of a network that takes none": GRID + "train: {model_args: {depth: 3}}",
    "a network and its image size": GRID + "data: {image_size: 16}\ntrain: {model: inception_v3}",
    "settings that exclude each other": GRID + "train: {model: resnet18, width: 0.5}",
    "names of other stages": OF_A_STAGE.format("space: {}, start_from: {stage: earlier}"),
    "two stages of one name": "name: mine\nstages: [{name: a, space: {}}, {name: a, space: {}}]",
    "a condition on a later axis": OF_A_GRID.format("lr: {grid: [0.1, 0.2], when: {model: plain}}, model: plain"),
    "more epochs than a trial has": OF_A_RULE.format("min_epochs: 100"),
    "a rule by a metric that is not computed": OF_A_RULE.format("metric: val_ece"),
    "a searcher without anything to search": OF_A_STAGE.format("search: {method: tpe, trials: 3}, space: {lr: 0.1}"),
    "first settings outside the space": OF_A_SEARCH.format("method: tpe, trials: 3, first: [{lr: 0.5}]"),
    "too many trials": OF_A_GRID.format(f"seed: {{grid: [{', '.join(map(str, range(1001)))}]}}, batch_size: {{grid: "
                                        f"[{', '.join(map(str, range(1, 1001)))}]}}"),
    "what a profile makes of a stage": GRID + "profiles: {quick: {stages.grid.space.lr.grid: [0]}}",
    "the names in a path of `--set`": GRID + "profiles: {quick: {stages.other.space: {}}}",
    "bounds of grey": GRID + "data: {grey_range: [9, 3]}",
}  # fmt: skip
"""What the schema cannot know -> a file that it takes and the loader does not."""


def is_sound(tree: Any) -> bool:
    return bool(SCHEMA.is_valid(tree))


def tree_of(tmp_path: Path, text: str) -> tuple[Path, Any]:
    file = tmp_path / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    return file, read(file).tree


def test_a_hundred_files_are_enough() -> None:
    assert len({*GOOD, *BAD}) == len(GOOD) + len(BAD)
    assert len(GOOD) >= 50
    assert len(BAD) >= 90


@pytest.mark.parametrize("text", GOOD)
def test_what_can_be_loaded_is_valid(tmp_path: Path, text: str) -> None:
    file, tree = tree_of(tmp_path, text)
    sweep = load_sweep(file)
    assert [error.message for error in SCHEMA.iter_errors(tree)] == []
    resolved = sweep.to_dict()  # as results folders keep it
    assert [error.message for error in SCHEMA.iter_errors(resolved)] == []


@pytest.mark.parametrize("text", BAD)
def test_what_cannot_be_loaded_is_invalid(tmp_path: Path, text: str) -> None:
    file, tree = tree_of(tmp_path, text)
    with pytest.raises(SpecError):
        load_sweep(file)
    assert not is_sound(tree)


@pytest.mark.parametrize("what", list(UNKNOWABLE))
def test_what_a_schema_cannot_know_is_listed(tmp_path: Path, what: str) -> None:
    file, tree = tree_of(tmp_path, UNKNOWABLE[what])
    with pytest.raises(SpecError):
        load_sweep(file)
    assert is_sound(tree)
    assert f"- {what}" in (ROOT / "docs" / "editors.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["part1", "part2", "tune"])
def test_the_shipped_sweeps_are_valid(name: str) -> None:
    assert is_sound(read(ROOT / "sweeps" / f"{name}.yaml").tree)


def test_networks_of_ones_own_and_their_arguments_are_valid(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text("def SmallNet(num_classes, depth=1): ...\n", encoding="utf-8")
    text = OF_A_GRID.format("model: SmallNet, model_args.depth: {grid: [1, [2], {a: 3}]}, model_args.wide: yes")
    file, tree = tree_of(tmp_path, text)
    sweep = load_sweep(file, code=[tmp_path / "nets.py"])
    assert is_sound(tree)
    assert is_sound(sweep.to_dict())
    assert is_sound({**tree, "profiles": {"deep": {"train.model_args.depth": 4}}})


def test_every_key_has_a_description_to_show() -> None:
    schema = sweep_schema()
    keys = {
        f"{part}.{key}": value
        for part, one in schema["$defs"].items()
        for key, value in one.get("properties", {}).items()
    }
    keys |= schema["properties"]
    silent = {name for name, value in keys.items() if not name.startswith("Profile.") and "description" not in value}
    assert silent <= {"data", "train", "run", "evidence", "DataSpec.split", "Stage.start_from", "Stage.search"}
    assert {*schema["$defs"]["Stage"]["properties"]["space"]["properties"]} == set(AXES)
    assert set(schema["properties"]) == {*Sweep.model_fields, "profiles"}


def test_the_file_in_the_package_is_current() -> None:
    assert FILE.read_text(encoding="utf-8") == schema_text(), "run python docs/make_reference.py"


def test_what_is_written_reads_the_same(tmp_path: Path) -> None:
    text = to_yaml(load_sweep("tune"))
    assert is_sound(tree_of(tmp_path, text)[1])
