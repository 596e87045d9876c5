"""The whole way: folder to data set, twice, with bad images, changes, two processes and a killed one."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cnnsearch.data import SPLITS, Dataset, examples, images, index as index_module, inspection, load
from cnnsearch.errors import DataError
from cnnsearch.spec.data import DataSpec, FillSplit, StratifiedSplit
from tests.data.making import encoded, fill_folder, photo, picture, settle

TWO_ONE = FillSplit(train_per_class=2, val_per_class=1)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of five different images."""
    return fill_folder(tmp_path / "photos", {"cat": 5, "dog": 5})


def spec(folder: Path, **more: object) -> DataSpec:
    return DataSpec.model_validate({"source": str(folder), "split": TWO_ONE, **more})


def read(folder: Path, size: int = 12, **more: object) -> Dataset:
    return load(spec(folder, **more), [size], cache=folder.parent / "cache")[size]


def refusal(folder: Path, **more: object) -> list[str]:
    with pytest.raises(DataError) as caught:
        read(folder, 12, **more)
    return str(caught.value).splitlines()


def test_a_folder_is_split_as_suits_it_and_says_how(tmp_path: Path) -> None:
    few = fill_folder(tmp_path / "few", {"cat": 13, "dog": 12})
    data = load(DataSpec(source=str(few)), [8], cache=tmp_path / "cache")[8]
    assert data.split == StratifiedSplit(train=0.6, val=0.2)
    assert [data.counts(split) for split in SPLITS] == [[8, 7], [3, 2], [2, 3]]
    before = FillSplit(train_per_class=2, val_per_class=1)
    again = load(DataSpec(source=str(few)), [8], cache=tmp_path / "cache", before=DataSpec(split=before))[8]
    assert again.split == before
    assert again.counts("train") == [2, 2]


