from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cnnsearch.storage.durable import this_process
from cnnsearch.storage.scratch import scratch


def test_it_is_there_for_the_block_and_for_this_user_alone(tmp_path: Path) -> None:
    with scratch("run-", tmp_path) as folder:
        assert folder.parent == tmp_path
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "file").touch()
    assert list(tmp_path.iterdir()) == []


def test_what_a_dead_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    code = "import os, sys\nfrom pathlib import Path\nfrom cnnsearch.storage.scratch import scratch\n"
    code += "kept = scratch('run-', Path(sys.argv[1]))\nkept.__enter__()\nos._exit(1)"
    with scratch("run-", tmp_path) as alive:
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
        (dead,) = set(tmp_path.iterdir()) - {alive}
        (tmp_path / "run-of-others").mkdir()
        (tmp_path / "run-file").write_text(this_process())
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "run-link").symlink_to(dead)
        os.rename(dead, tmp_path / "elsewhere" / "dead")
        (tmp_path / "run-link").unlink()
        (tmp_path / "run-link").symlink_to(tmp_path / "elsewhere" / "dead")
        with scratch("run-", tmp_path):
            pass
        assert {path.name for path in tmp_path.iterdir()} == {
            alive.name,
            "run-of-others",
            "run-file",
            "elsewhere",
            "run-link",
        }
        assert (tmp_path / "elsewhere" / "dead" / "owner").exists(), "a link is not followed"
        os.rename(tmp_path / "elsewhere" / "dead", dead)
        with scratch("run-", tmp_path):
            assert not dead.exists()
            assert alive.exists()
