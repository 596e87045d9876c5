"""N, the notebook way: what a careful student writes.

One trial after another, all cores for one model; every image file is opened, decoded and normalised every epoch by a
`DataLoader` in the process that trains; fp32; `.item()` at every step. The best epoch in validation is kept and tested.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.rivals.task import Outcome, Task, answer
from benchmarks.rivals.usual import Usual


def run(task: Task) -> Iterator[Outcome]:
    """The grid as a loop."""
    for number, settings in enumerate(task.trials):
        trial = Usual(task, number)
        for epoch, accuracy in enumerate(trial.epochs(), start=1):
            print(f"{settings.model} lr {settings.lr:g} batch {settings.batch_size}: epoch {epoch}, {accuracy:.3f}")
        yield trial.outcome()


if __name__ == "__main__":
    answer(run)
