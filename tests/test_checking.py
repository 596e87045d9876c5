"""`cnnsearch check`, and what a plan says of the same images."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from cnnsearch import checking
from cnnsearch.checking import COLUMNS
from cnnsearch.data import inspection
from cnnsearch.plan_text import plan_text
from cnnsearch.prepare import prepared
from cnnsearch.spec.load import load_sweep
from tests.asking import ask
from tests.conftest import SMALL
from tests.data.making import encoded, fill_folder, photo, recompressed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A split folder with one copy across splits, one pair with different labels and a plain picture."""
    root = tmp_path_factory.mktemp("checked") / "photos"
    fill_folder(root, {f"{part}/{name}": 4 for part in ("train", "val", "test") for name in ("cat", "dog", "hen")})
    one, other = photo(1, 40, 30), photo(2, 40, 30)
    (root / "train/cat/a.png").write_bytes(encoded(one, "PNG"))
    recompressed(one, 80).save(root / "test/cat/b.png")
    (root / "train/cat/c.png").write_bytes(encoded(other, "PNG"))
    other.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(root / "train/dog/d.png")
    Image.new("RGB", (12, 12)).save(root / "val/dog/e.png")
    return root


def test_what_it_says(folder: Path) -> None:
    done = ask(folder, command="check")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["images", "41", "images", "in", "3", "classes"]
    assert any(
        "2 pairs of images with almost the same picture: 1 across splits and 1 with different labels" in line
        for line in lines
    )
    assert any("one colour" in line and "val/dog/e.png is all of one colour" in line for line in lines)
    # Different labels come first.
    assert lines[-2].startswith(
        "train/cat/c.png (training) = train/dog/d.png (training)  same picture, mirrored, labels"
    )
    assert lines[-1] == "train/cat/a.png (training) = test/cat/b.png (test)  same picture"


def test_json_and_table(folder: Path, tmp_path: Path) -> None:
    told = ask(folder, "--json", command="check").told
    assert (told["kind"], told["exit_code"], told["images"]) == ("check", 0, 41)
    assert (told["pairs_found"], told["across_splits"], told["labels_differ"]) == (2, 1, 1)
    assert told["pairs"][0]["kind"] == "mirrored"
    assert [image["label"] for image in told["pairs"][0]["images"]] == ["cat", "dog"]
    assert {odd["image"]["file"] for odd in told["standing_out"] if odd["what"] == "one colour"} == {"val/dog/e.png"}
    file = tmp_path / "new" / "found.csv"
    listed = ask(folder, "--json", "--out", file, command="check").told
    assert (listed["pairs"], listed["out"]) == (None, str(file))
    table = pd.read_csv(file, keep_default_na=False)
    assert tuple(table) == COLUMNS
    assert table["problem"].tolist().count("copy") == 2
    assert tuple(table.iloc[0])[1:7] == ("train/cat/c.png", "training", "cat", "train/dog/d.png", "training", "dog")


def test_small_classes_and_unreadable_images(tmp_path: Path) -> None:
    folder = fill_folder(tmp_path / "images", {"a": 12, "b": 10, "c": 2})
    (folder / "a" / "bad.png").write_bytes(b"no image")
    done = ask(folder, command="check")
    assert "c (2); half of the classes have 10 or more" in done.stdout
    assert "bad.png" in done.stdout
    assert ask(folder, "--json", command="check").told["small_classes"] == ["c"]


def test_nothing_found(tmp_path: Path) -> None:
    done = ask(fill_folder(tmp_path / "images", {"a": 10, "b": 10}), command="check")
    assert "nothing that stands out" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere"),
        (["fashion-mini", "--out", "found.txt"], "--out found.txt: allowed is a file that ends in .csv"),
    ],
)
def test_refusals(arguments: list[str], said: str) -> None:
    done = ask(*arguments, command="check")
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") <= 2


def test_ctrl_c(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checking, "check", stop)
    done = ask(folder, command="check")
    assert (done.returncode, done.stderr) == (130, "stopped; nothing was written\n")


def test_a_plan_says_it_in_a_line(folder: Path, tmp_path: Path) -> None:
    steps: list[str] = []
    changes = [value for value in SMALL if not value.startswith("data.split")]
    sweep = load_sweep("part1", values=changes, data=str(folder))
    with prepared(sweep, tmp_path, dry_run=True, tell=lambda what, done, total: steps.append(what)) as ready:
        lines = plan_text(ready).splitlines()
        assert set(ready.datasets) == {(8, "bilinear")}
    (line,) = [line for line in lines if "cnnsearch check" in line]
    assert "note: 2 pairs of images with almost the same picture: 1 across splits and 1 with different labels; " in line
    assert line.endswith(f"cnnsearch check {folder} lists them")
    assert "reading the images" in steps


def test_of_very_many_images_a_plan_says_that_nobody_has_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fill_folder(tmp_path / "images", {"a": 12, "b": 12}, first=500)
    monkeypatch.setattr(inspection, "MOST", 23)
    changes = [value for value in SMALL if not value.startswith("data.split")]
    sweep = load_sweep("part1", values=changes, data=str(folder))

    def notes() -> list[str]:
        with prepared(sweep, tmp_path, dry_run=True) as ready:
            return [line for line in plan_text(ready).splitlines() if "cnnsearch check" in line]

    (note,) = notes()
    assert note.endswith(
        f"nobody has looked for copies among so many images; cnnsearch check {folder} does, in some minutes"
    )
    assert ask(folder, command="check").returncode == 0
    assert notes() == []
