from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import ray

import cnnsearch
from cnnsearch.errors import RequestError
from cnnsearch.execution.machine.hardware import Layout
from cnnsearch.execution.on_ray import cluster
from cnnsearch.spec.sweep import RunSpec, Sweep


@pytest.fixture
def ray_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A process that has a Ray; the list names what was done to it."""
    done: list[str] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "init", lambda **options: done.append("init"))
    monkeypatch.setattr(ray, "shutdown", lambda: done.append("shutdown"))
    return done


@pytest.mark.parametrize(
    "open_ray",
    [
        lambda: cluster.started(Layout("cpu", 1, 1, 0.0), RunSpec(dashboard=False), None),
        lambda: cluster.attached("auto"),
    ],
    ids=["started", "attached"],
)
def test_a_ray_that_the_caller_has_is_left_as_it_is(
    ray_of_the_caller: list[str], open_ray: Callable[[], AbstractContextManager[Any]]
) -> None:
    before = dict(os.environ)
    with pytest.raises(RequestError, match=r"ray\.shutdown\(\).*serial=True.*address="), open_ray():
        pass
    assert ray_of_the_caller == []
    assert dict(os.environ) == before


def test_a_sweep_beside_a_ray_of_the_caller_is_refused_before_it_writes(
    ray_of_the_caller: list[str], small_sweep: Callable[..., Sweep], tmp_path: Path
) -> None:
    sweep = small_sweep("stages.grid.space={model: plain}", "stages.dropout.space.dropout=0.1", "train.epochs=1")
    with pytest.raises(RequestError, match="has a Ray already"):
        cnnsearch.run(sweep, tmp_path)
    assert not (tmp_path / "part1" / "sweep.yaml").exists()
    cnnsearch.run(sweep, tmp_path, serial=True)
    assert len(cnnsearch.run(sweep, tmp_path).trials) == 2, "what has ended needs no Ray"
    assert ray_of_the_caller == []


@pytest.mark.usefixtures("shared_ray")
@pytest.mark.after
def test_a_run_leaves_environment_and_logging_as_they_were(
    small_sweep: Callable[..., Sweep], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TUNE_MAX_PENDING_TRIALS_PG", raising=False)
    monkeypatch.setenv("TUNE_DISABLE_SIGINT_HANDLER", "0")
    names = ("ray", "ray.tune", "ray.data", "ray.train")
    for name in names:
        monkeypatch.setattr(logging.getLogger(name), "level", logging.WARNING)
    before = dict(os.environ)
    sweep = small_sweep("stages.grid.space={model: plain}", "stages.dropout.space.dropout=0.1", "train.epochs=1")
    assert set(cnnsearch.run(sweep, tmp_path).trials["status"]) == {"done"}
    assert dict(os.environ) == before
    assert {logging.getLogger(name).level for name in names} == {logging.WARNING}


@pytest.mark.usefixtures("shared_ray")
@pytest.mark.after
def test_in_a_notebook_no_reporter_of_tune_touches_the_cell(
    small_sweep: Callable[..., Sweep], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.tune import progress_reporter

    made: list[object] = []
    monkeypatch.setattr(progress_reporter, "IS_NOTEBOOK", True)
    monkeypatch.setattr(progress_reporter, "JupyterNotebookReporter", lambda **options: made.append(options))
    monkeypatch.setattr(
        progress_reporter.TrialProgressCallback, "display_result", lambda self, *result: made.append(result)
    )
    sweep = small_sweep("stages.grid.space={model: plain}", "stages.dropout.space.dropout=0.1", "train.epochs=1")
    assert set(cnnsearch.run(sweep, tmp_path).trials["status"]) == {"done"}
    assert made == []
