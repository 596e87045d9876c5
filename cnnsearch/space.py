"""The cells of a search space. Pure: no clock, no I/O, no randomness but from the seed given."""

from __future__ import annotations

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
    """Every combination of the axes' values; an axis whose condition does not hold is not in the cell."""
    found: list[Cell] = [{}]
    for axis, values in space.items():
        found = [
            longer
            for cell in found
            for longer in ([{**cell, axis: value} for value in values.args] if values.applies(cell) else [cell])
        ]
    return found


def draw(space: dict[str, Values], search: Search, index: int) -> Cell:
    """The cell with this index. It depends on neither the number of draws nor, axis by axis, on the other axes."""
    cell: Cell = {}
    for axis, values in space.items():
        if values.applies(cell):
            rng = np.random.default_rng([search.seed, index, zlib.crc32(axis.encode())])
            cell[axis] = _draw_value(values, rng)
    return cell


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
