"""Parquet files with the images themselves, as Hugging Face's data sets are kept."""

from __future__ import annotations

import json
import os
import random
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from cnnsearch.data import shards as module
from cnnsearch.data.examples import InnerContent
from cnnsearch.data.images import BadImageError
from cnnsearch.data.index import UnreadableError
from cnnsearch.data.sources import list_path
from cnnsearch.data.survey import survey
from cnnsearch.spec.data import FillSplit, StratifiedSplit
from tests.data.making import as_rows, encoded, fill_folder, picture, settle, write_shard
from tests.data.test_tables import read, refused

NAMES = ("cat", "dog")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return fill_folder(tmp_path / "photos", {"cat": 6, "dog": 7})


@pytest.mark.parametrize("kind", ["file", "shuffled", "names", "several", "folder", "data"])
def test_every_layout_is_the_same_data_as_the_folder(photos: Path, tmp_path: Path, kind: str) -> None:
    root = tmp_path / "parquet"
    folder = root / "data" if kind == "data" else root
    folder.mkdir(parents=True)
    rows = as_rows(photos, number=kind != "names")
    if kind == "shuffled":
        random.Random(0).shuffle(rows)
    names = () if kind == "names" else NAMES
    if kind in ("file", "shuffled", "names"):
        source = write_shard(root / "all.parquet", rows, names)
    else:
        for at in range(3):
            write_shard(folder / f"part-{at}-of-3.parquet", rows[at * 5 : at * 5 + 5], names)
        source = root / "part-*.parquet" if kind == "several" else root
        (root / "README.md").write_text("what this is")
    data, same = read(source), read(photos)
    assert data.classes == NAMES
    assert data.fingerprint == same.fingerprint
    assert data.images_path == same.images_path
    assert data.names[0] == ("part-0-of-3" if len(list(folder.glob("*.parquet"))) > 1 else "all") + (
        ".parquet/000.png" if kind in ("several", "folder", "data") else ".parquet row " + data.names[0].split()[-1]
    )


def test_shards_named_after_splits(photos: Path, tmp_path: Path) -> None:
    rows = as_rows(photos)
    for name, some in (("train-00000-of-00002", rows[::4]), ("train-00001-of-00002", rows[1::4])):
        write_shard(tmp_path / f"{name}.parquet", some, NAMES)
    write_shard(tmp_path / "validation-00000-of-00001.parquet", rows[2::4], NAMES)
    write_shard(tmp_path / "test-00000-of-00001.parquet", rows[3::4], NAMES)
    photos.rename(tmp_path.parent / "elsewhere")
    data = read(tmp_path)
    assert [len(data.indices[part]) for part in ("train", "val", "test")] == [7, 3, 3]
    assert all(data.names[row].startswith("validation-") for row in data.indices["val"])
    assert data.parts == ("train", "val", "test")


def test_other_columns_of_images_and_labels(photos: Path, tmp_path: Path) -> None:
    rows = as_rows(photos)
    file = write_shard(tmp_path / "all.parquet", rows, NAMES)
    table = pq.read_table(file).rename_columns(["img", "fine"])
    noted = {"img": {"_type": "Image"}, "fine": {"_type": "ClassLabel", "names": list(NAMES)}}
    metadata = {"huggingface": json.dumps({"info": {"features": noted}})}
    pq.write_table(table.replace_schema_metadata(metadata), file)
    assert read(file).fingerprint == read(photos).fingerprint
    frame = pd.DataFrame({"image": [row[0] for row in rows], "label": [NAMES[row[2]] for row in rows]})
    frame.to_parquet(file)  # bytes without paths stay in their order
    assert read(file).fingerprint == read(photos).fingerprint
    frame.rename(columns={"label": "class"}).to_parquet(file)
    said = "all.parquet has the columns image and class; it lacks the column label.\nNeeded: image and label;"
    assert said in refused(file)


