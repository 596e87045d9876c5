"""What is under a URI: objects that are whole or not there, tries that end, secrets that stay secret."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, strategies as st

from cnnsearch.errors import DiskError, RemoteError
from cnnsearch.storage import remote
from cnnsearch.storage.remote import Remote, all_of, is_uri, redacted


def test_objects_by_name(tmp_path: Path) -> None:
    place = Remote.of((tmp_path / "there").as_uri())
    assert place.list() == {}
    assert place.read("a/b.json") is None
    place.delete("a/b.json")
    place.write("a/b.json", b"1")
    place.write("a/b.json", b"22")
    place.write(".hidden", b"")
    place.at("a").write(".hidden/c", b"")
    assert {name: facts.size for name, facts in place.list().items()} == {"a/b.json": 2}
    assert place.read("a/b.json") == place.at("a").read("b.json") == b"22"
    assert place.facts(["a/b.json", "a", "none"]) == place.list()
    assert set(place.list_in("a")) == {"b.json", ".hidden/c"}
    assert place.at("a").parent == place
    place.delete("a/b.json")
    assert place.list() == {}
    assert not [file for file in tmp_path.rglob("*") if ".tmp-" in file.name]


def test_a_memory_file_system_of_fsspec() -> None:
    place = Remote.of("fsspec+memory:///results")
    place.write("a/b", b"1")
    place.write("a/b", b"2")
    assert place.read("a/b") == b"2"
    assert set(place.list()) == {"a/b"}


class Flaky:
    """A file system that fails so often before it works."""

    type_name = "s3"

    def __init__(self, fails: int, error: Exception) -> None:
        self.left, self.error, self.calls = fails, error, 0

    def delete_file(self, path: str) -> None:
        self.calls += 1
        if self.left:
            self.left -= 1
            raise self.error


NETWORK = OSError("AWS Error NETWORK_CONNECTION during DeleteObject operation: curlCode: 7 (Request ID: 77)")


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Flaky]:
    monkeypatch.setattr(remote, "RETRY_SECONDS", (0.0, 0.0))

    def make(fails: int, error: Exception) -> Flaky:
        files = Flaky(fails, error)
        monkeypatch.setattr(remote, "_opened", lambda uri: (files, "bucket"))
        return files

    return make


def test_what_may_pass_is_tried_again_a_few_times(flaky: Callable[..., Flaky]) -> None:
    place = Remote("s3://me:hush@bucket/a?endpoint_override=h:1")
    flaky(2, NETWORK)
    place.delete("x")
    files = flaky(3, NETWORK)
    with pytest.raises(RemoteError) as told:
        place.delete("x")
    assert files.calls == 3
    assert str(told.value).startswith("s3://***@bucket/a cannot be written: AWS Error NETWORK_CONNECTION")
    assert str(told.value).endswith("curlCode: 7")
    assert isinstance(told.value, DiskError)


@pytest.mark.parametrize(
    "error",
    [
        OSError("AWS Error ACCESS_DENIED during DeleteObject operation: hush"),
        OSError(28, "No space left on device: hush"),
        ValueError("hush"),
    ],
)
def test_what_will_not_pass_is_tried_once(flaky: Callable[..., Flaky], error: Exception) -> None:
    files = flaky(1, error)
    with pytest.raises(RemoteError) as told:
        Remote("s3://me:hush@bucket/a").delete("x")
    assert files.calls == 1
    assert "hush" not in str(told.value)


words = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=8, max_size=12)


@given(words, words, words, st.sampled_from(["s3", "gs", "abfs", "fsspec+sftp"]))
def test_secrets_are_taken_out(user: str, password: str, token: str, scheme: str) -> None:
    uri = f"{scheme}://{user}:{quote(password)}@bucket/a?token={token}&endpoint_override=host:1"
    shown = f"{scheme}://***@bucket/a?token=***&endpoint_override=host:1"
    assert redacted(uri) == shown
    assert redacted(f"--out={uri}") == f"--out={shown}"
    place = Remote(uri)
    for text in (str(place), repr(place), str(place.at("b").parent), place.identity):
        assert not any(secret in text.replace("bucket", "") for secret in (user, password, token))


def test_other_arguments_are_left_alone() -> None:
    for text in ("part1", "--serial", "train.lr=0.1", "/a/b@c?d=e", "C:\\x", "me@host:/a"):
        assert redacted(text) == text
        assert not is_uri(text)
    assert is_uri("s3://bucket")
    assert not is_uri(Path("s3://bucket"))


def test_workers_are_told_where_the_environment_says_the_store_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://host:9000/")
    place = Remote.of("s3://bucket/a?region=b")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert place.uri == "s3://bucket/a?region=b&scheme=http&endpoint_override=host%3A9000"
    assert place.identity == "s3://bucket/a host:9000"
    assert Remote.of("s3://bucket/a").identity != place.identity


def test_many_at_a_time_in_their_order(tmp_path: Path) -> None:
    names = [str(number) for number in range(40)]
    assert list(all_of(int, names).items()) == [(name, int(name)) for name in names]

    def broken(name: str) -> Any:
        raise RemoteError(name)

    with pytest.raises(RemoteError, match=r"^0$"):
        all_of(broken, names)


def test_a_full_or_missing_disk_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RemoteError, match=f"{tmp_path}/file cannot be written"):
        Remote.of((tmp_path / "file").as_uri()).write("a/b", b"")
    assert os.listdir(tmp_path) == ["file"]
