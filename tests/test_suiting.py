"""`cnnsearch init`: a folder of images gets a sweep that suits it and can be run."""

from __future__ import annotations

from pathlib import Path

import pytest

from cnnsearch.spec.data import FillSplit, StratifiedSplit
from cnnsearch.spec.load import load_sweep
from cnnsearch.spec.schema import FILE
from cnnsearch.suiting import batch_sizes, image_size, sweep_name
from tests.asking import ask
from tests.data.making import encoded, fill_folder, named, picture, write_table


def written(tmp_path: Path, photos: Path) -> tuple[Path, str]:
    """The sweep file that `init` writes, and its text; a dry run accepts it."""
    file = tmp_path / "mine.yaml"
    answer = ask(photos, "--out", file, command="init")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines() == [
        f"written   {file}",
        f"how long  cnnsearch sweep {file} --dry-run",
        f"next      cnnsearch sweep {file}",
    ]
    dry = ask(file, "--dry-run", "--serial", "--out", tmp_path / "results")
    assert dry.returncode == 0, dry.stderr
    assert not (tmp_path / "results").exists()
    return file, file.read_text(encoding="utf-8")


def test_forty_photos_in_three_classes(tmp_path: Path) -> None:
    photos = tmp_path / "my photos"
    for label, (name, count) in enumerate({"cat": 14, "dog": 13, "owl": 13}.items()):
        (photos / name).mkdir(parents=True)
        for row in range(count):
            image = picture(100 * label + row, side=80)
            (photos / name / f"{row}.jpg").write_bytes(encoded(image, "JPEG"))
    (photos / "owl" / "again.jpg").write_bytes((photos / "owl" / "0.jpg").read_bytes())
    (photos / "owl" / "broken.jpg").write_bytes(b"no image")
    (photos / "owl" / "notes.txt").write_text("?", encoding="utf-8")
    file, text = written(tmp_path, photos)
    sweep = load_sweep(file)
    assert (sweep.name, sweep.data.source, sweep.data.image_size) == ("my-photos", str(photos), 64)
    assert isinstance(sweep.data.split, StratifiedSplit)
    assert (sweep.data.on_bad_image, sweep.train.class_weights) == ("skip", "none")
    (stage,) = sweep.stages
    assert stage.search.method == "grid"
    assert list(stage.space["batch_size"].args) == [4, 8]
    assert text.splitlines()[0] == f"# yaml-language-server: $schema={FILE.as_uri()}"
    assert "# 42 images in 3 classes: cat 14, dog 13, owl 15." in text
    assert "median of the images' smaller sides is 80 pixels" in text
    assert "# Cannot be read, of those that were tried: owl/broken.jpg, 1 in all." in text
    assert "# 1 file has the same bytes as another" in text
    assert "notes.txt" in text
    assert "# Few images: a class has " in text


@pytest.mark.after
def test_three_thousand_in_two_uneven_classes(tmp_path: Path) -> None:
    photos, content = tmp_path / "photos", encoded(picture(0), "PNG")
    for name, count in (("many", 2600), ("rare", 400)):
        (photos / name).mkdir(parents=True)
        for row in range(count):  # what follows the end of a PNG is not looked at, but makes another file of it
            (photos / name / f"{row}.png").write_bytes(content + f"{name} {row}".encode())
    file, text = written(tmp_path, photos)
    sweep = load_sweep(file)
    assert (sweep.data.image_size, sweep.train.class_weights) == (12, "balanced")
    (stage,) = sweep.stages
    assert (stage.search.method, stage.stop_early is not None) == ("tpe", True)
    assert list(stage.space["batch_size"].args) == [32, 64]
    assert "# Classes are uneven: the largest has 6.5 times the images of the smallest." in text
    assert "same bytes" not in text
    assert "Few images" not in text


def test_folders_for_training_validation_and_test(tmp_path: Path) -> None:
    counts = {"train": 8, "val": 4, "test": 4}
    photos = fill_folder(tmp_path / "photos", {f"{part}/{name}": n for part, n in counts.items() for name in "ab"})
    file, text = written(tmp_path, photos)
    assert load_sweep(file).data.split.method == "auto"
    assert "  # split: training, validation and test as the source has them" in text
    assert "# Of these 16 training, 8 validation and 8 test." in text


