"""The files that start clusters: valid for the installed Ray, with tokens, closed to the world."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import click
import pytest
import typer
import yaml

from cnnsearch.cli import app
from cnnsearch.spec.load import load_sweep

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
LAUNCHED = [ROOT / "cluster.yaml", DEPLOY / "gcp.yaml", DEPLOY / "on-premises.yaml"]
CLUSTERS = [DEPLOY / "kuberay-cluster.yaml", DEPLOY / "kuberay-job.yaml"]
MANIFESTS = [*CLUSTERS, DEPLOY / "kuberay-storage.yaml"]
WATCHED_BY = ("prometheus.yaml", "grafana-dashboard.json")
"""See test_dashboard."""
RUNTIME_ENV = DEPLOY / "runtime-env.yaml"
DOCUMENTS = [ROOT / "docs" / name for name in ("cluster.md", "dashboard.md", "security.md")]
RAY_VERSION = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)[1]  # type: ignore[index]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
DRIVEN = [*LAUNCHED, *MANIFESTS, *DOCUMENTS]
"""Files that show commands."""


def file_name(path: Path) -> str:
    """What a test's parameter is called."""
    return path.name


def read(path: Path) -> dict[str, Any]:
    document = yaml.safe_load(path.read_text())
    assert isinstance(document, dict)
    return document


