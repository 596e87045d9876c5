"""What people see of a run in Ray's dashboard and in Prometheus: looked at while it runs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import psutil
import pytest
import yaml

from cnnsearch.data.dataset import Dataset
from cnnsearch.execution.context import Choices, SharedContext
from cnnsearch.execution.machine.hardware import Layout
from cnnsearch.execution.machine.placement import Capacity
from cnnsearch.execution.metrics import METRICS
from cnnsearch.planning.queue import Queue
from cnnsearch.spec.sweep import Sweep

pytestmark = pytest.mark.after

DEPLOY = Path(__file__).parents[3] / "deploy"
GRAFANA = json.loads((DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8"))
PROMETHEUS = DEPLOY / "prometheus.yaml"
QUERIES = [target["expr"] for panel in GRAFANA["panels"] for target in panel["targets"]]
SHORT, LONG = 1000, 1_000_000
"""Epochs of the two trials: one ends soon, one is interrupted."""
SWEEP = f"""\
name: seen
data: {{image_size: 8, split: {{method: fill, train_per_class: 6, val_per_class: 4}}}}
train: {{model: plain, width: 0.05, precision: fp32, optimizer: sgd}}
run: {{trials_at_once: 2}}
stages:
  - name: grid
    space: {{epochs: {{grid: [{SHORT}, {LONG}]}}}}