def test_splits_and_groups_are_columns_here_too(photos: Path, tmp_path: Path) -> None:
    rows = as_rows(photos, number=False)
    frame = pd.DataFrame({"image": [row[0] for row in rows], "label": [row[2] for row in rows]})
    frame["split"] = [("train", "validation", "test")[row % 3] for row in range(len(rows))]
    frame.to_parquet(tmp_path / "all.parquet")
    assert [len(rows) for rows in read(tmp_path / "all.parquet").indices.values()] == [5, 4, 4]
    frame.drop(columns="split").assign(group=[row // 2 for row in range(len(rows))]).to_parquet(
        tmp_path / "all.parquet"
    )
    data = read(tmp_path / "all.parquet", split=StratifiedSplit(train=0.5, val=0.25))
    assert "Images of a group stay together (7 groups)" in data.warnings[0]


def test_classes_keep_the_order_of_the_metadata_and_their_names_apart(photos: Path, tmp_path: Path) -> None:
    names = ["zebra", "crane", "none", "crane"]
    rows = [(content, path, label or 3) for content, path, label in as_rows(photos)]
    rows[0] = (rows[0][0], rows[0][1], 0)
    rows[1] = (rows[1][0], rows[1][1], 1)
    listing = list_path(str(write_shard(tmp_path / "all.parquet", rows, names)))
    assert listing.classes == ("zebra", "crane (1)", "crane (3)")  # nobody is called none
    other = write_shard(tmp_path / "b.parquet", rows, names[::-1])
    assert "b.parquet names other classes than all.parquet." in refused(tmp_path / "*.parquet")
    write_shard(other, [(b"", "x", 4)], names)
    assert "b.parquet, row 1: label is 4; there are 4 names, from 0." in refused(other)


def test_images_and_labels_that_are_missing_are_named_by_row(photos: Path, tmp_path: Path) -> None:
    rows = [*as_rows(photos), (None, "away.png", 1), (b"", "empty.png", 1), (b"text", None, 1), (b"", "?.png", -1)]
    file = write_shard(tmp_path / "all.parquet", rows, NAMES)
    reasons = (
        f"{tmp_path}/all.parquet/away.png holds no image",
        f"{tmp_path}/all.parquet/empty.png is empty (0 bytes)",
        f"{tmp_path}/all.parquet row 16 is not an image (its content is text)",
        f"{tmp_path}/all.parquet/?.png (row 17) has no label",
    )
    said = refused(file, split=StratifiedSplit())
    assert "4 of 17 images cannot be used:" in said
    assert all(f"{reason}." in said for reason in reasons)
    data = read(file, split=StratifiedSplit(), on_bad_image="skip")
    assert len(data.names) == 13
    assert all(reason in data.warnings[0] for reason in reasons)


def test_files_that_cannot_be_used(photos: Path, tmp_path: Path) -> None:
    file = write_shard(tmp_path / "all.parquet", [], NAMES)
    assert "all.parquet has no rows: it lists no image." in refused(file)
    write_shard(file, as_rows(photos)[:6], NAMES)
    assert 'all.parquet has 1 class, "cat"; at least two are needed.' in refused(file)
    file.write_bytes(file.read_bytes()[:-40])
    assert "all.parquet cannot be read (" in refused(file)
    (tmp_path / "shards").mkdir()
    write_shard(tmp_path / "shards" / "train.parquet", as_rows(photos), NAMES)
    write_shard(tmp_path / "shards" / "more.parquet", as_rows(photos), NAMES)
    assert "train.parquet is named after a split and more.parquet is not." in refused(tmp_path / "shards")


def test_row_groups_that_are_too_large_are_refused(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_shard(tmp_path / "all.parquet", as_rows(photos), NAMES, group=13)
    monkeypatch.setattr(module, "_MOST_BYTES", 4000)
    said = refused(file)
    assert re.search(r"all.parquet has [\d,]+ bytes of images in one row group, .* the limit is 4,000\.", said)
    assert said.endswith("Write it with fewer images in each, such as row_group_size=100.")
    write_shard(file, as_rows(photos), NAMES, group=4)
    assert read(file).fingerprint == read(photos).fingerprint


def test_unchanged_files_are_not_read_again(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_shard(tmp_path / "all.parquet", as_rows(photos), NAMES)
    settle()
    first = read(file)
    monkeypatch.setattr(module._Store, "fetch", lambda self, at, row: pytest.fail(f"row {row} was read"))
    assert read(file).fingerprint == first.fingerprint


def test_a_changed_file_is_read_again(photos: Path, tmp_path: Path) -> None:
    rows = as_rows(photos)
    file = write_shard(tmp_path / "all.parquet", rows, NAMES)
    first = read(file)
    rows[3] = (encoded(picture(999), "PNG"), *rows[3][1:])
    write_shard(file, rows, NAMES)
    assert read(file).fingerprint != first.fingerprint


def test_each_row_group_is_read_once_however_rows_are_shuffled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = as_rows(fill_folder(tmp_path / "photos", {"cat": 6, "dog": 7}, first=7000))
    random.Random(1).shuffle(rows)
    file = write_shard(tmp_path / "all.parquet", rows, NAMES, group=2)
    groups: list[int] = []
    real = pq.ParquetFile.read_row_group

    def noted(self: Any, group: int, **how: Any) -> Any:
        groups.append(group)
        return real(self, group, **how)

    monkeypatch.setattr(module, "_KEPT_GROUPS", 1)
    monkeypatch.setattr(module, "_KEPT_BYTES", 0)
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", noted)
    read(file, split=StratifiedSplit())
    assert groups == 3 * [*range(7)]  # to hash, to decode, and to look for 16-bit greys


def test_threads_get_their_own_images(photos: Path, tmp_path: Path) -> None:
    rows = as_rows(photos)
    file = write_shard(tmp_path / "all.parquet", rows, NAMES, group=2)
    contents = [example.content for example in list_path(str(file)).examples]
    ready = threading.Barrier(4)

    def one(row: int) -> bytes:
        if row < 4:
            ready.wait(10)
        content = contents[row]
        assert isinstance(content, InnerContent)
        return content.read()

    with ThreadPoolExecutor(4) as threads:
        assert [*threads.map(one, range(13))] == [row[0] for row in rows]


def test_a_file_that_goes_away_or_changes_meanwhile_is_no_crash(photos: Path, tmp_path: Path) -> None:
    file = write_shard(tmp_path / "all.parquet", as_rows(photos), NAMES)
    listing = list_path(str(file))
    file.write_bytes(file.read_bytes()[:200])
    content = listing.examples[-1].content
    assert isinstance(content, InnerContent)
    with pytest.raises(UnreadableError, match="cannot be read"):
        content.read()
    file.unlink()
    with pytest.raises(BadImageError, match="cannot be read"):
        content.shape()


def test_16_bit_greys_are_read_as_asked(tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    images = [Image.fromarray(np.full((8, 8), 100 + row * 30, np.uint16)) for row in range(12)]
    rows = [(encoded(image, "PNG"), None, row % 2) for row, image in enumerate(images)]
    file = write_shard(tmp_path / "all.parquet", rows, NAMES)
    data = read(file, split=StratifiedSplit())
    assert any("16-bit images have values from 100 to 430" in warning for warning in data.warnings)
    brighter = read(file, split=StratifiedSplit(), grey_range=[0, 511])
    assert brighter.images.max() > 100 > data.images.max()


def test_a_survey_of_it(photos: Path, tmp_path: Path) -> None:
    rows = as_rows(photos)
    found = survey(str(write_shard(tmp_path / "all.parquet", [*rows, (rows[0][0], "again.png", 0)], NAMES)))
    assert (found.sizes, found.side, found.duplicates, found.unreadable) == ([7, 7], 12, 1, ())


def test_a_fill_split_goes_by_the_order_of_paths(photos: Path, tmp_path: Path) -> None:
    file = write_shard(tmp_path / "all.parquet", as_rows(photos)[::-1], NAMES)
    data = read(file, split=FillSplit(train_per_class=2, val_per_class=2))
    assert [data.names[row].split()[-1] for row in data.indices["train"]] == ["13", "12", "7", "6"]
    assert os.path.basename(data.names[0]).startswith("all.parquet row")
