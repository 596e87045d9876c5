"""Ray itself: started on this machine for the time of a run, or a running cluster that this process attaches to."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import secrets
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import ray

from cnnsearch.errors import RequestError, RunError
from cnnsearch.execution.events import Ready
from cnnsearch.execution.machine.hardware import Layout, detect
from cnnsearch.execution.machine.placement import Cluster, Node
from cnnsearch.execution.on_ray import authentication, pulse, starting
from cnnsearch.execution.on_ray.machines import LOOK_SECONDS, Machines, how_to_mend, time_on
from cnnsearch.execution.warden import MARK, Warden
from cnnsearch.spec.sweep import RunSpec
from cnnsearch.storage.cache import cache_root
from cnnsearch.storage.scratch import scratch
from cnnsearch.training.compute import allocator

_TOKEN = secrets.token_hex(32)
"""Token that lets its owner run code on the Ray that this process starts."""
RECONNECT_SECONDS = 10
"""Seconds without an answer of Ray's control process on this machine after which Ray ends this process.

Ray's default is 60.
"""
OBJECT_STORE_BYTES = 128 * 1024**2
"""Images reach workers through a mapped file, so Ray's own store stays small."""
_SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "100000",
}
"""Environment variables: no output of Ray's and Tune's own, no handlers of signals, nothing sent anywhere."""
_LOGGERS = ("ray", "ray.tune", "ray.data", "ray.train")


def refuse_other_ray() -> None:
    """Raise RequestError if this process has a Ray already: it is the caller's, and nothing here may end it."""
    if ray.is_initialized():
        raise RequestError(
            "this process has a Ray already, and a sweep needs one of its own. Call ray.shutdown() before it if you "
            "no longer need that Ray. If you do: run the sweep with serial=True, or from another process, there with "
            "address= to use the same cluster"
        )


@contextlib.contextmanager
def _lent_process() -> Iterator[None]:
    """Set this process up for Ray; afterwards, put back its environment, log levels and what Ray keeps in memory.

    Raises RequestError: see `refuse_other_ray`.
    """
    refuse_other_ray()
    environment = dict(os.environ)
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    prints_logs = ray._private.worker._worker_logs_enabled
    os.environ.update(_SETTINGS)
    authentication.drop_blank_settings()
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    ray._private.worker._worker_logs_enabled = False  # else Ray prints the raylet's log when that dies
    _forget_settings()
    try:
        yield
    finally:
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        ray._private.worker._worker_logs_enabled = prints_logs
        _forget_settings()


def _forget_settings() -> None:
    """Have Ray read its settings and its token anew: it remembers those it read first, another cluster's perhaps."""
    ray._raylet.Config.initialize("")
    ray._raylet.AuthenticationTokenLoader.instance().reset_cache()


@contextlib.contextmanager
def started(layout: Layout, run: RunSpec, warden: Warden | None) -> Iterator[Ready]:
    """Run a Ray on this machine alone for the time of the block; yields the address of its dashboard.

    Raises RequestError if this process has a Ray already, or if the token may not be used.
    """
    with _lent_process(), _scratch(warden) as folder:
        authentication.check_start()
        os.environ.setdefault(pulse.PATIENCE, str(RECONNECT_SECONDS))
        os.environ.update(allocator.environment())
        # Ray would keep a token in the home folder, where others may read it, or where it cannot be written.
        if "RAY_AUTH_TOKEN_PATH" not in os.environ:
            os.environ.setdefault("RAY_AUTH_TOKEN", _TOKEN)
        try:
            with _on_loopback():
                ray_init = functools.partial(
                    _initialised,
                    address="local",
                    num_cpus=layout.trials_at_once * layout.threads,
                    num_gpus=len(detect().gpus) if layout.gpus else 0,  # counted as for the plan
                    include_dashboard=run.dashboard,
                    object_store_memory=OBJECT_STORE_BYTES,
                    _temp_dir=str(folder / "ray"),  # Ray lets everybody read it, but not the folder it is in
                )
                context = starting.start(ray_init, _clear_away, folder, warden)
            yield _ready(context, folder)
        finally:
            if not all(map(is_alive, head_processes().values())):
                _end_children()  # else shutting down would wait for the rest of a broken Ray
            with starting.stopping(warden):
                _end_ray()