"""
STEP = re.compile(rf"grid: plain, lr 0\.001, batch 32, epochs ({SHORT}|{LONG}) \[([0-9a-f]{{16}})\]")
SAMPLE = re.compile(r"^ray_(cnnsearch_\w+)\{(.*)\} (\S+)$", flags=re.MULTILINE)
T = TypeVar("T")


def soon(look: Callable[[], T | None], seconds: float = 120) -> T:
    """What there is to see, once there is."""
    deadline = time.monotonic() + seconds
    while (found := look()) is None:
        assert time.monotonic() < deadline, "not seen in time"
        time.sleep(0.5)
    return found


def fetch(url: str, token: str = "") -> str:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
        return str(answer.read().decode())


@dataclass
class Run:
    """A sweep that runs beside the test."""

    process: subprocess.Popen[str]
    url: str
    token_file: Path

    def get(self, path: str) -> Any:
        """From the dashboard, as it asks for it."""
        token = self.token_file.read_text(encoding="utf-8").strip()
        return json.loads(fetch(self.url + path, token))["data"]

    @property
    def discovery(self) -> Path:
        """What Ray tells Prometheus."""
        return self.token_file.parent / "ray" / "session_latest" / "prom_metrics_service_discovery.json"

    def pages(self) -> list[str]:
        """What Prometheus would be told; empty where it is not there yet."""
        try:
            (group,) = json.loads(self.discovery.read_text(encoding="utf-8"))
            return [fetch(f"http://{target}/metrics") for target in group["targets"]]
        except OSError:
            return []

    def samples(self) -> dict[str, dict[tuple[str, ...], float]]:
        """Metric -> its values by stage, slot, state and split; as Prometheus would see them, without a token."""
        found: dict[str, dict[tuple[str, ...], float]] = {}
        for name, text, value in SAMPLE.findall("".join(self.pages())):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', text))
            assert labels["sweep"] == "seen"
            key = tuple(labels[label] for label in ("stage", "slot", "state", "split") if label in labels)
            assert key not in found.setdefault(name, {})
            found[name][key] = float(value)
        return found


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """A sweep on a Ray of its own that tells its metrics every second."""
    (tmp_path / "seen.yaml").write_text(SWEEP, encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_AUTH", "CNNSEARCH_ALLOW"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "cnnsearch.sweep", str(tmp_path / "seen.yaml"), "--out", str(tmp_path)],
        env={**environment, "RAY_metrics_report_interval_ms": "1000"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        pattern = re.compile(r"dashboard (http://127\.0\.0\.1:\d+) \(token in (.+)\)$")
        told = next(match for line in process.stdout if (match := pattern.search(line)))
        yield Run(process, told[1], Path(told[2]))
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 130
        assert not Path(told[2]).parent.exists()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.timeout(400)  # a busy machine takes a minute to start Ray
def test_what_is_seen_of_a_run_and_by_whom(run: Run) -> None:
    # A gauge is sent on when it is due, which may be while others are being set: so it is waited for all of them.
    both = soon(lambda: found if slots(found := run.samples()) == [{"0", "1"}] * 5 else None)
    assert both.keys() == {metric.name for metric in METRICS}
    assert sorted(both["cnnsearch_epochs"].items()) == [(("grid", "0"), LONG), (("grid", "1"), SHORT)]
    assert both["cnnsearch_loss"].keys() == {("grid", slot, split) for slot in "01" for split in ("train", "val")}
    assert 0 <= both["cnnsearch_accuracy"]["grid", "1", "val"] <= 1
    assert both["cnnsearch_trials"]["grid", "running"] == 2

    _is_for_its_user_only(run)
    _is_on_loopback_only(run.process.pid)
    trial_id = _trials_are_told_apart(run)
    _log_tells_of(run, trial_id)

    # A trial that ended is gone, and counted.
    left = soon(lambda: found if slots(found := run.samples()) == [{"0"}] * 5 else None)
    assert left["cnnsearch_epochs"] == {("grid", "0"): LONG}
    counted = {("grid", "done"): 1, ("grid", "running"): 1, ("grid", "waiting"): 0}
    soon(lambda: counted.items() <= run.samples().get("cnnsearch_trials", {}).items() or None)


def slots(samples: dict[str, dict[tuple[str, ...], float]]) -> list[set[str]]:
    """For each metric of running trials the slots it is shown for."""
    return [{key[1] for key in samples.get(m.name, ())} for m in METRICS if "slot" in m.labels]


def _is_for_its_user_only(run: Run) -> None:
    """No token, no look; and nobody else can read the token, or what Ray keeps beside it."""
    with pytest.raises(urllib.error.HTTPError) as refused:
        fetch(f"{run.url}/api/v0/tasks")
    assert refused.value.code in (401, 403)
    refused.value.close()
    assert stat.S_IMODE(run.token_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(run.token_file.parent.stat().st_mode) == 0o700


def _is_on_loopback_only(process: int) -> None:
    ours = {child.pid for child in psutil.Process(process).children(recursive=True)} | {process}
    listening = [
        str(connection.laddr[0])
        for connection in psutil.net_connections("inet")
        if connection.laddr and connection.status == psutil.CONN_LISTEN and connection.pid in ours
    ]
    assert len(listening) >= 4
    assert set(listening) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def _trials_are_told_apart(run: Run) -> str:
    """Actors are called after what is true of all their trials, tasks after what they train. The id of the long one."""

    def look() -> dict[str, str] | None:
        tasks = run.get("/api/v0/tasks?detail=1&limit=10000")["result"]["result"]
        named = [match for task in tasks if (match := STEP.fullmatch(task["name"]))]
        found = {match[1]: match[2] for match in named}
        return found if len(found) == 2 else None

    ids = soon(look)
    actors = run.get("/logical/actors")["actors"].values()
    assert {(actor["actorClass"], actor["reprName"]) for actor in actors} == {("Worker", "worker of seen")}
    return ids[str(LONG)]


def _log_tells_of(run: Run, trial_id: str) -> None:
    logs = [path.read_text(encoding="utf-8") for path in run.discovery.parent.glob("logs/worker-*.err")]
    (log,) = [text for text in logs if trial_id in text]
    assert re.search(rf"Z grid: plain, .* \[{trial_id}\]: started, {LONG} epochs$", log, flags=re.MULTILINE)


class Actor:
    """As much of a Ray actor's handle as is needed to name its calls."""

    class _Train:
        def options(self, name: str) -> str:
            return name

    def __init__(self) -> None:
        self._actor_id = bytes(16)
        self.train: Any = Actor._Train()


