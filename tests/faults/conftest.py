"""Prints the table of faults with results after a run with `--faults-table`."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.faults.rows import ROWS

_COLLECTED = pytest.StashKey[dict[str, set[int]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults-table", action="store_true", help="print the table of faults at the end")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Remember every test's rows, also of those that options leave out."""
    config.stash[_COLLECTED] = {item.nodeid: set(rows_of(item)) for item in items}


def rows_of(item: pytest.Item) -> Iterable[int]:
    """The rows a test belongs to. A row there is not is an error: it would never be shown."""
    rows = [row for mark in item.iter_markers("row") for row in mark.args]
    if unknown := [row for row in rows if row not in ROWS]:
        raise pytest.UsageError(f"{item.nodeid}: row {unknown[0]} is not in tests/faults/rows.py")
    return rows


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if not config.getoption("--faults-table", default=False):
        return
    collected = config.stash.get(_COLLECTED, {})
    stats = terminalreporter.stats
    ended = {
        outcome: [report.nodeid for kind in kinds for report in stats.get(kind, [])]
        for outcome, kinds in {"pass": ["passed"], "fail": ["failed", "error"], "skip": ["skipped"]}.items()
    }
    terminalreporter.section("table of faults")
    for number, row in ROWS.items():
        counts = {outcome: sum(number in collected.get(test, ()) for test in tests) for outcome, tests in ended.items()}
        terminalreporter.write_line(f"{number:>2} | {row.what} | {row.promise} | {verdict(**counts)}")


def verdict(**counts: int) -> str:
    """One word on the tests of a row: a failure counts for the whole row, and a skip is never hidden."""
    if counts["fail"]:
        return "FAIL"
    if counts["pass"]:
        return "pass" + (f" ({counts['skip']} skipped)" if counts["skip"] else "")
    return "skipped" if counts["skip"] else "not run"
