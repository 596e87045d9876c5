"""Trials on the machines of a cluster: what is planned for them, and how many fit. Ray stays out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cnnsearch import prepare
from cnnsearch.errors import RequestError
from cnnsearch.execution.events import Ready
from cnnsearch.execution.machine.estimate import workload_key
from cnnsearch.execution.machine.hardware import Hardware, Layout
from cnnsearch.execution.machine.placement import (
    Cluster,
    Node,
    describe,
    lay_out_over,
    max_slots,
    resources,
    total_slots,
    usable,
)
from cnnsearch.plan_text import plan_text
from cnnsearch.planning.trial import Trial
from cnnsearch.spec.settings import Settings
from cnnsearch.spec.sweep import RunSpec, Sweep

GB = 10**9
HEAD = Node("0", "head", 0, 0, 8 * GB, Hardware("cpu", 4, 8 * GB, ()))
PLAIN = Node("1", "plain", 8, 0, 24 * GB, Hardware("cpu", 8, 32 * GB, ()))
SMALL = Node("2", "small", 8, 1, 48 * GB, Hardware("cpu", 8, 64 * GB, ("L4",), 24 * GB))
LARGE = Node("3", "large", 32, 4, 200 * GB, Hardware("cpu", 32, 256 * GB, ("H100",) * 4, 80 * GB))


def run(**values: Any) -> RunSpec:
    return RunSpec.model_validate(values)


def test_trials_go_where_the_gpus_are_unless_told_otherwise() -> None:
    everything = (HEAD, PLAIN, SMALL, LARGE)
    assert usable(run(), everything) == (SMALL, LARGE)
    assert usable(run(device="cpu"), everything) == (PLAIN, SMALL, LARGE)
    assert usable(run(), (HEAD, PLAIN)) == (PLAIN,)
    with pytest.raises(RequestError, match=r"run\.device is cuda, and no machine of the cluster has such a GPU now"):
        usable(run(device="cuda"), (HEAD, PLAIN))
    with pytest.raises(RequestError, match="no machine of the cluster offers CPUs"):
        usable(run(), (HEAD,))


def test_a_cluster_runs_on_one_kind_of_gpu() -> None:
    """Numbers of different kinds are not to be mixed, and the layout is of one."""
    intel = replace(SMALL, id="4", hardware=replace(SMALL.hardware, gpus=("Arc",), kind="xpu"))
    everything = (PLAIN, intel, LARGE)
    assert usable(run(), everything) == usable(run(device="cuda"), everything) == (LARGE,)
    assert usable(run(device="xpu"), everything) == usable(run(), (PLAIN, intel)) == (intel,)
    assert lay_out_over(run(device="xpu"), everything).device == "xpu"
    with pytest.raises(RequestError, match=r"run\.device is mps, and no machine of the cluster has such a GPU now"):
        usable(run(device="mps"), everything)


def test_what_fits_the_smallest_gpu_is_planned_for_all() -> None:
    layout = lay_out_over(run(), (HEAD, SMALL, LARGE), gpu_bytes=10 * GB)
    # Two on the small one's 24 GB, so two on each of the large ones' too.
    assert (layout.gpus, layout.trials_at_once, layout.device) == (0.5, 2 + 8, "cuda")
    assert resources(layout, 1) == {"CPU": 1, "GPU": 0.5}
    assert max_slots(layout, (SMALL, LARGE)) == 2
    alone = lay_out_over(run(), (LARGE,), gpu_bytes=10 * GB)
    assert (alone.gpus, alone.trials_at_once) == (0.1666, 24)
    assert lay_out_over(run(), (SMALL, LARGE)).trials_at_once == 5, "one a GPU until memory is measured"


def test_several_gpus_a_trial_only_where_a_machine_has_them() -> None:
    layout = lay_out_over(run(gpus_per_trial=2), (SMALL, LARGE))
    assert (layout.gpus, layout.trials_at_once) == (2.0, 2)
    assert total_slots(layout, (SMALL, LARGE)) == 2
    with pytest.raises(RequestError, match=r"no machine of the cluster can run a trial.*gpus_per_trial is 8"):
        lay_out_over(run(gpus_per_trial=8), (SMALL, LARGE))


def test_threads_that_only_some_machines_have() -> None:
    layout = lay_out_over(run(threads_per_trial=12, device="cpu"), (PLAIN, LARGE))
    # 32 CPUs hold two, and 8 none: 40 in all would hold three.
    assert layout.trials_at_once == 2
    with pytest.raises(RequestError, match=r"threads_per_trial is 64"):
        lay_out_over(run(threads_per_trial=64, device="cpu"), (PLAIN, LARGE))


def test_as_many_as_are_asked_for_may_wait_for_machines_that_come() -> None:
    assert lay_out_over(run(trials_at_once=50, device="cpu"), (PLAIN,)).trials_at_once == 50
    layout = lay_out_over(run(trials_at_once=40), (SMALL, LARGE), gpu_bytes=GB)
    assert (layout.trials_at_once, layout.gpus) == (40, 0.125)


def test_memory_of_a_machine_limits_its_trials() -> None:
    tight = replace(PLAIN, hardware=replace(PLAIN.hardware, memory_bytes=16 * GB), memory_bytes=12 * GB)
    layout = lay_out_over(run(), (tight, PLAIN), host_bytes=3 * GB)
    assert layout.host_bytes == 3 * GB
    assert layout.trials_at_once == 4 + 8
    assert resources(layout, 2) == {"CPU": 2, "memory": 6 * GB}
    assert max_slots(layout, (tight, PLAIN)) == 8


def test_words_for_it() -> None:
    layout = Layout("cuda", 10, 1, 0.5)
    text = describe(layout, (SMALL, LARGE, LARGE))
    assert text == ("3 machines of a cluster (1 with 1 × L4 and 2 with 4 × H100), 10 trials at a time, 0.5 GPU each")
    assert "(1 with 8 CPU cores), 1 trial at a time, 2 threads each" in describe(Layout("cpu", 1, 2, 0.0), (PLAIN,))


@pytest.mark.usefixtures("whole")  # timings come from the machines
def test_a_head_without_a_gpu_plans_for_the_machines_with_gpus(
    small_sweep: Callable[..., Sweep], tmp_path: Path
) -> None:
    asked: list[tuple[str, str, int]] = []

    def time_on(node: Node, layout: Layout, request: Mapping[str, Any]) -> dict[str, Any]:
        asked.append((node.name, request["device"], len(request["workloads"])))
        timed = {"step_seconds": 0.1, "eval_image_seconds": 0.01, "prefix_image_seconds": 0.0, "weights_bytes": 1}
        more = {"features_image_bytes": 0, "memory_bytes": 5 * GB}
        workloads = [{**timed, **more} for _ in request["workloads"]]
        return {"precision": "bf16", "import_seconds": 1.0, "workloads": workloads}

    cluster = Cluster("", Ready(), (HEAD, SMALL, LARGE), lambda: (), time_on)
    with prepare.prepared(small_sweep(), tmp_path, dry_run=True, cluster=cluster) as ready:
        assert (ready.layout.device, ready.layout.gpus) == ("cuda", 0.3333)
        assert ready.layout.trials_at_once == 15
        assert "2 machines of a cluster (1 with 1 × L4 and 1 with 4 × H100), 15 trials at a time" in plan_text(ready)
        trials: list[Trial] = list(ready.plan.trials.values())
        assert {workload_key(trial.settings) for trial in trials} <= ready.calibration.workloads.keys()
    # On the machine with the least memory, with the device and not on the head.
    ((name, device, workloads),) = asked
    assert (name, device) == ("small", "cuda")
    assert workloads >= len({workload_key(Settings.model_validate(t.settings)) for t in trials})
