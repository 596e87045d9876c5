"""The lock that keeps two commands off one results URI: each writes a claim of its own, then looks for other claims.

A command that finds another claim withdraws. If two come at the same time, the one that looks later sees the other's
claim, since each looks after writing its own. So at most one stays, if a listing shows everything written before it (as
with S3, Google Cloud Storage, Azure and file systems). Conditional writes, which not all stores have, are not needed.

A claim is written again every `BEAT_SECONDS`. A claim is taken over if it is older than `STALE_SECONDS` by the store's
clock, or if its process ran on this machine and has ended.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from cnnsearch.errors import RemoteError, ResultsError, RunError
from cnnsearch.storage.durable import is_gone, this_process
from cnnsearch.storage.remote import Facts, Remote
from cnnsearch.systems import processes

BEAT_SECONDS = 30.0
STALE_SECONDS = 300.0
TRIES = 3
"""How often a command tries again if it withdrew because another one came at the same time."""
LEAVE_SECONDS = 5.0
"""Seconds to wait for a heartbeat in flight when the command ends."""
FOLDER = ".lock"

_LOG = logging.getLogger(__name__)


@dataclass
class Claim:
    """This process's hold on a URI."""

    remote: Remote
    name: str = field(default_factory=lambda: f"{FOLDER}/{secrets.token_hex(8)}.json")
    taken_by: str | None = None
    """The process that took it over while this one was suspended; after that, nothing may be written."""
    _seen: frozenset[str] = frozenset()
    """Names of other claims at the last heartbeat. A command that is only trying withdraws its claim at once, and would
    come back with a claim of another name."""

    def check(self) -> None:
        """Raise RunError if the claim was taken over."""
        if self.taken_by:
            raise RunError(f"{self.remote} was taken over by {self.taken_by}, since this command stood still")

    def beat(self) -> None:
        """Write the claim again, and notice whether another process took it over."""
        claims = _claims(self.remote)
        others = frozenset(claims) - {self.name}
        if self.name not in claims or others & self._seen:
            found = [_who(self.remote, name)[0] for name in sorted(others)]
            self.taken_by = " or ".join(found) or "another command"
        else:
            self._seen = others
            self.write()

    def write(self) -> None:
        """Write the claim, dated now."""
        facts = {"who": f"process {os.getpid()} on {socket.gethostname()}", "process": this_process()}
        self.remote.write(self.name, json.dumps(facts).encode())


@contextlib.contextmanager
def held(remote: Remote) -> Iterator[Claim]:
    """Hold a URI for this process, for the time of the block. If it is taken over, the main thread is interrupted.

    Raises:
        ResultsError: another command holds it, or it cannot be written.
    """
    try:
        claim = _claimed(remote)
    except RemoteError as error:
        raise ResultsError(f"{error}. Choose another with --out") from None
    over = threading.Event()

    def beat() -> None:
        while not over.wait(BEAT_SECONDS):
            with contextlib.suppress(
                RemoteError
            ):  # the next heartbeat may get through; the run notices by itself if the store is gone
                claim.beat()
            if claim.taken_by:
                _LOG.error("%s was taken over by %s: this command ends", remote, claim.taken_by)
                processes.interrupt_main()
                return

    beating = threading.Thread(target=beat, name="lock of the results", daemon=True)
    beating.start()
    try:
        yield claim
    finally:
        over.set()
        beating.join(LEAVE_SECONDS)
        with contextlib.suppress(RemoteError):
            remote.delete(claim.name, at_last=True)


def _claimed(remote: Remote) -> Claim:
    for last in (False,) * (TRIES - 1) + (True,):
        claim = Claim(remote)
        claim.write()
        try:
            rivals = _rivals(claim)
        except BaseException:
            remote.delete(claim.name)
            raise
        if not rivals:
            return claim
        remote.delete(claim.name)
        if not last:
            time.sleep(random.uniform(0.2, 1.0))
    raise ResultsError(f"{remote} is in use by {rivals[0]}; wait for it, or choose another with --out")


def _rivals(claim: Claim) -> list[str]:
    """Find the other claims; remove those of processes that have ended."""
    claims = _claims(claim.remote)
    if claim.name not in claims:
        return ["another command"]
    now, alive = claims.pop(claim.name).changed, []
    for name, facts in claims.items():
        who, process = _who(claim.remote, name)
        silent = (now - facts.changed) / 1e9
        if is_gone(process) or silent > STALE_SECONDS:
            _LOG.warning("%s was held by %s, which has ended or not been heard of: taken over", claim.remote, who)
            claim.remote.delete(name)
        else:
            alive.append(f"{who} (should that have died, it is free in {STALE_SECONDS - silent:.0f} s)")
    return alive


def _claims(remote: Remote) -> dict[str, Facts]:
    listed = remote.list_in(FOLDER).items()
    return {f"{FOLDER}/{name}": facts for name, facts in listed if name.endswith(".json") and name[0] != "."}


def _who(remote: Remote, name: str) -> tuple[str, str]:
    """Return the owner of a claim, once worded for people and once as a process name for `is_gone`."""
    try:
        said = json.loads(remote.read(name) or b"")
        return str(said["who"]), str(said["process"])
    except (ValueError, KeyError, TypeError):
        return "another command", ""
