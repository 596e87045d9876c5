"""An exported folder stands alone: it is complete, answers as recorded, and loads where this package is not there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

import cnnsearch
from cnnsearch.results.folder import Results
from cnnsearch.results.tables import load
from cnnsearch.stats import wilson
from cnnsearch.training.models.own import Plain
from cnnsearch.use import card as cards, export as module
from cnnsearch.use.choose import choose
from cnnsearch.use.export import checked_formats, export
from cnnsearch.use.programs import StandAlone, exported_program
from tests.asking import ask
from tests.report import factory
from tests.use.conftest import CLASSES, make_results

ONE = "stages=[{name: grid, space: {model: plain, width: 0.05}}]"
WHOLE = ["README.md", "classes.json", "model.onnx", "model.pt2", "preprocessing.json", "weights.safetensors"]
WITHOUT_US = "import sys; sys.modules['cnnsearch'] = None; exec(open(sys.argv[1], encoding='utf-8').read())"


@pytest.fixture(scope="module")
def exported(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The best network's folder, as the command writes it."""
    folder = tmp_path_factory.mktemp("exported") / "deep" / "best"
    done = ask(results, folder, command="export")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1:] == [
        *(f"{name:<11}  answers as recorded for all of 18 test images" for name in ("safetensors", "onnx", "pt2")),
        f"written      {folder}",
    ]
    return folder


def test_it_is_complete(exported: Path) -> None:
    assert sorted(file.name for file in exported.iterdir()) == WHOLE
    assert [file.name for file in exported.parent.iterdir()] == ["best"]
    assert json.loads((exported / "classes.json").read_text()) == list(CLASSES)


@pytest.mark.after
def test_the_cards_lines_run_without_this_package(results: Path, exported: Path, images: Path, tmp_path: Path) -> None:
    card = (exported / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    assert ["torch" in block.split("\n")[0] for block in blocks] == [True, False]
    assert [len(block.strip().split("\n\n")[1].splitlines()) for block in blocks] == [3, 3]
    place = tmp_path / "elsewhere"
    shutil.copytree(exported, place)
    wanted = cnnsearch.load(results).best().predict(images).groupby("predicted").first()["path"]
    assert len(wanted) > 1
    for name, path in wanted.items():
        with Image.open(path) as image:
            image.save(place / "image.png")
        for block in blocks:
            (place / "code.py").write_text(block, encoding="utf-8")
            command = [sys.executable, "-I", "-c", WITHOUT_US, "code.py"]
            done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=100)
            assert done.stdout.strip() == name, done.stderr


