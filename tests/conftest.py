"""What several tests share: a place of their own that is left empty, and sweeps that take a second."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from hypothesis import HealthCheck, settings

from cnnsearch.data.dataset import Dataset
from cnnsearch.spec.load import load_sweep
from cnnsearch.spec.sweep import Sweep
from tests import short
from tests.shared_ray import SharedRay

SMALL = (
    "data.image_size=8",
    "data.split={method: fill, train_per_class: 6, val_per_class: 4}",
    "train.epochs=2",
    "train.width=0.05",
    "train.precision=fp32",
    "run.dashboard=false",
)


# How long an example takes depends on the machine, and on what else it does.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# Much is allocated and most of it soon free again: looking for cycles less often saves a tenth of the suite's time.
gc.set_threshold(100_000, 20, 100)

# A shell that starts the tests in the background has them ignore Ctrl-C, and all that they start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadscope`, keep tests together that share what is made for their file, or for their folder.

    Two processes would make it twice. Every other test goes to whichever process is free.
    """
    if config.getvalue("dist") != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling

    @functools.cache
    def scope_of(file: str) -> str | None:
        path = config.rootpath / file
        folder = path.parent / "conftest.py"
        if folder != Path(__file__) and folder.exists() and 'scope="package"' in folder.read_text(encoding="utf-8"):
            return str(path.parent)
        text = path.read_text(encoding="utf-8")
        return file if 'scope="module"' in text or "@functools.cache" in text else None

    class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return scope_of(nodeid.partition("::")[0]) or nodeid

    return Scheduling(config, log)


RUN = "CNNSEARCH_TEST_RUN"
"""In the environment of every process that tests start: the number of the process that runs the tests."""


@pytest.fixture(scope="session", autouse=True)
def _own_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache and a folder for temporary files. In the end nothing that tests started runs, and nothing is left."""
    cache = tmp_path_factory.mktemp("cache")
    folder = Path(tempfile.mkdtemp(prefix="cnnt-", dir="/tmp"))  # sockets lie in it: their paths have to be short
    os.environ.update({"CNNSEARCH_CACHE": str(cache), "TMPDIR": str(folder), RUN: str(os.getpid())})
    tempfile.tempdir = None
    yield
    _, left = psutil.wait_procs(list(_started()), timeout=10)  # wardens follow what they watched
    names = [_command(process) for process in left]
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    shutil.rmtree(folder, ignore_errors=True)
    assert names == [], "tests started these and did not end them"


def _started() -> Iterator[psutil.Process]:
    """Processes that tests started and that run still, but for one of Python's own that ends with this one."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            is_ours = process.environ().get(RUN) == str(os.getpid()) and process.status() != psutil.STATUS_ZOMBIE
            if is_ours and "multiprocessing.resource_tracker" not in _command(process):
                yield process


def _command(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())[:300]
    return ""


@pytest.fixture(scope="session", autouse=True)
def _short() -> Iterator[None]:
    """Sweeps in this process make a report of one line, by timings that are made up; see `whole`."""
    with pytest.MonkeyPatch.context() as patch:
        short.shorten(patch.setattr)
        yield


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that look at the report of a sweep they run, or at its timings."""
    for (module, name), real in short.WHOLE.items():
        monkeypatch.setattr(module, name, real)


@pytest.fixture
def figures_left_blank(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of reports that do not look at their figures: drawing them takes longest."""
    from cnnsearch import plots

    monkeypatch.setattr(plots, "to_svg", lambda figure, name: "<svg></svg>")
    monkeypatch.setattr(plots, "to_png", lambda figure: b"")


@pytest.fixture
def reports_in_words(whole: None, figures_left_blank: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that look at what the report of a sweep they run says: its figures are not drawn."""
    monkeypatch.setattr(*short.TIMINGS)


@pytest.fixture(scope="session")
def _shared_ray(_own_place: None) -> Iterator[SharedRay]:
    shared = SharedRay()
    yield shared
    shared.end()


@pytest.fixture
def shared_ray(_shared_ray: SharedRay, monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of trials that run on Ray, where its start, its end and its processes are not what is tested."""
    _shared_ray.stand_in(monkeypatch)


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
