"""Which labels the best networks doubt: made-up answers, and a sweep over labels of which some are wrong."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnsearch import run
from cnnsearch.evidence.doubts import MOST, doubts, judges, most_doubted, shown
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.report.labels import COLUMNS
from cnnsearch.results.tables import load
from cnnsearch.spec.load import load_sweep
from tests.asking import ask

CLASSES, EACH = ("high", "left", "plain"), 60
STAGES = "stages=[{name: grid, space: {model: plain, lr: {grid: [0.003, 0.01]}}}]"
VALUES = (
    "data.image_size=8",
    "data.split={method: stratified, train: 0.6, val: 0.2}",
    "train.epochs=6",
    "train.batch_size=16",
    "train.width=0.1",
    "train.precision=fp32",
    "run.dashboard=false",
    STAGES,
)


def test_the_least_probable_labels_come_first() -> None:
    labels = np.array([0, 0, 1, 2])
    predicted = np.array([[0, 1, 1, 0], [0, 1, 1, 2]])
    confidence = np.array([[0.9, 0.8, 0.6, 0.5], [0.9, 0.9, 0.6, 0.7]])
    found = most_doubted(labels, predicted, confidence, 3)
    assert found.rows.tolist() == [1, 3, 2, 0]
    assert found.given == pytest.approx([(0.1 + 0.05) / 2, (0.25 + 0.7) / 2, 0.6, 0.9])
    assert found.predicted.tolist() == [1, 2, 1, 0]  # of as many votes, the surer
    assert found.images == 4


def test_no_more_than_some_are_kept() -> None:
    labels = np.zeros(MOST + 5, np.int64)
    confidence = np.linspace(0.2, 1, len(labels))[None]
    found = most_doubted(labels, labels[None], confidence, 2)
    assert (len(found.rows), found.images, found.rows[0]) == (MOST, MOST + 5, 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """Images of three classes that are easy to tell apart, 5 % of them in a wrong folder; and the names of those."""
    root, rng, flipped = tmp_path_factory.mktemp("doubted") / "images", np.random.default_rng(3), set()
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True, exist_ok=True)
        for row in range(EACH):
            pixels = rng.normal(70, 20, (8, 8, 3))
            pixels[:4] += 110 * (label == 0)
            pixels[:, :4] += 110 * (label == 1)
            put = CLASSES[(label + 1 + row % 2) % 3] if row % 20 == 7 else name
            (root / put).mkdir(exist_ok=True)
            file = f"{put}/{name}-{row:02}.png"
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(root / file)
            flipped |= {file} if put != name else set()
    assert 20 * len(flipped) == len(CLASSES) * EACH
    return root, flipped


@pytest.mark.usefixtures("reports_in_words")
def test_wrong_labels_are_found_among_the_first_tenth(folder: tuple[Path, set[str]], tmp_path: Path) -> None:
    images, flipped = folder
    tables = run(load_sweep("part1", values=VALUES, data=str(images)), tmp_path, serial=True)
    results = tmp_path / "part1"
    with (results / "doubted.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == len(CLASSES) * EACH
    first = {row["file"] for row in rows[: len(rows) // 10]}
    assert len(first & flipped) >= 0.6 * len(flipped)
    assert {row["split"] for row in rows if row["file"] in first} >= {"training", "test"}
    assert [float(row["place_in_split"]) for row in rows] == sorted(float(row["place_in_split"]) for row in rows)

    found = shown(doubts(Evidence(tables)))
    assert found
    assert all(one.predicted != one.label for one in found)
    assert all(one.example in load(results).pictures["examples"] for one in found)
    html = (results / "report.html").read_text(encoding="utf-8")
    section = html.split('<h2 id="labels">')[1].split("</section>")[0]
    assert section.count("<img src=") == len(found)
    assert found[0].example in section
    assert "## Labels to look at" in (results / "report.md").read_text(encoding="utf-8")

    # Made again from what is kept, it says the same; what is damaged is left out.
    before = (results / "doubted.csv").read_bytes()
    assert ask(results, command="report").returncode == 0
    assert (results / "doubted.csv").read_bytes() == before
    kept = json.loads((results / "training.json").read_text(encoding="utf-8"))
    assert kept["trials"] == [one for one in judges(Evidence(tables)) if one in kept["trials"]]
    assert kept["images"] == len([row for row in rows if row["split"] == "training"])
    (results / "training.json").write_text('{"trials": [], "images": 3, "doubted": [["a", 0, 0, 7]]}', encoding="utf-8")
    assert ask(results, command="report").returncode == 0
    with (results / "doubted.csv").open(encoding="utf-8", newline="") as file:
        assert {row["split"] for row in csv.DictReader(file)} == {"validation", "test"}


@pytest.mark.usefixtures("reports_in_words")
def test_of_a_sealed_test_set_no_label_is_doubted(folder: tuple[Path, set[str]], tmp_path: Path) -> None:
    run(load_sweep("part1", values=[*VALUES, "evidence.test=sealed"], data=str(folder[0])), tmp_path, serial=True)
    with (tmp_path / "part1" / "doubted.csv").open(encoding="utf-8", newline="") as file:
        assert {row["split"] for row in csv.DictReader(file)} == {"training", "validation"}
