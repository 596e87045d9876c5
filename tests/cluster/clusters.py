"""Ray clusters on machines of their own, started as docs/cluster.md and the files in deploy/ start them."""

from __future__ import annotations

import contextlib
import json
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlparse

import cnnsearch
from tests.cluster.machines import HOME, Ended, Machine, Network, Running, network

TREE = Path(cnnsearch.__file__).parents[1]
"""The code under test."""
DATA = Path("/mnt/data")
"""Where machines see the folder that `cluster` is given."""
BIN = Path(sys.executable).parent
START_SECONDS = 60.0
OBJECT_STORE_BYTES = 100_000_000


class Cluster:
    """A Ray cluster; node 0 is the head."""

    def __init__(
        self, made: Network, folder: Path, *, seen_by: Sequence[int] | None, token: bool, dashboard: bool
    ) -> None:
        self._network = made
        self._folder = folder
        self._seen_by = seen_by
        self._token = secrets.token_hex(32) if token else ""
        self._dashboard = dashboard

    @property
    def nodes(self) -> list[Machine]:
        """Machines in the order they came."""
        return self._network.machines

    def run(
        self,
        command: Sequence[object],
        *,
        node: int = 0,
        seconds: float = 180,
        env: Mapping[str, str] | None = None,
        folder: str = HOME,
    ) -> Ended:
        """Run a command on a node to its end."""
        return self.start(command, node=node, env=env, folder=folder).ended(seconds)

    def start(
        self,
        command: Sequence[object],
        *,
        node: int = 0,
        env: Mapping[str, str] | None = None,
        folder: str = HOME,
    ) -> Running:
        """Start a command on a node."""
        return self.nodes[node].start([*map(str, command)], env=env, folder=folder)

    def sweep(self, *arguments: object, node: int = 0, env: Mapping[str, str] | None = None) -> Running:
        """Start a sweep on a node."""
        return self.start(["python", "-m", "cnnsearch.sweep", *arguments, "--address", "auto"], node=node, env=env)

    def add_nodes(self, count: int = 1, *, tree: Path | None = TREE) -> None:
        """Start nodes at the same time and wait until they belong to the cluster.

        Args:
            count: of nodes.
            tree: the folder whose package they have; None for none at all.
        """
        started = [self._start(tree) for _ in range(count)]
        for ray in started:
            ray.until_told("Ray runtime started", START_SECONDS)

    def _start(self, tree: Path | None) -> Running:
        number = len(self.nodes)
        sees = self._seen_by is None or number in self._seen_by
        environment = {
            "PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin",
            "HOME": HOME,
            "LANG": "C.UTF-8",
            "RAY_AUTH_MODE": "token" if self._token else "disabled",
        }
        if self._token:
            environment["RAY_AUTH_TOKEN_PATH"] = f"{HOME}/.ray/auth_token"
        if tree is not None:
            environment["PYTHONPATH"] = str(tree)
        if self._seen_by is None:
            environment["CNNSEARCH_CACHE"] = str(DATA / "cache")
        trees = {TREE, *installed()}
        machine = self._network.add(
            environment,
            kept=sorted(str(path) for path in trees | {Path(sys.prefix), Path(sys.base_prefix), tree or TREE}),
            bound={str(DATA): str(self._folder)} if sees else {},
            hidden=[] if tree else sorted(str(path / "cnnsearch") for path in trees),
            token=self._token,
        )
        options = [f"--node-ip-address={machine.address}", "--num-cpus=1", "--num-gpus=0"]
        options += [f"--object-store-memory={OBJECT_STORE_BYTES}", "--disable-usage-stats", "--block"]
        if number == 0:
            options += ["--head", "--port=6379", "--dashboard-host=127.0.0.1"]
            options += [f"--include-dashboard={str(self._dashboard).lower()}"]
        else:
            options += [f"--address={self.nodes[0].address}:6379"]
        return machine.start(["ray", "start", *options])

    def kill_node(self, node: int) -> None:
        """End everything on a node's machine at once."""
        self.nodes[node].kill()

    def kill_head(self) -> None:
        """End Ray's processes on the head at once, and nothing else on its machine."""
        assert self.run(["pkill", "-KILL", "-x", "gcs_server|raylet"]).returncode == 0


@contextlib.contextmanager
def cluster(
    folder: Path,
    nodes: int = 2,
    *,
    seen_by: Sequence[int] | None = (0,),
    token: bool = True,
    dashboard: bool = False,
) -> Iterator[Cluster]:
    """A cluster for the time of the block, each node with one CPU.

    Args:
        folder: of the host, that some nodes see as `DATA`.
        nodes: the head and others.
        seen_by: nodes that see it; None for all, which then keep their cache there, too.
        token: whether the cluster asks for a token.
        dashboard: whether there is one, and so jobs.
    """
    with network() as made:
        there = Cluster(made, folder, seen_by=seen_by, token=token, dashboard=dashboard)
        there.add_nodes()
        if nodes > 1:
            there.add_nodes(nodes - 1)
        yield there


def installed() -> list[Path]:
    """Where this Python has the package from, when nothing says otherwise."""
    text = metadata.distribution("cnnsearch").read_text("direct_url.json")
    url = urlparse(json.loads(text)["url"]) if text else None
    return [Path(unquote(url.path))] if url and url.scheme == "file" else []
