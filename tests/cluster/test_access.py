"""What a cluster asks for before a sweep runs there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.clusters import DATA, cluster
from tests.cluster.machines import HOME, Ended
from tests.cluster.sweeps import TWO_STAGES, sweep_file

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]


def assert_refused(ended: Ended, complaint: str, folder: Path) -> None:
    assert ended.returncode == 2, ended
    assert ended.stdout == ""
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
    assert complaint in ended.stderr
    assert not (folder / "results").exists()


def test_a_cluster_that_asks_for_no_token_is_refused(tmp_path: Path) -> None:
    sweep = [DATA / sweep_file(tmp_path, TWO_STAGES), "--out", DATA / "results"]
    with cluster(tmp_path, 1, token=False) as there:
        environment = {"RAY_AUTH_MODE": "token"}
        assert_refused(there.sweep(*sweep, env=environment).ended(), "asks for no token", tmp_path)


def test_a_token_that_others_can_read_or_that_is_wrong_is_refused(tmp_path: Path) -> None:
    sweep = [DATA / sweep_file(tmp_path, TWO_STAGES), "--out", DATA / "results"]
    token = f"{HOME}/.ray/auth_token"
    with cluster(tmp_path, 1) as there:
        assert_refused(there.sweep(*sweep, env={"RAY_AUTH_TOKEN": "another"}).ended(), "does not take", tmp_path)
        assert there.run(["chmod", "644", token]).returncode == 0
        assert_refused(there.sweep(*sweep).ended(), f"chmod 600 {token}", tmp_path)
