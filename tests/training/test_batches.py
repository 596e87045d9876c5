"""Batches of an epoch, and the one image that may be left over."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from cnnsearch.data.dataset import Dataset
from cnnsearch.spec.settings import Settings
from cnnsearch.training.batches import batches
from cnnsearch.training.models.build import initial_model
from cnnsearch.training.pixels import Pixels
from cnnsearch.training.train import TrainingState, needs_company, train


@pytest.mark.parametrize(
    ("rows", "size", "sizes", "joined"),
    [(9, 4, [4, 4, 1], [4, 5]), (10, 4, [4, 4, 2], [4, 4, 2]), (8, 4, [4, 4], [4, 4]), (1, 4, [1], [1])],
)
def test_one_image_joins_the_batch_before_it(rows: int, size: int, sizes: list[int], joined: list[int]) -> None:
    order = torch.randperm(rows)
    for joins, wanted in ((False, sizes), (True, joined)):
        split = batches(order, size, joins_last=joins)
        assert [len(batch) for batch in split] == wanted
        assert torch.equal(torch.cat(split), order)


@pytest.mark.parametrize(
    ("model", "image_size", "expected"),
    [("resnet18", 32, True), ("resnet18", 33, False), ("residual", 8, False), ("vgg11", 32, False)],
)
def test_which_models_cannot_normalise_one_image(model: str, image_size: int, expected: bool, dataset: Dataset) -> None:
    state, examples, _ = _ready(dataset, model, image_size)
    before = copy.deepcopy(state.model.state_dict())
    assert needs_company(state, examples, "fp32") == expected
    assert all(torch.equal(value, before[name]) for name, value in state.model.state_dict().items())


def test_one_image_left_over_does_not_end_a_trial(dataset: Dataset) -> None:
    state, examples, settings = _ready(dataset, "resnet18", 32)
    assert len(examples.rows["train"]) % settings.batch_size == 1
    (row,) = train(state, examples, settings, precision="fp32")
    assert row.is_finite


def test_where_one_image_can_be_normalised_it_stays_alone(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    state, examples, settings = _ready(dataset, "residual", 8)
    seen: list[int] = []
    real = Pixels.batch

    def batch(self: Pixels, rows: torch.Tensor) -> object:
        seen.append(len(rows))
        return real(self, rows)

    monkeypatch.setattr(Pixels, "batch", batch)
    list(train(state, examples, settings, precision="fp32"))
    assert seen[:4] == [1, 8, 8, 1]  # the first is the question whether one image is enough


def _ready(dataset: Dataset, model: str, image_size: int) -> tuple[TrainingState, Pixels, Settings]:
    """Seventeen training images, in batches of eight."""
    torch.manual_seed(0)
    settings = Settings(
        model=model, image_size=image_size, width=0.05 if model == "residual" else 1.0, batch_size=8, epochs=1
    )
    pixels = Pixels.of(dataset, "cpu")
    images = torch.randint(0, 256, (len(pixels.labels), image_size, image_size, 3), dtype=torch.uint8)
    pixels = replace(pixels, images=images, rows={**pixels.rows, "train": pixels.rows["train"][:17]})
    return TrainingState.start(initial_model(settings, 2, "cpu"), settings), pixels, settings
