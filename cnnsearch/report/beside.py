"""Figures drawn by a second process beside this one, each by whichever of the two comes to it first.

This process draws from the first figure on, the other from the last, until they meet. The other is a program of its
own, `python -m cnnsearch.report.beside`, which reads the same tables: nothing is forked, and no figure depends on who
drew it. Started early, it has imported what draws by the time it is asked. Whatever happens to it, the figures that
it leaves are drawn here. It ends when its input does, and so with the process that started it, however that ends.
"""

from __future__ import annotations

import base64
import contextlib
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from cnnsearch.execution.machine.hardware import detect
from cnnsearch.report import helper
from cnnsearch.results.tables import Tables
from cnnsearch.storage.scratch import scratch

if TYPE_CHECKING:  # it imports what draws
    from cnnsearch.report.pictures import Drawing, Picture

MOST_TRIALS = 1_000
"""Trials up to which a second process is worth it: it reads all tables, too, and computes what figures show."""
LONGEST_SECONDS = 60.0
"""Seconds that a figure may take there before it is drawn here."""
LOOK_SECONDS = 0.01
"""Seconds between two looks for a figure that the other process draws."""


class Beside:
    """A process that draws some of a report's figures."""

    def __init__(self) -> None:
        self._environment = dict(os.environ)  # as it is before Ray changes it
        self._process: subprocess.Popen[str] | None = None
        self._stack = contextlib.ExitStack()
        self._place: Path | None = None
        self._asked: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def start(self, trials: int = 0) -> bool:
        """Start the process, where this machine has a core for it and there are not too many trials.

        Returns whether that was done just now.
        """
        if self._process is not None or trials > MOST_TRIALS or detect().cores < 2:
            return False
        with contextlib.suppress(OSError):  # it is done without
            self._place = self._stack.enter_context(scratch("cnnsearch-figures-", Path(tempfile.gettempdir())))
            self._process = helper.start("cnnsearch.report.beside", self._environment)
        return self._process is not None

    def begin(self, tables: Tables) -> None:
        """Have the process begin with the figures of these tables, which are stored."""
        if self._asked or not tables.checksums or len(tables.trials) > MOST_TRIALS:
            return
        self.start(len(tables.trials))
        if self._process is None or self._process.stdin is None:
            return
        self._asked = dict(tables.checksums)
        request = {"folder": str(tables.folder.resolve()), "checksums": self._asked, "place": str(self._place)}
        with contextlib.suppress(OSError):  # it has ended
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()

    def draw(self, tables: Tables, drawings: Sequence[Drawing]) -> dict[Drawing, Picture]:
        """Draw the figures of these tables, as `pictures.draw_all` does."""
        from cnnsearch.report.pictures import drawn

        self.begin(tables)
        if self._asked != dict(tables.checksums):  # they have changed since
            self.close()
        found: dict[Drawing, Picture | None] = dict.fromkeys(drawings)
        left = []
        for number, drawing in enumerate(drawings):
            if self._place is None or _claim(self._place, number):
                found[drawing] = picture = drawn(drawing)
                with contextlib.suppress(Exception):  # said where it is written
                    _ = self._place and picture and picture.png
            else:
                left.append((number, drawing))
        for number, drawing in left:
            found[drawing] = self._taken(number, drawing) or drawn(drawing)
        return {drawing: picture for drawing, picture in found.items() if picture is not None}

    def _taken(self, number: int, drawing: Drawing) -> Picture | None:
        """The figure that the other process has drawn; None if there is none to come."""
        deadline = time.monotonic() + LONGEST_SECONDS
        while self._place is not None and self._process is not None:
            has_ended = self._process.poll() is not None
            with contextlib.suppress(FileNotFoundError):
                return _read(_done(self._place, number), drawing)
            if has_ended or time.monotonic() > deadline:
                self.close()
            time.sleep(LOOK_SECONDS)
        return None

    def close(self) -> None:
        """End the process."""
        process, self._process, self._place = self._process, None, None
        if process is not None:
            helper.end(process)
        self._stack.close()


def recorded_trials(folder: str) -> int:
    """Count the trials in a results folder, ended or not, without reading any."""
    with contextlib.suppress(OSError):
        return len(os.listdir(os.path.join(folder, "trials")))
    return 0


def _claim(place: Path, number: int) -> bool:
    """Whether a figure is now this process's to draw, and not the other's."""
    try:
        os.close(os.open(place / f"{number}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return False
    except OSError:
        return True
    return True


def _done(place: Path, number: int) -> Path:
    return place / f"{number}.json"


def _read(path: Path, drawing: Drawing) -> Picture | None:
    from markupsafe import Markup

    from cnnsearch.report.pictures import Picture

    found = json.loads(path.read_text(encoding="utf-8"))
    if found is None or found["name"] != drawing.name:
        return None
    texts = Markup(found["svg"]), Markup(found["narrow_svg"])
    picture = Picture(drawing.name, found["title"], drawing.caption, drawing.alt, *texts, drawing.draw)
    return picture.keep(png=base64.b64decode(found["png"]) if found["png"] else None)


def _write(path: Path, picture: Picture | None) -> None:
    told: dict[str, Any] | None = None
    if picture is not None:
        told = {name: str(getattr(picture, name)) for name in ("name", "title", "svg", "narrow_svg")}
        told["png"] = None
        with contextlib.suppress(Exception):  # the other process tries again, and says so
            told["png"] = base64.b64encode(picture.png).decode("ascii")
    half = path.with_suffix(".half")
    half.write_text(json.dumps(told), encoding="utf-8")
    half.replace(path)


def answer(request: dict[str, Any], owner: int) -> None:
    """Draw figures from the last on, until one is met that the process `owner` draws, or that process is gone."""
    from cnnsearch.evidence.evidence import Evidence
    from cnnsearch.report.pictures import drawn
    from cnnsearch.report.sketches import Sketches
    from cnnsearch.results.tables import load

    tables = load(Path(request["folder"]), store=False)
    if dict(tables.checksums) != request["checksums"]:
        return
    drawings, place = Sketches.of(Evidence(tables)).all, Path(request["place"])
    for number, drawing in reversed([*enumerate(drawings)]):
        if os.getppid() != owner or not _claim(place, number):
            return
        _write(_done(place, number), drawn(drawing))


def main() -> None:
    """Answer one request, if it comes."""
    gc.set_threshold(50_000, 20, 20)  # as in a command
    owner = os.getppid()
    import_module("cnnsearch.report.sketches")  # what takes longest, while the request is still to come
    if line := sys.stdin.readline():
        answer(json.loads(line), owner)


if __name__ == "__main__":
    main()
