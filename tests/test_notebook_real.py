"""A run in a real kernel of Jupyter: what is shown below its cell, and what an interruption leaves."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import KernelManager, start_new_kernel

from cnnsearch.results.folder import Results
from tests.conftest import SMALL

GRID = "stages.grid.space={model: plain, lr: {grid: [0.1, 0.01]}}"
pytestmark = pytest.mark.after

SWEEP = """
import cnnsearch
sweep = cnnsearch.load_sweep("part1", values={values})
tables = cnnsearch.run(sweep, {out!r}, serial={serial})
len(tables.trials)
"""


class Kernel:
    """A kernel of its own, asked one cell after another."""

    def __init__(self, manager: KernelManager, client: Any) -> None:
        self.manager, self.client = manager, client

    def begin(self, code: str) -> str:
        """Send a cell; returns its number."""
        asked: str = self.client.execute(code)
        return asked

    def outputs(self, asked: str, until: str = "", seconds: float = 100) -> list[dict[str, Any]]:
        """What the cell shows to its end, or until a text is shown."""
        found: list[dict[str, Any]] = []
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            message = self.client.get_iopub_msg(timeout=seconds)
            if message["parent_header"].get("msg_id") != asked:
                continue
            content = message["content"] | {"kind": message["msg_type"]}
            if message["msg_type"] == "status" and content["execution_state"] == "idle":
                return found
            found.append(content)
            if until and until in text_of(content):
                return found
        raise AssertionError(f"not ended in {seconds:g} s: {found[-3:]}")


def text_of(output: dict[str, Any]) -> str:
    """The plain text of an output."""
    return str(output.get("data", {}).get("text/plain", "")) + str(output.get("text", ""))


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    manager, client = start_new_kernel(kernel_name="python3", startup_timeout=60)
    try:
        yield Kernel(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def cell(out: Path, *values: str, serial: bool = False) -> str:
    return SWEEP.format(values=[*SMALL, *values], out=str(out), serial=serial)


@pytest.mark.timeout(240)
def test_the_plan_is_shown_first_and_then_how_far_the_run_is(kernel: Kernel, tmp_path: Path) -> None:
    shown = kernel.outputs(kernel.begin(cell(tmp_path, GRID, serial=True)))
    assert "".join(map(str, (o for o in shown if o["kind"] in ("error", "stream")))) == ""
    (first, *updates) = [output for output in shown if output["kind"] in ("display_data", "update_display_data")]
    assert first["kind"] == "display_data"
    assert {output["kind"] for output in updates} == {"update_display_data"}, "all in one place"
    texts = [text_of(output) for output in updates]
    plan = next(text for text in texts if "grid" in text and "2 trials" in text)
    assert re.search(r"0:0\d elapsed", plan)
    assert "done in" in texts[-1]
    assert all("text/html" in output["data"] for output in updates)
    (result,) = [output for output in shown if output["kind"] == "execute_result"]
    assert int(text_of(result)) == len(Results(tmp_path / "part1").records())


@pytest.mark.slow  # with Ray, whose start takes longest
@pytest.mark.timeout(240)
def test_an_interruption_leaves_what_goes_on(kernel: Kernel, tmp_path: Path) -> None:
    many = "stages=[{name: grid, space: {model: plain, lr: {grid: [0.1, 0.05, 0.02, 0.01, 0.005, 0.002]}}}]"
    code = cell(tmp_path, many, "train.epochs=40", "run.trials_at_once=1")
    asked = kernel.begin(code)
    kernel.outputs(asked, until="grid 1/6")
    kernel.manager.interrupt_kernel()
    rest = kernel.outputs(asked)
    (error,) = [output for output in rest if output["kind"] == "error"]
    assert error["ename"] == "KeyboardInterrupt"
    done = len(Results(tmp_path / "part1").records())
    assert 1 <= done < 6
    shown = kernel.outputs(kernel.begin(code))
    assert [output for output in shown if output["kind"] == "error"] == []
    (result,) = [output for output in shown if output["kind"] == "execute_result"]
    assert int(text_of(result)) == 6
