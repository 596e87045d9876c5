"""Data sets of torchvision, from files made here in its own formats: nothing is downloaded."""

from __future__ import annotations

import inspect
import socket
import struct
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cnnsearch.data import SPLITS, load, torchvision_sets
from cnnsearch.data.torchvision_sets import OFFICIAL, list_torchvision
from cnnsearch.errors import DataError
from cnnsearch.spec.data import DataSpec, FillSplit, StratifiedSplit
from tests.data.making import picture, settle


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **more: object) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def write_idx(path: Path, values: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes())


def write_fashion_mnist(root: Path, train_per_class: int = 5, test_per_class: int = 2) -> None:
    """Raw files of FashionMNIST: class by class interleaved, every image different."""
    raw = root / "torchvision" / "FashionMNIST" / "raw"
    rng = np.random.default_rng(0)
    for name, each in (("train", train_per_class), ("t10k", test_per_class)):
        images = rng.integers(0, 256, (10 * each, 28, 28)).astype(np.uint8)
        write_idx(raw / f"{name}-images-idx3-ubyte", images)
        write_idx(raw / f"{name}-labels-idx1-ubyte", np.tile(np.arange(10, dtype=np.uint8), each))


def test_official_test_is_test_and_validation_comes_from_train(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path)
    split = FillSplit(train_per_class=3, val_per_class=1)
    data = load(DataSpec(source="torchvision:FashionMNIST", split=split), [28], cache=tmp_path)[28]
    assert data.classes[0] == "T-shirt/top"
    assert [set(data.counts(part)) for part in SPLITS] == [{3}, {1}, {2}]
    raw = tmp_path / "torchvision" / "FashionMNIST" / "raw"
    train = np.frombuffer((raw / "train-images-idx3-ubyte").read_bytes(), np.uint8, offset=16).reshape(-1, 28, 28)
    test = np.frombuffer((raw / "t10k-images-idx3-ubyte").read_bytes(), np.uint8, offset=16).reshape(-1, 28, 28)
    assert np.array_equal(data.images[data.indices["train"]][..., 0], train[:30])
    assert np.array_equal(data.images[data.indices["val"]][..., 1], train[30:40])
    assert np.array_equal(data.images[data.indices["test"]][..., 2], test)
    assert [data.names[data.indices[part][0]] for part in SPLITS] == ["train/0", "train/30", "test/0"]
    assert data.warnings == ("10 training images are not used: data.split asks for fewer than there are.",)


def test_the_fingerprint_follows_the_pixels(tmp_path: Path) -> None:
    marks: list[str] = []
    for change in (0, 0, 1):
        root = tmp_path / f"{len(marks)}"
        write_fashion_mnist(root)
        path = root / "torchvision" / "FashionMNIST" / "raw" / "t10k-images-idx3-ubyte"
        raw = bytearray(path.read_bytes())
        raw[-1] ^= change
        path.write_bytes(raw)
        spec = DataSpec(source="torchvision:FashionMNIST", split=StratifiedSplit(train=0.8, val=0.2))
        marks.append(load(spec, [28], cache=root)[28].fingerprint)
    assert marks[0] == marks[1] != marks[2]


def test_a_second_call_decodes_nothing(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path)
    spec = DataSpec(source="torchvision:FashionMNIST", split=FillSplit(train_per_class=3, val_per_class=1))
    steps: list[tuple[int, int]] = []
    for _ in range(2):
        load(spec, [28], cache=tmp_path, on_progress=lambda *step: steps.append(step))
    assert len(steps) == 60


def test_a_set_of_files_is_read_as_files(tmp_path: Path) -> None:
    base = tmp_path / "torchvision" / "gtsrb"
    lines = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"]
    for label in range(2):
        (base / "GTSRB" / "Training" / f"{label:05}").mkdir(parents=True)
        for row in range(3):
            picture(10 * label + row).save(base / "GTSRB" / "Training" / f"{label:05}" / f"{row}.ppm")
        (base / "GTSRB" / "Final_Test" / "Images").mkdir(parents=True, exist_ok=True)
        picture(100 + label).save(base / "GTSRB" / "Final_Test" / "Images" / f"{label}.ppm")
        lines.append(f"{label}.ppm;12;12;0;0;0;0;{label}")
    (base / "GT-final_test.csv").write_text("\n".join(lines))
    settle()
    spec = DataSpec(source="torchvision:GTSRB", split=FillSplit(train_per_class=2, val_per_class=1))
    data = load(spec, [12], cache=tmp_path)[12]
    assert data.classes == ("0", "1")
    assert data.names[0] == "gtsrb/GTSRB/Training/00000/0.ppm"
    assert np.array_equal(data.images[data.indices["test"]], [np.asarray(picture(100)), np.asarray(picture(101))])
    assert list((tmp_path / "index").iterdir())
    (base / "GTSRB" / "Training" / "00000" / "0.ppm").write_text("hello")
    with pytest.raises(DataError, match=r"torchvision:GTSRB/gtsrb/GTSRB/Training/00000/0.ppm is not an image"):
        load(spec, [12], cache=tmp_path)


