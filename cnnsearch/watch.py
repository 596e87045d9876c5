"""`python -m cnnsearch.watch`: look at a sweep while it runs. See `looking_on.watch`."""

from __future__ import annotations

from cnnsearch.cli import run_alone
from cnnsearch.looking_on import watch

if __name__ == "__main__":
    run_alone(watch)
