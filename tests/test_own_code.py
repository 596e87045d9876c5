"""A sweep over networks of a user's own, from the command line to the use of what was trained."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

import cnnsearch
from cnnsearch.cli import app
from cnnsearch.errors import RequestError
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.report.networks import networks
from cnnsearch.report.using import using
from cnnsearch.results.folder import Results
from cnnsearch.results.kept_code import kept_file
from cnnsearch.results.tables import load
from cnnsearch.spec import own_code
from cnnsearch.spec.own_code import read_code
from cnnsearch.spec.settings import Settings
from cnnsearch.training.models.code import make
from tests.data.making import picture
from tests.own_code import NETS, write_nets, write_sweep

Invoke = Callable[..., Result]


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Run a command in a folder with the files, as if in a process that knows of none of them."""
    write_nets(tmp_path)
    write_sweep(tmp_path)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(own_code, "_TRUSTED", {})
        monkeypatch.setattr("sys.argv", ["cnnsearch", *arguments])
        return CliRunner().invoke(app, list(arguments))

    return run


@pytest.fixture
def untried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the process that tries networks before the first trial: it imports torch."""
    monkeypatch.setattr("cnnsearch.training.models.checked_code.answer", lambda request: {})


SWEEP = ("sweep", "mine.yaml", "--code", "nets.py", "--serial")


def records(folder: str = "results/mine") -> dict[str, Any]:
    return Results(Path(folder)).records()


def test_a_sweep_trains_them(invoke: Invoke) -> None:
    result = invoke(*SWEEP)
    assert result.exit_code == 0, result.output
    assert {record.settings.model_args["depth"] for record in records().values()} == {1, 2}
    trials = load(Path("results/mine")).trials
    assert set(trials["model_args"]) == {'{"depth": 1}', '{"depth": 2}'}
    assert re.search(r"best +depth \d", result.output)


@pytest.mark.usefixtures("untried")
def test_what_fails_while_training_is_told_with_the_user_s_own_line(invoke: Invoke) -> None:
    line = "        assert len(self.blocks) > 1 or not self.training, 'thin'"
    broken = NETS.replace("        x = self.pool(", f"{line}\n        x = self.pool(")
    Path("nets.py").write_text(broken)
    number = broken.splitlines().index(line) + 1
    assert invoke(*SWEEP).exit_code == 1
    (failed,) = (record for record in records().values() if record.status == "failed")
    assert failed.error == f"AssertionError: thin (nets.py, line {number}, in forward)"
    explained = invoke("explain", "results/mine", failed.trial_id).output
    assert f"at nets.py, line {number}, in forward" in explained
    assert "Mend the network's code" in explained
    assert "--code nets.py" in explained


@pytest.mark.usefixtures("untried")
def test_a_changed_network_is_new_trials_and_an_unchanged_one_none(invoke: Invoke) -> None:
    assert invoke(*SWEEP).exit_code == 0
    before = set(records())
    assert "0 trials" in invoke(*SWEEP).output or set(records()) == before
    Path("nets.py").write_text(NETS.replace("MaxPool2d", "AvgPool2d"))
    assert invoke(*SWEEP).exit_code == 0
    assert len(set(records()) - before) == 2
    assert len(load(Path("results/mine")).trials) == 2


@pytest.mark.usefixtures("untried")
def test_a_sweep_file_alone_runs_no_code(invoke: Invoke) -> None:
    assert invoke(*SWEEP).exit_code == 0
    result = invoke("sweep", "results/mine/sweep.yaml", "--serial", "--out", "other")
    assert result.exit_code == 2
    assert "SmallNet is from the file nets.py, and a sweep file alone runs no code" in result.output
    assert "--code nets.py" in result.output
    assert not Path("other").exists()


@pytest.mark.usefixtures("untried")
@pytest.mark.parametrize(
    "fine_tune", ["full", *(pytest.param(name, marks=pytest.mark.after) for name in ("head", "last-1-convs"))]
)
def test_they_start_from_a_file_of_weights(fine_tune: str, invoke: Invoke) -> None:
    nets = read_code("nets.py")
    own_code.trust([nets])
    settings = Settings.model_validate({"model": "SmallNet", "code": nets.digest, "seed": 5, "image_size": 8})
    weights = make(settings, 3).state_dict()  # of other classes: its head is drawn anew
    save_file(weights, "weights.safetensors")
    changes = ["weights=weights.safetensors", f"fine_tune={fine_tune}", "lr=1.0e-6", "model_args.depth=1"]
    result = invoke(*SWEEP, *(f"--set=stages.grid.space.{one}" for one in changes))
    assert result.exit_code == 0, result.output
    (trial_id,) = records()
    kept = Results(Path("results/mine")).trial(trial_id).load_weights()
    assert kept["head.weight"].shape == (10, 16)
    trained = {"full": kept.keys(), "head": {"head.weight", "head.bias"}}
    assert kept.keys() == trained.get(fine_tune, {"head.weight", "head.bias", "blocks.0.0.weight", "blocks.0.0.bias"})
    if fine_tune != "head":
        assert torch.allclose(kept["blocks.0.0.weight"], weights["blocks.0.0.weight"], atol=1e-4)


@pytest.mark.usefixtures("untried")
@pytest.mark.filterwarnings("error::UserWarning:optuna")
@pytest.mark.parametrize("method", ["tpe", "nsga2", "random"])
def test_a_searcher_suggests_their_arguments(method: str, invoke: Invoke) -> None:
    search = {"method": method, "trials": 5}
    search |= {"objectives": ["val_accuracy", "parameters"]} if method == "nsga2" else {}
    space = {
        "model": "AnyNet",
        "model_args.depth": {"int": [1, 3]},
        "model_args.sizes": {"choice": [[4, 4], [8]]},
        "model_args.extra": {"choice": [None, {"a": 1}, "word"]},
        "model_args.rate": {"uniform": [0.1, 0.5]},
    }
    write_nets(Path(), ANY)
    stage = f"--set=stages=[{json.dumps({'name': 'find', 'search': search, 'space': space})}]"
    assert invoke(*SWEEP, stage).exit_code == 0
    found = [record.settings.model_args for record in records().values()]
    assert len(found) == 5
    assert all(one["sizes"] in ([4, 4], [8]) and 0.1 <= one["rate"] <= 0.5 for one in found)
    assert all(one["extra"] in (None, {"a": 1}, "word") and one["depth"] in (1, 2, 3) for one in found)
    assert "5 trials (5 already done), nothing to run" in invoke(*SWEEP, stage, "--dry-run").output


ANY = """
from torch import nn

