"""Files that strangers may have made are opened and parsed within limits."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from cnnsearch.storage.reading import MOST_DEPTH, parsed, read_bytes
from cnnsearch.systems import files
from cnnsearch.words import printable


def test_only_regular_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_bytes(tmp_path / "file", 5) == b"12345"
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "zero").symlink_to("/dev/zero")
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        found = {}
        for name in ("link", "fifo", "folder", "zero", "socket"):
            with pytest.raises(OSError, match="it is") as caught:
                read_bytes(tmp_path / name)
            found[name] = caught.value.strerror
    assert found == {
        "link": "it is a link",
        "fifo": "it is a FIFO, not a file",
        "folder": "it is a folder, not a file",
        "zero": "it is a link",
        "socket": "it is a socket, not a file",
    }
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "none")
    assert read_bytes(tmp_path / "link", follow=True) == b"12345"
    with pytest.raises(OSError, match="it is a device, not a file"):
        read_bytes(tmp_path / "zero", follow=True)


def test_a_folder_that_cannot_be_opened_is_called_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_file(path: Path, flags: int, **how: bool) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files, "open_file", open_file)
    with pytest.raises(OSError, match="it is a folder, not a file"):
        read_bytes(tmp_path)
    with pytest.raises(PermissionError):
        read_bytes(tmp_path / "file")


def test_a_file_has_at_most_as_many_bytes_as_asked_for(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(OSError, match="it has more than 1,000 bytes"):
        read_bytes(tmp_path / "sparse", 1000)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("1e400", "it holds a number out of range: 1e400"),
        ("-1" + "0" * 5000, "it holds a number out of range: -1000"),
        (str(2**63), "it holds a number out of range"),
        ("[NaN]", "it holds NaN, which is no number"),
        ('{"a": -Infinity}', "it holds -Infinity, which is no number"),
        ("[" * 100_000, "it is nested more than"),
        ("[" * (MOST_DEPTH + 1) + "]" * (MOST_DEPTH + 1), "it is nested more than"),
        ('{"a": ', "it is not JSON: Expecting value, line 1"),
        ("\udcff", "it is not text in UTF-8"),
        ("", "it is not JSON"),
    ],
)
def test_json_beyond_what_files_of_ours_hold_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        parsed(text.encode("utf-8", "surrogateescape"))
    assert printable(str(caught.value)) == str(caught.value)
    assert len(str(caught.value)) < 120


def test_json_within_the_limits_is_read() -> None:
    assert parsed(b'{"a": [1, -2.5, null, true, "x"], "b": {}}') == {"a": [1, -2.5, None, True, "x"], "b": {}}
    assert parsed(str(-(2**63)).encode()) == -(2**63)
    deep = "[" * MOST_DEPTH + "]" * MOST_DEPTH
    assert str(parsed(deep.encode())) == deep
