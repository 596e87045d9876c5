"""Where derived files go, and that they appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from cnnsearch.storage.cache import cache_root


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CNNSEARCH_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))


def test_own_variable_wins_and_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("CNNSEARCH_CACHE", "mine")
    assert cache_root() == tmp_path / "mine"
    monkeypatch.setenv("CNNSEARCH_CACHE", "~/own")
    assert cache_root() == tmp_path / "home" / "own"


def test_then_xdg_then_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_root() == tmp_path / "home" / ".cache" / "cnnsearch"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "cnnsearch"
    assert cache_root().is_dir()
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_root() == tmp_path / "home" / ".cache" / "cnnsearch"


def test_falls_back_to_a_private_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CNNSEARCH_CACHE", str(tmp_path / "file" / "cache"))
    root = cache_root()
    assert root.parent == tmp_path / "tmp"
    assert root.stat().st_mode & 0o777 == 0o700
    assert cache_root() == root


def test_a_temporary_folder_that_someone_else_prepared_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "trap").mkdir()
    monkeypatch.setenv("CNNSEARCH_CACHE", str(tmp_path / "file" / "cache"))
    (tmp_path / "tmp" / f"cnnsearch-{os.getuid()}").symlink_to(tmp_path / "trap")
    root = cache_root()
    assert root.resolve() != tmp_path / "trap"
    assert root.parent == tmp_path / "tmp"


def test_a_temporary_folder_of_another_user_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CNNSEARCH_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(os, "getuid", lambda: 424242)
    (tmp_path / "tmp" / "cnnsearch-424242").mkdir()
    assert cache_root() != tmp_path / "tmp" / "cnnsearch-424242"
