"""How much of a grid's cost searchers and early stopping need, on a grid trained once: nothing is trained here.

    python -m benchmarks.replay                                        20 seeds of each way, a few minutes
    python -m benchmarks.replay --prior                                what `search.prior` gains, and what it may cost
    python -m benchmarks.replay --record results/recorded-grid         keep the curves of a grid (recorded/grid.yaml)

Each way to search runs with the queue, searchers and rules of a real sweep; an epoch takes the time it took when it was
recorded and gives the accuracy it gave then. What is found is the best validation accuracy of a trial that trained to
its end, as a sweep's report would choose; how far that is below the grid's best is the regret, in points.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cnnsearch.planning.queue import Queue
from cnnsearch.planning.suggest import Suggester
from cnnsearch.planning.trial import EpochRow, Outcome, Status, Trial
from cnnsearch.results.folder import Results
from cnnsearch.results.tables import load
from cnnsearch.spec.load import load_sweep
from cnnsearch.spec.sweep import Sweep
from cnnsearch.stats import mean_interval

RECORDED = Path(__file__).parent / "recorded"
AXES = ("model", "lr", "batch_size", "dropout")
ASHA = {"method": "asha", "min_epochs": 2, "reduction_factor": 4}
"""Rungs at 2 and 8 of 27 epochs. Chosen on this very grid: benchmarks/README.md says what others give."""
WAYS: dict[str, dict[str, Any]] = {
    "random": {"method": "random"},
    "random, asha": {"method": "random", "stop_early": ASHA},
    "tpe": {"method": "tpe"},
    "tpe, asha": {"method": "tpe", "stop_early": ASHA},
}
SHARES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
"""Of the grid's cost, at which what was found is looked at."""
NEAR = 0.01
"""A regret that is as good as none: one point."""
BEGUN_WITH = 6
"""Settings that a search of 60 trials takes over from an earlier one; one with a rule that compares trials."""
SLOTS = 2
AT_ONCE = 4


@dataclass(frozen=True)
class Grid:
    """Curves of every cell of a grid."""

    accuracies: Mapping[tuple[Any, ...], NDArray[np.float64]]
    """Values of the axes -> validation accuracy after each epoch."""
    seconds: Mapping[tuple[Any, ...], float]
    """Values of the axes -> seconds of an epoch."""

    @property
    def best(self) -> float:
        """Highest accuracy of any trial, each taken at its best epoch."""
        return max(float(curve.max()) for curve in self.accuracies.values())

    @property
    def cost(self) -> float:
        """Seconds of all trials, one after another."""
        return sum(self.seconds[cell] * len(curve) for cell, curve in self.accuracies.items())


def read_grid(file: Path = RECORDED / "grid.parquet") -> Grid:
    """The recorded grid."""
    frame = pq.read_table(file).to_pandas().sort_values([*AXES, "epoch"])
    cells = dict(list(frame.groupby(list(AXES))))
    # An epoch takes as long at any learning rate; of those alike, the quickest was disturbed least by other work.
    alike = frame.groupby(["model", "batch_size", "dropout"])["seconds"].quantile(0.1).to_dict()
    return Grid(
        {cell: rows["val_accuracy"].to_numpy(np.float64) for cell, rows in cells.items()},
        {(model, lr, size, dropout): float(alike[model, size, dropout]) for model, lr, size, dropout in cells},
    )


def record(results: Path, file: Path = RECORDED / "grid.parquet") -> None:
    """Keep the curves of a grid that was run."""
    tables = load(results)
    rows = tables.epochs.drop(columns="lr").merge(tables.trials[["trial_id", *AXES]], on="trial_id")
    chosen = rows[[*AXES, "epoch", "val_accuracy", "seconds"]]
    schema = [("val_accuracy", pa.float32()), ("seconds", pa.float32()), ("epoch", pa.int16())]
    table = pa.Table.from_pandas(chosen, preserve_index=False)
    for name, kind in schema:
        table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(kind))
    pq.write_table(table, file, compression="zstd")


def make_sweep(way: Mapping[str, Any], seed: int, first: Sequence[dict[str, Any]] = ()) -> Sweep:
    """A search of the recorded grid's space that begins with some settings."""
    whole = load_sweep(RECORDED / "grid.yaml").to_dict()
    space = {axis: {"choice": values["grid"]} for axis, values in whole["stages"][0]["space"].items()}
    trials = int(np.prod([len(values["choice"]) for values in space.values()]))
    search: dict[str, Any] = {"method": way["method"], "trials": trials, "seed": seed}
    if way["method"] != "random":
        search |= {"at_once": AT_ONCE, "first": first}
    stage: dict[str, Any] = {"name": "search", "space": space, "search": search}
    if "stop_early" in way:
        stage["stop_early"] = way["stop_early"]
    return Sweep.model_validate({**whole, "stages": [stage]})


