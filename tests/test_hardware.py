from __future__ import annotations

import pytest

from cnnsearch.errors import RequestError
from cnnsearch.hardware import Hardware, Layout, detect, lay_out
from cnnsearch.spec import RunSpec

LAPTOP = Hardware("cpu", 8, 16 * 2**30, ())
BOX = Hardware("cpu", 16, 64 * 2**30, ("H100", "H100"))


def run(**values: object) -> RunSpec:
    return RunSpec.model_validate(values)


@pytest.mark.parametrize(
    ("hardware", "request_", "layout"),
    [
        (LAPTOP, run(), Layout("cpu", 8, 1, 0)),
        (LAPTOP, run(threads_per_trial=4), Layout("cpu", 2, 4, 0)),
        (LAPTOP, run(trials_at_once=3), Layout("cpu", 3, 1, 0)),
        (BOX, run(), Layout("cuda", 2, 1, 1)),
        (BOX, run(gpus_per_trial=0.25), Layout("cuda", 8, 1, 0.25)),
        (BOX, run(gpus_per_trial=0.1, threads_per_trial=2), Layout("cuda", 8, 2, 0.1)),
        (BOX, run(gpus_per_trial=2), Layout("cuda", 1, 1, 2)),
        (BOX, run(device="cpu"), Layout("cpu", 16, 1, 0)),
    ],
)
def test_layout(hardware: Hardware, request_: RunSpec, layout: Layout) -> None:
    assert lay_out(request_, hardware) == layout


@pytest.mark.parametrize(
    ("hardware", "request_", "complaint"),
    [
        (LAPTOP, run(device="cuda"), "there is no GPU"),
        (LAPTOP, run(threads_per_trial=9), "this machine has 8 cores"),
        (LAPTOP, run(trials_at_once=9), "there is room for 8"),
        (BOX, run(gpus_per_trial=3), "there are 2 GPUs"),
    ],
)
def test_more_than_there_is_is_refused(hardware: Hardware, request_: RunSpec, complaint: str) -> None:
    with pytest.raises(RequestError, match=complaint):
        lay_out(request_, hardware)


def test_threads_do_not_depend_on_what_else_runs() -> None:
    """They change the rounding: the same request must give the same threads on one core or on eight."""
    one = Hardware("cpu", 1, 2**30, ())
    assert (
        lay_out(run(), one).threads == lay_out(run(), LAPTOP).threads == lay_out(run(trials_at_once=2), LAPTOP).threads
    )


def test_this_machine_is_seen() -> None:
    hardware = detect()
    assert hardware.cores >= 1
    assert hardware.memory_bytes > 2**28
    assert hardware.cpu
