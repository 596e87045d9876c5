"""How trials are laid out over the machines of a cluster, once it is known what these machines are."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cnnsearch.errors import RequestError
from cnnsearch.execution.events import Ready
from cnnsearch.execution.machine import hardware
from cnnsearch.execution.machine.gpus import GPUS
from cnnsearch.execution.machine.hardware import Hardware, Layout, gpu_slots, lay_out
from cnnsearch.spec.sweep import RunSpec

LOOK_SECONDS = 3.0
"""Seconds between two checks of which machines a cluster has."""


@dataclass(frozen=True)
class Node:
    """A machine of a cluster."""

    id: str
    name: str
    """Host and address, for people."""
    cpus: float
    """CPUs that Ray gives out, which may be fewer than the machine has. Likewise for GPUs and memory."""
    gpus: float
    memory_bytes: float
    hardware: Hardware

    @property
    def given_out(self) -> Hardware:
        """The part of the machine that trials can use."""
        return replace(
            self.hardware, cores=min(self.hardware.cores, int(self.cpus)), gpus=self.hardware.gpus[: int(self.gpus)]
        )


@dataclass(frozen=True)
class Cluster:
    """A cluster this process is attached to."""

    address: str
    """Address of its control process (GCS), host:port."""
    ready: Ready
    """URL of its dashboard."""
    nodes: tuple[Node, ...]
    """Its machines at the time when this process attached."""
    look: Callable[[], tuple[Node, ...]]
    """Checks again, and returns the machines it has now. Raises RunError if one that joined is unusable."""
    time_on: Callable[[Node, Layout, Mapping[str, Any]], dict[str, Any]]
    """Has a machine answer a request of `timing.calibrate`, with the resources of a trial."""

    def smallest(self, run: RunSpec) -> Node:
        """Of the machines that trials may run on, the one with the least memory: what fits on it fits on all.

        Raises RequestError if there are none.
        """
        able = usable(run, self.nodes)
        return min(able, key=lambda n: (n.hardware.gpu_memory_bytes, n.hardware.memory_bytes, n.name))


def usable(run: RunSpec, nodes: Sequence[Node]) -> tuple[Node, ...]:
    """The machines that trials can run on: those with GPUs if there are any and the request allows, else all with CPUs.

    Raises RequestError where there are none.
    """
    able = tuple(node for node in nodes if node.cpus >= 1)
    if not able:
        raise RequestError("no machine of the cluster offers CPUs to trials now; start one that does")
    kinds = GPUS if run.device == "auto" else (run.device,)
    by_kind = {kind: tuple(node for node in able if node.given_out.device == kind) for kind in kinds}
    found = next((nodes for nodes in by_kind.values() if nodes), ())
    if not found and run.device not in ("auto", "cpu"):
        what = f"run.device is {run.device}, and no machine of the cluster has such a GPU now"
        raise RequestError(f"{what}; start one, or allow cpu")
    return able if run.device == "cpu" else found or able


def lay_out_over(run: RunSpec, nodes: Sequence[Node], gpu_bytes: int | None = None, host_bytes: int = 0) -> Layout:
    """Fit the request to a cluster: every trial gets what fits the smallest machine that can take one.

    As many trials run at once as fit now, or as are asked for; if more are asked for, a cluster with autoscaling grows.
    See `hardware.lay_out` for the arguments. Raises RequestError where no machine can run a single trial.
    """
    able = usable(run, nodes)
    total = sum(len(node.given_out.gpus) for node in able)
    found: list[Layout] = []
    refusal = RequestError("")
    for node in able:
        asked: Any = "auto"
        if total and run.trials_at_once != "auto":
            asked = max(1, min(run.trials_at_once * len(node.given_out.gpus) // total, node.given_out.cores))
        alone = run.model_copy(update={"trials_at_once": asked})
        try:
            found.append(lay_out(alone, node.given_out, gpu_bytes, host_bytes))
        except RequestError as error:
            refusal = error
    if not found:
        raise RequestError(f"no machine of the cluster can run a trial. On one of them: {refusal}")
    one = max(found, key=lambda layout: (layout.gpus, layout.host_bytes))
    fitting = total_slots(one, able)
    return replace(one, trials_at_once=fitting if run.trials_at_once == "auto" else run.trials_at_once)


def total_slots(layout: Layout, nodes: Iterable[Node]) -> int:
    """Trials that fit on these machines at once; none spans two machines."""
    return sum(slots_on(layout, node.cpus, node.gpus, node.memory_bytes) for node in nodes)


def slots_on(layout: Layout, cpus: float, gpus: float, memory_bytes: float) -> int:
    """Trials that fit on one machine at once."""
    found = int(cpus / layout.threads)
    if layout.gpus:
        found = min(found, gpu_slots(gpus, layout.gpus))
    if layout.host_bytes:
        found = min(found, int(memory_bytes / layout.host_bytes))
    return found


def max_slots(layout: Layout, nodes: Iterable[Node]) -> int:
    """Most slots that a single trial can take: those of one GPU or, without GPUs, of the largest machine."""
    nodes = tuple(nodes)
    if layout.gpus:
        return max(1, min(gpu_slots(1, layout.gpus), total_slots(layout, nodes)))
    return max([1, *(slots_on(layout, node.cpus, 0, node.memory_bytes) for node in nodes)])


def resources(layout: Layout, slots: int) -> dict[str, float]:
    """Resources that Ray sets aside for a job that takes this many slots."""
    if not layout.gpus:
        memory = {"memory": layout.host_bytes * slots} if layout.host_bytes else {}
        return {"CPU": layout.threads * slots, **memory}
    # Above one, Ray gives out whole GPUs only, so seven times a seventh must not round to a little more than one.
    share = layout.gpus * slots
    return {"CPU": layout.threads, "GPU": share if layout.gpus >= 1 else min(1.0, share)}


class Capacity:
    """The number of slots for trials: fixed on this machine, changing as machines join or leave a cluster."""

    def __init__(self, layout: Layout, run: RunSpec, cluster: Cluster | None) -> None:
        # On this machine, Ray is given only as many CPUs as trials fit in its memory.
        self.layout = layout if cluster else replace(layout, host_bytes=0)
        self._fixed = run.trials_at_once != "auto"
        self._cluster = cluster
        self._looked_at = time.monotonic()
        cpus = float(layout.trials_at_once * layout.threads)
        gpus = float(len(hardware.detect().gpus))
        self._nodes = cluster.nodes if cluster else (Node("", "", cpus, gpus, math.inf, hardware.detect()),)

    @property
    def slots(self) -> int:
        """Trials that may run at once. If more are asked for than fit, some wait for the cluster to grow."""
        if self._cluster is None or self._fixed:
            return self.layout.trials_at_once
        return total_slots(self.layout, self._nodes)

    @property
    def max_slots(self) -> int:
        """See `max_slots`."""
        return max_slots(self.layout, self._nodes)

    def look(self) -> None:
        """Notice machines that joined or left, at most every few seconds. Raises RunError if a new one is unusable."""
        if self._cluster is None or time.monotonic() - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = time.monotonic()
        self._nodes = self._cluster.look() or self._nodes


def describe(layout: Layout, nodes: Sequence[Node]) -> str:
    """Describe the machines that trials run on and how trials share them, for people."""
    kinds: dict[str, int] = {}
    for node in nodes:
        has = node.given_out
        what = f"{len(has.gpus)} × {has.gpus[0]}" if layout.gpus else f"{has.cores} CPU cores"
        kinds[what] = kinds.get(what, 0) + 1
    machines = " and ".join(f"{number} with {what}" for what, number in kinds.items())
    each = f"{layout.gpus:g} GPU each" if layout.gpus else f"{layout.threads} thread{'s' * (layout.threads > 1)} each"
    return (
        f"{len(nodes)} machine{'s' * (len(nodes) != 1)} of a cluster ({machines}), "
        f"{layout.trials_at_once} trial{'s' * (layout.trials_at_once != 1)} at a time, {each}"
    )
