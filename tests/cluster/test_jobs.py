"""Sweeps as Ray jobs, submitted with the commands of docs/cluster.md."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.clusters import DATA, TREE, Cluster, cluster
from tests.cluster.machines import Ended
from tests.cluster.sweeps import LONG, TWO_STAGES, assert_same, hosts, run_here, sweep_file

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

SMALL = {
    "data.image_size": 8,
    "data.split": "{method: fill, train_per_class: 20, val_per_class: 10}",
    "train.width": 0.05,
    "stages.grid.space": "{model: residual, batch_size: 16, lr: {grid: [0.001, 0.002]}}",
    "stages.dropout.space": "{dropout: 0.1}",
}
TRIALS = 3
JOBS = ["ray", "job"]
AT = ["--address", "http://127.0.0.1:8265"]


def documented(option: str, epochs: int, seed: int) -> list[str]:
    """The one command of docs/cluster.md that submits a job with an option, made small."""
    text = (TREE / "docs" / "cluster.md").read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = [line.strip() for line in text.splitlines() if "ray job submit" in line and option in line]
    command = shlex.split(line.replace("/mnt/results", str(DATA / "results")))
    small = [f"--set={key}={value}" for key, value in {**SMALL, "train.epochs": epochs, "train.seed": seed}.items()]
    return [*command, "--profile", "quick", *small]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the head sees as DATA."""
    return tmp_path_factory.mktemp("head")


@pytest.fixture(scope="module")
def there(folder: Path) -> Iterator[Cluster]:
    """A head with a dashboard."""
    with cluster(folder, 1, dashboard=True) as made:
        yield made


def submit(there: Cluster, command: list[str]) -> tuple[Ended, str]:
    """Submit a job from the repository's folder and wait for its end; how that ended, and the job's log."""
    ended = there.run(["env", *command], folder=str(TREE))
    return ended, log(there, job_of(ended.stdout))


def job_of(output: str) -> str:
    """The job's name in what `ray job submit` says."""
    found = re.search(r"raysubmit_\w+", output)
    assert found is not None, output
    return found[0]


def log(there: Cluster, job: str) -> str:
    """What a job has written."""
    text = there.run(["cat", f"/tmp/ray/session_latest/logs/job-driver-{job}.log"]).stdout
    assert not set(map(chr, range(32))) - {"\n", "\t"} & set(text), "a log has no control characters"
    return text


def test_a_job_brings_the_package_to_nodes_without_it_and_goes_on_when_submitted_again(
    there: Cluster, folder: Path
) -> None:
    there.add_nodes(tree=None)
    new = there.nodes[-1]
    try:
        ended, text = submit(there, documented("--working-dir", epochs=1, seed=1))
        assert ended.returncode != 0
        assert "failed with exit code 2" in ended.stdout
        assert f"{new.name} ({new.address}): cnnsearch is not installed there" in text
        command = documented("--runtime-env", epochs=60, seed=0)
        ended, text = submit(there, command)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert "succeeded" in ended.stdout
        assert text.count(": done, val ") == TRIALS
        assert text.count(": epoch ") < 30, "epochs are told of now and then"
        assert f"{TRIALS} of {TRIALS} trials done in" in text
        assert hosts(folder / "results" / "part1") == {"node-0", new.name}
    finally:
        new.kill()
    again, text = submit(there, command)
    assert again.returncode == 0
    assert f"{TRIALS} trials ({TRIALS} already done), nothing to run" in text


def test_a_folder_of_sweeps_can_be_sent_alone(there: Cluster) -> None:
    ended, text = submit(there, documented("--working-dir", epochs=1, seed=1))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{TRIALS} of {TRIALS} trials done in" in text


@pytest.mark.parametrize(("lr", "code"), [("[100]", 1), ("[much]", 2)])
def test_a_jobs_status_tells_how_the_sweep_ended(there: Cluster, folder: Path, lr: str, code: int) -> None:
    sweep = DATA / sweep_file(folder, TWO_STAGES, f"ends-{code}")
    diverging = ["--set", "train={model: plain, optimizer: sgd, width: 0.05, epochs: 6, precision: fp32}"]
    diverging += ["--set", f"stages.grid.space={{lr: {{grid: {lr}}}}}"]
    options = [*AT, "--", "python", "-m", "cnnsearch.sweep", str(sweep), "--address", "auto"]
    ended, text = submit(there, [*JOBS, "submit", *options, "--out", str(DATA / "results"), *diverging])
    assert ended.returncode != 0
    assert f"failed with exit code {code}" in ended.stdout, text
    assert text.count("error:") == (code == 2)
    assert "Traceback" not in text


def test_a_job_that_is_stopped_can_be_submitted_again(there: Cluster, folder: Path, tmp_path: Path) -> None:
    text = LONG.replace("epochs: 20", "epochs: 40")
    sweep = DATA / sweep_file(folder, text, "stopped")
    command = ["python", "-m", "cnnsearch.sweep", str(sweep), "--address", "auto", "--out", str(DATA / "results")]
    job = job_of(there.run([*JOBS, "submit", *AT, "--no-wait", "--", *command]).stdout)
    tail = there.start([*JOBS, "logs", *AT, "--follow", job], env={"PYTHONUNBUFFERED": "1"})
    tail.until_told(": done, ")
    stopped = there.run([*JOBS, "stop", *AT, job])
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    assert "STOPPED" in there.run([*JOBS, "status", *AT, job]).stdout.upper()
    told = f"stopped: 1 of 3 trials done. The same command goes on:\n  {shlex.join(command)}\nWhat is done:\n"
    assert told in log(there, job)
    ended, again = submit(there, [*JOBS, "submit", *AT, "--", *command])
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "3 trials (1 already done)" in again
    assert_same(folder / "results" / "stopped", run_here(tmp_path, text, "stopped"))
