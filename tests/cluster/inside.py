"""The first process of a machine that is made of namespaces: prepares what it sees, then waits to be ended.

Run by `unshare`; standard library only. It reads a description, a line of JSON, and says "ready". It ends when its
standard input does: so a machine never outlives whoever made it, and when it ends the kernel ends all its processes.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

READ_ONLY, NO_SUID, NO_DEV, NO_EXEC, REMOUNT, NO_ATIME = 0x1, 0x2, 0x4, 0x8, 0x20, 0x400
BIND, RECURSIVE, PRIVATE, RELATIVE_ATIME = 0x1000, 0x4000, 1 << 18, 1 << 21
FLAGS = {
    "nosuid": NO_SUID,
    "nodev": NO_DEV,
    "noexec": NO_EXEC,
    "noatime": NO_ATIME,
    "relatime": RELATIVE_ATIME,
}
OWN = ("/tmp", "/dev/shm", "/mnt")
"""Folders that start empty on every machine; everything else is the host's, read-only."""

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str | None = None, flags: int = 0, options: str | None = None) -> None:
    """mount(2). Raises OSError."""
    texts = [None if text is None else text.encode() for text in (source, target, kind)]
    if _libc.mount(*texts, ctypes.c_ulong(flags), None if options is None else options.encode()) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount {source}: {os.strerror(number)}", target)


def make_read_only() -> None:
    """Everything that is mounted, but for what is no file system of files."""
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        _, _, _, _, target, options, *_ = line.split()
        if target.startswith(("/proc", "/dev", "/sys")):
            continue
        flags = sum(FLAGS.get(option, 0) for option in options.split(","))
        try:
            mount("none", target, flags=REMOUNT | BIND | READ_ONLY | flags)
        except OSError:
            if target == "/":  # a mount that lies under another one cannot be reached, by nobody
                raise


def prepare(wanted: dict[str, Any]) -> None:
    """Let this machine see what `wanted` says and no more.

    Args:
        wanted: `hostname`; `hosts`: text of /etc/hosts; `kept`: folders of the host that are seen where they are, also
            under `OWN`; `bound`: folders of the host that are seen elsewhere and can be written, target -> source;
            `home`: an empty folder of the machine; `hidden`: folders that are seen empty; `token`: kept in the home.
    """
    mount("none", "/", flags=RECURSIVE | PRIVATE)
    kept = {path: os.open(path, os.O_PATH) for path in wanted["kept"]}
    bound = {target: os.open(source, os.O_PATH) for target, source in wanted["bound"].items()}
    make_read_only()
    for folder in OWN:
        mount("tmpfs", folder, "tmpfs", options="mode=1777")
    for path, descriptor in kept.items():
        if path.startswith(tuple(f"{folder}/" for folder in OWN)):
            _bind(descriptor, path, READ_ONLY)
    for target, descriptor in bound.items():
        _bind(descriptor, target, 0)
    home = Path(wanted["home"])
    home.mkdir()
    mount("tmpfs", str(home), "tmpfs", options="mode=700")
    for path in wanted["hidden"]:
        mount("tmpfs", path, "tmpfs", flags=READ_ONLY)
    if wanted["token"]:
        file = home / ".ray" / "auth_token"
        file.parent.mkdir(mode=0o700)
        file.touch(mode=0o600)
        file.write_text(wanted["token"], encoding="ascii")
    for name, text in {"hosts": wanted["hosts"], "resolv.conf": ""}.items():
        file = home / name
        file.write_text(text, encoding="ascii")
        mount(str(file), f"/etc/{name}", flags=BIND)
        file.unlink()
    mount("none", "/mnt", flags=REMOUNT | BIND | READ_ONLY)  # whoever takes another machine's folder for its own fails
    socket.sethostname(wanted["hostname"])


def _bind(descriptor: int, target: str, flags: int) -> None:
    """Show an open folder at `target`, whatever has been mounted over its path since."""
    Path(target).mkdir(parents=True, exist_ok=True)
    mount(f"/proc/self/fd/{descriptor}", target, flags=BIND)
    mount("none", target, flags=REMOUNT | BIND | flags)
    os.close(descriptor)


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # orphans come to the first process; so they leave no zombies
    wanted = json.loads(sys.stdin.readline())
    if wanted:
        prepare(wanted)
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