def test_a_folder_becomes_a_data_set_at_every_size(photos: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    both = load(spec(photos), [16, 12, 16], cache=tmp_path / "c", on_progress=lambda *step: seen.append(step))
    assert set(both) == {12, 16}
    data = both[12]
    assert (data.source, data.image_size, data.classes) == (str(photos), 12, ("cat", "dog"))
    assert data.names[:6] == (*(f"cat/{row:03}.png" for row in range(5)), "dog/000.png")
    assert data.labels.dtype == np.int64
    assert data.labels.tolist() == [0] * 5 + [1] * 5
    assert {split: rows.tolist() for split, rows in data.indices.items()} == {
        "train": [0, 1, 5, 6],
        "val": [2, 7],
        "test": [3, 4, 8, 9],
    }
    assert data.images.dtype == np.uint8
    assert np.array_equal(data.images, [np.asarray(picture(number)) for number in range(10)])
    assert both[16].images.shape == (10, 16, 16, 3)
    assert both[16].fingerprint == data.fingerprint
    assert data.images_path.is_absolute()
    assert data.warnings == ()
    assert seen == [(row, 10) for row in range(1, 11)]
    assert {path.suffix for path in (tmp_path / "c" / "images").iterdir()} == {".npy", ".json"}


def test_pickling_carries_the_path_and_not_the_pixels(photos: Path) -> None:
    data = read(photos, 100)
    assert data.images[0, 0, 0, 0] >= 0
    pickled = pickle.dumps(data)
    assert len(pickled) < 5000
    assert np.array_equal(pickle.loads(pickled).images, data.images)


def test_a_second_call_reads_no_image_and_decodes_nothing(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle()
    first = read(photos)

    def never(*arguments: object, **more: object) -> None:
        raise AssertionError("an image was read")

    monkeypatch.setattr(index_module, "open", never, raising=False)
    monkeypatch.setattr(examples, "decode", never)
    monkeypatch.setattr(Image, "open", never)
    second = load(spec(photos), [12], cache=photos.parent / "cache", on_progress=never)[12]
    assert second.fingerprint == first.fingerprint
    assert np.array_equal(second.images, first.images)
    with pytest.raises(AssertionError, match="an image was read"):
        read(photos, 14)


def test_what_is_new_is_read_once_and_what_was_elsewhere_is_not_decoded_again(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle()
    reads: list[str] = []
    read_whole = Path.read_bytes

    def counted(self: Path) -> bytes:
        reads.append(self.suffix)
        return read_whole(self)

    monkeypatch.setattr(Path, "read_bytes", counted)
    first = read(photos)
    assert reads.count(".png") == len(first.names)

    def never(*arguments: object, **more: object) -> None:
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(examples, "decode", never)
    moved = photos.rename(photos.with_name("moved"))
    again = load(spec(moved), [12], cache=photos.parent / "cache")[12]
    assert again.fingerprint == first.fingerprint


def test_many_jpegs_are_scaled_unless_earlier_runs_did_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "photos"
    for label in ("cat", "dog"):
        (folder / label).mkdir(parents=True)
        for number in range(5):
            data = encoded(photo(number + 10 * (label == "cat")), "JPEG")
            (folder / label / f"{number}.jpg").write_bytes(data)
    few = read(folder)
    assert few.jpeg == "exact"
    monkeypatch.setattr(inspection, "MOST", 9)
    many = read(folder)
    assert many.jpeg == "scaled"
    assert many.fingerprint != few.fingerprint
    assert not np.array_equal(many.images, few.images)
    older = load(spec(folder), [12], cache=tmp_path / "cache", before=DataSpec())[12]
    assert (older.jpeg, older.fingerprint) == ("exact", few.fingerprint)
    assert read(folder, jpeg="exact").images_path == few.images_path
    kept = load(spec(folder), [12], cache=tmp_path / "cache", before=DataSpec(jpeg="scaled"))[12]
    assert kept.images_path == many.images_path


def test_only_missing_sizes_are_decoded(photos: Path) -> None:
    before = read(photos, 12).images_path.stat()
    both = load(spec(photos), [12, 16], cache=photos.parent / "cache")
    after = both[12].images_path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert both[16].images.shape[1] == 16


def test_a_harmed_pack_and_a_harmed_index_are_made_again(photos: Path) -> None:
    settle()
    data = read(photos)
    pixels = np.array(data.images)
    raw = bytearray(data.images_path.read_bytes())
    raw[-1] ^= 255
    data.images_path.write_bytes(raw)
    for path in (photos.parent / "cache" / "index").iterdir():
        path.write_text("{")
    again = read(photos)
    assert np.array_equal(again.images, pixels)
    assert again.fingerprint == data.fingerprint


def test_the_fingerprint_follows_contents_classes_and_split_and_not_names(photos: Path) -> None:
    mark = read(photos).fingerprint
    assert len(mark) == 16
    for path in sorted(photos.glob("*/*.png")):
        path.rename(path.with_name(f"renamed {path.name}"))
    photos.rename(photos.with_name("elsewhere"))
    photos = photos.with_name("elsewhere")
    assert read(photos).fingerprint == mark
    assert read(photos, 16).fingerprint == mark
    marks = {mark, read(photos, split=StratifiedSplit(train=2, val=1)).fingerprint}
    (photos / "dog").rename(photos / "emu")
    marks.add(read(photos).fingerprint)
    (photos / "emu").rename(photos / "dog")
    assert read(photos).fingerprint == mark
    first = sorted((photos / "cat").iterdir())[0]
    pixels = np.array(Image.open(first))
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(first)
    changed = read(photos)
    marks.add(changed.fingerprint)
    assert len(marks) == 4
    assert np.array_equal(changed.images[0], pixels)


def test_a_given_split_is_kept_and_the_spec_s_is_said_to_be_unused(tmp_path: Path) -> None:
    folder = fill_folder(
        tmp_path / "photos",
        {"train/cat": 4, "train/dog": 3, "val/cat": 1, "val/dog": 1, "test/cat": 2, "test/dog": 2},
    )
    data = read(folder)
    assert [data.counts(split) for split in SPLITS] == [[4, 3], [1, 1], [2, 2]]
    assert data.warnings == (f"data.split is not used: {folder} has its own train, val and test parts.",)
    assert read(folder, split=FillSplit()).warnings == ()


def test_validation_comes_from_train_and_unused_images_are_left_out(tmp_path: Path) -> None:
    folder = fill_folder(tmp_path / "photos", {"train/cat": 5, "train/dog": 4, "test/cat": 2, "test/dog": 2})
    data = read(folder)
    assert [data.counts(split) for split in SPLITS] == [[2, 2], [1, 1], [2, 2]]
    assert len(data.names) == len(data.labels) == len(data.images) == 10
    assert data.names[:4] == ("train/cat/000.png", "train/cat/001.png", "train/cat/002.png", "train/dog/000.png")
    assert data.warnings == ("3 training images are not used: data.split asks for fewer than there are.",)


def test_a_part_without_images_is_refused_and_never_made_up(tmp_path: Path) -> None:
    folder = fill_folder(
        tmp_path / "photos",
        {"train/cat": 9, "train/dog": 9, "val/cat": 0, "val/dog": 0, "test/cat": 2, "test/dog": 2},
    )
    assert refusal(folder) == ['class "cat" has no val images.', 'class "dog" has no val images.']


def test_one_truncated_image_is_refused_by_name(photos: Path) -> None:
    path = photos / "cat" / "001.png"
    path.write_bytes(path.read_bytes()[:200])
    assert refusal(photos) == [
        f"{path} is truncated (200 bytes, and the image goes on).",
        "Remove it, or skip unreadable images with --set data.on_bad_image=skip",
    ]


def test_many_bad_images_are_listed_and_counted(photos: Path) -> None:
    for row in range(4):
        (photos / "cat" / f"bad{row}.jpg").write_text("hello")
        (photos / "dog" / f"bad{row}.jpg").write_bytes(b"")
    (photos / "dog" / "away.png").symlink_to("/etc/hostname")
    lines = refusal(photos)
    assert lines[0] == "9 of 19 images cannot be used:"
    assert lines[1] == f"{photos}/dog/away.png is linked to /etc/hostname, outside the data."
    assert lines[2] == f"{photos}/cat/bad0.jpg is not an image (its content is text)."
    assert lines[6:] == [
        "and 4 more images.",
        "If it belongs to the data, let links lead out of the folder: --set data.follow_links=true",
        "Remove them, or skip unreadable images with --set data.on_bad_image=skip",
    ]


def test_a_bad_image_does_not_make_the_others_be_decoded_twice(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (photos / "cat" / "000.png").write_text("hello")
    calls = []
    decode = images.decode

    def counted(data: bytes, sizes: list[int], **more: Any) -> list[NDArray[np.uint8]]:
        calls.append(data)
        return decode(data, sizes, **more)

    monkeypatch.setattr(examples, "decode", counted)
    read(photos, on_bad_image="skip")
    assert len(calls) == 10


def test_skipped_images_are_dropped_before_the_split_and_named(photos: Path) -> None:
    (photos / "cat" / "000.png").write_text("hello")
    (photos / "dog" / "away.png").symlink_to("/etc/hostname")
    data = read(photos, on_bad_image="skip")
    assert data.names[:4] == ("cat/001.png", "cat/002.png", "cat/003.png", "cat/004.png")
    assert data.indices["train"].tolist() == [0, 1, 4, 5]
    assert np.array_equal(data.images[0], np.asarray(picture(1)))
    assert data.warnings == (
        f"Skipped 2 unreadable images: {photos}/dog/away.png is linked to /etc/hostname, outside the data; "
        f"{photos}/cat/000.png is not an image (its content is text).",
    )


def test_a_replacement_moves_up_where_a_split_leaves_images_unused(tmp_path: Path) -> None:
    folder = fill_folder(tmp_path / "photos", {"train/cat": 5, "train/dog": 5, "test/cat": 1, "test/dog": 1})
    (folder / "train" / "cat" / "000.png").write_text("hello")
    (folder / "train" / "cat" / "003.png").write_text("first replacement, no better")
    data = read(folder, on_bad_image="skip")
    assert data.names[:3] == ("train/cat/001.png", "train/cat/002.png", "train/cat/004.png")
    assert np.array_equal(data.images[:3], [np.asarray(picture(number)) for number in (1, 2, 4)])
    assert len(list(data.images_path.parent.iterdir())) == 2


def test_after_a_refusal_nothing_is_decoded_again(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (photos / "cat" / "bad.png").write_text("hello")
    settle()
    said = refusal(photos)

    def never(*arguments: object, **more: object) -> None:
        raise AssertionError("an image was read")

    monkeypatch.setattr(examples, "decode", never)
    assert refusal(photos) == said
    assert len(read(photos, on_bad_image="skip").names) == 10
    (photos / "cat" / "bad.png").unlink()
    assert read(photos).warnings == ()


def test_too_few_images_mention_what_was_skipped_or_refused(photos: Path) -> None:
    for row in range(2):
        (photos / "cat" / f"{row:03}.png").write_text("hello")
    assert refusal(photos)[0] == "2 of 10 images cannot be used:"
    lines = refusal(photos, on_bad_image="skip")
    assert lines[0] == 'class "cat" has 3 images; the split needs 4 (2 train + 1 validation + at least 1 test).'
    assert lines[1].startswith("Skipped 2 unreadable images: ")


def test_too_few_images_mention_what_was_ignored(photos: Path) -> None:
    (photos / "dog" / "004.png").rename(photos / "dog" / "004.psd")
    (photos / "dog" / "003.png").unlink()
    assert refusal(photos) == [
        'class "dog" has 3 images; the split needs 4 (2 train + 1 validation + at least 1 test).',
        "Ignored 1 entry that is not an image by its name: dog/004.psd.",
    ]


def test_a_file_that_changes_meanwhile_is_not_believed(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = photos / "cat" / "000.png"
    digest = index_module.Index.digest

    settle()
    read(photos, 14)  # so that hashes are known, and files are read a second time to be decoded

    def then_change(self: index_module.Index, path: str) -> str:
        found = digest(self, path)
        if path == str(target):
            target.write_bytes(encoded(picture(99), "PNG"))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(index_module.Index, "digest", then_change)
        assert refusal(photos)[0] == f"{target} changed while it was being read."
    assert np.array_equal(read(photos).images[0], np.asarray(picture(99)))


def test_leakage_imbalance_and_contradictions_are_warned_about(photos: Path) -> None:
    fill_folder(photos, {"dog": 20}, first=100)
    (photos / "cat" / "004.png").write_bytes((photos / "cat" / "000.png").read_bytes())
    (photos / "dog" / "004.png").write_bytes((photos / "cat" / "003.png").read_bytes())
    assert read(photos).warnings == (
        'Classes are uneven in test: from 2 images ("cat") to 17 ("dog").',
        "1 image of test is also in training, byte for byte: accuracy there is too high. "
        "For example cat/004.png (test) is cat/000.png (training).",
        '1 image is identical to one of another class, for example cat/003.png ("cat") and dog/004.png ("dog").',
    )


def test_the_sweep_may_say_that_folders_are_classes(tmp_path: Path) -> None:
    photos = fill_folder(tmp_path / "p", {f"{name}/{side}": 3 for name in ("cat", "dog") for side in ("front", "back")})
    assert read(photos, layout="classes").classes == ("cat", "dog")
    assert "look like splits" in refusal(photos)[1]


def test_a_linked_image_is_refused_as_linked(photos: Path, tmp_path: Path) -> None:
    picture(9).save(tmp_path / "away.png")
    (photos / "cat" / "away.png").symlink_to(tmp_path / "away.png")
    assert refusal(photos) == [
        f"{photos}/cat/away.png is linked to {tmp_path}/away.png, outside the data.",
        "If it belongs to the data, let links lead out of the folder: --set data.follow_links=true",
    ]
    assert "cat/away.png" in read(photos, follow_links=True).names


def test_undecodable_names_go_all_the_way(photos: Path) -> None:
    os.rename(photos / "cat" / "000.png", os.fsencode(photos) + b"/cat/\xff.png")
    odd = os.fsdecode(os.fsencode(photos.parent) + b"/\xfe")
    photos.rename(odd)
    data = load(DataSpec(source=odd, split=TWO_ONE), [12], cache=Path(odd).parent / "cache")[12]
    assert "cat/\\xff.png" in data.names
    assert data.source.encode().endswith(b"/\\xfe")


def test_fashion_mini_needs_nothing_but_itself(tmp_path: Path) -> None:
    data = load(DataSpec(), [32], cache=tmp_path)[32]
    assert data.classes[0] == "t-shirt"
    assert data.names[-1] == "ankle-boot/169.png"
    assert [set(data.counts(split)) for split in SPLITS] == [{50}, {20}, {100}]
    assert data.fingerprint == "0c98a3db1a64ea13"
    assert data.warnings == ()


def test_the_default_cache_is_the_cache_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNNSEARCH_CACHE", str(tmp_path / "own"))
    assert load(DataSpec(), [8])[8].images_path.parent == tmp_path / "own" / "images"


def test_torch_and_arrow_are_not_imported() -> None:
    code = "import sys, cnnsearch.data; sys.exit('torch' in sys.modules or 'pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    folder = fill_folder(tmp_path / "photos", {"cat": 60, "dog": 60})
    tracemalloc.start()
    try:
        data = read(folder, 256)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert data.images_path.stat().st_size > 23_000_000
    assert peak_bytes < 8_000_000


def _load_in_process(folder: str, cache: str) -> str:
    return load(spec(Path(folder)), [64], cache=Path(cache))[64].fingerprint


def test_two_processes_at_once_agree(tmp_path: Path) -> None:
    folder = fill_folder(tmp_path / "photos", {"cat": 40, "dog": 40})
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        marks = pool.starmap(_load_in_process, [(str(folder), str(tmp_path / "cache"))] * 2, chunksize=1)
    data = load(spec(folder), [64], cache=tmp_path / "cache")[64]
    assert marks == [data.fingerprint] * 2
    assert len(list((tmp_path / "cache" / "images").iterdir())) == 2


KILLED = """
import os, signal, sys
from pathlib import Path
from cnnsearch.data import load
from cnnsearch.spec.data import DataSpec, FillSplit

def kill(done, total):
    if done == 3:
        os.kill(os.getpid(), signal.SIGKILL)

split = FillSplit(train_per_class=2, val_per_class=1)
load(DataSpec(source=sys.argv[1], split=split), [12], cache=Path(sys.argv[2]), on_progress=kill)
"""


def test_a_killed_process_leaves_no_half_pack(photos: Path) -> None:
    cache = photos.parent / "cache"
    done = subprocess.run([sys.executable, "-c", KILLED, str(photos), str(cache)], check=False)
    assert done.returncode == -signal.SIGKILL
    left = list((cache / "images").iterdir())
    assert len(left) == 1
    assert left[0].name.startswith(".tmp-")
    os.utime(left[0], (1, 1))
    assert np.array_equal(read(photos).images[0], np.asarray(picture(0)))
    assert not left[0].exists()


def test_an_interruption_leaves_nothing_behind(photos: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    cache = photos.parent / "cache"
    with pytest.raises(KeyboardInterrupt):
        load(spec(photos), [12, 14], cache=cache, on_progress=interrupt)
    assert list((cache / "images").iterdir()) == []
