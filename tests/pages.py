"""The commands that the documentation shows. A test of a page takes those it runs; `test_site` runs all others."""

from __future__ import annotations

import functools
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
OUTSIDE = ("README.md", "CONTRIBUTING.md", "benchmarks/README.md", "results/README.md")
"""Pages that lie outside of docs/; the site shows them, too."""
PAGES = [*OUTSIDE, *sorted(file.name for file in (ROOT / "docs").glob("*.md"))]
PROGRAMS = (
    "cnnsearch", "python", "pip", "make", ".ci/run", "rm", "ray", "kubectl", "docker", "prometheus", "sed", "ssh",
    "export", "wandb", "optuna-dashboard",
)  # fmt: skip
"""What a line begins with that is a command."""
TAKEN: set[str] = set()
"""Commands that some test has taken to run."""


@functools.cache
def text(page: str) -> str:
    """The Markdown of a page."""
    return (ROOT / page if page in OUTSIDE else ROOT / "docs" / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[list[str]]:
    """The commands of a page, by the indented block in which they stand."""
    prose = re.sub(r"^( *)```.*?^\1```$", "", text(page), flags=re.MULTILINE | re.DOTALL)
    prose = re.sub(r" \\\n +", " ", prose)  # a command that goes on in the next line
    found = re.findall(r"(?:^ {4,6}\S.*\n)+", prose, flags=re.MULTILINE)
    return [commands for block in found if (commands := _commands(block))]


def _commands(block: str) -> list[str]:
    """The lines that are commands, without what is said of them after two spaces or more."""
    lines = [re.sub(r"\s{2,}\S.*", "", line.strip()) for line in block.splitlines()]
    return [line for line in lines if program(line) in PROGRAMS]


def program(line: str) -> str:
    """What a command calls, without its folder in the environment and the variables before it."""
    return re.sub(r"^(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?", "", line).partition(" ")[0]


def take(page: str, command: str) -> list[str]:
    """The arguments of every `cnnsearch COMMAND` on a page, which the calling test promises to run."""
    start = f"cnnsearch {command}"
    lines = [line for block in blocks(page) for line in block if f"{line} ".startswith(f"{start} ")]
    TAKEN.update(lines)
    return [line.removeprefix(start).strip() for line in lines]


def files(page: str) -> dict[str, str]:
    """Name -> content of the files that a page shows, each after its name and a colon."""
    return dict(re.findall(r"`([\w.-]+)`(?:, of \w+)?:\n\n```\w+\n(.*?)```", text(page), flags=re.DOTALL))
