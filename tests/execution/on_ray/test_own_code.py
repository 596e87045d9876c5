"""Networks of a user's own in Ray's workers: they get the snapshot, never the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from cnnsearch import run
from cnnsearch.spec.load import load_sweep
from tests.own_code import NETS, write_nets, write_sweep
from tests.recorded import numbers


@pytest.mark.after
@pytest.mark.timeout(300)  # a busy machine takes a minute to start Ray
@pytest.mark.usefixtures("shared_ray")
def test_workers_run_the_snapshot_and_give_the_numbers_of_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cnnsearch.training.models.checked_code.answer", lambda request: {})
    file = write_nets(tmp_path)
    values = ["run.dashboard=false", "stages.grid.space.fine_tune.grid=[full, head]"]
    sweep = load_sweep(write_sweep(tmp_path), values=values, code=[file])
    file.write_text(f"raise SystemExit\n{NETS}")
    (tmp_path / "blocks.py").unlink()
    run(sweep, tmp_path / "ray")
    run(sweep, tmp_path / "serial", serial=True)
    found = numbers(tmp_path / "ray" / "mine")
    assert len(found) == 4
    assert found == numbers(tmp_path / "serial" / "mine")
