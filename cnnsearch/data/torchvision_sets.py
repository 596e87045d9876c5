"""Data sets that torchvision downloads, as sources: `torchvision:NAME`."""

from __future__ import annotations

import contextlib
import difflib
import functools
import io
import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cnnsearch.data.examples import Content, Example, FileContent, Listing, PixelContent
from cnnsearch.data.images import FORMATS
from cnnsearch.errors import DataError
from cnnsearch.words import printable

PREFIX = "torchvision:"

_STALLED_SECONDS = 30.0
"""Silence of a server after which a download is given up."""


@dataclass(frozen=True)
class OfficialSet:
    """How torchvision spells the official parts of a data set."""

    parts: Mapping[str, Mapping[str, Any]]
    """Part -> arguments of the constructor. Without "val", validation is taken from "train"."""
    folder: str
    """Where its files lie, below torchvision's root."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Arguments that every part takes."""


_BY_FLAG = {"train": {"train": True}, "test": {"train": False}}
_BY_SPLIT = {"train": {"split": "train"}, "test": {"split": "test"}}
_WITH_VAL = {"train": {"split": "train"}, "val": {"split": "val"}, "test": {"split": "test"}}

OFFICIAL = {
    "MNIST": OfficialSet(_BY_FLAG, "MNIST/raw"),
    "FashionMNIST": OfficialSet(_BY_FLAG, "FashionMNIST/raw"),
    "KMNIST": OfficialSet(_BY_FLAG, "KMNIST/raw"),
    "EMNIST": OfficialSet(_BY_FLAG, "EMNIST/raw", {"split": "balanced"}),
    "USPS": OfficialSet(_BY_FLAG, "."),
    "CIFAR10": OfficialSet(_BY_FLAG, "cifar-10-batches-py"),
    "CIFAR100": OfficialSet(_BY_FLAG, "cifar-100-python"),
    "SVHN": OfficialSet(_BY_SPLIT, "."),
    "STL10": OfficialSet(_BY_SPLIT, "stl10_binary"),
    "GTSRB": OfficialSet(_BY_SPLIT, "gtsrb"),
    "Food101": OfficialSet(_BY_SPLIT, "food-101"),
    "StanfordCars": OfficialSet(_BY_SPLIT, "stanford_cars"),
    "OxfordIIITPet": OfficialSet({**_BY_SPLIT, "train": {"split": "trainval"}}, "oxford-iiit-pet"),
    "Flowers102": OfficialSet(_WITH_VAL, "flowers-102"),
    "DTD": OfficialSet(_WITH_VAL, "dtd"),
    "FGVCAircraft": OfficialSet(_WITH_VAL, "fgvc-aircraft-2013b"),
    "RenderedSST2": OfficialSet(_WITH_VAL, "rendered-sst2"),
    "Country211": OfficialSet({**_WITH_VAL, "val": {"split": "valid"}}, "country211"),
    "Imagenette": OfficialSet({**_BY_SPLIT, "test": {"split": "val"}}, "imagenette2"),
}
"""Name in torchvision.datasets -> its facts. Image classification with an official test set only."""


def list_torchvision(source: str, root: Path) -> Listing:
    """The images of a data set of torchvision, downloaded where they are not there yet.

    Args:
        source: "torchvision:NAME".
        root: folder for torchvision's files, made where missing.

    Raises:
        DataError: unknown name, or the files are neither there nor to be had.
    """
    name = source.removeprefix(PREFIX)
    official = OFFICIAL.get(name)
    if official is None:
        raise DataError(_unknown(name))
    with _one_at_a_time(root), _patient_and_quiet():
        sets = {part: _open(name, official, arguments, root) for part, arguments in official.parts.items()}
    labels = {part: _labels(dataset) for part, dataset in sets.items()}
    examples = [
        Example(example_name, label, part, content)
        for part, dataset in sets.items()
        for label, (example_name, content) in zip(labels[part], _contents(dataset, part, root), strict=True)
    ]
    classes = _classes(sets["train"], max(map(max, labels.values())) + 1)
    return Listing(source, classes, tuple(examples), tuple(official.parts))


