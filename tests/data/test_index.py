"""The index remembers unchanged files, never changed ones, and survives anything in its file."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from cnnsearch.data import index as index_module
from cnnsearch.data.index import Index, UnreadableError, read_unchanged
from tests.data.making import settle


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "image.png"
    path.write_bytes(b"contents")
    settle()
    return str(path)


def refuse_to_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*arguments: object) -> None:
        raise AssertionError("a file was read")

    monkeypatch.setattr(index_module, "open", opened, raising=False)


def test_an_unchanged_file_is_hashed_once(tmp_path: Path, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    index = Index(tmp_path / "index.json")
    digest = index.digest(file)
    assert digest == hashlib.sha256(b"contents").hexdigest()
    index.save([file])
    refuse_to_open(monkeypatch)
    assert index.digest(file) == digest
    assert Index(tmp_path / "index.json").digest(file) == digest


def test_a_changed_file_is_hashed_again_even_with_its_old_time(tmp_path: Path, file: str) -> None:
    index = Index(tmp_path / "index.json")
    index.digest(file)
    facts = os.stat(file)
    Path(file).write_bytes(b"CONTENTS")
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert index.digest(file) == hashlib.sha256(b"CONTENTS").hexdigest()


def test_a_file_changed_just_now_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new.png"
    path.write_bytes(b"new")
    monkeypatch.setattr(time, "time_ns", lambda: os.stat(path).st_mtime_ns + 1_000_000)
    index = Index(tmp_path / "index.json")
    index.digest(str(path))
    index.save([str(path)])
    assert not (tmp_path / "index.json").exists()


def test_a_flipped_bit_makes_an_index_an_empty_one(tmp_path: Path, file: str) -> None:
    index = Index(tmp_path / "index.json")
    index.digest(file)
    index.save([file])
    stored = bytearray((tmp_path / "index.json").read_bytes())
    stored[len(stored) // 2] ^= 1
    (tmp_path / "index.json").write_bytes(stored)
    assert not Index(tmp_path / "index.json").knows(file)


def test_contents_that_had_to_be_read_are_handed_on(tmp_path: Path, file: str) -> None:
    index, kept = Index(tmp_path / "index.json"), list[bytes]()
    index.digest(file, keep=kept.append)
    index.digest(file, keep=kept.append)
    assert kept == [b"contents"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"version": 99, "files": {}, "bad": {}}',
        '{"version": 1}',
        '{"version": 1, "files": [], "bad": {}}',
        '{"version": 1, "files": {"FILE": [8, 1, 1]}, "bad": {}}',
        '{"version": 1, "files": {"FILE": "x"}, "bad": {"a": 1}}',
        '{"version": 1, "files": {"FILE": [8, 1, 1, "../etc"]}, "bad": {}}',
        "[" * 100_000,
        "\ufeff\x00",
    ],
)
def test_a_corrupt_index_is_an_empty_one(text: str, tmp_path: Path, file: str) -> None:
    (tmp_path / "index.json").write_text(text.replace("FILE", file))
    index = Index(tmp_path / "index.json")
    assert index.digest(file) == hashlib.sha256(b"contents").hexdigest()
    index.save([file])
    assert Index(tmp_path / "index.json").knows(file)


def test_bad_contents_are_remembered_for_this_decoder_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = Index(tmp_path / "index.json")
    index.remember_bad("0" * 64, "is truncated")
    index.save([])
    assert Index(tmp_path / "index.json").why_bad("0" * 64) == "is truncated"
    assert Index(tmp_path / "index.json").why_bad("1" * 64) is None
    monkeypatch.setattr(index_module, "DECODER", "another")
    assert Index(tmp_path / "index.json").why_bad("0" * 64) is None


def test_files_that_are_gone_are_forgotten(tmp_path: Path, file: str) -> None:
    index = Index(tmp_path / "index.json")
    index.digest(file)
    index.save([])
    assert not Index(tmp_path / "index.json").knows(file)


def test_undecodable_names_are_kept(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")
    Path(path).write_bytes(b"x")
    settle()
    index = Index(tmp_path / "index.json")
    digest = index.digest(path)
    index.save([path])
    assert Index(tmp_path / "index.json")._files[path][3] == digest


def test_an_index_that_cannot_be_written_is_no_error(tmp_path: Path, file: str) -> None:
    (tmp_path / "blocked").write_text("a file")
    index = Index(tmp_path / "blocked" / "index.json")
    index.digest(file)
    index.save([file])


def test_odd_files_are_refused_without_opening_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "big.png").write_bytes(b"12345")
    index = Index(tmp_path / "index.json")
    monkeypatch.setattr(index_module, "MAX_FILE_BYTES", 4)
    for name, said in (
        ("fifo.png", "is not a regular file"),
        ("big.png", "has 5 bytes; the limit is 4"),
        ("none.png", r"cannot be read \(No such file or directory\)"),
    ):
        with pytest.raises(UnreadableError, match=said):
            index.digest(str(tmp_path / name))
        with pytest.raises(UnreadableError, match=said):
            read_unchanged(str(tmp_path / name), "0" * 64)


def test_reading_notices_a_change(file: str) -> None:
    assert read_unchanged(file, hashlib.sha256(b"contents").hexdigest()) == b"contents"
    with pytest.raises(UnreadableError, match="changed while it was being read"):
        read_unchanged(file, "0" * 64)
