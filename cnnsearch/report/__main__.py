"""`python -m cnnsearch.report`: make a report again. See `cli.report`."""

from __future__ import annotations

from cnnsearch.cli import report, run_alone

if __name__ == "__main__":
    run_alone(report)
