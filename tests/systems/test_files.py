"""What is done with files where a system cannot do it as Linux does."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from cnnsearch.systems import files


def test_links_are_refused_where_the_kernel_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"1")
    (tmp_path / "link").symlink_to("file")
    monkeypatch.setattr(files, "_NO_LINK", 0)
    with pytest.raises(OSError, match="link") as caught:
        files.open_file(tmp_path / "link", os.O_RDONLY)
    assert caught.value.errno == errno.ELOOP
    for name, follow in (("link", True), ("file", False)):
        os.close(files.open_file(tmp_path / name, os.O_RDONLY, follow=follow))


def test_a_file_that_is_open_elsewhere_is_replaced_once_it_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "O_DIRECTORY")
    (tmp_path / "new").write_bytes(b"new")
    closed, move = threading.Event(), Path.replace

    def replace(source: Path, target: Path) -> Path:
        if not closed.is_set():
            raise PermissionError(errno.EACCES, "another process has it open")
        return move(source, target)

    monkeypatch.setattr(Path, "replace", replace)
    threading.Timer(0.2, closed.set).start()
    files.replace(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old").read_bytes() == b"new"
    closed.clear()
    monkeypatch.setattr(files, "_BUSY_SECONDS", 0.1)
    with pytest.raises(PermissionError):
        files.replace(tmp_path / "old", tmp_path / "older")


def test_where_folders_can_be_synced_a_refusal_is_final(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def replace(source: Path, target: Path) -> Path:
        raise PermissionError(errno.EACCES, "the folder cannot be written")

    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("waited in vain"))
    with pytest.raises(PermissionError):
        files.replace(tmp_path / "a", tmp_path / "b")


def test_what_only_some_systems_say_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.touch(0o644)
    file.chmod(0o644)
    assert files.mode_open_to_others(file.stat()) == 0o644
    file.chmod(0o600)
    assert files.mode_open_to_others(file.stat()) is None
    assert files.is_ours(file.stat())
    assert files.user_number() == os.getuid()
    assert files.free_bytes(tmp_path) > 0
    file.chmod(0o644)
    for name in ("getuid", "statvfs", "fchmod", "O_DIRECTORY"):
        monkeypatch.delattr(os, name)
    assert files.mode_open_to_others(file.stat()) is None, "modes do not say who may read it"
    assert files.is_ours(file.stat())
    assert files.user_number() == 0
    assert files.free_files(tmp_path) is None
    files.sync_folder(tmp_path / "none")
    with file.open("rb+") as opened:
        files.give_usual_mode(opened.fileno())
