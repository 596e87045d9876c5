"""The pages there are, and when the report on each is made again: only while somebody looks, and not too often."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cnnsearch.report.watch.looking import Folder, Look
from cnnsearch.report.watch.making import Made, Maker

ASKED_SECONDS = 90.0
"""A page counts as looked at for so long after it was asked for: browsers ask once a minute for a hidden one."""
LEAST_PAUSE_SECONDS = 3.0
"""Between two reports,"""
PAUSES = 5
"""or so many times what the last one took, while a run holds a folder."""
RETRY_SECONDS = 15.0
"""Until a report that could not be made is tried again."""
_TICK_SECONDS = 0.25


@dataclass
class Live:
    """The pages of some results folders: one that is for all of them, and where they are several one for each."""

    folders: Sequence[Path]
    pages: dict[str, Page] = field(init=False)
    """By address: `/`, `/1/`, `/2/`."""

    def __post_init__(self) -> None:
        watched = [Folder(path) for path in self.folders]
        for folder in watched:
            folder.check()
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
        self._maker.close()  # where it was just being started

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
    """Of several folders, the address of each one's own page."""
    made: Made = field(default_factory=Made)
    digest: str = ""
    """Of the report; empty while there is none."""
    _version: str = ""
    """What the newest report was made from."""
    _asked_at: float = float("-inf")
    _due_at: float = float("-inf")

    def looks(self) -> list[Look]:
        """What the folders hold; the page counts as looked at."""
        self._asked_at = time.monotonic()
        return [folder.look() for folder in self.folders]

    def is_behind(self, looks: Sequence[Look]) -> bool:
        """Whether there is more to report on than the report has."""
        return _version(looks) != self._version

    def is_due(self) -> bool:
        """Whether somebody looks, the report is not what it would be now, and the last one is long enough ago."""
        now = time.monotonic()
        if now - self._asked_at > ASKED_SECONDS or now < self._due_at:
            return False
        looks = [folder.look() for folder in self.folders]
        return bool(_version(looks)) and self.is_behind(looks)

    def make(self, maker: Maker) -> None:
        """Have the report made."""
        looks = [folder.look() for folder in self.folders]
        made = maker.make([folder.path for folder in self.folders], self.links)
        pause = max(LEAST_PAUSE_SECONDS, PAUSES * made.seconds if any(look.is_held for look in looks) else 0.0)
        if made.problem:  # what was made before is better than nothing
            self.made = dataclasses.replace(self.made, problem=made.problem)
            pause = max(pause, RETRY_SECONDS)
        else:
            self.made, self._version = made, _version(looks)
            self.digest = hashlib.sha256(made.content.encode()).hexdigest()[:16]
        self._due_at = time.monotonic() + pause


def _version(looks: Sequence[Look]) -> str:
    """Of all there is to report on; empty where that is nothing."""
    return " ".join(look.version for look in looks) if any(look.version for look in looks) else ""
