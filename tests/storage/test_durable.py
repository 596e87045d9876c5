"""Files are replaced whole, damage is found, and only what the dead left behind is swept away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from cnnsearch.errors import DiskError
from cnnsearch.storage import durable
from cnnsearch.storage.checksums import sealed, unsealed
from cnnsearch.storage.durable import put_in_place, remove_abandoned, temporary_file, write_whole


def test_replacing_leaves_nothing_beside_the_file(tmp_path: Path) -> None:
    write_whole(tmp_path / "file", b"one")
    write_whole(tmp_path / "file", b"two")
    assert (tmp_path / "file").read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["file"]


def test_a_failed_write_keeps_the_old_file_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.json"
    write_whole(file, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskError, match=r"a\.json cannot be written: No space left"):
        write_whole(file, b"new")
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_no_folder_to_write_in(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match=r"x\.json cannot be written: No such file"):
        write_whole(tmp_path / "none" / "x.json", b"")


def test_only_what_the_dead_left_behind_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kept").touch()
    own = temporary_file(tmp_path)
    code = (
        "import os, signal, sys; from pathlib import Path; from cnnsearch.storage.durable import temporary_file;"
        "temporary_file(Path(sys.argv[1])); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == -signal.SIGKILL
    assert len(os.listdir(tmp_path)) == 3
    with monkeypatch.context() as patched:
        patched.setattr(durable, "_boot", lambda: "earlier0")
        rebooted = temporary_file(tmp_path)
        patched.setattr(durable, "_machine", lambda: "elsewhere")
        elsewhere = temporary_file(tmp_path)
        old = temporary_file(tmp_path)
    os.utime(old, (1, 1))
    remove_abandoned(tmp_path)
    assert not rebooted.exists()
    assert set(tmp_path.iterdir()) == {own, elsewhere, tmp_path / "kept"}
    put_in_place(own, tmp_path / "done")
    assert (tmp_path / "done").exists()


@given(st.binary(max_size=200), st.data())
def test_any_flipped_bit_of_a_sealed_file_is_found(content: bytes, data: st.DataObject) -> None:
    stored = sealed(content)
    whole = unsealed(stored)
    assert whole is not None
    assert bytes(whole) == content
    at = data.draw(st.integers(0, 8 * len(stored) - 1))
    flipped = bytearray(stored)
    flipped[at // 8] ^= 1 << at % 8
    assert unsealed(bytes(flipped)) is None
    assert unsealed(stored[: data.draw(st.integers(0, len(stored) - 1))]) is None
