"""Ray itself: started here for the time of a run, or a cluster that is attached to; and what its machines are.

With `schedule`, `running` and `worker`, which run trials there, the only module that imports Ray.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import secrets
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

# Read when Ray and Tune are started: no output of its own, no handlers of its own, nothing sent anywhere.
os.environ.update(
    {
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
        "TUNE_GLOBAL_CHECKPOINT_S": "100000",
    }
)

import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cnnsearch.errors import RequestError, RunError
from cnnsearch.execution.events import Ready
from cnnsearch.execution.machine.hardware import Hardware, Layout, detect
from cnnsearch.execution.machine.placement import Cluster, Node, resources
from cnnsearch.execution.on_ray import authentication, pulse
from cnnsearch.execution.on_ray.depot import Depot
from cnnsearch.execution.warden import Warden
from cnnsearch.execution.workplace import Workplace
from cnnsearch.results.parcel import Parcel
from cnnsearch.spec.sweep import RunSpec
from cnnsearch.storage.durable import temporary_file
from cnnsearch.training.compute import allocator

_PACKAGE = __name__.partition(".")[0]
_TOKEN = secrets.token_hex(32)
"""Who knows it may run code on the Ray this process starts; one a process, since Ray remembers the first it saw."""
RECONNECT_SECONDS = 10
"""Ray ends this process when its control process on this machine has not answered for so long; by default after 60."""
OBJECT_STORE_BYTES = 128 * 1024**2
"""Images reach workers through a mapped file, so Ray's own store stays small."""
LOOK_SECONDS = 120.0
"""The longest that machines of a cluster are waited for to say what they are."""
TIMING_SECONDS = 900.0
"""The same for timing the models' steps on one that may be busy."""
Facts = dict[str, Any]
"""What a machine says of itself: see `_looker`."""


@contextlib.contextmanager
def started(layout: Layout, run: RunSpec, warden: Warden | None) -> Iterator[Ready]:
    """A Ray of this machine's own for the time of the block; yields where its dashboard is."""
    authentication.check_start()
    os.environ.setdefault(pulse.PATIENCE, str(RECONNECT_SECONDS))
    os.environ.update(allocator.environment())
    # Ray would keep a token in the home folder, where others may read it, or where it cannot be written.
    if "RAY_AUTH_TOKEN_PATH" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", _TOKEN)
    # Sockets live under it, and a socket's path has at most 107 bytes.
    scratch = Path(tempfile.mkdtemp(prefix="cnns-", dir="/tmp" if os.path.isdir("/tmp") else None))
    if warden:
        warden.remove(scratch)
    try:
        with _on_loopback():
            context = _initialised(
                address="local",
                num_cpus=layout.trials_at_once * layout.threads,
                num_gpus=len(detect().gpus) if layout.gpus else 0,  # as the plan has counted them
                include_dashboard=run.dashboard,
                object_store_memory=OBJECT_STORE_BYTES,
                _temp_dir=str(scratch / "ray"),  # Ray opens it to everybody, but not the folder it is in
            )
        yield _ready(context, scratch)
    finally:
        if not all(map(is_alive, head_processes().values())):
            _end_children()  # what is left of a broken Ray would be waited for
        _end_ray()
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def attached(address: str) -> Iterator[Cluster]:
    """A running cluster, whose machines have been looked at; it is left at the block's end and never stopped.

    Raises:
        RequestError: it cannot be used, or a machine of it lacks this package or has another version.
    """
    where = check_address(address)
    try:
        try:
            context = _initialised(address=where)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise RequestError(f"no Ray cluster answers at --address {address}: {error}") from None
        roll = Roll()
        roll.look(LOOK_SECONDS)
        if roll.strangers:
            raise RequestError(_mend(roll.strangers))

        def look() -> tuple[Node, ...]:
            roll.look()
            if roll.strangers:
                raise RunError(f"{_mend(roll.strangers)}\nWhat is finished is kept")
            return roll.nodes

        yield Cluster(where, _ready(context, None), roll.nodes, look, _time_on)
    finally:
        _end_ray()


def _initialised(**options: Any) -> Any:
    """Ray, quiet."""
    for name in ("ray", "ray.tune", "ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    ray._private.worker._worker_logs_enabled = False  # else it prints the raylet's log when that dies
    with _sigterm_as_it_is():
        return ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **options)


def _end_ray() -> None:
    with _sigterm_as_it_is():
        ray.shutdown()


