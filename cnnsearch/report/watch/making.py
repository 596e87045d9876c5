"""The report, made by a process of its own whose priority is below that of the run it reports on.

`python -m cnnsearch.report.watch.making` reads one request per line from standard input and writes one answer per line.
It ends when its input does, and so with the process that started it, however that ends.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from cnnsearch.report import helper
from cnnsearch.systems import processes

NICENESS = 10
"""Niceness of the process. If both need the same core, a run's process gets about nine times as much of it."""


@dataclass(frozen=True)
class Made:
    """A report, or why there is none."""

    content: str = ""
    """HTML for the `main` element of a page."""
    problem: str = ""
    counts: list[dict[str, int]] = field(default_factory=list)
    """For each folder, status -> number of trials that the report covers."""
    planned: list[int] = field(default_factory=list)
    """For each folder, the number of trials that the sweep has."""
    seconds: float = 0.0
    """Seconds of processor time that it took."""


class Maker:
    """Makes reports one at a time, in a process that is started when it is needed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def make(self, folders: Sequence[Path], links: Sequence[str]) -> Made:
        """Report on these folders as they are, or compare several. Writes nothing.

        Args:
            folders: results folders.
            links: addresses of the folders' own pages, where there are several folders.
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
            helper.end(process)

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
            self._process = helper.start("cnnsearch.report.watch.making", os.environ | one_thread, answers=True)
        return self._process


def make(folders: Sequence[Path], links: Sequence[str]) -> Made:
    """Do what `Maker.make` does, in this process."""
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
        content = html.content(dataclasses.replace(page, sources=sources))
    counts = [
        {str(status): int(count) for status, count in table.trials["status"].value_counts().items()} for table in tables
    ]
    planned = [table.planned for table in tables]
    return Made(content, counts=counts, planned=planned, seconds=time.process_time() - began)


def answer(request: dict[str, Any]) -> Made:
    """Answer a request. No error ends the process: files may be damaged in any way, or vanish meanwhile."""
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
    processes.be_nice(NICENESS)
    # What libraries print must not be taken for an answer.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out, os.fdopen(0, encoding="utf-8", closefd=False) as asked:
        os.dup2(2, 1)
        main(asked, out)
