"""Places on GPUs: how many there are, and what a job gets that needs more of them. Ray stays out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cnnsearch import prepare
from cnnsearch.execution.machine.estimate import Calibration, workload_key
from cnnsearch.execution.machine.hardware import Hardware, Layout, lay_out
from cnnsearch.execution.machine.placement import Node, max_slots, resources
from cnnsearch.execution.retries import Retries, Trouble
from cnnsearch.planning.queue import Queue
from cnnsearch.planning.trial import Trial
from cnnsearch.spec.sweep import RunSpec, Sweep

GB = 10**9
BOX = Hardware("cpu", 16, 64 * GB, ("L4",), 24 * GB)
NODE = Node("n", "box", 16, 1, 64 * GB, BOX)


@pytest.fixture
def on_a_box(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A machine with a GPU, on which a trial takes what the test says for its model."""
    taken: dict[str, int] = {}

    def measured(trials: list[Trial], *args: Any) -> Calibration:
        timed = {"step_seconds": 0.1, "eval_image_seconds": 0.01, "prefix_image_seconds": 0.0, "weights_bytes": 1}
        found = {
            workload_key(t.settings): {**timed, "features_image_bytes": 0, "memory_bytes": taken[t.settings.model]}
            for t in trials
        }
        return Calibration("bf16", found)

    monkeypatch.setattr(prepare, "detect", lambda: BOX)
    monkeypatch.setattr(prepare, "calibrate", measured)
    return taken


def test_the_largest_trial_decides_how_many_share_a_gpu(
    small_sweep: Callable[..., Sweep], tmp_path: Path, on_a_box: dict[str, int]
) -> None:
    on_a_box.update(plain=2 * GB, residual=4 * GB)
    with prepare.prepared(small_sweep(), tmp_path, dry_run=True) as ready:
        images = sum(3 * 8 * 8 * len(dataset.labels) for dataset in ready.datasets.values())
        assert ready.layout == Layout("cuda", 4, 1, 0.25, 4 * GB + images)
        assert "1 × L4, 4 trials at a time, 0.25 GPU each (4.0 GB measured)" in ready.layout.describe(BOX)
    on_a_box.update(residual=2 * GB)
    with prepare.prepared(small_sweep(), tmp_path, dry_run=True) as ready:
        assert (ready.layout.trials_at_once, ready.layout.gpus) == (8, 0.125)
    with prepare.prepared(small_sweep("run.gpus_per_trial=0.5"), tmp_path, dry_run=True) as ready:
        assert ready.layout == Layout("cuda", 2, 1, 0.5)


@pytest.mark.parametrize("trials", range(1, 9))
def test_a_job_that_runs_out_of_memory_ends_up_with_the_whole_gpu(
    small_sweep: Callable[..., Sweep], trials: int
) -> None:
    layout = lay_out(RunSpec(), BOX, gpu_bytes=int(0.9 * 24 * GB / trials - 0.6 * GB))
    assert layout.trials_at_once == trials
    queue = Queue(small_sweep(), "d" * 16, {}, slots=layout.trials_at_once)
    retries = Retries(limit=9, max_slots=max_slots(layout, [NODE]))
    job, shares = queue.take(), []
    while job is not None:
        shares.append(resources(layout, job.slots)["GPU"])
        again, given_up = retries.after(job, job.trials, Trouble.MEMORY, "too much")
        if given_up:
            break
        queue.retry(again[0])
        job = queue.take()
    assert given_up
    assert shares == sorted(set(shares))
    assert 0.999 <= shares[-1] <= 1


@pytest.mark.parametrize(
    ("layout", "most"),
    [
        (Layout("cuda", 1, 1, 0.25), 1),
        (Layout("cuda", 8, 1, 0.1), 8),
        (Layout("cuda", 16, 1, 0.25), 4),
        (Layout("cuda", 2, 1, 2.0), 1),
    ],
)
def test_no_job_waits_for_more_places_than_there_are(layout: Layout, most: int) -> None:
    node = replace(NODE, cpus=layout.trials_at_once, gpus=max(1, layout.trials_at_once * layout.gpus))
    assert max_slots(layout, [node]) == most


@pytest.mark.parametrize("parts", range(1, 65))
def test_a_share_that_was_asked_for_never_comes_to_more_than_a_gpu(parts: int) -> None:
    layout = Layout("cuda", parts, 1, 1 / parts)
    node = replace(NODE, cpus=parts)
    given = resources(layout, max_slots(layout, [node]))
    assert given == {"CPU": 1, "GPU": pytest.approx(1)}
    assert given["GPU"] <= 1


def test_places_of_a_cpu_and_of_whole_gpus() -> None:
    assert resources(Layout("cpu", 4, 2, 0.0), 2) == {"CPU": 4}
    assert resources(Layout("cuda", 1, 1, 2.0), 1) == {"CPU": 1, "GPU": 2.0}
