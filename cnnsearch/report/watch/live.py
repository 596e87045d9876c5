"""The pages, and when the report on each is made again: only while somebody views it, and not too often."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cnnsearch.report.watch.making import Made, Maker
from cnnsearch.results.looking import Folder, Look

ASKED_SECONDS = 90.0
"""Seconds after a request during which a page counts as viewed. Browsers request a hidden page once per minute."""
LEAST_PAUSE_SECONDS = 3.0
"""Least seconds between two reports."""
PAUSES = 5
"""Least time between two reports while a run holds a folder, in multiples of the time that the last one took."""
RETRY_SECONDS = 15.0
"""Seconds until a report that could not be made is tried again."""
_TICK_SECONDS = 0.25


@dataclass
class Live:
    """The pages of some results folders: one for all of them, and where there are several also one for each."""

    folders: Sequence[Path]
    pages: dict[str, Page] = field(init=False)
    """Address (`/`, `/1/`, `/2/`) -> page."""

    def __post_init__(self) -> None:
        watched = [Folder(path) for path in self.folders]
        several = len(watched) > 1
        addresses = [f"/{number}/" for number in range(1, len(watched) + 1)] if several else []
        self.pages = {"/": Page(watched, addresses)}
        self.pages |= {address: Page([folder]) for address, folder in zip(addresses, watched, strict=False)}
        self._maker = Maker()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="reports", daemon=True)

    def __enter__(self) -> Live:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_over.set()
        self._maker.close()
        self._thread.join()
        self._maker.close()  # it may have been started meanwhile

    def _keep(self) -> None:
        while not self._is_over.wait(_TICK_SECONDS):
            for page in self.pages.values():
                if not self._is_over.is_set() and page.is_due():
                    page.make(self._maker)


@dataclass
class Page:
    """One page: the folders it is about, and the newest report on them."""

    folders: Sequence[Folder]
    links: Sequence[str] = ()
    """Addresses of the folders' own pages, where there are several folders."""
    made: Made = field(default_factory=Made)
    digest: str = ""
    """Digest of the report; empty while there is none."""
    _version: str = ""
    """The state of the folders from which the newest report was made; see `_version`."""
    _asked_at: float = float("-inf")
    _due_at: float = float("-inf")

    def looks(self) -> list[Look]:
        """Look at what the folders hold, on a request for the page. This counts as somebody viewing it."""
        self._asked_at = time.monotonic()
        return [folder.look() for folder in self.folders]

    def is_behind(self, looks: Sequence[Look]) -> bool:
        """Whether the folders hold anything that the report does not cover."""
        return _version(looks) != self._version

    def is_due(self) -> bool:
        """Whether somebody views the page, its report is out of date, and the last one is old enough."""
        now = time.monotonic()
        if now - self._asked_at > ASKED_SECONDS or now < self._due_at:
            return False
        looks = [folder.look() for folder in self.folders]
        return bool(_version(looks)) and self.is_behind(looks)

    def make(self, maker: Maker) -> None:
        """Make the report, and set when it may be made again."""
        looks = [folder.look() for folder in self.folders]
        made = maker.make([folder.path for folder in self.folders], self.links)
        pause = max(LEAST_PAUSE_SECONDS, PAUSES * made.seconds if any(look.is_held for look in looks) else 0.0)
        if made.problem:  # keep the earlier report: it is better than nothing
            self.made = dataclasses.replace(self.made, problem=made.problem)
            pause = max(pause, RETRY_SECONDS)
        else:
            self.made, self._version = made, _version(looks)
            self.digest = hashlib.sha256(made.content.encode()).hexdigest()[:16]
        self._due_at = time.monotonic() + pause


def _version(looks: Sequence[Look]) -> str:
    """Identify the state of all the folders hold; empty if there is nothing to report on."""
    return " ".join(look.version for look in looks) if any(look.version for look in looks) else ""
