"""The report, made by a process of its own that gives way to the run it reports on.

`python -m cnnsearch.report.watch.making` takes one request a line on standard input and gives one answer a line. It
ends when its input does, so with whoever started it, however that ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

NICENESS = 10
"""Of the process: a run's own get about nine times as much of a core that both want."""


@dataclass(frozen=True)
class Made:
    """A report, or why there is none."""

    content: str = ""
    """HTML, for a page's `main`."""
    problem: str = ""
    counts: list[dict[str, int]] = field(default_factory=list)
    """Of each folder, status -> trials the report is of."""
    planned: list[int] = field(default_factory=list)
    """Of each folder, trials the sweep has."""
    seconds: float = 0.0
    """Time on a processor that it took."""


class Maker:
    """Has reports made, one at a time, by a process that is started when it is needed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def make(self, folders: Sequence[Path], links: Sequence[str]) -> Made:
        """The report of these folders as they are; of several, the one that compares them. Writes nothing.

        Args:
            folders: results folders.
            links: of several, the address of each one's own page.
        """
        request = json.dumps({"folders": [str(folder) for folder in folders], "links": list(links)})
        try:
            process = self._started()
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(request + "\n")
            process.stdin.flush()
            return Made(**json.loads(process.stdout.readline()))
        except (OSError, ValueError):
            self.close()
            return Made(problem="the process that makes the report has ended; another is started")

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cnnsearch.report.watch.making"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                env={**os.environ, **one_thread},
                start_new_session=True,  # Ctrl-C is for the one that serves
            )
        return self._process


def make(folders: Sequence[Path], links: Sequence[str]) -> Made:
    """See `Maker.make`; here, in this process."""
    from cnnsearch.evidence.evidence import Evidence
    from cnnsearch.report import comparison, html
    from cnnsearch.report.page import assemble
    from cnnsearch.results.tables import load

    began = time.process_time()
    tables = [load(folder, store=False) for folder in folders]
    if len(tables) == 1:
        content = html.content(assemble(Evidence(tables[0])))
    else:
        page = comparison.assemble(tables, folders[0].parent)
        sources = [dataclasses.replace(source, link=link) for source, link in zip(page.sources, links, strict=True)]
        content = html.comparison_content(dataclasses.replace(page, sources=sources))
    counts = [
        {str(status): int(count) for status, count in table.trials["status"].value_counts().items()} for table in tables
    ]
    planned = [table.planned for table in tables]
    return Made(content, counts=counts, planned=planned, seconds=time.process_time() - began)


def answer(request: dict[str, Any]) -> Made:
    """What a request gets. No error ends the process: files may be damaged in any way, or gone in the middle."""
    began = time.process_time()
    try:
        return make([Path(folder) for folder in request["folders"]], request["links"])
    except Exception as error:
        problem = str(error) or type(error).__name__
        return Made(problem=problem, seconds=time.process_time() - began)


def main(requests: IO[str], answers: IO[str]) -> None:
    """Answer until there are no more requests."""
    for line in requests:
        answers.write(json.dumps(dataclasses.asdict(answer(json.loads(line)))) + "\n")
        answers.flush()


if __name__ == "__main__":
    os.nice(NICENESS)
    # What a library prints is no answer.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out, os.fdopen(0, encoding="utf-8", closefd=False) as asked:
        os.dup2(2, 1)
        main(asked, out)
