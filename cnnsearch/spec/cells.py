"""The cells of a search space: sets of values, one for each trial. Pure: no clock, no I/O, no draws without a seed."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from cnnsearch.spec.arguments import ARGS
from cnnsearch.spec.stage import Search, Stage
from cnnsearch.spec.values import NUMERIC_KINDS, Values

Cell = dict[str, Any]


def cells(stage: Stage) -> list[Cell]:
    """List the cells of a stage that is a grid or random draws.

    A grid comes in order, its first axis varying slowest; random draws come in the order of their index. The cells of a
    searcher are not known from the stage alone: see `cell_of`.
    """
    if stage.search.method == "grid":
        return grid(stage.space)
    assert stage.search.method == "random"
    assert stage.search.trials is not None
    return [draw(stage.space, stage.search, index) for index in range(stage.search.trials)]


def size(stage: Stage) -> int:
    """Number of cells of a stage."""
    return stage.search.trials if stage.search.trials is not None else len(grid(stage.space))


def cell_of(space: dict[str, Values], suggestion: Mapping[str, Any]) -> Cell:
    """Make a searcher's suggestion a cell: add the constants, leave out axes whose condition does not hold."""
    cell: Cell = {}
    for axis, values in space.items():
        if values.applies(cell):
            cell[axis] = suggestion[axis] if len(values.args) > 1 else values.args[0]
    return cell


def can_suggest(space: dict[str, Values], suggestion: Mapping[str, Any]) -> bool:
    """Whether `cell_of` makes this suggestion a cell of the space: it names what varies, with values that are there."""
    cell: Cell = {}
    for axis, values in space.items():
        if values.applies(cell):
            if len(values.args) > 1 and not _holds(values, suggestion.get(axis)):
                return False
            cell[axis] = suggestion.get(axis, values.args[0])
    return True


def _holds(values: Values, value: Any) -> bool:
    if values.kind not in NUMERIC_KINDS:
        return value in values.args
    if isinstance(value, bool) or not isinstance(value, int if values.kind == "int" else int | float):
        return False
    low, high = values.args
    rounding = 1e-9 * (high - low)
    return bool(low - rounding <= value <= high + rounding)


def combinations(stage: Stage, axes: Iterable[str]) -> list[Cell]:
    """List every combination of values of these axes that a cell of the stage may have. A cell may hold other axes,
    too.

    If the stage has a searcher, the axes must be listed ones, not ranges.
    """
    if not stage.search.is_adaptive:
        return cells(stage)
    return grid(with_conditions(stage.space, axes))


def with_conditions(space: dict[str, Values], axes: Iterable[str]) -> dict[str, Values]:
    """Return the part of a space that has these axes and those that decide whether they vary."""
    needed = {axis for axis in axes if axis in space}
    for axis in reversed(space):
        if axis in needed:
            needed |= space[axis].when.keys()
    return {axis: values for axis, values in space.items() if axis in needed}


def grid(space: dict[str, Values]) -> list[Cell]:
    """List every combination of the axes' values; an axis whose condition does not hold is left out of the cell."""
    found: list[Cell] = [{}]
    for axis, values in space.items():
        found = [
            longer
            for cell in found
            for longer in ([{**cell, axis: value} for value in values.args] if values.applies(cell) else [cell])
        ]
    return found


def draw(space: dict[str, Values], search: Search, index: int) -> Cell:
    """Draw the cell with this index. It does not depend on the number of draws, nor on the other axes."""
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


TYPICAL_DRAWS = 64
TYPICAL_WORKLOADS = 16
"""Most different training steps that are timed before anything runs."""
SIZE_POWERS = {"width": 2, "image_size": 2, "batch_size": 1}
"""Axis that changes what a step costs -> the exponent in its effect: time is proportional to value ** exponent."""


def typical_cells(stage: Stage) -> list[Cell]:
    """Draw cells such as a searcher may suggest, to estimate what its trials will take.

    From a range that changes what a step costs, only the two ends are drawn, in such proportion that the mean cost of a
    step is that of the whole range. Each size must be timed, and two sizes say as much as many.
    """
    found: list[Cell] = []
    kinds: set[tuple[Any, ...]] = set()
    ranges = {axis for axis in SIZE_POWERS if axis in stage.space and stage.space[axis].kind in NUMERIC_KINDS}
    for index in range(TYPICAL_DRAWS):
        cell = draw(stage.space, Search(method="random", trials=1, seed=stage.search.seed), index)
        for axis in ranges & cell.keys():
            rng = np.random.default_rng([stage.search.seed, index, zlib.crc32(f"end {axis}".encode())])
            cell[axis] = _end(stage.space[axis].args, cell[axis], SIZE_POWERS[axis], rng)
        named = (*SIZE_POWERS, "model", "fine_tune", "optimizer", "augment", "loss")
        args = [repr(cell.get(axis)) for axis in stage.space if axis.startswith(ARGS)]
        kind = (*(cell.get(axis) for axis in named), *args)
        if kind in kinds or len(kinds) < TYPICAL_WORKLOADS:
            kinds.add(kind)
            found.append(cell)
    return found


def _end(ends: tuple[Any, ...], value: float, power: int, rng: np.random.Generator) -> Any:
    low, high = (end**power for end in ends)
    return ends[1] if rng.uniform() < (value**power - low) / (high - low) else ends[0]
