"""Trials that run on a machine without the results folder: what arrives in it is what would have been written there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cnnsearch.data.dataset import Dataset
from cnnsearch.errors import DiskError, RunError
from cnnsearch.execution.context import Choices, SharedContext
from cnnsearch.execution.events import Progress
from cnnsearch.execution.jobs import run_job
from cnnsearch.execution.on_ray.depot import Depot
from cnnsearch.execution.spool import Spool
from cnnsearch.planning.job import Job
from cnnsearch.planning.queue import Queue
from cnnsearch.planning.stopping import Orders
from cnnsearch.planning.trial import EpochRow
from cnnsearch.results.folder import Results
from cnnsearch.results.parcel import Parcel
from cnnsearch.results.record import Record
from cnnsearch.spec.sweep import Sweep
from cnnsearch.storage.cache import cache_root
from cnnsearch.storage.checksums import sha256
from cnnsearch.storage.durable import temporary_folder
from cnnsearch.training.models.pretrained import Pretrained
from tests.recorded import numbers


def context_of(path: Path, dataset: Dataset) -> SharedContext:
    return SharedContext(path, {(8, "bilinear"): dataset}, Choices("cpu", 1, "fp32"), checkpoint_seconds=0)


def run_all(sweep: Sweep, context: SharedContext, spool: Spool | None = None) -> None:
    """Run a whole sweep, sending after every step."""
    dataset = next(iter(context.datasets.values()))
    queue = Queue(sweep, dataset.fingerprint, {})
    while (job := queue.take()) is not None:
        for events in steps(job, context, spool):
            for trial, event in events:
                if isinstance(event, Record):
                    queue.finish(trial, event.outcome)


def steps(job: Job, context: SharedContext, spool: Spool | None) -> Iterator[Progress]:
    if spool:
        spool.begin(job.trials)
    for events in run_job(job, spool.context_here() if spool else context, Orders()):
        if spool:
            spool.send()
        yield events


@pytest.fixture
def far(tmp_path: Path, dataset: Dataset) -> Iterator[tuple[Spool, Depot]]:
    """A worker's spool and the depot it sends to."""
    context = context_of(tmp_path / "there", dataset)
    depot = Depot(context.results, frozenset({dataset.images_path, dataset.images_path.with_suffix(".json")}))
    spool = Spool.open(context, depot)
    yield spool, depot
    spool.close()


def test_what_arrives_is_what_would_have_been_written(
    small_sweep: Callable[..., Sweep], dataset: Dataset, tmp_path: Path, far: tuple[Spool, Depot]
) -> None:
    """With the stage that starts from the first one's best: its weights come from the depot."""
    spool, depot = far
    dataset.images_path.with_suffix(".json").write_text("{}")
    run_all(small_sweep(), context_of(tmp_path / "here", dataset))
    run_all(small_sweep(), spool.context, spool)
    assert len(numbers(depot.results)) == 16
    assert numbers(depot.results) == numbers(tmp_path / "here")
    results = Results(depot.results)
    assert not results.damaged(results.records())
    for trial_id in results.records():
        assert not results.trial(trial_id).checkpoint_file.exists()
    # Of the trials that ran here only what others start from is kept.
    spool.begin(())
    weights = list(spool.folder.glob("trials/*/best.safetensors"))
    assert 1 <= len(weights) <= 8


def test_a_trial_goes_on_elsewhere_from_what_was_sent(
    small_sweep: Callable[..., Sweep], dataset: Dataset, tmp_path: Path, far: tuple[Spool, Depot]
) -> None:
    spool, depot = far
    dataset.images_path.with_suffix(".json").write_text("{}")
    sweep = small_sweep("train.epochs=6")
    job = Queue(sweep, dataset.fingerprint, {}).take()
    assert job is not None
    first = steps(job, spool.context, spool)
    for _ in range(3):
        next(first)
    elsewhere = Spool.open(spool.context, depot)
    told = [event for events in steps(job, spool.context, elsewhere) for _, event in events]
    epochs = [event.epoch for event in told if isinstance(event, EpochRow)]
    # The third epoch was told before its checkpoint was due; it is trained again at most.
    assert epochs[0] in (3, 4)
    # The first worker was only slow, and comes back: too late.
    with pytest.raises(RunError, match="was given to another worker"):
        next(first)
    run_all(small_sweep("train.epochs=6"), context_of(tmp_path / "here", dataset))
    got, wanted = numbers(depot.results), numbers(tmp_path / "here")
    assert got == {trial_id: wanted[trial_id] for trial_id in got}
    assert len(got) == 1
    elsewhere.close()
    assert not elsewhere.folder.exists()


class Tally(Depot):
    """Counts what is read."""

    def __init__(self, results: Path, files: Iterable[Path]) -> None:
        super().__init__(results, frozenset(files))
        self.reads: list[Path] = []

    def read(self, file: Path, start: int) -> bytes:
        self.reads.append(file)
        return super().read(file, start)


