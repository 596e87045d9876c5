"""Evaluation of a model on a split."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cnnsearch.data.dataset import Dataset
from cnnsearch.training.evaluate import batch_size, evaluate, probabilities
from cnnsearch.training.models.build import initial_model
from cnnsearch.training.pixels import Pixels
from tests.training.test_train import settings, trained


def test_evaluation_against_the_plain_way(dataset: Dataset) -> None:
    _, state = trained(dataset, settings())
    pixels = Pixels.of(dataset, "cpu")
    found = evaluate(state.model, pixels, "test", precision="fp32")
    (images,), labels = pixels.batch(pixels.rows["test"])
    with torch.inference_mode():
        logits = state.model.eval()(images)
    assert found.loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert found.predicted.tolist() == logits.argmax(1).tolist()
    assert found.confidence == pytest.approx(logits.softmax(1).max(1).values.numpy(), rel=1e-5)
    assert found.accuracy == (logits.argmax(1) == labels).float().mean().item()


def test_probabilities_are_those_of_the_evaluation(dataset: Dataset) -> None:
    _, state = trained(dataset, settings())
    pixels = Pixels.of(dataset, "cpu")
    wanted = evaluate(state.model, pixels, "train", precision="fp32")
    (images,), _ = pixels.batch(pixels.rows["train"])
    found = probabilities(state.model, images, precision="fp32")
    assert found.shape == (24, 2)
    assert found.sum(1).numpy() == pytest.approx(1)
    assert found.argmax(1).tolist() == wanted.predicted.tolist()
    assert torch.equal(found.max(1).values, torch.from_numpy(wanted.confidence))


def test_evaluation_batches_hold_about_as_many_numbers() -> None:
    sides = (8, 16, 32, 64, 128, 224)
    assert [batch_size(3 * side**2, "cpu") for side in sides] == [256, 256, 128, 32, 16, 16]
    assert [batch_size(3 * side**2, "cuda") for side in sides] == [256, 256, 256, 256, 64, 16]


def test_an_evaluation_is_that_of_each_example_by_itself(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = Pixels.of(dataset, "cpu")
    model = initial_model(settings(), 2, "cpu")
    whole = evaluate(model, pixels, "train", precision="fp32")
    monkeypatch.setattr("cnnsearch.training.evaluate.batch_size", lambda numbers, device: 5)
    parts = evaluate(model, pixels, "train", precision="fp32")
    assert parts.loss == pytest.approx(whole.loss, rel=1e-7)
    assert np.array_equal(parts.predicted, whole.predicted)
