"""Results of small sweeps over image files, with every kind of network, whose weights are kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cnnsearch import run
from cnnsearch.spec.load import load_sweep
from tests.conftest import SMALL
from tests.training.models.making import save_weights

CLASSES = ("dark", "light", "mixed")
STAGES = (
    "stages=[{name: grid, space: {model: {grid: [plain, residual]}, width: 0.05}}, "
    "{name: more, start_from: {stage: grid, best: val_accuracy}, space: {dropout: {grid: [0.1]}}}, "
    "{name: heads, start_from: {stage: grid, best: val_accuracy, per: model}, space: {fine_tune: head}}, "
    "{name: convs, start_from: {stage: heads, best: val_accuracy}, space: {fine_tune: last-2-convs}}, "
    "{name: transfer, space: {model: resnet18, weights: WEIGHTS, fine_tune: {grid: [full, head, last-1-convs]}}}]"
)
SPLIT = "data.split={method: fill, train_per_class: 5, val_per_class: 4}"


def make_images(root: Path, per_class: int = 15) -> Path:
    """PNGs and JPEGs of three classes that differ in brightness, a folder for each."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for row in range(per_class):
            pixels = rng.integers(0, 100, (12, 10, 3)) + 60 * label
            kind = "png" if row % 2 else "jpg"
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{row:02}.{kind}")
    return root


def make_results(root: Path, images: Path, *values: str, stages: str = STAGES) -> Path:
    """Run a sweep over these images and return its folder."""
    weights = json.dumps(str(save_weights(root, "resnet18"))) if "WEIGHTS" in stages else ""
    asked = [*SMALL, SPLIT, f"data.source={json.dumps(str(images))}", "run.keep=all", "train.width=1.0"]
    sweep = load_sweep("part1", values=[*asked, stages.replace("WEIGHTS", weights), *values])
    run(sweep, root / "results", serial=True)
    return root / "results" / sweep.name


@pytest.fixture(scope="package")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="package")
def results(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Iterator[Path]:
    """Results with own and torchvision's networks, trained whole, in part, and going on from others."""
    before = torch.get_num_threads()
    yield make_results(tmp_path_factory.mktemp("use"), images)
    torch.set_num_threads(before)
