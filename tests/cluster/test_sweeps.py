"""A sweep on several machines, none of which sees another's files: same tables as on one, whatever comes and goes."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnnsearch.results.folder import Results
from tests.cluster.clusters import DATA, TREE, Cluster, cluster
from tests.cluster.sweeps import LONG, LONG_STAGES, TWO_STAGES, assert_same, hosts, run_here, sweep_file, told

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

IMAGES = 1_700
"""In fashion-mini."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the head sees as DATA."""
    return tmp_path_factory.mktemp("head")


@pytest.fixture(scope="module")
def two_nodes(folder: Path) -> Iterator[Cluster]:
    """A cluster of two nodes; tests add more and take those away again."""
    with cluster(folder, 2) as there:
        yield there


@pytest.mark.after
def test_a_sweep_runs_on_all_nodes_and_gives_what_one_machine_gives(
    two_nodes: Cluster, folder: Path, tmp_path: Path
) -> None:
    ended = two_nodes.sweep(DATA / sweep_file(folder, LONG_STAGES), "--out", DATA / "results").ended()
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr == ""
    assert hosts(folder / "results" / "tiny") == {"node-0", "node-1"}
    assert_same(folder / "results" / "tiny", run_here(tmp_path, LONG_STAGES))
    assert two_nodes.run(["find", "/mnt", "-name", "record.json"], node=1).stdout == "", "nothing is left behind"


def test_images_travel_once_to_a_machine(two_nodes: Cluster, folder: Path) -> None:
    text = TWO_STAGES.replace("image_size: 8", "image_size: 64").replace("model: residual", "model: plain")
    size = IMAGES * 3 * 64 * 64
    before = two_nodes.nodes[1].received_bytes
    ended = two_nodes.sweep(DATA / sweep_file(folder, text, "large"), "--out", DATA / "results").ended()
    assert ended.returncode == 0, ended.stdout + ended.stderr
    came = two_nodes.nodes[1].received_bytes - before
    assert size <= came < 1.5 * size, f"{came / size:.2f} times all images, for {ended.stdout.count('started')} trials"


def test_a_node_that_joins_is_used_and_one_that_dies_costs_a_checkpoint_at_most(
    two_nodes: Cluster, folder: Path, tmp_path: Path
) -> None:
    text = LONG.replace("epochs: 20", "epochs: 80")
    sweep, notes = DATA / sweep_file(folder, text, "long"), folder / "notes"
    two_nodes.add_nodes()
    try:
        driver = two_nodes.start(["python", "-m", "tests.cluster.listening", sweep, DATA / "results", DATA / "notes"])

        def reached() -> dict[str, int]:
            return {note["trial"]: note["epoch"] for note in told(notes) if note["what"] == "epoch"}

        driver.until(lambda: len(reached()) == 3 and min(reached().values()) >= 6)
        before, heard = reached(), len(told(notes))
        assert max(before.values()) < 80, "all three run"
    finally:
        two_nodes.kill_node(len(two_nodes.nodes) - 1)
    ended = driver.ended()
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (moved,) = [note["trial"] for note in told(notes)[heard:] if note["what"] == "started"]
    first = next(note["epoch"] for note in told(notes)[heard:] if note["what"] == "epoch" and note["trial"] == moved)
    again = before[moved] + 1 - first
    assert 0 <= again <= 4, "checkpoints are made every 4 epochs"
    assert hosts(folder / "results" / "long") == {"node-0", "node-1"}
    assert_same(folder / "results" / "long", run_here(tmp_path, text, "long"))


def test_a_node_that_joins_later_is_used(two_nodes: Cluster, folder: Path) -> None:
    # Far more than is needed: the sweep is ended once a trial has come from the new node, however long that took.
    text = LONG.replace(
        "0.004]", "0.004, 0.008]}, batch_size: {grid: [16, 32]}, dropout: {grid: [0.1, 0.2, 0.3, 0.4, 0.5]"
    )
    running = two_nodes.sweep(DATA / sweep_file(folder, text, "later"), "--out", DATA / "results")
    running.until_told(": started")
    two_nodes.add_nodes()
    new = two_nodes.nodes[-1]
    try:
        trials, everywhere = Results(folder / "results" / "later"), {"node-0", "node-1", new.name}
        running.until(lambda: {record.host for record in trials.records().values()} == everywhere, 180)
        running.send(signal.SIGINT)
        assert running.ended(60).returncode == 130
    finally:
        new.kill()


def test_a_node_without_the_package_or_with_another_version_is_refused(
    two_nodes: Cluster, folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(TREE / "cnnsearch", other / "cnnsearch", ignore=shutil.ignore_patterns("__pycache__"))
    with (other / "cnnsearch" / "train.py").open("a", encoding="utf-8") as file:
        file.write("\nANOTHER = True\n")
    sweep = DATA / sweep_file(folder, TWO_STAGES, "refused")
    for tree, complaint in {None: "cnnsearch is not installed there", other: "is not the"}.items():
        two_nodes.add_nodes(tree=tree)
        new = two_nodes.nodes[-1]
        try:
            ended = two_nodes.sweep(sweep, "--out", DATA / "results").ended()
            assert ended.returncode == 2, ended
            assert ended.stderr.count("error:") == 1
            assert f"{new.name} ({new.address}): " in ended.stderr
            assert complaint in ended.stderr
            assert "ray job submit --runtime-env deploy/runtime-env.yaml" in ended.stderr
            assert not list((folder / "results" / "refused").glob("trials/*"))
        finally:
            new.kill()