def prepared(path: Path) -> dict[str, Any]:
    """The file as `ray up` completes it, checked by Ray's schema and rules."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    complete: dict[str, Any] = prepare_config(read(path))
    validate_config(complete)
    return complete


def starts(config: dict[str, Any]) -> list[str]:
    """Every command that starts Ray on a machine."""
    commands = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    found = [command for command in commands if "ray start" in command]
    assert len(found) == 2
    return found


def test_every_file_of_the_folder_is_tested() -> None:
    started = {*LAUNCHED[1:], *MANIFESTS, RUNTIME_ENV, DEPLOY / "Dockerfile"}
    assert started | {DEPLOY / name for name in WATCHED_BY} == set(DEPLOY.iterdir())


@pytest.mark.parametrize("path", LAUNCHED, ids=file_name)
def test_launcher_files_are_valid_for_the_installed_ray(path: Path) -> None:
    complete = prepared(path)
    assert complete["cluster_name"] == "cnnsearch"
    assert complete["setup_commands"] == read(path)["setup_commands"], (
        "no defaults of Ray's, which install other versions"
    )
    assert complete["max_workers"] >= 2


@pytest.mark.parametrize("path", LAUNCHED, ids=file_name)
def test_every_ray_is_started_with_the_token(path: Path) -> None:
    config = prepared(path)
    for command in starts(config):
        assert re.search(r"RAY_AUTH_MODE=token \S*ray start ", command)
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert config["setup_commands"][0] == "chmod 700 ~/.ray && chmod 600 ~/.ray/auth_token"
    shown = path.read_text()
    assert "ray get-auth-token --generate > /dev/null && chmod 600 ~/.ray/auth_token" in shown


@pytest.mark.parametrize("path", LAUNCHED, ids=file_name)
def test_launched_clusters_are_closed_to_the_world(path: Path) -> None:
    config = prepared(path)
    head, worker = starts(config)
    assert "--dashboard-host=127.0.0.1" in head
    for command in (head, worker):
        assert "0.0.0.0" not in command
        assert "--ray-client-server-port" not in command
    assert "0.0.0.0" not in path.read_text()
    assert "security_group" not in config["provider"], "rules that would be added to those of Ray"
    if config["provider"]["type"] == "aws":
        # Without groups of one's own, Ray makes one that lets in SSH from everywhere.
        assert all(kind["node_config"]["SecurityGroupIds"] for kind in config["available_node_types"].values())


@pytest.mark.parametrize("path", LAUNCHED, ids=file_name)
def test_what_is_copied_to_machines_is_small(path: Path) -> None:
    config = prepared(path)
    assert config["file_mounts"]["~/cnnsearch"] == "."
    assert {"/.venv", "/.git", "/results", "/build"} <= set(config["rsync_exclude"])
    assert any("--constraint ~/cnnsearch/constraints.txt ~/cnnsearch" in step for step in config["setup_commands"])


@pytest.mark.parametrize("path", LAUNCHED[:2], ids=file_name)
def test_clouds_have_a_head_without_gpu_and_spot_workers_that_come_and_go(path: Path) -> None:
    config = prepared(path)
    kinds = config["available_node_types"]
    head, worker = kinds[config["head_node_type"]], kinds["gpu_worker"]
    assert head["resources"] == {"CPU": 0}
    assert head["max_workers"] == 0
    assert 1 <= worker["min_workers"] < worker["max_workers"] == config["max_workers"]
    assert config["idle_timeout_minutes"] > 0
    assert not config["provider"]["cache_stopped_nodes"]
    node = worker["node_config"]
    spot = node.get("InstanceMarketOptions", {}).get("MarketType") or node["scheduling"]["provisioningModel"]
    assert spot.lower() == "spot"
    assert "scheduling" not in head["node_config"]
    assert "InstanceMarketOptions" not in head["node_config"]


@pytest.mark.parametrize("path", LAUNCHED[:2], ids=file_name)
def test_five_values_are_marked_and_used(path: Path) -> None:
    text, config = path.read_text(), read(path)
    assert re.findall(r"^  # (\d)\. ", text, flags=re.MULTILINE) == list("12345")
    rest = text[text.index("\nmax_workers:") :]
    anchors = re.findall(r"^  \w+: &(\w+) ", text, flags=re.MULTILINE)
    assert len(anchors) == len(config["metadata"])
    for anchor in anchors:
        assert f"*{anchor}" in rest


@pytest.mark.parametrize("path", LAUNCHED[:2], ids=file_name)
def test_results_lie_where_all_machines_see_them(path: Path) -> None:
    config = read(path)
    assert config["metadata"]["mount_results"] in config["setup_commands"]
    assert config["metadata"]["mount_results"].endswith(" /mnt/results")
    assert "--out /mnt/results" in path.read_text()


def cluster_spec(path: Path) -> dict[str, Any]:
    manifest = read(path)
    assert manifest["apiVersion"] == "ray.io/v1"
    spec = manifest["spec"]
    found: dict[str, Any] = spec["rayClusterSpec"] if manifest["kind"] == "RayJob" else spec
    return found


def pods(path: Path) -> list[dict[str, Any]]:
    """Templates of the head's pod and the workers' pods."""
    spec = cluster_spec(path)
    return [group["template"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]


def test_manifests_are_of_the_kinds_they_say() -> None:
    assert [read(path)["kind"] for path in CLUSTERS] == ["RayCluster", "RayJob"]
    storage = list(yaml.safe_load_all(MANIFESTS[-1].read_text()))
    assert [document["kind"] for document in storage] == ["PersistentVolumeClaim", "NetworkPolicy"]


@pytest.mark.parametrize("path", CLUSTERS, ids=file_name)
def test_kubernetes_clusters_have_a_token_from_a_secret(path: Path) -> None:
    spec = cluster_spec(path)
    assert spec["authOptions"] == {"mode": "token"}  # KubeRay then makes the Secret, from Ray 2.52 on
    assert spec["rayVersion"] == RAY_VERSION
    for pod in pods(path):
        for container in pod["spec"]["containers"]:
            assert "env" not in container, "no token in the manifest"


@pytest.mark.parametrize("path", CLUSTERS, ids=file_name)
def test_kubernetes_clusters_have_no_service_for_the_world(path: Path) -> None:
    spec = cluster_spec(path)
    head = spec["headGroupSpec"]
    assert head["serviceType"] == "ClusterIP"
    assert not head.get("enableIngress", False)
    assert not {"headService", "ports"} & head.keys()
    if read(path)["kind"] == "RayCluster":
        assert head["rayStartParams"]["dashboard-host"] == "127.0.0.1"
    for pod in pods(path):
        assert not pod["spec"].get("hostNetwork", False)
    text = path.read_text()
    assert not re.search(r"LoadBalancer|NodePort|hostPort|0\.0\.0\.0", text)
    assert "kubectl apply --filename deploy/kuberay-storage.yaml" in text, "with it the policy for the network"


@pytest.mark.parametrize("path", CLUSTERS, ids=file_name)
def test_pods_have_image_resources_and_no_more_rights_than_they_need(path: Path) -> None:
    spec = cluster_spec(path)
    assert all(isinstance(value, str) for value in spec["headGroupSpec"]["rayStartParams"].values())
    for pod in pods(path):
        (container,) = pod["spec"]["containers"]
        assert container["image"].endswith(f"/cnnsearch:{VERSION}")
        resources = container["resources"]
        assert resources["requests"] == resources["limits"]
        assert {"cpu", "memory"} <= resources["limits"].keys()
        assert pod["spec"]["securityContext"]["runAsNonRoot"]
        assert not pod["spec"]["automountServiceAccountToken"]
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounted.keys() == {volume["name"] for volume in pod["spec"]["volumes"]}
        assert mounted["results"] == "/results"
    head, worker = pods(path)
    assert "nvidia.com/gpu" not in head["spec"]["containers"][0]["resources"]["limits"]
    assert worker["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_volume_and_policy_are_those_of_the_pods() -> None:
    claim, policy = yaml.safe_load_all(MANIFESTS[-1].read_text())
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    chosen = policy["spec"]["podSelector"]["matchLabels"]
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    for path in CLUSTERS:
        for pod in pods(path):
            assert chosen.items() <= pod["metadata"]["labels"].items()
            claims = [volume["persistentVolumeClaim"]["claimName"] for volume in pod["spec"]["volumes"][:1]]
            assert claims == [claim["metadata"]["name"]]
    own, others = policy["spec"]["ingress"]
    assert own == {"from": [{"podSelector": {"matchLabels": chosen}}]}
    assert [port["port"] for port in others["ports"]] == [8265]


def test_the_job_ends_its_cluster() -> None:
    spec = read(CLUSTERS[1])["spec"]
    assert spec["shutdownAfterJobFinishes"]
    assert spec["ttlSecondsAfterFinished"] > 0
    understood(spec["entrypoint"])


def instructions() -> list[str]:
    """The Dockerfile's instructions, each on one line."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    return [line for line in text.replace("\\\n", " ").splitlines() if line]


