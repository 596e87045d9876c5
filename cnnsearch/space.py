"""The cells of a search space. Pure: no clock, no I/O, no randomness but from the seed given."""

from __future__ import annotations

import itertools
import zlib
from typing import Any

import numpy as np

from cnnsearch.spec import Search, Stage, Values

Cell = dict[str, Any]


def cells(stage: Stage) -> list[Cell]:
    """The cells of a stage in order: the first axis varies slowest; random draws come in the order of their index."""
    if stage.search.method == "grid":
        return grid(stage.space)
    assert stage.search.trials is not None
    return [draw(stage.space, stage.search, index) for index in range(stage.search.trials)]


def grid(space: dict[str, Values]) -> list[Cell]:
    """Every combination of the axes' values."""
    return [
        dict(zip(space, combination, strict=True))
        for combination in itertools.product(*(v.args for v in space.values()))
    ]


def draw(space: dict[str, Values], search: Search, index: int) -> Cell:
    """The cell with this index. It depends on neither the number of draws nor, axis by axis, on the other axes."""
    return {
        axis: _draw_value(values, np.random.default_rng([search.seed, index, zlib.crc32(axis.encode())]))
        for axis, values in space.items()
    }


def _draw_value(values: Values, rng: np.random.Generator) -> Any:
    match values.kind:
        case "constant":
            return values.args[0]
        case "grid" | "choice":
            return values.args[int(rng.integers(len(values.args)))]
        case "uniform":
            return float(rng.uniform(*values.args))
        case "loguniform":
            return float(np.exp(rng.uniform(*np.log(values.args))))
        case "int":
            return int(rng.integers(values.args[0], values.args[1], endpoint=True))