@contextlib.contextmanager
def _sigterm_as_it_is() -> Iterator[None]:
    """Ray would handle SIGTERM in its own way while it starts, and leaves it to the system when it ends."""
    handler, of_ray = signal.getsignal(signal.SIGTERM), ray._private.utils.set_sigterm_handler
    ray._private.utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        ray._private.utils.set_sigterm_handler = of_ray
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _ready(context: Any, scratch: Path | None) -> Ready:
    url = context.dashboard_url
    return Ready(f"http://{url}", _token_place(scratch)) if url else Ready()


def _token_place(scratch: Path | None) -> str | None:
    """Where the dashboard's user finds the token; one made for this run is kept in its folder, for them alone.

    `scratch` is that folder; None on a cluster.
    """
    if os.environ.get("RAY_AUTH_MODE", "token" if scratch else "").lower() != "token":
        return None
    if scratch is None or os.environ.get("RAY_AUTH_TOKEN") != _TOKEN:
        return authentication.source()
    path = scratch / "token"
    path.touch(mode=0o600)
    path.write_text(f"{_TOKEN}\n", encoding="utf-8")
    return str(path)


def report_seconds() -> float:
    """How often Ray sends gauges on."""
    return max(1.0, float(ray._config.metrics_report_interval_ms()) / 1000)


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """Let a Ray that is started in the block listen on 127.0.0.1 only, as it does where it knows of no other machines.

    Else its processes listen on every address; they want the token, but those that tell metrics do not. Ray takes
    127.0.0.1 for another address when asked for it as the node's.
    """
    constants = ray._private.ray_constants
    before = constants.ENABLE_RAY_CLUSTER
    constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


def check_address(address: str) -> str:
    """The host and port of a cluster that may be used. Raises RequestError where it may not; attaches to nothing."""
    if address.startswith("ray://"):
        raise RequestError(
            f"--address {address}: Ray Client is not supported. Run the command on a node of the cluster with "
            "--address auto, or with ray job submit (docs/cluster.md)"
        )
    try:
        where = ray._private.services.canonicalize_bootstrap_address(address)
    except (OSError, ValueError, RuntimeError) as error:
        raise RequestError(f"no Ray cluster answers at --address {address}: {error}") from None
    if where is None:
        raise RequestError(f"--address {address} is no cluster: without --address, Ray is started on this machine")
    if authentication.check_cluster(where, address) and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        ray._raylet.Config.initialize("")  # Ray has read its settings when it was imported
    return str(where)


def _end_children() -> None:
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


def head_processes() -> dict[str, psutil.Process]:
    """The processes of a Ray started here without which nothing goes on, by name."""
    children = {child.name(): child for child in psutil.Process().children()}
    return {name: children[name] for name in ("gcs_server", "raylet") if name in children}


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def on_node(node_id: str, function: Callable[..., Any]) -> Any:
    """A function as a task of one machine, whatever else runs there."""
    there = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return ray.remote(function).options(num_cpus=0, scheduling_strategy=there, max_retries=0)


