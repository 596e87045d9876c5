"""Trials on GPUs that Ray only counts: each sees the ones it was given, and one that needs more memory gets more."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import ray

from benchmarks import scale
from cnnsearch.errors import OutOfMemoryError
from cnnsearch.execution.context import Choices, SharedContext
from cnnsearch.execution.events import Progress
from cnnsearch.execution.machine import hardware
from cnnsearch.execution.machine.hardware import Hardware, Layout
from cnnsearch.execution.on_ray import schedule
from cnnsearch.planning.job import Job
from cnnsearch.planning.queue import Queue
from cnnsearch.planning.stopping import Orders
from cnnsearch.planning.trial import Status
from cnnsearch.results.folder import Results
from cnnsearch.results.record import Record

pytestmark = pytest.mark.usefixtures("shared_ray")

BOX = Hardware("cpu", 8, 10**10, ("made up", "made up"), 10**10)


@dataclass(frozen=True)
class Looking:
    """In place of training, records which GPUs can be seen; one trial runs out of memory on a share."""

    greedy: str = ""
    """Its id."""
    places: int = 1
    """Trials wait until so many places have one: else the first worker has done all before others have begun."""

    def __call__(self, job: Job, context: SharedContext, orders: Orders) -> Iterator[Progress]:
        share = ray.get_runtime_context().get_assigned_resources().get("GPU", 0.0)
        for trial in job.trials:
            time.sleep(0.3)
            if trial.id == self.greedy and share < 1:
                raise OutOfMemoryError("CUDA out of memory")
            folder = Results(context.results).trial(trial.id)
            folder.begin(trial, [])
            seen = os.environ["CUDA_VISIBLE_DEVICES"]
            marks, began = context.results / "seen", time.monotonic()
            marks.mkdir(exist_ok=True)
            (marks / seen).touch()
            while len(list(marks.iterdir())) < self.places and time.monotonic() - began < 60:
                time.sleep(0.1)
            record = Record.of(
                trial,
                Status.DONE,
                host=f"{seen} {share:g}",
                started_at=datetime.now(UTC),
            )
            yield [(trial, folder.commit(record))]


def shares_seen(
    tmp_path: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch, *, greedy: bool = False, places: int = 1
) -> list[str]:
    """What eight trials saw: the GPUs by number, and their share."""
    monkeypatch.setattr(hardware, "detect", lambda: BOX)
    queue = Queue(scale.make_sweep(40, 3), "f" * 16, {}, max_trials=8)
    first = next(iter(queue.plan.trials))
    context = SharedContext(tmp_path, {}, Choices("cuda", 1, "fp32"), checkpoint_seconds=0)
    run = queue.sweep.run.model_copy(update={"dashboard": False})
    schedule.execute(queue, context, layout, run, lambda event: None, run_job=Looking(first if greedy else "", places))
    return sorted(str(record.host) for record in Results(tmp_path).records().values())


@pytest.mark.after
def test_trials_that_share_gpus_see_one_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = shares_seen(tmp_path, Layout("cuda", 4, 1, 0.5), monkeypatch, places=2)
    assert len(seen) == 8
    assert set(seen) == {"0 0.5", "1 0.5"}


@pytest.mark.after
def test_a_trial_of_two_gpus_sees_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = shares_seen(tmp_path, Layout("cuda", 1, 1, 2.0), monkeypatch)
    assert set(seen) <= {"0,1 2", "1,0 2"}
    assert len(seen) == 8


@pytest.mark.after
def test_a_trial_out_of_memory_runs_again_with_a_gpu_to_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = shares_seen(tmp_path, Layout("cuda", 4, 1, 0.5), monkeypatch, greedy=True)
    assert len(seen) == 8
    assert sum(one in ("0 1", "1 1") for one in seen) == 1, "the one that was out of memory on half a GPU"
    assert sum(one in ("0 0.5", "1 0.5") for one in seen) == 7
