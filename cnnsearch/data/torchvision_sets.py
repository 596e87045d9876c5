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
from cnnsearch.errors import DataError
from cnnsearch.systems import locks
from cnnsearch.words import printable

PREFIX = "torchvision:"

_STALLED_SECONDS = 30.0
"""Seconds without data from a server after which a download is given up."""


@dataclass(frozen=True)
class OfficialSet:
    """A data set of torchvision: the constructor arguments that give its official splits, and its folder."""

    parts: Mapping[str, Mapping[str, Any]]
    """Split -> arguments of the constructor. Without "val", validation is taken from "train"."""
    folder: str
    """Where its files are, below torchvision's root."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the constructor for every split."""


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
    """List the images of one of torchvision's data sets, downloading it first if it is not there.

    Args:
        source: "torchvision:NAME".
        root: folder for torchvision's files, made if it is missing.

    Raises:
        DataError: the name is unknown, or the files are not there and cannot be downloaded.
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
    """Open one split of a torchvision data set, from the files that are there or else by downloading them."""
    import torchvision.datasets  # slow to import and imports torch, which other sources do not need

    make = functools.partial(getattr(torchvision.datasets, name), root=str(root), **official.extra, **arguments)
    try:
        return make(download=False)
    except ModuleNotFoundError as error:
        raise DataError(f"{PREFIX}{name} needs the Python package {error.name}: pip install {error.name}") from None
    except Exception:  # missing or incomplete; each data set raises something else
        pass
    try:
        return make(download=True)
    except Exception as error:  # no network, an error of the server, a damaged file
        raise DataError(_unavailable(name, root / official.folder, error)) from None


def _unavailable(name: str, folder: Path, error: Exception) -> str:
    lines = str(error).strip().splitlines()
    reason = printable(lines[-1] if lines else "no reason given")
    return (
        f"{PREFIX}{name} could not be downloaded or read ({type(error).__name__}: {reason}).\n"
        f"Its files are expected in {folder}; if some are there, they may be damaged: delete them.\n"
        "Without a network, put them there by hand, or take a folder with one sub-folder per class."
    )


def _unknown(name: str) -> str:
    folded = {known.lower(): known for known in OFFICIAL}
    near = [folded[close] for close in difflib.get_close_matches(name.lower(), folded, 3)]
    hint = f" Did you mean {' or '.join(PREFIX + close for close in near)}?" if near else ""
    return f"{PREFIX}{printable(name)} is not a known data set.{hint}\nknown names: {', '.join(sorted(OFFICIAL))}"


def _labels(dataset: Any) -> list[int]:
    """Return the label of each example, if possible without decoding images."""
    for attribute in ("targets", "labels", "_labels"):
        values = getattr(dataset, attribute, None)
        if values is not None and len(values) == len(dataset):
            return [int(value) for value in (values.tolist() if hasattr(values, "tolist") else values)]
    samples = getattr(dataset, "_samples", None)
    if samples is not None and len(samples) == len(dataset):
        return [int(label) for _, label in samples]
    return [int(dataset[row][1]) for row in range(len(dataset))]


def _contents(dataset: Any, part: str, root: Path) -> Iterator[tuple[str, Content]]:
    """Yield name and contents of each example: its file if the data set is a list of files, else its pixels."""
    paths = _paths(dataset)
    if paths is None:
        for row in range(len(dataset)):
            yield f"{part}/{row}", PixelContent(functools.partial(_image, dataset, row))
    else:
        for path in paths:
            yield Path(os.path.relpath(path, root)).as_posix(), FileContent(path)


def _paths(dataset: Any) -> list[str] | None:
    """Return the image file of each example; None if the data set keeps pixels in memory.

    torchvision has no common name for this list, so it is recognised by its contents: as many paths as there are
    examples, by themselves or as the first of tuples, and the first of them exists.
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
    """Return class names; numbers where torchvision does not name the classes."""
    names = getattr(dataset, "classes", None)
    if not names or len(names) != count:
        return tuple(str(label) for label in range(count))
    return tuple(str(name) if isinstance(name, str) else str(name[0]) for name in names)


@contextlib.contextmanager
def _patient_and_quiet() -> Iterator[None]:
    """During the block, give up downloads from a server that stalls, and show progress bars only on a terminal."""
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
    """Let only one process at a time download during the block, if the file system can lock files."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        file = (root / ".lock").open("w")
    except OSError as error:
        raise DataError(f"cannot write to {root} ({error.strerror}).") from None
    with file:
        with contextlib.suppress(OSError):
            locks.lock(file.fileno())
        yield
