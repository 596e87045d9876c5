"""What the report shows of labels that are doubted and of copies among the images."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from cnnsearch import run
from cnnsearch.doubting import write_training
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.prepare import prepared
from cnnsearch.report import html, labels as module
from cnnsearch.report.page import assemble
from cnnsearch.results.tables import load
from cnnsearch.session import shared_context
from cnnsearch.spec.load import load_sweep
from tests.conftest import SMALL
from tests.data.making import fill_folder, photo, recompressed

VALUES = [
    *(value for value in SMALL if not value.startswith("data.split")),
    "stages=[{name: grid, space: {model: plain}}]",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images with a copy across splits, and one of one colour."""
    root = fill_folder(
        tmp_path_factory.mktemp("labels") / "images",
        {f"{part}/{name}": 4 for part in ("train", "val", "test") for name in ("cat", "dog")},
    )
    photo(1).save(root / "train/cat/a.png")
    recompressed(photo(1), 80).save(root / "test/dog/b.png")
    photo(2).save(root / "train/cat/c.png")
    photo(2).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(root / "train/cat/d.png")
    return root


@pytest.mark.usefixtures("reports_in_words")
def test_copies_are_shown_as_pictures(folder: Path, tmp_path: Path) -> None:
    tables = run(load_sweep("part1", values=VALUES, data=str(folder)), tmp_path, serial=True)
    assert module.pairs_wanted(tables.data) == [
        "train/cat/a.png",
        "test/dog/b.png",
        "train/cat/c.png",
        "train/cat/d.png",
    ]
    found = assemble_labels(tmp_path / "part1")
    assert (
        found.found[0][1]
        == "2 pairs of images with almost the same picture: 1 across splits and 1 with different labels"
    )
    assert [(pair.kind, pair.differs) for pair in found.pairs] == [
        ("almost the same picture", True),
        ("almost the same, mirrored", False),
    ]
    assert all(image.png for pair in found.pairs for image in pair.images)
    text = (tmp_path / "part1" / "report.html").read_text(encoding="utf-8")
    section = text.split('<ul class="strip pairs-of">')[1].split("</ul>")[0]
    assert section.count("<img src=") == 4
    assert section.count("labels differ") == 1
    assert "2 pairs of images" in (tmp_path / "part1" / "report.md").read_text(encoding="utf-8")


def assemble_labels(results: Path) -> module.Labels:
    page = assemble(Evidence(load(results)))
    assert html.render(page)
    return page.labels


def test_a_sealed_test_set_is_not_shown(folder: Path, tmp_path: Path) -> None:
    sweep = load_sweep("part1", values=[*VALUES, "evidence.test=sealed"], data=str(folder))
    data = run(sweep, tmp_path, serial=True).data
    assert data["check"]["lines"][0][1].startswith("2 pairs")
    assert module.pairs_wanted(data) == ["train/cat/c.png", "train/cat/d.png"]


def test_networks_are_asked_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = load_sweep("part1", values=VALUES, data=str(folder))
    run(sweep, tmp_path, serial=True)
    with prepared(sweep, tmp_path) as ready:
        asked = list(ready.plan.trials)
        how = (ready.results, ready.plan, shared_context(ready), ready.dataset)
        first = write_training(*how, asked)
        assert first["images"] == len(ready.dataset.indices["train"])
        monkeypatch.setattr("cnnsearch.doubting._asked", None)
        assert write_training(*how, asked)["doubted"] == [list(row) for row in first["doubted"]]
        (tmp_path / "part1" / "training.json").unlink()
        with monkeypatch.context() as patch:
            patch.setattr("cnnsearch.doubting.MOST", first["images"] - 1)
            assert write_training(*how, asked) == {}
        for weights in (tmp_path / "part1" / "trials").glob("*/best.safetensors"):
            weights.unlink()
        assert write_training(*how, asked) == {}
