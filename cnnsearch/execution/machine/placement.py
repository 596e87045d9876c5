"""How trials are laid out over the machines of a cluster. Pure: `cluster` finds out what they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cnnsearch.errors import RequestError
from cnnsearch.execution.events import Ready
from cnnsearch.execution.machine.hardware import Hardware, Layout, lay_out, places
from cnnsearch.spec.sweep import RunSpec


@dataclass(frozen=True)
class Node:
    """A machine of a cluster."""

    id: str
    name: str
    """As people know it: host and address."""
    cpus: float
    """That Ray gives out, which may be fewer than there are."""
    gpus: float
    """The same."""
    memory_bytes: float
    """The same."""
    hardware: Hardware

    @property
    def given_out(self) -> Hardware:
        """What of the machine trials can have."""
        return replace(
            self.hardware, cores=min(self.hardware.cores, int(self.cpus)), gpus=self.hardware.gpus[: int(self.gpus)]
        )


@dataclass(frozen=True)
class Cluster:
    """A cluster this process is attached to."""

    address: str
    """Of its control process (GCS), host:port."""
    ready: Ready
    """Where its dashboard is."""
    nodes: tuple[Node, ...]
    """When it was attached to."""
    look: Callable[[], tuple[Node, ...]]
    """Looks again, and tells who is there now. Raises RunError where one has joined that cannot be used."""
    time_on: Callable[[Node, Layout, Mapping[str, Any]], dict[str, Any]]
    """Has a machine answer a request to `calibrate`, with the resources of a trial."""

    def smallest(self, run: RunSpec) -> Node:
        """Of the machines that trials may run on the one with the least memory: what is planned for it fits all.

        Raises RequestError where there are none.
        """
        able = usable(run, self.nodes)
        return min(able, key=lambda n: (n.hardware.gpu_memory_bytes, n.hardware.memory_bytes, n.name))


def usable(run: RunSpec, nodes: Sequence[Node]) -> tuple[Node, ...]:
    """Where trials can run: machines with GPUs if there are any and the request allows, else those with CPUs.

    Raises RequestError where there are none.
    """
    able = tuple(node for node in nodes if node.cpus >= 1)
    if not able:
        raise RequestError("no machine of the cluster offers CPUs to trials now; start one that does")
    with_gpus = tuple(node for node in able if node.given_out.gpus)
    if run.device == "cuda" and not with_gpus:
        raise RequestError("run.device is cuda, and no machine of the cluster has a GPU now; start one, or allow cpu")
    return with_gpus if with_gpus and run.device != "cpu" else able


def lay_out_over(run: RunSpec, nodes: Sequence[Node], gpu_bytes: int | None = None, host_bytes: int = 0) -> Layout:
    """Fit the request to a cluster: every trial gets what fits the smallest machine that can take one.

    As many run at a time as fit now, or as are asked for: where that is more, a cluster that grows by itself grows.
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
    room = slots(one, able)
    return replace(one, trials_at_once=room if run.trials_at_once == "auto" else run.trials_at_once)


def slots(layout: Layout, nodes: Iterable[Node]) -> int:
    """Trials that fit at once: each has its place on one machine."""
    return sum(places_on(layout, node.cpus, node.gpus, node.memory_bytes) for node in nodes)


def places_on(layout: Layout, cpus: float, gpus: float, memory_bytes: float) -> int:
    """Trials that fit one machine at once."""
    found = int(cpus / layout.threads)
    if layout.gpus:
        found = min(found, places(gpus, layout.gpus))
    if layout.host_bytes:
        found = min(found, int(memory_bytes / layout.host_bytes))
    return found


def most_room(layout: Layout, nodes: Iterable[Node]) -> int:
    """Places a single trial can have: those of a GPU, or of the largest machine without."""
    nodes = tuple(nodes)
    if layout.gpus:
        return max(1, min(places(1, layout.gpus), slots(layout, nodes)))
    return max([1, *(places_on(layout, node.cpus, 0, node.memory_bytes) for node in nodes)])


def resources(layout: Layout, room: int) -> dict[str, float]:
    """What Ray sets aside for a job that takes so many places."""
    if not layout.gpus:
        memory = {"memory": layout.host_bytes * room} if layout.host_bytes else {}
        return {"CPU": layout.threads * room, **memory}
    # Above one, Ray gives out whole GPUs only: seven times a seventh must not come to a little more.
    share = layout.gpus * room
    return {"CPU": layout.threads, "GPU": share if layout.gpus >= 1 else min(1.0, share)}


def describe(layout: Layout, nodes: Sequence[Node]) -> str:
    """In words, for people: the machines trials run on, and how."""
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
