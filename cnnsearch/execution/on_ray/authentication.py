"""Checks of a Ray cluster's access control, made before this process attaches to the cluster or starts one.

Anyone who can talk to a Ray cluster can run any code on it. So a run uses only clusters that ask for a token, unless it
is told otherwise, and it uses a token only if no other user of the machine can read it.
"""

from __future__ import annotations

import os
from pathlib import Path

import grpc

from cnnsearch.errors import RequestError
from cnnsearch.systems import files

ALLOW = "CNNSEARCH_ALLOW_UNAUTHENTICATED"
"""Environment variable: 1 allows a Ray cluster that asks for no token."""
ANSWER_SECONDS = 10.0
"""How long to wait for an answer of a cluster's control process."""
_MEND = "Name a file that holds a token, or unset the variable: a run then makes a token of its own"
_METHOD = "/ray.rpc.NodeInfoGcsService/CheckAlive"
"""A method that changes nothing; its request, without any field, is zero bytes."""


def drop_blank_settings() -> None:
    """Unset the variables for a token if they are set to nothing, which Ray takes for a token or for a file's name.

    With an empty token Ray would make one of its own in the home folder; with a blank one it would overwrite the one
    there.
    """
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        if not os.environ.get(name, "unset").strip():
            del os.environ[name]


def check_start() -> None:
    """Raise RequestError if Ray would be started here without a token, or with one that others can read.

    A file named by RAY_AUTH_TOKEN_PATH has to hold a token: it is the user's, and nothing here or in Ray may make one.
    """
    mode = os.environ.get("RAY_AUTH_MODE", "token")
    if mode.lower() != "token" and not _is_allowed():
        raise RequestError(
            f"RAY_AUTH_MODE is {mode}: anyone who reaches the Ray of this run could run code as you. "
            f"Unset it, or set {ALLOW}=1 where nobody else can reach this machine"
        )
    if os.environ.get("RAY_AUTH_TOKEN_PATH", "").strip() and source() != "RAY_AUTH_TOKEN":
        _check_file()
        try:
            token = _path().read_text(encoding="utf-8").strip()
        except OSError as error:
            raise RequestError(f"RAY_AUTH_TOKEN_PATH: {_path()} cannot be read: {error.strerror}. {_MEND}") from None
        except UnicodeDecodeError:
            token = ""
        if not token:
            raise RequestError(f"RAY_AUTH_TOKEN_PATH: {_path()} holds no token. {_MEND}")


def check_cluster(address: str, named: str | None = None) -> bool:
    """Check that a running cluster may be used, without attaching to it.

    The token is sent only to a cluster that asks for one.

    Args:
        address: of the cluster's control process (GCS), as host:port.
        named: what the user called the cluster, if not by this address.

    Returns:
        True if it asks for a token and accepts this user's; False if it asks for none and that is allowed.

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
    """Whether a cluster's control process answers in time. No token is sent: a refusal is an answer, too."""
    with _channel(address) as channel:
        try:
            channel.unary_unary(_METHOD)(b"", timeout=seconds)
        except grpc.RpcError as error:
            return error.code() is grpc.StatusCode.UNAUTHENTICATED
    return True


def _is_allowed() -> bool:
    return os.environ.get(ALLOW) == "1"


def _lets_in(address: str, token: str, shown: str) -> bool:
    """Whether the cluster accepts this token ("" means none)."""
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
    """A connection to the cluster, with TLS if Ray's own settings ask for it."""
    options = [("grpc.enable_http_proxy", 0)]  # as Ray does: no proxy between it and a cluster
    if os.environ.get("RAY_USE_TLS", "0").lower() not in ("1", "true"):
        return grpc.insecure_channel(address, options)
    names = ("RAY_TLS_CA_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_SERVER_CERT")
    try:
        authority, key, certificate = (Path(os.environ[name]).read_bytes() for name in names)
    except (KeyError, OSError) as error:
        raise RequestError(f"RAY_USE_TLS needs files named by {', '.join(names)}: {error}") from None
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(authority, key, certificate), options)


def _token(shown: str) -> str:
    """The token that Ray would use. Raises RequestError if there is none, or if others can read its file."""
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
    """Raise RequestError if other users can read or write the token's file."""
    if os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return
    path = _path()
    try:
        mode = files.mode_open_to_others(path.stat())
    except OSError:
        return  # a missing file gives nothing away
    if mode is not None:
        raise RequestError(
            f"{path} has mode {mode:o}, and whoever can read it may run code on the cluster: chmod 600 {path}"
        )


def source() -> str:
    """Where Ray takes the token from, for people: the name of a variable or of a file."""
    return "RAY_AUTH_TOKEN" if os.environ.get("RAY_AUTH_TOKEN", "").strip() else str(_path())


def _path() -> Path:
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    return Path(named) if named else Path.home() / ".ray" / "auth_token"
