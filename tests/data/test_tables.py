"""Tables of paths and labels, as CSV, TSV and Parquet: the same data as the same files in folders."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cnnsearch.data.dataset import Dataset
from cnnsearch.data.examples import Listing
from cnnsearch.data.loading import load
from cnnsearch.data.sources import list_path
from cnnsearch.data.tables import Places
from cnnsearch.errors import DataError
from cnnsearch.spec.data import DataSpec, FillSplit, StratifiedSplit
from tests.data.making import fill_folder, named, picture, write_table

SPLIT = FillSplit(train_per_class=3, val_per_class=1)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return fill_folder(tmp_path / "photos", {"cat": 6, "dog": 7})


def read(source: object, **spec: Any) -> Dataset:
    cache = Path(os.environ["CNNSEARCH_CACHE"])
    return load(DataSpec(source=str(source), **{"split": SPLIT, **spec}), [8], cache=cache)[8]


def refused(source: object, **spec: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(source, **spec)
    return str(caught.value)


def as_listed(listing: Listing) -> list[tuple[str, str]]:
    return [(example.name, listing.classes[example.label]) for example in listing.examples]


@pytest.mark.parametrize("kind", ["csv", "bom", "semicolons", "tsv", "CSV", "parquet", "categories"])
def test_every_kind_is_the_same_data_as_the_folder(photos: Path, kind: str) -> None:
    rows = named(photos)
    random.Random(0).shuffle(rows)  # the order of rows says nothing
    if kind in ("parquet", "categories"):
        file = photos / "all.parquet"
        frame = pd.DataFrame(rows, columns=["path", "label"])
        frame.astype({"label": "category" if kind == "categories" else object}).to_parquet(file)
    else:
        ending, between = {"tsv": ("tsv", "\t"), "semicolons": ("csv", ";"), "CSV": ("CSV", ",")}.get(
            kind, ("csv", ",")
        )
        file = write_table(photos / f"all.{ending}", rows, between=between)
    if kind == "bom":
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    table, folder = read(file), read(photos)
    assert table.fingerprint == folder.fingerprint
    assert table.names == folder.names
    assert table.images_path == folder.images_path


def test_other_columns_and_spaces_do_not_matter_and_quotes_are_read(photos: Path) -> None:
    (photos / "cat" / "000.png").rename(photos / "cat" / "a, b.png")
    rows = [(f'"{path}"', f" {label} ", "?") for path, label in named(photos)]
    file = write_table(photos / "all.csv", rows, "path", " label", "note")
    assert as_listed(list_path(str(file))) == named(photos)
    text = file.read_text().splitlines()
    file.write_text("\n\n".join(text))
    assert as_listed(list_path(str(file))) == named(photos)


def test_the_splits_of_a_table(photos: Path) -> None:
    words = ("Training", "validation", "TEST")
    rows = [(path, label, words[min(row % 7, 4) // 2]) for row, (path, label) in enumerate(named(photos))]
    data = read(write_table(photos / "all.csv", rows, "path", "label", "split"))
    wanted = {"train": "Training", "val": "validation", "test": "TEST"}
    for part, word in wanted.items():
        assert {data.names[row] for row in data.indices[part]} == {path for path, _, said in rows if said == word}
    assert data.parts == ("train", "val", "test")
    two = [(path, label, said.replace("validation", "train")) for path, label, said in rows]
    data = read(
        write_table(photos / "all.csv", two, "path", "label", "split"), split=StratifiedSplit(train=0.5, val=0.5)
    )
    assert data.parts == ("train", "test")
    assert {data.names[row] for row in data.indices["test"]} == {path for path, _, said in rows if said == "TEST"}
    for alone in ("", "train"):  # then there is nothing to keep apart
        same = write_table(photos / "all.csv", [(*row, alone) for row in named(photos)], "path", "label", "split")
        assert read(same).parts == ()
    same = write_table(photos / "all.csv", [(*row, "test") for row in named(photos)], "path", "label", "split")
    assert "all.csv has test images but none to train on (train)." in refused(same)


def test_wrong_splits_are_refused_by_row(photos: Path) -> None:
    rows = [(*row, "train") for row in named(photos)]
    for said, problem in (
        ("holdout", 'all.csv, row 3: split is "holdout"; allowed: train, val, test'),
        ("", "all.csv, row 3: there is no split; allowed: train, val, test"),
        ("val", "all.csv has train and val images but none to test on (test).\nGive train, val and test"),
    ):
        changed = [*rows[:2], (*rows[2][:2], said), *rows[3:]]
        assert problem in refused(write_table(photos / "all.csv", changed, "path", "label", "split"))


def test_several_tables_are_splits_if_they_are_called_so(photos: Path) -> None:
    rows = named(photos)
    for name, some in (("train", rows[::3]), ("dev", rows[1::3]), ("test", rows[2::3])):
        write_table(photos / f"{name}.csv", some)
    data = read(photos / "*.csv")
    assert [len(data.indices[part]) for part in ("train", "val", "test")] == [5, 4, 4]
    (photos / "dev.csv").rename(photos / "more.csv")
    assert "train.csv is named after a split and more.csv is not" in refused(photos / "*.csv").replace("test", "train")
    for old, new in (("train", "a"), ("test", "b")):
        (photos / f"{old}.csv").rename(photos / f"{new}.csv")
    assert read(photos / "*.csv").fingerprint == read(photos).fingerprint


def test_missing_columns_are_named_with_those_that_are_there(photos: Path) -> None:
    rows = named(photos)
    table = write_table(photos / "all.csv", rows, "file", "class")
    said = (
        "all.csv has the columns file and class; it lacks path and label.\nNeeded: path and label; split and group are"
    )
    assert said in refused(table)
    pd.DataFrame(rows, columns=["path", "class"]).to_parquet(photos / "all.parquet")
    said = "all.parquet has the columns path and class; it lacks label.\nNeeded: path and label, or an image column"
    assert said in refused(photos / "all.parquet")
    table = write_table(photos / "all.csv", [(*row, "x") for row in rows], "path", "label", "label")
    assert "all.csv has the column label twice" in refused(table)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "all.csv has no columns; it lacks path and label"),
        (b"path,label\n", "all.csv has no rows: it lists no image."),
        (b"path,label\ncat/000.png\n", "all.csv cannot be read (CSV parse error: Row #2: Expected 2 columns, got 1"),
        ("path,label\ncat/000.png,K\xe4tze\n".encode("latin-1"), "all.csv is not text in UTF-8; save it as UTF-8."),
        ("path,label\n".encode("utf-16"), "all.csv is not text in UTF-8; save it as UTF-8."),
    ],
)
def test_tables_that_cannot_be_read(photos: Path, content: bytes, said: str) -> None:
    (photos / "all.csv").write_bytes(content)
    assert said in refused(photos / "all.csv")
    (photos / "all.parquet").write_bytes(content)
    assert "all.parquet cannot be read (" in refused(photos / "all.parquet")


def test_tables_that_are_not_there(photos: Path) -> None:
    assert f"no file {photos}/all.csv." in refused(photos / "all.csv")
    assert f"no file is called like {photos}/*.csv." in refused(photos / "*.csv")
    write_table(photos / "all.csv", named(photos))
    pd.DataFrame(named(photos), columns=["path", "label"]).to_parquet(photos / "all.parquet")
    assert f"no file {photos}/al.csv. Did you mean {photos}/all.csv?" in refused(photos / "al.csv")
    assert "no file none/all.csv." in refused("none/all.csv")
    assert "has files of several kinds: .csv and .parquet. Give one kind." in refused(photos / "all.*")
    assert "000.png is no file of images and labels; allowed: *.csv" in refused(photos / "cat" / "*.png")
    os.mkfifo(photos / "fifo.csv")
    assert "fifo.csv cannot be read (it is a FIFO, not a file)" in refused(photos / "fifo.csv")


def test_rows_that_cannot_be_used_are_named(photos: Path) -> None:
    (photos / "folder.png").mkdir()
    (photos / "cat" / "001.png").write_bytes(b"")
    odd = [("dog/none.png", "dog"), ("", "dog"), ("folder.png", "dog"), ("cat/000.png", "")]
    table = write_table(photos / "all.csv", [*odd, *named(photos)[1:]])
    reasons = (
        f"{photos}/dog/none.png (row 1) is not there",
        f"{photos}/all.csv row 2 names no file",
        f"{photos}/folder.png (row 3) is a folder",
        f"{photos}/cat/000.png (row 4) has no label",
        f"{photos}/cat/001.png is empty (0 bytes)",
    )
    said = refused(table)
    assert "5 of 16 images cannot be used:" in said
    assert all(f"{reason}." in said for reason in reasons)
    data = read(table, on_bad_image="skip", split=StratifiedSplit())
    assert len(data.names) == 11
    assert "Skipped 5 unreadable images" in data.warnings[0]
    assert all(reason in data.warnings[0] for reason in reasons)


def test_if_no_file_is_there_the_message_says_what_paths_are_relative_to(photos: Path, tmp_path: Path) -> None:
    said = refused(write_table(tmp_path / "all.csv", named(photos)), on_bad_image="skip")
    assert "names 13 files, and none of them is there, for example cat/000.png (row 1)" in said
    assert "Paths are relative to the folder of the table." in said


def test_rows_outside_the_folder_need_permission(photos: Path, tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    for way in ("../photos", str(photos), "link"):
        (lists / "link").unlink(missing_ok=True)
        (lists / "link").symlink_to(photos)
        table = write_table(lists / "all.csv", [(f"{way}/{path}", label) for path, label in named(photos)])
        said = refused(table)
        assert f"(row 1) lies in {photos}/cat, outside the data." in said
        assert said.endswith(
            "If it belongs to the data, let links lead out of the folder: --set data.follow_links=true"
        )
        assert read(table, follow_links=True).fingerprint == read(photos).fingerprint
    (photos / "cat" / "away.png").symlink_to(lists / "all.csv")
    (photos / "cat" / "lost.png").symlink_to(lists / "none")
    odd = [("cat/away.png", "cat"), ("cat/lost.png", "cat")]
    said = refused(write_table(photos / "all.csv", [*odd, *named(photos)[1:]]))
    assert f"away.png (row 1) is linked to {lists}/all.csv, outside the data." in said
    assert "lost.png (row 2) is a link to nothing." in said


def test_paths_are_plain_in_results(photos: Path) -> None:
    rows = [
        (f"./dog/../{path}" if row % 2 else photos / path, label) for row, (path, label) in enumerate(named(photos))
    ]
    assert as_listed(list_path(str(write_table(photos / "all.csv", rows)))) == named(photos)


def test_rows_that_repeat_others_are_taken_once_and_contradictions_refused(photos: Path) -> None:
    rows = named(photos)
    again = [("./" + rows[0][0], rows[0][1]), rows[4]]
    listing = list_path(str(write_table(photos / "all.csv", [*rows, *again])))
    assert as_listed(listing) == rows
    assert listing.warnings == ("2 rows say the same as an earlier one and are taken once: row 14, row 15.",)
    said = refused(write_table(photos / "all.csv", [*rows, (rows[0][0], "dog")]))
    assert 'all.csv: row 1 and row 14 name the same file, cat/000.png, with label "cat" and "dog".' in said
    parts = [(*row, "train") for row in rows]
    said = refused(write_table(photos / "all.csv", [*parts, (*rows[1], "test")], "path", "label", "split"))
    assert 'row 2 and row 14 name the same file, cat/001.png, with split "train" and "test".' in said


def test_labels_that_are_numbers(photos: Path) -> None:
    rows = [(path, {"cat": 0, "dog": 10}[label]) for path, label in named(photos)]
    assert list_path(str(write_table(photos / "all.csv", rows))).classes == ("0", "10")
    frame = pd.DataFrame(rows, columns=["path", "label"])
    for kind in ("int8", "uint64", "float32", "Int64", "str"):
        frame.astype({"label": kind}).to_parquet(photos / "all.parquet")
        assert list_path(str(photos / "all.parquet")).classes == ("0", "10")
    frame.loc[3, "label"] = None  # whole numbers become floating-point ones in pandas
    frame.to_parquet(photos / "all.parquet")
    assert list_path(str(photos / "all.parquet")).problems == (("cat/003.png (row 4)", "has no label"),)
    frame.astype({"label": float}).assign(label=lambda table: table["label"] + 0.5).to_parquet(photos / "all.parquet")
    assert "label has numbers that are not whole; allowed: text, whole numbers." in refused(photos / "all.parquet")
    pq.write_table(pa.table({"path": ["a"], "label": [[1]]}), photos / "all.parquet")
    assert "label is of type list" in refused(photos / "all.parquet")


def test_too_few_classes_and_alike_ones(photos: Path) -> None:
    rows = [(path, "pet") for path, _ in named(photos)]
    assert 'all.csv has 1 class, "pet"; at least two are needed.' in refused(write_table(photos / "all.csv", rows))
    rows = [(path, label.replace("dog", "Cat")) for path, label in named(photos)]
    listing = list_path(str(write_table(photos / "all.csv", rows)))
    assert listing.warnings == ('Classes whose names look alike: "Cat" and "cat".',)


def test_groups_stay_together(tmp_path: Path) -> None:
    photos = fill_folder(tmp_path / "photos", {"cat": 30, "dog": 30})
    rows = [(path, label, f"{label}{row % 30 // 3}") for row, (path, label) in enumerate(named(photos))]
    table = write_table(photos / "all.csv", rows, "path", "label", "group")
    data = read(table, split={"method": "auto"})
    assert isinstance(data.split, StratifiedSplit)
    assert {part: data.counts(part) for part in data.indices} == {"train": [18] * 2, "val": [6] * 2, "test": [6] * 2}
    assert data.warnings == ("Images of a group stay together (20 groups): shares of the split are approximate.",)
    group = {path: group for path, _, group in rows}
    parts = [{group[data.names[row]] for row in data.indices[part]} for part in data.indices]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 20
    assert data.fingerprint != read(table, split=StratifiedSplit(seed=1)).fingerprint
    assert "data.split.method is fill, which takes images one by one" in refused(table)
    parts_given = [(*row, ("train", "val", "test")[at % 3]) for at, row in enumerate(rows)]
    listing = list_path(str(write_table(table, parts_given, "path", "label", "group", "split")))
    assert listing.warnings == (
        "20 groups have images in more than one split, for example cat0 (train, val and test): scores may be too high.",
    )


def test_unchanged_files_are_not_read_again(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = write_table(photos / "all.csv", named(photos))
    os.utime(photos / "cat" / "000.png", ns=(1, 1))
    first = read(table)
    (photos / "all.csv").write_text(table.read_text() + "\n")
    monkeypatch.setattr("cnnsearch.data.examples.read_unchanged", lambda path, digest: pytest.fail(path))
    assert read(table).fingerprint == first.fingerprint


def test_a_folder_is_looked_at_once_however_many_rows_name_it(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolving every path by itself would take minutes for a million rows."""
    seen: list[str] = []
    real = os.path.realpath

    def noted(path: str, **how: Any) -> str:
        seen.append(str(path))
        return real(path, **how)

    monkeypatch.setattr(os.path, "realpath", noted)
    list_path(str(write_table(photos / "all.csv", named(photos))))
    assert sorted(path for path in seen if path.startswith(str(photos / "cat"))) == [str(photos / "cat")]
    assert len(seen) <= 4


def test_where_a_row_is() -> None:
    tables = [pa.table({"path": [str(row) for row in range(count)]}) for count in (2, 3)]
    places = Places(tables, [Path("a.csv"), Path("b.csv")])
    assert [places.where(row) for row in (0, 1, 2, 4)] == [
        "a.csv, row 1",
        "a.csv, row 2",
        "b.csv, row 1",
        "b.csv, row 3",
    ]
    with pytest.raises(IndexError):
        places.where(5)


def test_a_picture_that_is_too_large_stays_refused(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(99, side=20).save(photos / "cat" / "huge.png")
    monkeypatch.setattr("cnnsearch.data.images.MAX_PIXELS", 300)
    said = refused(write_table(photos / "all.csv", named(photos)), split=StratifiedSplit())
    assert "cat/huge.png has 400 pixels; the limit is 300." in said
