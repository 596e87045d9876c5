"""From a notebook: the tables of a sweep give its networks, and a network is a plain module of torch."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cnnsearch
from cnnsearch.data.images import BadImageError
from cnnsearch.errors import RequestError
from cnnsearch.results.folder import Results
from cnnsearch.results.tables import load
from cnnsearch.use.opened import FoundTrial, OpenedSweep
from cnnsearch.use.predict import COLUMNS


def test_the_best_network_predicts(results: Path, images: Path) -> None:
    found = cnnsearch.load(results)
    assert isinstance(found, cnnsearch.Tables)
    best = found.best()
    assert best.classes == ("dark", "light", "mixed")
    answers = best.predict(images)
    assert tuple(answers) == COLUMNS
    assert len(answers) == 45
    assert answers["confidence"].between(1 / 3, 1).all()
    one = best.predict(str(images / "dark" / "00.jpg"))
    assert one["path"].tolist() == [str(images / "dark" / "00.jpg")]
    assert one["label"].isna().all()
    assert one["predicted"].item() == answers["predicted"][0]


def test_what_a_run_returns_has_networks_too(results: Path, images: Path) -> None:
    assert inspect.signature(cnnsearch.run).return_annotation == "OpenedSweep"
    opened = OpenedSweep.of(load(results))
    assert opened.trials.equals(load(results).trials)
    assert len(opened.predictions) == len(load(results).predictions)
    assert opened.best().id == cnnsearch.load(results).best().id


def test_reading_the_best_does_not_read_the_predictions(results: Path) -> None:
    opened = cnnsearch.load(results)
    opened.best()
    assert callable(opened.__dict__["_predictions"])


def test_wrong_requests(results: Path) -> None:
    with pytest.raises(RequestError, match="no trial whose id begins"):
        cnnsearch.load(results).trial("zz")
    with pytest.raises(RequestError, match="no file or folder nowhere"):
        cnnsearch.load(results).best().predict("nowhere")
    with pytest.raises(RequestError, match="top 9: give a whole number from 1 to 3"):
        cnnsearch.load(results).best().predict(".", top=9)


def test_every_network_is_a_plain_module(results: Path, images: Path) -> None:
    found = load(results)
    for trial_id in found.trials["trial_id"]:
        model = cnnsearch.load_model(results, trial_id)
        assert isinstance(model, torch.nn.Module)
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())
        assert {value.dtype for value in model.parameters()} == {torch.float32}
        rows = found.predictions
        wanted = rows[(rows["trial_id"] == trial_id) & (rows["split"] == "test") & (rows["moment"] == "best")]
        batch = torch.stack([model.preprocess(images / name) for name in wanted["example"]])
        assert batch.shape == (len(wanted), 3, 8, 8)
        probabilities = model(batch).softmax(1)
        assert [model.classes[i] for i in probabilities.argmax(1)] == wanted["predicted"].astype(str).tolist()
        np.testing.assert_allclose(probabilities.max(1).values, wanted["confidence"], rtol=1e-4)


def test_by_default_it_is_the_best(results: Path) -> None:
    best = cnnsearch.load(results).best()
    assert cnnsearch.load_model(results).trial_id == best.model().trial_id == best.id
    assert cnnsearch.load_model(str(results), best.id[:12]).trial_id == best.id


def test_an_image_may_be_given_in_any_form(results: Path, images: Path, tmp_path: Path) -> None:
    model = cnnsearch.load_model(results)
    file = images / "light" / "01.png"
    wanted = model.preprocess(file)
    assert wanted.dtype == torch.float32
    with Image.open(file) as image:
        for same in (str(file), file.read_bytes(), image, np.asarray(image)):
            assert torch.equal(model.preprocess(same), wanted)
    turned, exif = tmp_path / "turned.png", Image.Exif()
    exif[0x0112] = 3
    with Image.open(file) as image:
        image.transpose(Image.Transpose.ROTATE_180).save(turned, exif=exif)
    with Image.open(turned) as image:
        assert torch.equal(model.preprocess(turned), wanted)
        assert torch.equal(model.preprocess(image), wanted)
    with pytest.raises(BadImageError, match="cannot be read"):
        model.preprocess(tmp_path / "none.png")


def test_its_input_is_normalised_as_recorded(results: Path, images: Path) -> None:
    """By the statistics of the training images; by those of ImageNet for torchvision's weights."""
    trials = load(results).trials
    of_own, of_torchvision = (trials[trials["model"] == name]["trial_id"].iloc[0] for name in ("plain", "resnet18"))
    own, other = (Results(results).trial(trial_id).record() for trial_id in (of_own, of_torchvision))
    assert own is not None
    assert other is not None
    assert own.inputs is not None
    assert other.inputs is not None
    assert other.inputs.mean == pytest.approx([255 * value for value in (0.485, 0.456, 0.406)])
    training = [file for name in ("dark", "light", "mixed") for file in sorted((images / name).iterdir())[:5]]
    pixels = np.stack([np.asarray(Image.open(file).resize((8, 8), Image.Resampling.BILINEAR)) for file in training])
    assert own.inputs.mean == pytest.approx(pixels.mean(axis=(0, 1, 2)))
    assert own.inputs.std == pytest.approx(pixels.std(axis=(0, 1, 2)))
    batch = torch.stack([cnnsearch.load_model(results, of_own).preprocess(file) for file in training])
    assert batch.mean().item() == pytest.approx(0, abs=1e-5)
    assert batch.std().item() == pytest.approx(1, abs=0.01)


def test_what_a_notebook_reads_is_documented() -> None:
    for thing in (cnnsearch.load, cnnsearch.load_model, FoundTrial, FoundTrial.predict, OpenedSweep.best):
        assert len(inspect.getdoc(thing) or "") > 100
