"""What several tests share: a cache of their own, and sweeps that take a second."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from cnnsearch.data.dataset import Dataset
from cnnsearch.spec.load import load_sweep
from cnnsearch.spec.sweep import Sweep

SMALL = (
    "data.image_size=8",
    "data.split={method: fill, train_per_class: 6, val_per_class: 4}",
    "train.epochs=2",
    "train.width=0.05",
    "train.precision=fp32",
    "run.dashboard=false",
)


# A shell that starts the tests in the background has them ignore Ctrl-C, and all that they start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["CNNSEARCH_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def small_sweep() -> Callable[..., Sweep]:
    """Part 1 at 8×8 with two epochs, changed further by `KEY=VALUE` strings."""
    return lambda *values: load_sweep("part1", values=[*SMALL, *values])


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Two classes told apart by their brightness: 24 training, 8 validation and 8 test images of 8×8."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(2), 20)
    images = rng.integers(0, 128, (40, 8, 8, 3), dtype=np.uint8) + (labels * 90).astype(np.uint8)[:, None, None, None]
    np.save(tmp_path / "images.npy", images)
    indices = {
        "train": np.r_[0:12, 20:32],
        "val": np.r_[12:16, 32:36],
        "test": np.r_[16:20, 36:40],
    }
    names = tuple(f"{label}/{row:02}.png" for row, label in enumerate(labels))
    return Dataset("two", 8, ("dark", "light"), names, labels, indices, tmp_path / "images.npy", "f" * 16)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Rounding as on one thread, whatever ran before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