def test_only_so_many_jobs_are_named_and_no_later_one_by_an_earlier_name(
    small_sweep: Callable[..., Sweep], dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cnnsearch.execution.on_ray import tune

    monkeypatch.setattr(tune, "MOST_NAMED", 2)
    sweep, actor, nobody = small_sweep(), Actor(), cast(Any, None)
    unnamed = actor.train
    context = SharedContext(tmp_path, {(8, "bilinear"): dataset}, Choices("cpu", 1, "fp32"), checkpoint_seconds=0)
    queue = Queue(sweep, dataset.fingerprint, {}, slots=8)
    machines = Capacity(Layout("cpu", 8, 1, 0.0), sweep.run, None)
    dispatcher = tune.Dispatcher(queue, nobody, context, sweep.run, machines, {}, None, nobody)
    given = []
    for _ in range(3):
        job = queue.take()
        assert job is not None
        dispatcher._name_steps(SimpleNamespace(temporary_state=SimpleNamespace(ray_actor=actor)), job)
        given.append((job.id, actor.train))
    assert all(f"[{trial_id}]" in name for trial_id, name in given[:2])
    assert given[2][1] is unnamed


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.after
@pytest.mark.timeout(400)
@pytest.mark.skipif(not shutil.which("prometheus"), reason="Prometheus is not installed")
def test_a_real_prometheus_sees_what_grafana_asks_for(run: Run, tmp_path: Path) -> None:
    config = yaml.safe_load(PROMETHEUS.read_text(encoding="utf-8"))
    (scrape,) = config["scrape_configs"]
    scrape["file_sd_configs"][0]["files"] = [str(run.discovery)]
    scrape["scrape_interval"] = "1s"
    scrape["scrape_timeout"] = "1s"
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    url = f"http://127.0.0.1:{free_port()}"
    soon(lambda: run.discovery.exists() or None)
    prometheus = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={tmp_path / 'prometheus.yaml'}",
            f"--storage.tsdb.path={tmp_path / 'tsdb'}",
            f"--web.listen-address={url.removeprefix('http://')}",
        ],
        stderr=subprocess.DEVNULL,
    )

    def ask(query: str) -> list[dict[str, Any]] | None:
        with contextlib.suppress(OSError):  # not there yet
            answer = json.loads(fetch(f"{url}/api/v1/query?{urllib.parse.urlencode({'query': query})}"))
            return answer["data"]["result"] or None
        return None

    try:
        for query in QUERIES:
            for series in soon(lambda query=query: ask(filled(query))):  # type: ignore[misc]
                assert float(series["value"][1]) >= 0
        (epochs,) = soon(lambda: found if (found := ask("ray_cnnsearch_epochs")) and len(found) == 1 else None)
        assert float(epochs["value"][1]) == LONG
        assert not {"otel_scope_name", "Version"} & epochs["metric"].keys()
        (done,) = soon(lambda: ask('ray_cnnsearch_trials{state="done"} == 1'))
        assert (done["metric"]["sweep"], done["metric"]["stage"]) == ("seen", "grid")
    finally:
        prometheus.kill()
        prometheus.wait()


def filled(query: str) -> str:
    """A panel's query with everything chosen."""
    return re.sub(r"\$(sweep|stage)", ".*", query)


@pytest.mark.skipif(not shutil.which("promtool"), reason="Prometheus is not installed")
def test_prometheus_understands_its_file() -> None:
    checked = subprocess.run(["promtool", "check", "config", PROMETHEUS], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


def test_prometheus_looks_where_ray_writes() -> None:
    from ray._private import ray_constants

    (scrape,) = yaml.safe_load(PROMETHEUS.read_text(encoding="utf-8"))["scrape_configs"]
    (files,) = scrape["file_sd_configs"]
    assert files["files"] == [f"/tmp/ray/session_latest/{ray_constants.PROMETHEUS_SERVICE_DISCOVERY_FILE}"]


def test_grafana_s_panels_ask_for_metrics_that_there_are() -> None:
    by_name = {f"ray_{metric.name}": metric for metric in METRICS}
    asked = [match for query in QUERIES for match in re.findall(r"(ray_\w+)(\{[^}]*\})?", query)]
    assert {name for name, _ in asked} == by_name.keys()
    for name, filters in asked:
        labels = re.findall(r'(\w+)\s*[=!]~?"', filters)
        assert {"sweep", "stage"} <= set(labels) <= set(by_name[name].labels)
    grouped = {
        label for query in QUERIES for some in re.findall(r"by \(([^)]*)\)", query) for label in some.split(", ")
    }
    shown = set(re.findall(r"\{\{(\w+)\}\}", json.dumps([panel["targets"] for panel in GRAFANA["panels"]])))
    assert grouped | shown <= {label for metric in METRICS for label in metric.labels}


def test_grafana_s_dashboard_is_whole() -> None:
    panels, variables = GRAFANA["panels"], {variable["name"]: variable for variable in GRAFANA["templating"]["list"]}
    assert variables.keys() == {"datasource", "sweep", "stage"}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(panels))) == variables.keys()
    assert "ray_cnnsearch_trials" in variables["sweep"]["query"]["query"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert panel["title"]
        assert panel["description"]
    assert GRAFANA["uid"] == "cnnsearch"
    assert "id" not in GRAFANA  # Grafana gives it one
