"""Runs a sweep from Python, as a notebook would, and writes down what it is told: python -m ... SWEEP OUT FILE."""

from __future__ import annotations

import json
import sys

from cnnsearch.execution.events import Ended, EpochDone, Event, Started
from cnnsearch.notebook import run
from cnnsearch.spec.load import load_sweep


def main() -> None:
    sweep, out, file = sys.argv[1:]
    with open(file, "a", encoding="utf-8") as notes:

        def note(event: Event) -> None:
            match event:
                case EpochDone():
                    line = {"what": "epoch", "trial": event.trial.id, "epoch": event.row.epoch}
                case Started() | Ended():
                    line = {"what": type(event).__name__.lower(), "trial": event.trial.id}
                case _:
                    return
            notes.write(json.dumps(line) + "\n")
            notes.flush()

        run(load_sweep(sweep), out, address="auto", listen=note)


if __name__ == "__main__":
    main()
