"""The head of a cluster dies: the command ends, and the same one goes on where there is a cluster again."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cnnsearch.execution.on_ray.pulse import PATIENCE, SHARE
from tests.cluster.clusters import DATA, cluster
from tests.cluster.sweeps import TWO_STAGES, assert_same, run_here, sweep_file

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

SECONDS = 20
"""After which Ray would end the command; 60 unless it is told otherwise."""


@pytest.mark.parametrize("node", [0, 1], ids=["command on the head", "command on another node"])
def test_the_command_ends_soon_and_goes_on_with_a_new_cluster(tmp_path: Path, node: int) -> None:
    sweep = [DATA / sweep_file(tmp_path, TWO_STAGES), "--out", DATA / "results"]
    with cluster(tmp_path, 2, seen_by=(node,)) as there:
        running = there.sweep(*sweep, node=node, env={PATIENCE: str(SECONDS)})
        running.until(lambda: ": done, " in running.stdout)
        died_at = time.monotonic()
        if node == 0:
            there.kill_head()
        else:
            there.kill_node(0)
        ended = running.ended(SECONDS + 20)
        assert time.monotonic() - died_at < SECONDS + 5
        assert ended.returncode == 1
        assert ended.stderr == (
            f"error: the Ray cluster at {there.nodes[0].address}:6379 has not answered for {SHARE * SECONDS:.0f} s.\n"
            "What is finished is kept; the same command goes on, on a new cluster too.\n"
        )
    done = len(list((tmp_path / "results" / "tiny" / "trials").glob("*/record.json")))
    assert 1 <= done < 6
    with cluster(tmp_path, 2) as there:
        ended = there.sweep(*sweep).ended()
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert f"6 trials ({done} already done)" in ended.stdout
    assert_same(tmp_path / "results" / "tiny", run_here(tmp_path, TWO_STAGES))