def test_official_validation_is_used_where_there_is_one(tmp_path: Path) -> None:
    base = tmp_path / "torchvision" / "dtd" / "dtd"
    (base / "labels").mkdir(parents=True)
    number = 0
    for part, count in (("train", 2), ("val", 1), ("test", 1)):
        listed = []
        for name in ("banded", "dotted"):
            (base / "images" / name).mkdir(parents=True, exist_ok=True)
            for row in range(count):
                picture(number).save(base / "images" / name / f"{part}{row}.jpg")
                listed.append(f"{name}/{part}{row}.jpg")
                number += 1
        (base / "labels" / f"{part}1.txt").write_text("\n".join(listed))
    data = load(DataSpec(source="torchvision:DTD"), [16], cache=tmp_path)[16]
    assert data.classes == ("banded", "dotted")
    assert [data.counts(part) for part in SPLITS] == [[2, 2], [1, 1], [1, 1]]


def test_unknown_names_are_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        list_torchvision("torchvision:fashion-mnist", tmp_path)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(
        "torchvision:fashion-mnist is not a known data set. Did you mean torchvision:FashionMNIST"
    )
    assert "CIFAR10, CIFAR100" in lines[1]
    for name in ("VOCDetection", "", "__init__", "FakeData"):
        with pytest.raises(DataError, match="is not a known data set"):
            list_torchvision(f"torchvision:{name}", tmp_path)


@pytest.mark.parametrize(("name", "folder"), [("MNIST", "MNIST/raw"), ("SVHN", "."), ("StanfordCars", "stanford_cars")])
def test_without_a_network_the_message_says_where_files_go(
    name: str, folder: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError) as caught:
        list_torchvision(f"torchvision:{name}", tmp_path)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f"torchvision:{name} could not be downloaded or read (")
    assert f"expected in {tmp_path / folder};" in lines[1]
    assert "take a folder with one sub-folder per class" in lines[2]
    assert len(lines) == 3
    assert capfd.readouterr() == ("", "")
    assert socket.getdefaulttimeout() is None


def test_damaged_files_are_a_clear_error(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path)
    path = tmp_path / "torchvision" / "FashionMNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"could not be downloaded or read \(.*\n.*they may be damaged: delete them"):
        list_torchvision("torchvision:FashionMNIST", tmp_path / "torchvision")


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.datasets

    def needs_more(**arguments: object) -> None:
        raise ModuleNotFoundError("No module named 'h5py'", name="h5py")

    monkeypatch.setattr(torchvision.datasets, "MNIST", needs_more)
    with pytest.raises(DataError, match="torchvision:MNIST needs the Python package h5py: pip install h5py"):
        list_torchvision("torchvision:MNIST", tmp_path)


def test_a_download_is_quiet_and_asked_for_only_where_files_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torchvision.datasets

    asked = []

    class Tiny:
        def __init__(self, root: str, train: bool, download: bool) -> None:
            asked.append((train, download))
            print("Downloading")
            print("100%", file=sys.stderr)
            if not download:
                raise RuntimeError("Dataset not found.")
            self.targets = [0, 1]

        def __len__(self) -> int:
            return 2

        def __getitem__(self, row: int) -> tuple[Image.Image, int]:
            return picture(row), row

    monkeypatch.setattr(torchvision.datasets, "MNIST", Tiny)
    listing = list_torchvision("torchvision:MNIST", tmp_path)
    assert capsys.readouterr() == ("", "")
    assert asked == [(True, False), (True, True), (False, False), (False, True)]
    assert listing.classes == ("0", "1")
    assert [example.part for example in listing.examples] == ["train", "train", "test", "test"]


@pytest.mark.parametrize("name", OFFICIAL)
def test_every_known_name_is_torchvision_s_and_takes_our_arguments(name: str) -> None:
    import torchvision.datasets

    official = OFFICIAL[name]
    assert {"train", "test"} <= set(official.parts) <= set(SPLITS)
    made = getattr(torchvision.datasets, name)
    for arguments in official.parts.values():
        parameters = inspect.signature(made.__init__).parameters
        accepted = set(parameters)
        if any(
            parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()
        ):  # EMNIST hands on to MNIST
            accepted |= set(inspect.signature(torchvision.datasets.MNIST.__init__).parameters)
        assert {"root", "download", *arguments, *official.extra} <= accepted


def test_only_one_process_downloads(tmp_path: Path) -> None:
    with torchvision_sets._one_at_a_time(tmp_path):
        import fcntl

        with (tmp_path / ".lock").open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