def test_even_classes_of_a_hundred_are_filled_in_order(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    assert ask(fill_folder(tmp_path / "p", {"a": 80, "b": 80}), "--out", file, command="init").returncode == 0
    assert load_sweep(file).data.split == FillSplit(train_per_class=50, val_per_class=20)


def test_nothing_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fill_folder(tmp_path / "p", {"a": 10, "b": 10})
    assert ask("p", command="init").returncode == 0
    before = Path("p.yaml").read_bytes()
    again = ask("p", command="init")
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr == (
        "error: p.yaml is there already, and nothing is overwritten; give another name with --out\n"
    )
    assert Path("p.yaml").read_bytes() == before


def test_links_out_of_the_folder_are_followed_where_asked_for(tmp_path: Path) -> None:
    photos = fill_folder(tmp_path / "photos", {"cat": 12, "dog": 13})
    (tmp_path / "chosen").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "chosen" / name).symlink_to(photos / name)
    refused = ask(tmp_path / "chosen", command="init")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "outside the data" in refused.stderr
    assert ask(tmp_path / "chosen", "--follow-links", "--out", tmp_path / "mine.yaml", command="init").returncode == 0
    assert load_sweep(tmp_path / "mine.yaml").data.follow_links
    dry = ask(tmp_path / "mine.yaml", "--dry-run", "--serial", "--out", tmp_path / "results")
    assert dry.returncode == 0, dry.stderr
    assert "25 images" in ask(tmp_path / "chosen", "--follow-links", command="check").stdout


def test_refusals(tmp_path: Path) -> None:
    fill_folder(tmp_path / "p", {"a": 10, "b": 10})
    (tmp_path / "a\tb").mkdir()
    for arguments, message in (
        ((tmp_path / "a\tb",), f"{tmp_path}/a\tb: a sweep file cannot name this"),
        ((tmp_path / "none",), f"{tmp_path / 'none'}: there is no such folder"),
        ((tmp_path / "p", "--out", tmp_path / "x.txt"), f"--out {tmp_path / 'x.txt'}: give a name that ends in .yaml"),
        (
            (tmp_path / "p", "--out", tmp_path / "no" / "x.yaml"),
            f"--out {tmp_path / 'no' / 'x.yaml'} cannot be written",
        ),
    ):
        answer = ask(*arguments, command="init")
        assert (answer.returncode, answer.stdout) == (2, "")
        assert answer.stderr.startswith(f"error: {message}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a\tb", "p"]


def test_a_folder_for_a_sweep_is_told_of_init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my photos").mkdir()
    for given in ("my photos", str(tmp_path / "my photos")):
        answer = ask(given)
        assert answer.returncode == 2
        assert answer.stderr.startswith(f"error: {given} is a folder, not a sweep.")
        assert answer.stderr.endswith(f"  cnnsearch init '{given}'\n")
    assert "cnnsearch init path/to/images" in ask().stderr


def test_sizes_fit_the_images() -> None:
    assert [image_size(side) for side in (5, 12, 31, 32, 80, 100, 223, 4000)] == [8, 12, 31, 32, 64, 96, 128, 224]
    assert [batch_sizes(n) for n in (10, 100, 500, 5000)] == [[4, 8], [4, 8], [16, 32], [32, 64]]


def test_names_are_those_of_folders(tmp_path: Path) -> None:
    assert [sweep_name(name) for name in ("a/my photos/", "…", "x_1")] == ["my-photos", "images", "x_1"]


def test_the_file_may_be_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    photos = fill_folder(tmp_path / "p", {"a": 12, "b": 12})
    assert ask(photos, "--out", "~/mine.yaml", command="init").returncode == 0
    assert (tmp_path / "mine.yaml").is_file()


def test_a_table_gets_a_sweep_that_can_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = fill_folder(tmp_path / "photos", {"cat": 12, "dog": 13})
    table = write_table(photos / "mine.csv", [(*row, row[0][4:7]) for row in named(photos)], "path", "label", "group")
    file, text = written(tmp_path, table)
    sweep = load_sweep(file)
    assert (sweep.name, sweep.data.source) == ("mine", str(table))
    assert isinstance(sweep.data.split, StratifiedSplit)
    assert "# 25 images in 2 classes: cat 12, dog 13." in text
    assert "# Images of a group stay together (13 groups)" in text