def _open(name: str, official: OfficialSet, arguments: Mapping[str, Any], root: Path) -> Any:
    """The torchvision data set of one part: from the files that are there, else downloaded."""
    import torchvision.datasets  # slow to import and brings torch: only those who ask for it pay

    make = functools.partial(getattr(torchvision.datasets, name), root=str(root), **official.extra, **arguments)
    try:
        return make(download=False)
    except ModuleNotFoundError as error:
        raise DataError(f"{PREFIX}{name} needs the Python package {error.name}: pip install {error.name}") from None
    except Exception:  # not there or not complete: every data set says so in its own way
        pass
    try:
        return make(download=True)
    except Exception as error:  # no network, a server's error, a damaged file
        raise DataError(_unavailable(name, root / official.folder, error)) from None


def _unavailable(name: str, folder: Path, error: Exception) -> str:
    lines = str(error).strip().splitlines()
    reason = printable(lines[-1] if lines else "no reason given")
    return (
        f"{PREFIX}{name} could not be downloaded or read ({type(error).__name__}: {reason}).\n"
        f"Its files are expected in {folder}; if some are there, they may be damaged: delete them.\n"
        "Without a network, put them there by hand, or give --data a folder with one sub-folder per class."
    )


def _unknown(name: str) -> str:
    folded = {known.lower(): known for known in OFFICIAL}
    near = [folded[close] for close in difflib.get_close_matches(name.lower(), folded, 3)]
    hint = f" Did you mean {' or '.join(PREFIX + close for close in near)}?" if near else ""
    return f"{PREFIX}{printable(name)} is not a known data set.{hint}\nknown names: {', '.join(sorted(OFFICIAL))}"


def _labels(dataset: Any) -> list[int]:
    """The label of each example, without decoding an image."""
    for attribute in ("targets", "labels", "_labels"):
        values = getattr(dataset, attribute, None)
        if values is not None and len(values) == len(dataset):
            return [int(value) for value in (values.tolist() if hasattr(values, "tolist") else values)]
    samples = getattr(dataset, "_samples", None)
    if samples is not None and len(samples) == len(dataset):
        return [int(label) for _, label in samples]
    return [int(dataset[row][1]) for row in range(len(dataset))]


def _contents(dataset: Any, part: str, root: Path) -> Iterator[tuple[str, Content]]:
    """Name and contents of each example: its file where the data set is a list of files, else its pixels."""
    paths = _paths(dataset)
    if paths is None:
        for row in range(len(dataset)):
            yield f"{part}/{row}", PixelContent(functools.partial(_image, dataset, row))
    else:
        for path in paths:  # PPM: GTSRB
            yield Path(os.path.relpath(path, root)).as_posix(), FileContent(path, (*FORMATS, "PPM"))


def _paths(dataset: Any) -> list[str] | None:
    """The image file of each example; None where the data set keeps pixels in memory.

    torchvision has no common name for this list, so it is known by what it is: as many existing files as examples,
    alone or first of pairs.
    """
    for values in vars(dataset).values():
        if not isinstance(values, list) or len(values) != len(dataset) or not values:
            continue
        firsts = [value[0] if isinstance(value, tuple) else value for value in values]
        if all(isinstance(first, str | os.PathLike) for first in firsts) and os.path.isfile(firsts[0]):
            return [os.fspath(first) for first in firsts]
    return None


def _image(dataset: Any, row: int) -> Any:
    return dataset[row][0]


def _classes(dataset: Any, count: int) -> tuple[str, ...]:
    """Class names; the numbers of classes that torchvision does not name."""
    names = getattr(dataset, "classes", None)
    if not names or len(names) != count:
        return tuple(str(label) for label in range(count))
    return tuple(str(name) if isinstance(name, str) else str(name[0]) for name in names)


@contextlib.contextmanager
def _patient_and_quiet() -> Iterator[None]:
    """A stalled server ends a download instead of hanging it; progress bars are shown on a terminal only."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_STALLED_SECONDS)
    hidden: Sequence[contextlib.AbstractContextManager[Any]] = (
        [] if sys.stderr.isatty() else [contextlib.redirect_stderr(io.StringIO())]
    )
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            for context in hidden:
                stack.enter_context(context)
            yield
    finally:
        socket.setdefaulttimeout(before)


@contextlib.contextmanager
def _one_at_a_time(root: Path) -> Iterator[None]:
    """Two processes must not write the same download; where files cannot be locked, they may."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        file = (root / ".lock").open("w")
    except OSError as error:
        raise DataError(f"cannot write to {root} ({error.strerror}).") from None
    with file:
        try:
            import fcntl
        except ImportError:
            yield
            return
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