class Roll:
    """The machines of the cluster this process is attached to, each looked at once, as it is met."""

    def __init__(self) -> None:
        self._looks: dict[str, Any] = {}
        """Node id -> reference to what it says of itself."""
        self._found: dict[str, Node] = {}
        self._alive: set[str] = set()
        self.strangers: dict[str, str] = {}
        """Name of a machine on which trials would not be what they are here -> why."""

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Those that are there now and have said what they are."""
        return tuple(node for node_id, node in sorted(self._found.items()) if node_id in self._alive)

    def look(self, seconds: float = 0.0) -> None:
        """Notice who came and went; wait so long for what those that came say of themselves."""
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
            facts: Facts = ray.get(reference)
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


def _looker(package: str) -> Callable[[], Facts]:
    """A function that says what the machine it runs on is; it can travel to machines without this package."""

    def look() -> Facts:
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
        facts: Facts = {"package": None, "torch": version("torch"), "python": platform.python_version()}
        facts["hardware"] = {"cpu": "", "cores": 0, "memory_bytes": 0, "gpus": (), "gpu_memory_bytes": 0}
        if found is None or found.origin is None:
            return facts
        folder, digest = Path(found.origin).parent, hashlib.sha256()
        for file in sorted(folder.rglob("*.py")):
            digest.update(f"{file.relative_to(folder)}\0".encode() + file.read_bytes() + b"\0")
        facts |= {"package": digest.hexdigest(), "version": version(package)}
        visible = os.environ.pop("CUDA_VISIBLE_DEVICES", None)  # Ray hides GPUs from those that ask for none
        try:
            module = importlib.import_module(f"{package}.execution.machine.hardware")
            facts["hardware"] = asdict(module.detect.__wrapped__())
        except (ImportError, AttributeError):  # another version, as the digest says
            pass
        finally:
            if visible is not None:
                os.environ["CUDA_VISIBLE_DEVICES"] = visible
        return facts

    return look


def _difference(facts: Facts) -> str | None:
    """In what a machine differs from this one so that trials there would not be the same."""
    here = _here()
    if facts["package"] is None:
        return f"{_PACKAGE} is not installed there"
    if facts["package"] != here["package"]:
        return f"{_PACKAGE} {facts['version']} there is not the {here['version']} of this command, file for file"
    if facts["torch"] != here["torch"]:
        return f"torch is {facts['torch']} there and {here['torch']} here"
    return None


@functools.cache
def _here() -> Facts:
    return _looker(_PACKAGE)()


def _mend(strangers: Mapping[str, str]) -> str:
    """What is wrong with the machines of a cluster, and what would put it right."""
    wrong = "\n".join(f"  {name}: {why}" for name, why in strangers.items())
    return (
        f"machines of the cluster would not run the same trials as this command:\n{wrong}\n"
        "Install the same versions there, or send this folder's with the run:\n"
        "  ray job submit --runtime-env deploy/runtime-env.yaml -- python -m cnnsearch.sweep ... (docs/cluster.md)"
    )


def _time_on(node: Node, layout: Layout, request: Mapping[str, Any]) -> Facts:
    """See `Cluster.time_on`."""
    from cnnsearch.execution.machine.estimate import answer

    there = NodeAffinitySchedulingStrategy(node.id, soft=False)
    wanted = resources(layout, 1)
    task = ray.remote(answer).options(
        num_cpus=wanted["CPU"], num_gpus=wanted.get("GPU", 0), scheduling_strategy=there, name="timing training steps"
    )
    try:
        found: Facts = ray.get(task.remote(dict(request)), timeout=TIMING_SECONDS)
    except ray.exceptions.GetTimeoutError:
        raise RequestError(f"{node.name} has had nothing free for {TIMING_SECONDS:.0f} s to time steps on") from None
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    return found


class RemoteDepot:
    """A `depot.Depot` in a process of this machine, for workers on all machines."""

    def __init__(self, place: Workplace) -> None:
        """Start it. Raises RequestError where it does not see the results folder: Ray is not on this machine then."""
        packs = [dataset.images_path for dataset in place.datasets.values()]
        notes = [pack.with_suffix(".json") for pack in packs]
        files = frozenset([*packs, *notes, *(found.file for found in place.weights.values())])
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        start = ray.remote(Depot).options(
            num_cpus=0, scheduling_strategy=here, max_concurrency=8, max_restarts=-1, max_task_retries=-1
        )
        self._mark = temporary_file(place.results)
        self._content = secrets.token_bytes(32)
        self._mark.write_bytes(self._content)
        self._actor = start.remote(place.results, files)
        if not self._ask("sees", self._mark, self._content):
            self.close()
            raise RequestError(
                f"Ray's processes on this machine do not see {place.results}: run the command where they do"
            )

    def is_here(self) -> bool:
        """Whether the process that asks sees the results folder itself: it needs no depot."""
        try:
            return self._mark.read_bytes() == self._content
        except OSError:
            return False

    def hand_over(self, trial_id: str, holder: str, names: Iterable[str]) -> dict[str, bytes]:
        """See Depot."""
        found: dict[str, bytes] = self._ask("hand_over", trial_id, holder, list(names))
        return found

    def fetch(self, trial_id: str, names: Iterable[str]) -> dict[str, bytes]:
        """See Depot."""
        found: dict[str, bytes] = self._ask("fetch", trial_id, list(names))
        return found

    def keep(self, holder: str, parcels: Iterable[Parcel]) -> None:
        """See Depot."""
        self._ask("keep", holder, list(parcels))

    def read(self, file: Path, start: int) -> bytes:
        """See Depot."""
        piece: bytes = self._ask("read", file, start)
        return piece

    def close(self) -> None:
        """Remove the mark."""
        self._mark.unlink(missing_ok=True)

    def _ask(self, method: str, *arguments: Any) -> Any:
        try:
            return ray.get(getattr(self._actor, method).remote(*arguments))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
