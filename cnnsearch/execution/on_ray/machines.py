"""The machines of a cluster: what each of them has, and whether trials there give the same results as here."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cnnsearch.errors import RequestError
from cnnsearch.execution.machine.hardware import Hardware, Layout
from cnnsearch.execution.machine.placement import Node, resources

_PACKAGE = __name__.partition(".")[0]
LOOK_SECONDS = 120.0
"""Most seconds to wait for the machines of a cluster to describe themselves."""
TIMING_SECONDS = 900.0
"""Most seconds to wait for a machine, which may be busy, to time the models' steps."""
MachineFacts = dict[str, Any]
"""A machine's description of itself: see `_looker`."""


def on_node(node_id: str, function: Callable[..., Any]) -> Any:
    """Make a function a Ray task that runs on one machine, whatever else runs there."""
    there = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return ray.remote(function).options(num_cpus=0, scheduling_strategy=there, max_retries=0)


class Machines:
    """The machines of the cluster this process is attached to; each is examined once, when it is first listed."""

    def __init__(self) -> None:
        self._looks: dict[str, Any] = {}
        """Node id -> reference to its `MachineFacts`."""
        self._found: dict[str, Node] = {}
        self._alive: set[str] = set()
        self.strangers: dict[str, str] = {}
        """Machines that must not run trials: name -> why, mostly because results there would differ from those here."""

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The machines that the cluster has now and that have described themselves."""
        return tuple(node for node_id, node in sorted(self._found.items()) if node_id in self._alive)

    def look(self, seconds: float = 0.0) -> None:
        """Notice machines that joined or left, and wait up to `seconds` for new ones to describe themselves.

        One that has not done so by then is counted among the `strangers`.
        """
        listed = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
        self._alive = set(listed)
        for node_id in listed.keys() - self._looks.keys():
            self._looks[node_id] = on_node(node_id, _looker(_PACKAGE)).remote()
        waiting = {self._looks[node_id]: node_id for node_id in listed if node_id not in self._found}
        ready, late = ray.wait(list(waiting), num_returns=len(waiting), timeout=seconds) if waiting else ([], [])
        for reference in ready:
            self._hear(listed[waiting[reference]], reference)
        if seconds:
            self.strangers |= {_name(listed[waiting[one]]): f"gave no answer in {seconds:.0f} s" for one in late}

    def _hear(self, listed: Mapping[str, Any], reference: Any) -> None:
        try:
            facts: MachineFacts = ray.get(reference)
        except ray.exceptions.RayError as error:
            if listed["NodeID"] in {node["NodeID"] for node in ray.nodes() if node["Alive"]}:
                self.strangers[_name(listed)] = f"cannot run a task: {' '.join(str(error).split())[:300]}"
            return
        if (why := _difference(facts)) is not None:
            self.strangers[_name(listed)] = why
        given = listed["Resources"]
        cpus, gpus, memory = (given.get(name, 0.0) for name in ("CPU", "GPU", "memory"))
        hardware = Hardware(**{**facts["hardware"], "gpus": tuple(facts["hardware"]["gpus"])})
        self._found[listed["NodeID"]] = Node(listed["NodeID"], _name(listed), cpus, gpus, memory, hardware)


def _name(listed: Mapping[str, Any]) -> str:
    host, address = listed["NodeManagerHostname"], listed["NodeManagerAddress"]
    return host if host == address else f"{host} ({address})"


def _looker(package: str) -> Callable[[], MachineFacts]:
    """Make a function that returns facts about the machine it runs on, even a machine without this package."""

    def look() -> MachineFacts:
        import hashlib
        import importlib
        import importlib.metadata
        import importlib.util
        import os
        import platform
        from dataclasses import asdict
        from pathlib import Path

        def version(name: str) -> str | None:
            try:
                return importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                return None

        found = importlib.util.find_spec(package)
        facts: MachineFacts = {"package": None, "torch": version("torch"), "python": platform.python_version()}
        facts["hardware"] = {"cpu": "", "cores": 0, "memory_bytes": 0, "gpus": (), "gpu_memory_bytes": 0}
        if found is None or found.origin is None:
            return facts
        folder, digest = Path(found.origin).parent, hashlib.sha256()
        for file in sorted(folder.rglob("*.py")):
            digest.update(f"{file.relative_to(folder).as_posix()}\0".encode() + file.read_bytes() + b"\0")
        facts |= {"package": digest.hexdigest(), "version": version(package)}
        # Ray hides GPUs from tasks that ask for none.
        hidden = {name: os.environ.pop(name, None) for name in ("CUDA_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")}
        try:
            module = importlib.import_module(f"{package}.execution.machine.hardware")
            facts["hardware"] = asdict(module.detect.__wrapped__())
        except (ImportError, AttributeError):  # another version, as the digest says
            pass
        finally:
            os.environ.update({name: value for name, value in hidden.items() if value is not None})
        return facts

    return look


def _difference(facts: MachineFacts) -> str | None:
    """Say how a machine differs from this one, if trials there would give other results; else None."""
    here = _here()
    if facts["package"] is None:
        return f"{_PACKAGE} is not installed there"
    if facts["package"] != here["package"]:
        return f"{_PACKAGE} {facts['version']} there is not the {here['version']} of this command, file for file"
    if facts["torch"] != here["torch"]:
        return f"torch is {facts['torch']} there and {here['torch']} here"
    return None


@functools.cache
def _here() -> MachineFacts:
    return _looker(_PACKAGE)()


def how_to_mend(strangers: Mapping[str, str]) -> str:
    """Say what is wrong with the machines of a cluster and how to correct it, for people."""
    wrong = "\n".join(f"  {name}: {why}" for name, why in strangers.items())
    return (
        f"machines of the cluster would not run the same trials as this command:\n{wrong}\n"
        "Install the same versions there, or send this folder's with the run:\n"
        "  ray job submit --runtime-env deploy/runtime-env.yaml -- python -m cnnsearch.sweep ... (docs/cluster.md)"
    )


def time_on(node: Node, layout: Layout, request: Mapping[str, Any]) -> MachineFacts:
    """See `Cluster.time_on`."""
    from cnnsearch.execution.machine.timing import answer

    there = NodeAffinitySchedulingStrategy(node.id, soft=False)
    wanted = resources(layout, 1)
    task = ray.remote(answer).options(
        num_cpus=wanted["CPU"], num_gpus=wanted.get("GPU", 0), scheduling_strategy=there, name="timing training steps"
    )
    try:
        found: MachineFacts = ray.get(task.remote(dict(request)), timeout=TIMING_SECONDS)
    except ray.exceptions.GetTimeoutError:
        raise RequestError(f"{node.name} has had nothing free for {TIMING_SECONDS:.0f} s to time steps on") from None
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    return found
