"""`python -m cnnsearch.watch`: look at a sweep while it runs. See `cli.watch`."""

from __future__ import annotations

from cnnsearch.cli import run_alone, watch

if __name__ == "__main__":
    run_alone(watch)
