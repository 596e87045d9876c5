"""Features that several processes want at the same time: each part is computed once, whoever dies meanwhile."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing import current_process, forkserver
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cnnsearch.training import features
from cnnsearch.training.features import BATCH_SIZE, PARTS, shared

IMAGES = 40 * BATCH_SIZE + 7
VALUES = torch.arange(3.0 * IMAGES).reshape(IMAGES, 3)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Makes processes that begin with what this module imports, which takes each of them seconds otherwise."""
    ours = current_process()._config  # type: ignore[attr-defined]
    ours["tempdir"] = str(tmp_path_factory.mktemp("mp"))  # a place of its own would be removed after ours is gone
    multiprocessing.set_forkserver_preload([__name__])
    yield multiprocessing.get_context("forkserver")
    forkserver._forkserver._stop()  # type: ignore[attr-defined]
    del ours["tempdir"]


def ask(folder: Path, seconds: float, hangs_at: int = PARTS, key: str = "key") -> None:
    """Want them, taking so long for a part; the part after `hangs_at` is never done."""
    os.environ["CNNSEARCH_CACHE"] = str(folder)
    made = 0

    def make(part: slice) -> tuple[Tensor, ...]:
        nonlocal made
        with (folder / "log").open("a") as log:
            print(os.getpid(), part.start, file=log, flush=True)
        time.sleep(1000 if made == hangs_at else seconds)
        made += 1
        return VALUES[part].clone(), VALUES[part, 0].clone()

    found = shared(key, make, IMAGES, "cpu")
    assert torch.equal(found[0], VALUES)
    assert torch.equal(found[1], VALUES[:, 0])


def ask_for_many(folder: Path) -> None:
    for number in range(15):
        ask(folder, 0.0, key=str(number))


def made(folder: Path) -> list[tuple[int, int]]:
    """Process and first image of every part that was begun."""
    log = folder / "log"
    if not log.exists():
        return []
    lines = [line.split() for line in log.read_text().splitlines()]
    return [(int(process), int(start)) for process, start in lines]


def files(folder: Path) -> list[str]:
    return sorted(path.suffix or path.name for path in (folder / "features").iterdir())


def test_processes_that_wait_for_the_same_share_the_work(context: Any, tmp_path: Path) -> None:
    processes = [context.Process(target=ask, args=(tmp_path, 0.2)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    parts = made(tmp_path)
    assert len(parts) == len({start for _, start in parts}) == PARTS
    assert all(start % BATCH_SIZE == 0 for _, start in parts)
    assert len(Counter(process for process, _ in parts)) == 2
    assert files(tmp_path) == [".json", ".lock", ".pt"]


def test_whoever_comes_when_all_is_nearly_done_finds_it(context: Any, tmp_path: Path) -> None:
    processes = [context.Process(target=ask_for_many, args=(tmp_path,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
        assert process.exitcode == 0
    assert len(made(tmp_path)) == 15 * PARTS


def test_what_a_killed_process_has_done_is_kept_and_what_it_had_begun_is_done_by_another(
    context: Any, tmp_path: Path
) -> None:
    first = context.Process(target=ask, args=(tmp_path, 0.0, 3))
    first.start()
    deadline = time.monotonic() + 60
    while len(made(tmp_path)) < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    second = context.Process(target=ask, args=(tmp_path, 0.0))
    second.start()
    while len(made(tmp_path)) < PARTS and time.monotonic() < deadline:
        time.sleep(0.02)
    assert second.is_alive()  # waits for the fourth part
    first.kill()
    second.join(60)
    assert second.exitcode == 0
    begun = Counter(start for _, start in made(tmp_path))
    assert len(begun) == PARTS
    assert [start for start, times in begun.items() if times > 1] == [3 * BATCH_SIZE]
    assert files(tmp_path) == [".json", ".lock", ".pt"]


def test_what_nobody_goes_on_with_is_swept_away_after_a_week(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNNSEARCH_CACHE", str(tmp_path))
    days = {"fresh": 6, "abandoned": 8}
    for name, age in days.items():
        parts = tmp_path / "features" / f".tmp-{name}.parts"
        parts.mkdir(parents=True)
        (parts / "0.pt").write_bytes(b"some")
        os.utime(parts, (time.time() - age * 24 * 3600,) * 2)
    features.shared("another", lambda part: (VALUES[:5][part],), 5, "cpu")
    assert [path.name for path in (tmp_path / "features").glob("*.parts")] == [".tmp-fresh.parts"]


@pytest.mark.parametrize("harm", ["flip", "truncate"])
def test_a_damaged_part_is_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str) -> None:
    def interrupt_the_fifth(seconds: float) -> None:
        if len(made(tmp_path)) == 5:
            raise KeyboardInterrupt

    monkeypatch.setenv("CNNSEARCH_CACHE", str(tmp_path))
    monkeypatch.setattr(time, "sleep", interrupt_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        ask(tmp_path, 0.0)
    starts = [start for _, start in made(tmp_path)]
    (part,) = (tmp_path / "features").glob("*.parts/2.pt")
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content if harm == "flip" else content[:100])
    features._CHECKED.clear()  # as in another process
    ask(tmp_path, 0.0)
    begun = Counter(start for _, start in made(tmp_path))
    assert [start for start, times in begun.items() if times > 1] == [starts[2], starts[4]]


def test_few_images_are_one_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNNSEARCH_CACHE", str(tmp_path))
    asked: list[slice] = []

    def make(part: slice) -> tuple[Tensor, ...]:
        asked.append(part)
        return (VALUES[:5][part],)

    assert torch.equal(features.shared("few", make, 5, "cpu")[0], VALUES[:5])
    assert [list(range(5))[part] for part in asked] == [[0, 1, 2, 3, 4]]