def test_the_image_holds_the_package_and_its_constraints_for_a_user_who_is_not_root() -> None:
    lines = instructions()
    assert re.match(r"FROM python:3\.1[1-9]-slim", lines[0])
    installs = [line for line in lines if line.startswith("RUN") and "pip install" in line]
    assert "--constraint /src/constraints.txt --requirement /src/requirements.txt" in installs[0]
    assert "pip install --no-cache-dir --no-deps /src" in installs[1]
    assert lines.index("USER 1000:1000") > lines.index(installs[1])
    assert not [line for line in lines if line.startswith("USER") and line != "USER 1000:1000"]
    (environment,) = [line for line in lines if line.startswith("ENV")]
    assert "RAY_AUTH_MODE=token" in environment.split()
    assert not [line for line in lines if line.startswith(("EXPOSE", "ADD"))]
    assert any("wget" in line for line in lines), "KubeRay's probes"
    uid = {pod["spec"]["securityContext"]["runAsUser"] for path in CLUSTERS for pod in pods(path)}
    assert uid == {1000}


def test_what_the_image_is_made_of_is_there_and_sent() -> None:
    copied = [source for line in instructions() if line.startswith("COPY") for source in line.split()[1:-1]]
    first, *kept, last = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")
    ]
    assert (first, last) == ("*", "**/__pycache__")
    assert sorted(kept) == sorted(f"!{source}" for source in copied)
    assert all((ROOT / source).exists() for source in copied)


def test_the_image_installs_what_the_package_depends_on(tmp_path: Path) -> None:
    (line,) = [line for line in instructions() if "tomllib" in line]
    command = line.removeprefix("RUN ").split("&&")[0]
    command = command.replace("python -c", f"{shlex.quote(sys.executable)} -c").replace("/src/", f"{tmp_path}/")
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    subprocess.run(["sh", "-c", command], check=True)
    listed = (tmp_path / "requirements.txt").read_text().splitlines()
    assert listed == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]


def understood(command: str) -> None:
    """Parse a `cnnsearch` command without running it."""
    _, verb, *arguments = shlex.split(command)
    group: Any = typer.main.get_command(app)
    parsed = group.commands[verb].make_context(verb, arguments).params
    sweep = parsed["sweep"].removesuffix(".yaml")  # as in the folder that a job is sent
    assert load_sweep(sweep, profile=parsed["profile"], values=parsed["set_"] or ())


def understood_by_ray(command: str) -> None:
    """Parse a `ray` command without running it."""
    from ray.scripts.scripts import cli

    words = shlex.split(command.replace("$RAY_HEAD_IP", "10.0.0.1"))[1:]
    group: Any = cli
    while isinstance(group, click.Group):
        group = group.commands[words.pop(0)]
    group.make_context("ray", words)


@pytest.mark.parametrize("path", LAUNCHED, ids=file_name)
def test_ray_knows_how_it_is_started(path: Path) -> None:
    for command in starts(prepared(path)):
        understood_by_ray(command[command.index("ray start") :])


def test_what_a_job_is_sent_is_small(tmp_path: Path) -> None:
    from ray._private.runtime_env.packaging import create_package

    environment = read(RUNTIME_ENV)
    assert environment["working_dir"] == "."
    assert environment.keys() == {"working_dir", "excludes"}
    package = tmp_path / "package.zip"
    create_package(str(ROOT), package, include_gitignore=True, excludes=environment["excludes"], logger=None)
    names = zipfile.ZipFile(package).namelist()
    assert "cnnsearch/sweep.py" in names
    assert not [name for name in names if name.startswith(("results/", ".git/", ".venv/", "tests/", "build/"))]
    assert package.stat().st_size < 3.5e6  # code and the included images


@pytest.mark.parametrize("path", DRIVEN, ids=file_name)
def test_commands_that_are_shown_exist(path: Path) -> None:
    shown = re.sub(r"\\\n[# ]*", "", path.read_text())
    for line in (lines := commands_in(shown)):
        for command in re.findall(r"(?:cnnsearch sweep|python -m cnnsearch.sweep) [^'|&]+", line):
            understood(command.replace("python -m cnnsearch.sweep", "cnnsearch sweep").strip())
        if " ray " in f" {line}":
            understood_by_ray(re.split(" > ", line.removeprefix("RAY_AUTH_MODE=token "))[0])
        for file in re.findall(r"(?:deploy/)?[\w-]+\.yaml|deploy/Dockerfile", line):
            assert (ROOT / file).is_file() or (ROOT / "sweeps" / file).is_file()
    assert lines


def commands_in(text: str) -> list[str]:
    """Lines that are indented as commands, in a comment or a document, without what follows them."""
    verbs = r"(?:RAY_AUTH_MODE=token )?(?:ray|kubectl|cnnsearch|docker) "
    found = re.findall(rf"^(?:#   |    |      )({verbs}.+?)(?:  .*| +#.*)?$", text, flags=re.MULTILINE)
    return [str(line) for line in found]
