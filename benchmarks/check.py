"""The gate: a short run whose ratios, not seconds, are compared with those in reference.json for this kind of machine.

python -m benchmarks.check             exit code 1 where a ratio has lost more than 15 %
python -m benchmarks.check --update    write this kind's reference, after a change that is meant
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks import show, suite
from benchmarks.__main__ import say
from benchmarks.figures import LOSS_ALLOWED, OURS, gate
from benchmarks.workloads import WORKLOADS
from cnnsearch.execution.machine.hardware import detect

REFERENCE = Path(__file__).with_name("reference.json")
CHECKED = ("grid-32", "head", "short-trials")
RIVALS = ("loop", OURS)
"""S shows a loss of any kind, and is the fastest to run."""
ROUNDS = 3


def main(arguments: list[str] | None = None) -> int:
    """0 where nothing was lost, 1 where something was, 2 where there is nothing to compare with."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="write the reference instead of comparing")
    options = parser.parse_args(arguments)
    known, here = references(), detect().key
    if not options.update and here not in known:
        there = "; ".join(sorted(known)) or "none"
        print(f"error: no reference for {here} yet: write it with --update (there are: {there})", file=sys.stderr)
        return 2
    figures = suite.run_suite([WORKLOADS[name] for name in CHECKED], "short", RIVALS, ROUNDS, say)
    for name, measured in figures["workloads"].items():
        print(show.table(name, measured))
    if options.update:
        suite.save(dict(sorted((known | {here: figures}).items())), REFERENCE)
        return 0
    return compare(known[here], figures)


def references() -> dict[str, dict[str, Any]]:
    """Hardware -> figures. What share of a run trains, and so every ratio, depends on what a step takes there."""
    if not REFERENCE.exists():
        return {}
    found: dict[str, dict[str, Any]] = json.loads(REFERENCE.read_text(encoding="utf-8"))
    return found


def compare(reference: dict[str, Any], figures: dict[str, Any]) -> int:
    """Print every ratio beside the reference's; 1 where one lost too much."""
    lines, failed = gate(reference, figures)
    print("\ntimes as long as cnnsearch:", *lines, sep="\n  ")
    if failed:
        print(f"\nerror: lost more than {LOSS_ALLOWED:.0%}:", *failed, sep="\n  ", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