def test_images_and_weights_are_fetched_once_for_all_workers(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cnnsearch.execution.on_ray.depot.PIECE_BYTES", 1000)  # several pieces each
    source = tmp_path / "source"
    source.mkdir()
    pack = source / f"{tmp_path.name}-8.npy"
    shutil.copy(dataset.images_path, pack)
    pack.with_suffix(".json").write_text(json.dumps({"bytes": pack.stat().st_size}))
    weights = source / "w.pth"
    weights.write_bytes(np.random.default_rng(0).bytes(5000))
    there = Pretrained(source / "w.pth", sha256(weights)[:16])
    depot = Tally(tmp_path / "there", [pack, pack.with_suffix(".json"), weights])
    context = context_of(tmp_path / "there", replace(dataset, images_path=pack))
    context = replace(context, weights={("resnet18", "w.pth"): there})
    # On the machine that has them, they are used where they are.
    spool = Spool.open(context, depot)
    assert spool.context_here().datasets == context.datasets
    assert spool.context_here().weights == context.weights
    assert depot.reads == []
    # Elsewhere the paths lead nowhere.
    nowhere = tmp_path / "nowhere"
    lost = replace(context, datasets={(8, "bilinear"): replace(dataset, images_path=nowhere / pack.name)})
    lost = replace(lost, weights={("resnet18", "w.pth"): replace(there, file=nowhere / "w.pth")})
    moved = Moved(depot, nowhere, source)
    for _ in range(2):
        found = Spool.open(lost, moved).context_here()
        (images,) = found.datasets.values()
        assert images.images_path == cache_root() / "images" / pack.name
        assert np.array_equal(images.images, np.load(pack))
        assert sha256(found.weights["resnet18", "w.pth"].file)[:16] == there.digest
        assert len(depot.reads) == sum(-(-file.stat().st_size // 1000) + 1 for file in depot.files)


class Moved(Depot):
    """A depot whose paths are other paths here."""

    def __init__(self, depot: Depot, said: Path, real: Path) -> None:
        super().__init__(depot.results)
        self._depot, self._said, self._real = depot, said, real

    def read(self, file: Path, start: int) -> bytes:
        assert file.parent == self._said
        return self._depot.read(self._real / file.name, start)


def test_a_depot_gives_and_takes_nothing_but_its_own(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("key")
    depot = Depot(tmp_path / "results")
    with pytest.raises(RunError, match="is no file of this sweep"):
        depot.read(tmp_path / "secret", 0)
    for name in ("../../secret", "..", "", "a/b"):
        with pytest.raises(RunError, match="is no name"):
            depot.fetch("0" * 16, [name])
        with pytest.raises(RunError, match="is no name"):
            depot.keep("me", [Parcel(name, {"record.json": b"{}"})])
        with pytest.raises(RunError, match="is no name"):
            depot.keep("me", [Parcel("0" * 16, {name: b"{}"})])
    assert {file.name for file in tmp_path.rglob("*") if file.is_file()} == {"secret"}


def test_the_record_goes_first_and_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A depot killed at any moment leaves no record that vouches for other files than those beside it."""
    depot, folder = Depot(tmp_path), Results(tmp_path).trial("0" * 16)
    old = {"record.json": b"old", "epochs.jsonl": b"old", "best.safetensors": b"old", "checkpoint.pt": b"old"}
    new = dict.fromkeys(("record.json", "epochs.jsonl", "best.safetensors"), b"new")
    seen: list[set[str]] = []

    def write(path: Path, content: bytes) -> None:
        vouched = folder.record_file.read_bytes() if folder.record_file.exists() else None
        others = {file.read_bytes() for file in folder.path.iterdir() if file.name in new} - {vouched}
        assert vouched is None or not others
        assert path.name != "record.json" or others <= {content}
        seen.append({file.name for file in folder.path.iterdir()})
        path.write_bytes(content)

    monkeypatch.setattr("cnnsearch.execution.on_ray.depot.write_whole", write)
    depot.keep("a", [Parcel(folder.path.name, old)])
    depot.keep("a", [Parcel(folder.path.name, new, frozenset({"checkpoint.pt"}))])
    assert len(seen) == 7
    assert {file.name: file.read_bytes() for file in folder.path.iterdir()} == new


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    (tmp_path / "trials").write_text("in the way")
    with pytest.raises(DiskError, match="cannot be written"):
        Depot(tmp_path).keep("me", [Parcel("0" * 16, {"trial.json": b"{}"})])


def test_folders_of_dead_workers_are_swept_away(dataset: Dataset, tmp_path: Path) -> None:
    context = context_of(tmp_path, dataset)
    spool = Spool.open(context, Depot(tmp_path))
    dead = temporary_folder(spool.folder.parent)
    number = dead.name.split("-")
    number[3] = "4194305"  # no process has that number
    abandoned = dead.rename(dead.with_name("-".join(number)))
    (abandoned / "trials").mkdir()
    second = Spool.open(context, Depot(tmp_path))
    assert not abandoned.exists()
    assert spool.folder.exists()
    spool.close()
    second.close()