@contextlib.contextmanager
def _scratch(warden: Warden | None) -> Iterator[Path]:
    """A temporary folder for a Ray that is started here, and for whatever its processes put into such folders."""
    usual = Path(tempfile.gettempdir())  # asked for now, since Python remembers the first answer
    os.environ["CNNSEARCH_CACHE"] = str(cache_root())  # may be in a temporary folder, and is shared with the workers
    with scratch("cnns-", Path("/tmp") if os.path.isdir("/tmp") else usual) as folder:
        if warden:
            warden.remove(folder)
        os.environ["TMPDIR"] = str(folder)
        yield folder


@contextlib.contextmanager
def attached(address: str) -> Iterator[Cluster]:
    """Attach to a running cluster and look at its machines; at the block's end the cluster is left, never stopped.

    Raises:
        RequestError: it cannot be used, one of its machines lacks this package or has another version, or this process
            has a Ray already.
    """
    with _lent_process():
        where = check_address(address)
        try:
            try:
                context = _initialised(address=where)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise RequestError(f"no Ray cluster answers at --address {address}: {error}") from None
            machines = Machines()
            machines.look(LOOK_SECONDS)
            if machines.strangers:
                raise RequestError(how_to_mend(machines.strangers))

            def look() -> tuple[Node, ...]:
                machines.look()
                if machines.strangers:
                    raise RunError(f"{how_to_mend(machines.strangers)}\nWhat is finished is kept")
                return machines.nodes

            yield Cluster(where, _ready(context, None), machines.nodes, look, time_on)
        finally:
            _end_ray()


def _initialised(**options: Any) -> Any:
    """Start or attach to Ray without any output of its own."""
    with _sigterm_unchanged():
        return ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **options)


def _end_ray() -> None:
    with _sigterm_unchanged():
        ray.shutdown()


@contextlib.contextmanager
def _sigterm_unchanged() -> Iterator[None]:
    """Keep the handler of SIGTERM, which Ray would replace as it starts and reset to the default as it ends."""
    handler, of_ray = signal.getsignal(signal.SIGTERM), ray._private.utils.set_sigterm_handler
    ray._private.utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        ray._private.utils.set_sigterm_handler = of_ray
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _ready(context: Any, folder: Path | None) -> Ready:
    url = context.dashboard_url
    return Ready(f"http://{url}", _token_place(folder)) if url else Ready()


def _token_place(folder: Path | None) -> str | None:
    """Say where the dashboard's user finds the token; None if no token is asked for.

    A token made for this run is written into the run's `folder`, readable by this user alone. On a cluster, `folder` is
    None.
    """
    if os.environ.get("RAY_AUTH_MODE", "token" if folder else "").lower() != "token":
        return None
    if folder is None or os.environ.get("RAY_AUTH_TOKEN") != _TOKEN:
        return authentication.source()
    path = folder / "token"
    path.touch(mode=0o600)
    path.write_text(f"{_TOKEN}\n", encoding="utf-8")
    return str(path)


def report_seconds() -> float:
    """Seconds between two of Ray's reports of its gauges."""
    return max(1.0, float(ray._config.metrics_report_interval_ms()) / 1000)


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """Make a Ray that is started in the block listen on 127.0.0.1 only, as it does where clusters are not enabled.

    Otherwise its processes listen on every address: they ask for the token, except those that serve metrics. Asking
    for 127.0.0.1 as the node's address does not help: Ray replaces it by another one.
    """
    constants = ray._private.ray_constants
    before = constants.ENABLE_RAY_CLUSTER
    constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


def check_address(address: str) -> str:
    """Return the host and port of a cluster without attaching to it. Raises RequestError if it may not be used."""
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
        ray._raylet.Config.initialize("")  # Ray read its settings when it was imported
    return str(where)


def _clear_away() -> None:
    """End what a start that failed has left."""
    _end_children()
    with contextlib.suppress(Exception):
        _end_ray()


def _end_children() -> None:
    """End what this run has started, but not its warden, nor what the caller has started before."""
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if child.environ().get(MARK) == os.environ.get(MARK):
                for one in (*child.children(recursive=True), child):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        one.kill()


def head_processes() -> dict[str, psutil.Process]:
    """The processes that a Ray started on this machine cannot do without, by name."""
    children = {child.name(): child for child in psutil.Process().children()}
    return {name: children[name] for name in ("gcs_server", "raylet") if name in children}


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