def test_the_cards_lines_turn_an_image_upright(
    results: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels, exif = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8), Image.Exif()
    exif[274] = 6  # to be turned by a quarter
    Image.fromarray(pixels).save(tmp_path / "image.png", exif=exif)
    wanted = cnnsearch.load(results).best()._classifier.square(str(tmp_path / "image.png")).transpose(2, 0, 1)
    card = (exported / "README.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for block in re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL):
        known: dict[str, Any] = {}
        exec(block.partition("probabilities")[0], known)
        np.testing.assert_array_equal(np.asarray(known["images"])[0], wanted)


def test_the_card_of_a_confirmed_setting_says_how_many_were_tried(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cards, "load", lambda *_, **__: factory.confirmed())
    best = choose(results)
    assert (
        "The best of 3 settings that were trained again on fresh seeds, out of 16 tried, by mean"
        in cards._selection(best)
    )


def test_any_number_of_images_at_a_time(exported: Path, results: Path, images: Path) -> None:
    best = cnnsearch.load(results).best()
    files = sorted(images.rglob("*.png"))[:7]
    squares = np.stack([best._classifier.square(str(file)) for file in files]).transpose(0, 3, 1, 2)
    batch = np.ascontiguousarray(squares)
    session = onnxruntime.InferenceSession(exported / "model.onnx")
    program = torch.export.load(exported / "model.pt2").module()
    assert [one.name for one in session.get_inputs()] == ["images"]
    assert session.get_inputs()[0].type == "tensor(uint8)"
    wanted = best.predict(files)["confidence"].to_numpy()
    for count in (1, 2, 7):
        found = session.run(None, {"images": batch[:count]})[0]
        assert found.shape == (count, 3)
        np.testing.assert_allclose(found.max(axis=1), wanted[:count], rtol=1e-4)
        np.testing.assert_allclose(program(torch.from_numpy(batch[:count])), found, rtol=1e-4)


def test_weights_and_preprocessing_are_those_of_the_network(exported: Path, results: Path, images: Path) -> None:
    model = cnnsearch.load_model(results)
    weights = load_file(exported / "weights.safetensors")
    assert weights.keys() == model.network.state_dict().keys()
    assert all(torch.equal(value, weights[name]) for name, value in model.network.state_dict().items())
    told = json.loads((exported / "preprocessing.json").read_text())
    assert told["input"] == {"dtype": "uint8", "shape": ["batch", 3, 8, 8]}
    assert told["resize"] == {"filter": "bilinear", "antialias": True, "keeps_aspect_ratio": False}
    file = images / "light" / "01.png"
    pixels = np.asarray(Image.open(file).resize((8, 8), Image.Resampling.BILINEAR)).astype(np.float32)
    by_hand = (pixels - told["mean"]) / told["std"]
    np.testing.assert_allclose(by_hand.transpose(2, 0, 1), model.preprocess(file), rtol=1e-4, atol=1e-5)


def test_the_card_is_as_hubs_read_it(exported: Path, results: Path) -> None:
    card = (exported / "README.md").read_text(encoding="utf-8")
    _, front, text = card.split("---\n", 2)
    facts = yaml.safe_load(front)
    assert facts["license"] == "unknown"
    assert facts["pipeline_tag"] == "image-classification"
    (entry,) = facts["model-index"]
    best = cnnsearch.load(results).best().id
    (row,) = (row for row in load(results).trials.to_dict("records") if row["trial_id"] == best)
    (result,) = entry["results"]
    assert [one["value"] for one in result["metrics"]] == [
        pytest.approx(row[f"{split}_accuracy"], abs=1e-4) for split in ("val", "test")
    ]
    low, high = wilson(round(row["test_accuracy"] * 18), 18)
    assert f"({100 * low:.1f}–{100 * high:.1f})" in text
    for heading in ("How to load it", "Scores", "How it was selected", "What it was trained on", "Settings"):
        assert f"## {heading}\n" in text
    assert "The best of 9 settings by mean validation accuracy" in text
    assert "15 training, 12 validation, 18 test images" in text
    assert "method fill, train_per_class 5, val_per_class 4" in text
    assert "## What it was not tested on\n" in text
    assert "it gives the class that was recorded in training for all of 18 test images." in text


def test_no_file_names_a_place_of_this_machine(exported: Path, results: Path, images: Path) -> None:
    places = (str(Path(cnnsearch.__file__).parent), str(results), str(images))
    for file in exported.iterdir():
        content = file.read_bytes()
        assert [place for place in places if place.encode() in content] == [], file.name


@pytest.mark.after
def test_every_kind_of_network_can_be_exported(results: Path, tmp_path: Path) -> None:
    """Those that trained whole are among `exported` and the page's; here are those that trained in part."""
    trials = load(results).trials
    for kind in (("heads", "residual"), ("convs", None), ("transfer", "resnet18")):
        rows = trials[(trials["stage"] == kind[0]) & (trials["fine_tune"] != "full")]
        rows = rows[rows["model"] == kind[1]] if kind[1] else rows
        trial_id = rows["trial_id"].iloc[0]
        written = export(choose(results, trial_id), tmp_path / trial_id, ("onnx",))
        assert written.agreements["onnx"].same == written.agreements["onnx"].of == 18
        assert sorted(file.name for file in written.folder.iterdir()) == [
            "README.md", "classes.json", "model.onnx", "preprocessing.json",
        ]  # fmt: skip
        card = (written.folder / "README.md").read_text(encoding="utf-8")
        assert "Named by whoever exported it" in card
        assert "model.pt2" not in card


def test_a_long_last_layer_takes_any_number_of_images() -> None:
    network = Plain(3, image_size=64, width=0.05).eval()
    made = StandAlone(network, torch.zeros(3), torch.ones(3), 64, "bilinear").eval().requires_grad_(False)
    program = exported_program(made).module()
    images = torch.randint(0, 256, (5, 3, 64, 64), dtype=torch.uint8)
    torch.testing.assert_close(program(images), made(images))


def test_in_half_precision_the_share_that_agrees_is_told(tmp_path: Path, images: Path) -> None:
    folder = make_results(tmp_path, images, "train.precision=bf16", stages=ONE)
    trial = Results(folder).trial(choose(folder).record.trial_id)
    record = trial.record()
    assert record is not None
    answers = trial.predictions()
    changed = answers["test", "best"][0].copy()
    changed[0] = (changed[0] + 1) % 3
    trial.save_predictions({**answers, ("test", "best"): (changed, answers["test", "best"][1])})
    trial.commit(record)
    done = ask(folder, tmp_path / "out", "--format", "pt2", command="export")
    assert done.returncode == 0, done.stderr
    assert "answers as recorded for 17 (94.4 %) of 18 test images" in done.stdout
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "trained in bf16" in card
    assert "17 (94.4 %) of 18 test images" in card
    trial.commit(record.model_copy(update={"precision": "fp32"}))  # then it is an error
    done = ask(folder, tmp_path / "other", "--format", "pt2", command="export")
    assert done.returncode == 2
    assert "answers otherwise than was recorded for 1 of 18 test images; nothing was written" in done.stderr
    assert not (tmp_path / "other").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"results", "out"}


