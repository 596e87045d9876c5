"""`python -m cnnsearch.sweep`: run a sweep. See `cli.sweep`."""

from __future__ import annotations

from cnnsearch.cli import run_alone, sweep

if __name__ == "__main__":
    run_alone(sweep)