def replay(sweep: Sweep, grid: Grid, until: float) -> list[tuple[float, float]]:
    """Search without training.

    Args:
        sweep: of one stage over the grid's axes.
        grid: what comes of each trial.
        until: seconds of all places together after which nothing more is looked at.

    Returns:
        (seconds so far, of all places together; best accuracy so far of a trial trained to its end), when it rose.
    """
    with tempfile.TemporaryDirectory(prefix="cnnsearch-replay-") as folder:
        queue = Queue(sweep, "0" * 16, {}, slots=SLOTS, suggest=Suggester(Results(Path(folder)).record_suggestions))
        order = itertools.count()
        running: list[tuple[float, int, Trial, int]] = []
        now, best, found = 0.0, 0.0, [(0.0, 0.0)]
        while now * SLOTS < until:
            while (job := queue.take()) is not None:
                for trial in job.trials:
                    heapq.heappush(running, (now + _epoch_seconds(grid, trial), next(order), trial, 1))
            if not running:
                break
            now, _, trial, epoch = heapq.heappop(running)
            curve = grid.accuracies[_cell(trial)]
            value = float(curve[epoch - 1])
            stop = queue.hear(trial, EpochRow(epoch, None, None, None, value, trial.settings.lr, 0.0))
            reached = float(curve[:epoch].max())
            if epoch == len(curve):
                queue.finish(trial, Outcome(Status.DONE, reached))
                if reached > best:
                    best = reached
                    found.append((now * SLOTS, best))
            elif stop is not None and stop.epoch <= epoch:
                queue.finish(trial, Outcome(Status.PRUNED, reached, stopped_by=stop.rule))
            else:
                heapq.heappush(running, (now + _epoch_seconds(grid, trial), next(order), trial, epoch + 1))
    return found


def _cell(trial: Trial) -> tuple[Any, ...]:
    return tuple(getattr(trial.settings, axis) for axis in AXES)


def _epoch_seconds(grid: Grid, trial: Trial) -> float:
    return grid.seconds[_cell(trial)]


def regrets(grid: Grid, found: Sequence[tuple[float, float]], shares: Sequence[float]) -> list[float]:
    """How far the best so far is below the grid's best, at shares of the grid's cost."""
    return [grid.best - max(best for at, best in found if at <= share * grid.cost) for share in shares]


def compare(grid: Grid, seeds: int, shares: Sequence[float] = SHARES) -> dict[str, NDArray[np.float64]]:
    """Way -> regrets [seeds, shares]."""
    return {
        name: np.array(
            [
                regrets(grid, replay(make_sweep(way, seed), grid, shares[-1] * grid.cost), shares)
                for seed in range(seeds)
            ]
        )
        for name, way in WAYS.items()
    }


def earlier_best(grid: Grid, seed: int, *, worst: bool = False) -> list[dict[str, Any]]:
    """What an earlier sweep found, the best first (or the worst): half of the cells, trained for a third as long."""
    cells = sorted(grid.accuracies)
    seen = [cells[i] for i in np.random.default_rng(seed).permutation(len(cells))[: len(cells) // 2]]
    third = {cell: float(grid.accuracies[cell][: len(grid.accuracies[cell]) // 3].max()) for cell in seen}
    ranked = sorted(seen, key=lambda cell: third[cell], reverse=not worst)
    return [dict(zip(AXES, cell, strict=True)) for cell in ranked]


def until_near(grid: Grid, found: Sequence[tuple[float, float]]) -> float:
    """The share of the grid's cost after which a search is within a point of the best; infinite where it never is."""
    return next((at / grid.cost for at, best in found if grid.best - best <= NEAR), float("inf"))


def compare_priors(grid: Grid, seeds: int, way: Mapping[str, Any], until: float = 0.5) -> dict[str, list[float]]:
    """Beginning -> share of the grid's cost until a search is within a point of the best, for each seed."""
    count = 1 if "stop_early" in way else BEGUN_WITH
    beginnings: dict[str, Callable[[int], list[dict[str, Any]]]] = {
        "nothing": lambda seed: [],
        "the best of an earlier sweep": lambda seed: earlier_best(grid, seed)[:count],
        "the worst of one": lambda seed: earlier_best(grid, seed, worst=True)[:count],
    }
    return {
        name: [
            until_near(grid, replay(make_sweep(way, seed, first(seed)), grid, until * grid.cost))
            for seed in range(seeds)
        ]
        for name, first in beginnings.items()
    }


def near_at(values: NDArray[np.float64], shares: Sequence[float]) -> float | None:
    """The first share at which the mean regret is at most a point; None where there is none."""
    return next((share for share, mean in zip(shares, values.mean(axis=0), strict=True) if mean <= NEAR), None)


def main(arguments: list[str] | None = None) -> int:
    """Print the table."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--seeds", type=int, default=20)
    made.add_argument("--record", type=Path, help="results of recorded/grid.yaml whose curves are to be kept")
    made.add_argument("--prior", action="store_true", help="compare what searches begin with")
    options = made.parse_args(arguments)
    if options.record is not None:
        record(options.record)
        return 0
    grid = read_grid()
    print(f"{len(grid.accuracies)} trials, {grid.cost:,.0f} s of training one after another, best {grid.best:.1%}")
    if options.prior:
        print(f"share of that time until within a point of the best: median of {options.seeds} seeds, and its ratio")
        for name in ("tpe", "tpe, asha"):
            began = compare_priors(grid, options.seeds, WAYS[name])
            plain = float(np.median(began["nothing"]))
            for beginning, shares in began.items():
                middle = float(np.median(shares))
                print(f"{name:<10} begins with {beginning:<30} {middle:7.1%}   {middle / plain:.2f}")
        return 0
    print(f"regret in points after a share of that time: mean of {options.seeds} seeds with its 95 % interval")
    print(" " * 14 + "".join(f"{100 * share:>18.0f} %" for share in SHARES) + "   within a point at")
    for name, values in compare(grid, options.seeds).items():
        cells = []
        for column in values.T:
            mean, low, high = mean_interval(list(100 * column))
            cells.append(f"{mean:.1f} ({low:.1f}–{high:.1f})")
        near = near_at(values, SHARES)
        print(f"{name:<14}" + "".join(f"{cell:>20}" for cell in cells), f"   {near:.0%}" if near else "   –")
    return 0


if __name__ == "__main__":
    sys.exit(main())
