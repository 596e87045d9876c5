"""A folder named by a URI: in an object store (s3://, gs://, abfs://), or wherever else pyarrow can read and write.

An object appears whole or not at all: stores promise that of uploads; elsewhere it is written beside and renamed.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import parse_qsl, quote, urlencode

from cnnsearch.errors import RemoteError

RETRY_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds between tries of what may work a moment later. pyarrow itself tries three times within a few seconds."""
AT_ONCE = 16
"""Requests in flight at a time: each mostly waits for the network."""

_IS_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_REQUEST_ID = re.compile(r" \(Request ID: [^)]*\)")
_STORES = frozenset({"s3", "gcs", "abfs"})
"""pyarrow's names of the file systems where an object appears only when it is complete."""
_TOLD = frozenset({"scheme", "endpoint_override", "region", "location", "anonymous", "retry_limit_seconds"})
"""Keys of a URI's query whose values are not secret."""
_FINAL = (
    "ACCESS_DENIED",
    "EXPIRED_TOKEN",
    "INVALID_ACCESS_KEY_ID",
    "INVALID_CLIENT_TOKEN_ID",
    "MISSING_AUTHENTICATION_TOKEN",
    "NO_SUCH_BUCKET",
    "SIGNATURE_DOES_NOT_MATCH",
    "UNRECOGNIZED_CLIENT",
    "HTTP status 400",
    "HTTP status 403",
)
"""Words in messages of errors that would occur again at another try."""

T = TypeVar("T")


def is_uri(text: object) -> bool:
    """Say whether results go to a URI, not into a folder of this machine."""
    return isinstance(text, str) and _IS_URI.match(text) is not None


def redacted(text: str) -> str:
    """Remove the secrets of URIs from a text: user and password, and query values that may be secret."""
    match = _IS_URI.search(text)
    if match is None:
        return text
    before, rest = text[: match.end()], text[match.end() :]
    rest, mark, query = rest.partition("?")
    user, at, place = rest.rpartition("@")
    pairs = [(key, value if _is_told(key, value) else "***") for key, value in parse_qsl(query, keep_blank_values=True)]
    return f"{before}{'***' if user else ''}{at}{place}{mark}{urlencode(pairs, safe=':/*')}"


def _is_told(key: str, value: str) -> bool:
    return key in _TOLD and "@" not in value


@dataclass(frozen=True)
class Facts:
    """What a listing says about an object."""

    size: int
    changed: int
    """When it was written, in nanoseconds, by the store's clock. Stores give whole seconds."""


