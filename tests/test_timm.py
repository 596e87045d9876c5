"""A sweep over timm's models, from the command line to the use of what was trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from cnnsearch.cli import app
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.report.networks import networks
from cnnsearch.results.folder import Results
from cnnsearch.results.tables import load
from cnnsearch.training.models import checked_timm, pretrained
from cnnsearch.training.models.pretrained import Pretrained
from tests.data.making import fill_folder, picture

SWEEP = """
name: mine
data: {source: images, image_size: 32, split: {method: fill, train_per_class: 8, val_per_class: 4}}
train: {epochs: 2, batch_size: 16, precision: fp32, weights: WEIGHTS}
run: {keep: all}
stages:
  - name: grid
    space:
      model: {grid: [timm:test_efficientnet.r160_in1k, timm:test_vit.r160_in1k]}
      fine_tune: {grid: FINE_TUNE}
"""
MODELS = ("timm:test_efficientnet.r160_in1k", "timm:test_vit.r160_in1k")
Invoke = Callable[..., Result]


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Run a command in a folder with images; what processes that import torch would look up is known."""
    monkeypatch.chdir(tmp_path)
    fill_folder(tmp_path / "images", {"cat": 16, "owl": 16})
    monkeypatch.setenv("CNNSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(checked_timm, "_answer", lambda pairs: dict.fromkeys(pairs, ""))

    def run(*arguments: str) -> Result:
        monkeypatch.setattr("sys.argv", ["cnnsearch", *arguments])
        return CliRunner().invoke(app, list(arguments))

    return run


def write_sweep(fine_tune: str, weights: str = "none") -> None:
    Path("mine.yaml").write_text(SWEEP.replace("FINE_TUNE", fine_tune).replace("WEIGHTS", weights), encoding="utf-8")


def test_what_was_trained_is_used(invoke: Invoke) -> None:
    write_sweep("[full]")
    result = invoke("sweep", "mine.yaml", "--serial")
    assert result.exit_code == 0, result.output
    tables = load(Path("results/mine"))
    assert set(tables.trials["model"]) == set(MODELS)
    lines = [network.line for network in networks(Evidence(tables))]
    assert lines[0].startswith("timm's test_efficientnet: EfficientNet: inverted residual blocks; ")
    assert lines[1].startswith(
        "timm's test_vit: vision transformer: attention between patches; its published weights are r160_in1k; "
    )
    picture(0).save("image.png")
    told = invoke("predict", "results/mine", "image.png", "--json")
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["images"] == 1
    for model in MODELS:
        folder = f"exported-{model.rpartition('_')[0].removeprefix('timm:')}"
        (trial,) = tables.trials.loc[tables.trials["model"] == model, "trial_id"]
        exported = invoke("export", "results/mine", folder, "--trial", str(trial))
        assert exported.exit_code == 0, exported.output
        assert f"timm's `{model.removeprefix('timm:')}`" in Path(folder, "README.md").read_text(encoding="utf-8")
    again = invoke("reproduce", "results/mine", "best")
    assert again.exit_code == 0, again.output


@pytest.fixture
def published(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Files in place of what the hub would give, with the preprocessing that timm says."""
    from cnnsearch.training.models.timm_models import preprocessing

    files = {}
    for model in MODELS:
        torch.manual_seed(5)
        file = Path.cwd() / f"{model.removeprefix('timm:')}.safetensors"
        save_file(timm.create_model(model.removeprefix("timm:")).state_dict(), file)
        files[model] = file

    def find(model: str, weights: str) -> Pretrained:
        assert weights == "pretrained"
        note = "under teacher" if model == MODELS[0] else ""
        return Pretrained(files[model], pretrained.digest_of(files[model]), preprocessing(model), note)

    monkeypatch.setattr(pretrained, "_find", find)
    return files


def test_published_weights_are_fine_tuned_on_cached_features(
    invoke: Invoke, published: dict[str, Path], tmp_path: Path
) -> None:
    write_sweep("[head, last-1-convs]", "pretrained")
    result = invoke("sweep", "mine.yaml", "--serial")
    assert result.exit_code == 0, result.output
    records = Results(Path("results/mine")).records()
    assert {record.status.value for record in records.values()} == {"done"}
    assert f"note: {published[MODELS[0]]} is read under teacher" in result.output.replace("\n       ", " ")
    (run,) = json.loads(Path("results/mine/provenance.json").read_text(encoding="utf-8"))["runs"]
    assert [(one["model"], one["taken"]) for one in run["weights"]] == [
        (MODELS[0], "under teacher"),
        (MODELS[1], "all of it"),
    ]
    for trial_id, record in records.items():
        kept = Results(Path("results/mine")).trial(trial_id).load_weights()
        if record.settings.fine_tune == "head":
            assert len(kept) == 2
    # Of the transformer's one convolution, which comes first, nothing is constant before.
    assert len(list((tmp_path / "cache" / "features").glob("*.pt"))) == 3
    picture(0).save("image.png")
    assert invoke("predict", "results/mine", "image.png").exit_code == 0


def test_a_sweep_names_weights_that_there_are(invoke: Invoke) -> None:
    write_sweep("[head]", "imagenet")
    result = invoke("sweep", "mine.yaml", "--serial")
    assert result.exit_code == 2
    assert "only torchvision's models have them; allowed: none, pretrained, a path to a file" in result.output
    write_sweep("[head]")
    named = invoke("sweep", "mine.yaml", "--serial", "--set", "stages.grid.space.model=timm:a b")
    assert named.exit_code == 2
    assert "timm:NAME, such as timm:convnext_atto.d2_in1k" in named.output
    assert not Path("results").exists()
