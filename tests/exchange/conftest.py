"""A small sweep that was run, and the tools to which it goes that are not installed with the rest."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.asking import ask
from tests.conftest import SMALL

TOOLS = list((Path(sys.prefix) / "exchange" / "lib").glob("python3*/site-packages"))
STAGES = (
    "[{name: grid, space: {model: plain, optimizer: {grid: [sgd, adam]}, lr: {grid: [0.01, 100]}}}, "
    "{name: dropout, start_from: {stage: grid}, space: {dropout: {grid: [0.1, 0.2]}}}]"
)
"""A grid of four trials, of which one diverges, then two that start from its best."""


@pytest.fixture(scope="package")
def results(_own_place: None, _short: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a sweep of six trials."""
    out = tmp_path_factory.mktemp("results")
    changes = [*SMALL, f"stages={STAGES}", "question=Which?", "train.epochs=3"]
    settings = [part for value in changes for part in ("--set", value)]
    answer = ask("part1", *settings, "--serial", "--out", out)
    assert answer.returncode == 1, answer.stderr  # one has diverged
    return out / "part1"


@pytest.fixture(scope="session")
def tools() -> Iterator[None]:
    """MLflow and TensorBoard, from an environment of their own: what is installed here comes first."""
    if not TOOLS:
        pytest.skip("make test-exchange installs MLflow and TensorBoard, which this test needs")
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    sys.path.append(str(TOOLS[0]))
    yield
    sys.path.remove(str(TOOLS[0]))