@dataclass(frozen=True, repr=False)
class Remote:
    """The objects under a URI, by names such as `trials/0123/record.json`. It can be sent to other processes, secrets
    included.

    Methods raise RemoteError where the store cannot be reached or refuses, after several tries where those may help.
    """

    uri: str

    @classmethod
    def of(cls, uri: str) -> Remote:
        """Parse a user's URI; add where the store is if this machine's environment says it, so that other machines know
        too.
        """
        where, _, query = uri.partition("?")
        options = dict(parse_qsl(query, keep_blank_values=True))
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        if where.lower().startswith("s3://") and endpoint and "endpoint_override" not in options:
            scheme, _, host = endpoint.rpartition("://")
            options |= {"scheme": scheme or "https", "endpoint_override": host.rstrip("/")}
        return cls(f"{where}?{urlencode(options)}" if options else where)

    def __str__(self) -> str:
        """The URI as people see it, without secrets and options."""
        return redacted(self.uri.partition("?")[0])

    __repr__ = __str__

    @property
    def identity(self) -> str:
        """Identifies the place, the same on every machine and for every user."""
        where, _, query = self.uri.partition("?")
        endpoint = dict(parse_qsl(query)).get("endpoint_override", "")
        return f"{where.partition('://')[0]}://{self.place} {endpoint}"

    @property
    def place(self) -> str:
        """Bucket and folder."""
        return self.uri.partition("?")[0].partition("://")[2].rpartition("@")[2].rstrip("/")

    def at(self, name: str) -> Remote:
        """Return the place of the folder with this name in it."""
        where, mark, query = self.uri.partition("?")
        return Remote(f"{where.rstrip('/')}/{quote(name)}{mark}{query}")

    @property
    def parent(self) -> Remote:
        """The place of the folder that contains it."""
        where, mark, query = self.uri.partition("?")
        return Remote(f"{where.rstrip('/').rpartition('/')[0]}{mark}{query}")

    def check(self) -> None:
        """Raise RemoteError if it cannot be reached. Tries once, since a user is waiting."""
        self._tried("reached", lambda: self._list(recursive=False), waits=())

    def list(self) -> dict[str, Facts]:
        """List every object: name -> facts. Empty objects and names or folders that begin with a dot are left out."""
        return {
            name: facts
            for name, facts in self._tried("listed", self._list).items()
            if not any(not part or part.startswith(".") for part in name.split("/"))
        }

    def list_in(self, folder: str) -> dict[str, Facts]:
        """List a folder, including names that begin with a dot: name in the folder -> facts."""
        return self._tried("listed", lambda: self._list(folder))

    def facts(self, names: Iterable[str]) -> dict[str, Facts]:
        """Name -> facts, of those named objects that exist."""
        files, root = self._open()
        wanted = list(names)
        found = self._tried("read", lambda: files.get_file_info([f"{root}/{name}" for name in wanted]))
        return {name: _facts(info) for name, info in zip(wanted, found, strict=True) if info.is_file}

    def read(self, name: str) -> bytes | None:
        """Read an object's content; None where there is none."""

        def read() -> bytes | None:
            files, root = self._open()
            try:
                with files.open_input_stream(f"{root}/{name}", compression=None) as opened:
                    content: bytes = opened.read()
                    return content
            except FileNotFoundError:
                return None

        return self._tried("read", read)

    def write(self, name: str, content: bytes) -> None:
        """Create or replace an object."""

        def write() -> None:
            files, root = self._open()
            path = f"{root}/{name}"
            if files.type_name in _STORES:
                _put(files, path, content)
                return
            folder, _, last = path.rpartition("/")
            files.create_dir(folder, recursive=True)
            temporary = f"{folder}/.tmp-{secrets.token_hex(8)}-{last}"
            _put(files, temporary, content)
            files.move(temporary, path)

        self._tried("written", write)

    def delete(self, name: str, *, at_last: bool = False) -> None:
        """Delete an object if it exists. With `at_last` it is tried once, since the command is about to end."""

        def delete() -> None:
            files, root = self._open()
            with contextlib.suppress(FileNotFoundError):
                files.delete_file(f"{root}/{name}")

        self._tried("written", delete, waits=() if at_last else None)

    def _open(self) -> tuple[Any, str]:
        return _opened(self.uri)

    def _list(self, folder: str = "", *, recursive: bool = True) -> dict[str, Facts]:
        from pyarrow.fs import FileSelector

        files, root = self._open()
        path = f"{root}/{folder}" if folder else root
        found = files.get_file_info(FileSelector(path, recursive=recursive, allow_not_found=True))
        start = len(path.strip("/")) + 1
        return {info.path.strip("/")[start:]: _facts(info) for info in found if info.is_file}

    def _tried(self, done: str, call: Callable[[], T], waits: tuple[float, ...] | None = None) -> T:
        from pyarrow import ArrowException

        left = list(RETRY_SECONDS if waits is None else waits)
        while True:
            try:
                return call()
            except (OSError, ValueError, ArrowException, ImportError) as error:
                reason = self._reason(error)
                # Errors of a disk have a number; those of stores and networks have none.
                is_final = not isinstance(error, OSError) or error.errno or any(word in reason for word in _FINAL)
                if is_final or not left:
                    raise RemoteError(f"{self} cannot be {done}: {reason}") from None
            time.sleep(left.pop(0))

    def _reason(self, error: Exception) -> str:
        """Describe an error in one line, without secrets."""
        text = _REQUEST_ID.sub("", " ".join(str(error).split())).replace(self.uri, str(self))
        user = self.uri.partition("://")[2].partition("?")[0].rpartition("@")[0]
        values = [value for key, value in parse_qsl(self.uri.partition("?")[2]) if not _is_told(key, value)]
        for secret in [user, *user.split(":", 1), *values]:
            text = text.replace(secret, "***") if secret else text
        return text[:500]


def all_of(call: Callable[[str], T], names: Iterable[str]) -> Mapping[str, T]:
    """Call a function for many names at a time; name -> result. Raises the first error."""
    names = list(names)
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(names, pool.map(call, names), strict=True))


def _put(files: Any, path: str, content: bytes) -> None:
    with files.open_output_stream(path, compression=None) as opened:
        opened.write(content)


def _facts(info: Any) -> Facts:
    return Facts(info.size, info.mtime_ns or 0)


@functools.lru_cache(maxsize=64)
def _opened(uri: str) -> tuple[Any, str]:
    """Return pyarrow's file system for a URI and the path in it. Credentials are found where pyarrow looks for them."""
    from pyarrow.fs import FileSystem

    where, _, query = uri.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    scheme = where.partition("://")[0].lower()
    if scheme == "s3":
        options.setdefault("allow_delayed_open", "true")  # small objects in one request
    if scheme in ("gs", "gcs"):
        options.setdefault("retry_limit_seconds", "30")  # by default it tries for a quarter of an hour
    files, path = FileSystem.from_uri(f"{where}?{urlencode(options)}" if options else where)
    if not path.strip("/"):
        raise ValueError("it names no bucket or folder")
    return files, path.rstrip("/")
