"""What a Ray cluster asks of those who come: found out before this process attaches to one, or starts one.

Whoever may talk to a Ray cluster may run any code on it. So a run goes only where a token is asked for, unless it is
told otherwise, and a token is used only where no other user of the machine can read it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import grpc

from cnnsearch.errors import RequestError

ALLOW = "CNNSEARCH_ALLOW_UNAUTHENTICATED"
"""Environment variable: 1 lets a run use a Ray cluster that asks for no token."""
ANSWER_SECONDS = 10.0
"""The longest a cluster's control process is waited for."""
_METHOD = "/ray.rpc.NodeInfoGcsService/CheckAlive"
"""A question that changes nothing; its empty request is zero bytes."""


def check_start() -> None:
    """Raise RequestError where Ray would be started here without a token, or with one that others can read."""
    mode = os.environ.get("RAY_AUTH_MODE", "token")
    if mode.lower() != "token" and not _is_allowed():
        raise RequestError(
            f"RAY_AUTH_MODE is {mode}: anyone who reaches the Ray of this run could run code as you. "
            f"Unset it, or set {ALLOW}=1 where nobody else can reach this machine"
        )
    if "RAY_AUTH_TOKEN_PATH" in os.environ:
        _check_file()


def check_cluster(address: str, named: str | None = None) -> bool:
    """Find out whether a running cluster asks for a token; True where it does, and has been shown the right one.

    Nothing is attached to, and the token is sent only to a cluster that asks for one.

    Args:
        address: of the cluster's control process (GCS), as host:port.
        named: how whoever asks calls it, where that is another name.

    Raises:
        RequestError: nothing answers; it asks for no token, and that is not allowed; or there is no token here, a
            wrong one, or one that others can read.
    """
    shown = address if named in (None, address) else f"{named} ({address})"
    if _lets_in(address, "", shown):
        if _is_allowed():
            return False
        raise RequestError(
            f"the Ray cluster at {shown} asks for no token: anyone who reaches it can run code there. "
            f"Start it with RAY_AUTH_MODE=token (docs/security.md), or set {ALLOW}=1 to use it all the same"
        )
    mode = os.environ.get("RAY_AUTH_MODE", "token")
    if mode.lower() != "token":
        raise RequestError(f"the Ray cluster at {shown} asks for a token, and RAY_AUTH_MODE is {mode}; allowed: token")
    if not _lets_in(address, _token(shown), shown):
        raise RequestError(f"the Ray cluster at {shown} does not take the token of {source()}: copy the cluster's")
    return True


def answers(address: str, seconds: float) -> bool:
    """Whether a cluster's control process answers within so long. No token is sent: a refusal is an answer, too."""
    with _channel(address) as channel:
        try:
            channel.unary_unary(_METHOD)(b"", timeout=seconds)
        except grpc.RpcError as error:
            return error.code() is grpc.StatusCode.UNAUTHENTICATED
    return True


def _is_allowed() -> bool:
    return os.environ.get(ALLOW) == "1"


def _lets_in(address: str, token: str, shown: str) -> bool:
    """Whether the cluster answers who comes with this token; with "", who comes with none."""
    metadata = [("authorization", f"Bearer {token}")] if token else None
    with _channel(address) as channel:
        try:
            channel.unary_unary(_METHOD)(b"", timeout=ANSWER_SECONDS, metadata=metadata)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                return False
            raise RequestError(f"no Ray cluster answers at {shown}: {error.details()}") from None
    return True


def _channel(address: str) -> grpc.Channel:
    """A connection of the kind that Ray's own settings ask for."""
    options = [("grpc.enable_http_proxy", 0)]  # as Ray: a cluster is reached directly
    if os.environ.get("RAY_USE_TLS", "0").lower() not in ("1", "true"):
        return grpc.insecure_channel(address, options)
    names = ("RAY_TLS_CA_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_SERVER_CERT")
    try:
        authority, key, certificate = (Path(os.environ[name]).read_bytes() for name in names)
    except (KeyError, OSError) as error:
        raise RequestError(f"RAY_USE_TLS needs files named by {', '.join(names)}: {error}") from None
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(authority, key, certificate), options)


def _token(shown: str) -> str:
    """The token Ray would use. Raises RequestError where there is none, or others can read its file."""
    token = os.environ.get("RAY_AUTH_TOKEN", "").strip()
    if token:
        return token
    _check_file()
    try:
        token = _path().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        token = ""
    if not token:
        raise RequestError(
            f"the Ray cluster at {shown} asks for a token, and there is none in {source()}: "
            "copy the cluster's there (mode 600), or name its file in RAY_AUTH_TOKEN_PATH"
        )
    return token


def _check_file() -> None:
    """Raise RequestError where someone else can read or write the token's file."""
    if os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return
    path = _path()
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return  # a missing file gives nothing away
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise RequestError(
            f"{path} has mode {mode:o}, and whoever can read it may run code on the cluster: chmod 600 {path}"
        )


def source() -> str:
    """Where Ray takes the token from, for people: a variable or a file."""
    return "RAY_AUTH_TOKEN" if os.environ.get("RAY_AUTH_TOKEN", "").strip() else str(_path())


def _path() -> Path:
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    return Path(named) if named else Path.home() / ".ray" / "auth_token"