def test_a_sealed_test_set_stays_sealed(tmp_path: Path, images: Path) -> None:
    folder = make_results(tmp_path, images, "evidence.test=sealed", stages=ONE)
    written = export(choose(folder), tmp_path / "out", ("safetensors",))
    assert str(written.agreements["safetensors"]) == "all of 12 validation images"
    card = (written.folder / "README.md").read_text(encoding="utf-8")
    assert "not measured: the test set is sealed" in card
    assert "test accuracy" not in card


def test_without_onnx_it_says_what_to_install(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "onnxscript" else object())
    done = ask(results, tmp_path / "out", command="export")
    assert done.returncode == 2
    assert "--format onnx needs onnxscript: pip install 'cnnsearch[export]'" in done.stderr
    assert "--format safetensors,pt2" in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert checked_formats("safetensors, pt2") == ("safetensors", "pt2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{full}",), "exists already: give a folder that is new or empty"),
        (("{new}", "--format", "onnx,tflite"), "--format tflite: allowed are safetensors, onnx, pt2"),
        (("{new}", "--format", ","), "--format names none"),
        (("{new}", "--trial", "zz"), "no trial whose id begins with zz"),
        (("{new}", "--data", "fashion-mini"), "these are not the images of"),
        (("{new}", "--data", "{nowhere}"), "no folder"),
    ],
)
def test_wrong_requests_write_nothing(results: Path, tmp_path: Path, arguments: Any, message: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    places = {name: tmp_path / name for name in ("full", "new", "nowhere")}
    done = ask(results, *(part.format(**places) for part in arguments), command="export")
    assert done.returncode == 2
    assert message in done.stderr
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["full", "full/mine.txt"]


def test_images_that_have_moved_can_be_named(results: Path, images: Path, tmp_path: Path) -> None:
    shutil.copytree(results, tmp_path / "results")
    shutil.copytree(images, tmp_path / "moved")
    file = tmp_path / "results" / "sweep.yaml"
    file.write_text(file.read_text().replace(str(images), str(tmp_path / "gone")))
    ask_for = (tmp_path / "results", tmp_path / "out", "--format", "safetensors")
    assert ask(*ask_for, command="export").returncode == 2
    (tmp_path / "out").mkdir()  # an empty folder is filled
    done = ask(*ask_for, "--data", tmp_path / "moved", command="export")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "weights.safetensors").is_file()