def AnyNet(num_classes, depth, sizes, extra, rate):
    layers = [layer for _ in range(depth) for layer in (nn.ReLU(), nn.Dropout(rate))]
    return nn.Sequential(nn.Flatten(), nn.Linear(192, sizes[0]), *layers, nn.Linear(sizes[0], num_classes))
"""


def test_what_is_wrong_with_a_network_is_said_before_anything_starts(invoke: Invoke) -> None:
    Path("nets.py").write_text(NETS.replace("return self.head(self.drop(x", "return (self.drop(x"))
    result = invoke(*SWEEP)
    assert result.exit_code == 2
    assert "nets.py, line 17: SmallNet gives float32 of the shape [4, 16] for 4 images, not logits" in result.output
    assert records() == {}


@pytest.fixture
def results(invoke: Invoke, untried: None) -> Path:
    """Results of the sweep, with the kept file; the file that was named has changed since."""
    assert invoke(*SWEEP).exit_code == 0
    Path("nets.py").write_text("raise SystemExit('this ran')\n" + NETS)
    (kept,) = Path("results/mine/code").glob("*/nets.py")
    assert kept.read_text() == NETS
    assert (kept.parent / "blocks.py").is_file()
    return kept


USES = (
    ("predict", "results/mine", "image.png", "--json"),
    ("export", "results/mine", "exported"),
    ("reproduce", "results/mine", "best"),
)


def test_a_copy_with_a_link_in_it_is_not_read(results: Path) -> None:
    digest = results.parent.name
    assert kept_file(Path("results/mine"), digest) == results
    (results.parent / "more").symlink_to(Path("/"))
    assert kept_file(Path("results/mine"), digest) is None
    assert kept_file(Path("results/mine"), "../../code/" + digest) is None


@pytest.mark.parametrize("command", USES, ids=lambda command: command[0])
def test_a_results_folder_alone_runs_no_code(command: tuple[str, ...], results: Path, invoke: Invoke) -> None:
    picture(0).save("image.png")
    alone = invoke(*command)
    assert alone.exit_code == 2
    assert "is of SmallNet, a network of somebody's own code, which runs only if you name it" in alone.output
    assert f"--code {results.absolute()}" in alone.output or f"--code {results}" in alone.output
    changed = invoke(*command, "--code", "nets.py")
    assert changed.exit_code == 2
    assert "--code nets.py: this is not the code that trial" in changed.output
    assert "this ran" not in changed.output
    named = invoke(*command, "--code", str(results))
    assert named.exit_code == 0, named.output


def test_what_is_exported_stands_alone_with_its_code(results: Path, invoke: Invoke) -> None:
    assert (
        invoke("export", "results/mine", "exported", "--format", "safetensors", "--code", str(results)).exit_code == 0
    )
    assert Path("exported/code/nets.py").read_text() == NETS
    assert "`SmallNet` of the code in `code/`" in Path("exported/README.md").read_text()
    assert "| model_args.depth |" in Path("exported/README.md").read_text()


def test_commands_that_are_told_name_the_kept_file(results: Path, invoke: Invoke) -> None:
    told = json.loads(invoke("explain", "results/mine", "best", "--json").stdout)
    assert told["repeat"].endswith(f" --code {results}")
    assert "--code nets.py" in told["again"]
    assert told["trial"]["settings"]["model_args.depth"] in (1, 2)
    assert told["neighbours"][0]["changed"][0]["axis"] == "model_args.depth"
    evidence = Evidence(load(Path("results/mine")))
    found = using(evidence)
    assert found is not None
    assert found.command == f"cnnsearch predict results/mine IMAGE... --code {results}"
    assert f"code=[{str(results)!r}]" in found.lines
    assert networks(evidence)[0].line.startswith("A network of one's own, from nets.py; ")


def test_code_for_a_network_that_needs_none_is_refused(invoke: Invoke) -> None:
    small = ["--set", "stages.grid.space={model: plain}", "--set", "train.width=0.05"]
    assert invoke("sweep", "mine.yaml", "--serial", *small).exit_code == 0
    picture(0).save("image.png")
    result = invoke("predict", "results/mine", "image.png", "--code", "nets.py")
    assert result.exit_code == 2
    assert "uses no code of your own; leave it out" in result.output


def test_a_changed_copy_is_not_offered(results: Path, invoke: Invoke) -> None:
    results.write_text(NETS.replace("MaxPool2d", "AvgPool2d"))
    result = invoke("predict", "results/mine", "image.png")
    assert result.exit_code == 2
    assert "does not hold it as it was" in result.output


@pytest.mark.usefixtures("untried")
def test_nothing_is_written_through_a_link(invoke: Invoke) -> None:
    Path("elsewhere").mkdir()
    Path("results/mine").mkdir(parents=True)
    Path("results/mine/code").symlink_to(Path("elsewhere").absolute())
    result = invoke(*SWEEP)
    assert result.exit_code == 2
    assert "is a link" in result.output
    assert not any(Path("elsewhere").iterdir())


@pytest.mark.usefixtures("untried")
def test_a_sealed_test_set_is_opened_with_the_code(invoke: Invoke) -> None:
    assert invoke(*SWEEP, "--set", "evidence.test=sealed").exit_code == 0
    alone = invoke("unseal", "results/mine")
    assert alone.exit_code == 2
    assert "which runs only if you name it" in alone.output
    assert invoke("unseal", "results/mine", "--code", "nets.py").exit_code == 0
    assert all(record.best.test_accuracy is not None for record in records().values())


def test_in_a_notebook_the_file_is_named_too(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_code, "_TRUSTED", {})
    picture(0).save("image.png")
    with pytest.raises(RequestError, match=r"In a notebook: code="):
        cnnsearch.load("results/mine").best()
    best = cnnsearch.load("results/mine").best(code=[results])
    assert len(best.predict("image.png")) == 1
    assert type(best.model().network).__name__ == "SmallNet"
