"""The best settings of earlier sweeps, with which a search begins: `search.prior` becomes `search.first`.

That the searcher tries them, rather than believes them, makes a misleading sweep cost a tenth of the trials at most.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest
from typing import Any

from cnnsearch.errors import CnnsearchError, RequestError, ResultsError
from cnnsearch.evidence.configurations import axis_values, is_missing
from cnnsearch.results.place import ResultsPlace
from cnnsearch.results.tables import load
from cnnsearch.spec.arguments import plain_value
from cnnsearch.spec.axis_words import Value
from cnnsearch.spec.cells import Cell
from cnnsearch.spec.load import from_yaml
from cnnsearch.spec.stage import HIGHER_IS_BETTER, Stage
from cnnsearch.spec.sweep import Sweep
from cnnsearch.spec.values import NUMERIC_KINDS, Values
from cnnsearch.storage.checksums import canonical_json
from cnnsearch.storage.paths import typed_path
from cnnsearch.storage.remote import is_uri, redacted
from cnnsearch.words import listed, printable

TRIALS_FOR_ONE = 10
"""Trials of a search for each setting that it takes over."""
SAME = ("model", "fine_tune")
"""Settings in which a trial has to agree with the sweep if they are no axes of the search."""


def with_earlier(sweep: Sweep, results: ResultsPlace) -> Sweep:
    """Name the settings that each search of a sweep begins with.

    Args:
        sweep: whose stages may name results of earlier sweeps.
        results: of this sweep. A search that began there goes on with the settings that it began with, whatever has
            become of the earlier results.

    Raises RequestError where earlier results hold no setting that is in a search's space, and ResultsError where they
    cannot be read.
    """
    if not any(stage.search.prior for stage in sweep.stages):
        return sweep
    before = _recorded(results)
    stages = [
        _beginning(stage, sweep, before.get(stage.name)) if stage.search.prior else stage for stage in sweep.stages
    ]
    return sweep.model_copy(update={"stages": tuple(stages)})


def _recorded(results: ResultsPlace) -> dict[str, Stage]:
    if results.remote is not None:
        return {}
    try:
        return {stage.name: stage for stage in from_yaml(results.here.sweep_text(), "").stages}
    except CnnsearchError:  # there is none yet
        return {}


def _beginning(stage: Stage, sweep: Sweep, before: Stage | None) -> Stage:
    """A stage whose search names what it begins with."""
    first = (None if before is None else _goes_on_with(stage, before)) or _chosen(stage, sweep)
    return stage.model_copy(update={"search": stage.search.model_copy(update={"first": first})})


def _goes_on_with(stage: Stage, before: Stage) -> tuple[Cell, ...]:
    """What the same search began with; empty where it is another search."""
    own, first = stage.search.first, before.search.first
    is_same = (before.space, before.search.prior) == (stage.space, stage.search.prior) and first[: len(own)] == own
    return first if is_same else ()


def _chosen(stage: Stage, sweep: Sweep) -> tuple[Cell, ...]:
    """What a search names itself, then the best of each of the earlier results in turn."""
    search = stage.search
    assert search.trials is not None  # a searcher has them
    compares = stage.stop_early is not None and stage.stop_early.spares_one
    # Several good ones would be stopped for being worse than each other: see benchmarks/README.md.
    count = 1 if compares else math.ceil(search.trials / TRIALS_FOR_ONE)
    ranked = zip_longest(*(_ranked(folder, stage, sweep) for folder in search.prior))
    found = [cell for cell in chain.from_iterable(ranked) if cell is not None]
    return tuple(_unique([*search.first, *found[:count]])[: search.trials])


def _unique(cells: Sequence[Cell]) -> list[Cell]:
    """Cells without those that stand there before."""
    return [cell for index, cell in enumerate(cells) if cell not in cells[:index]]


def _ranked(folder: str, stage: Stage, sweep: Sweep) -> list[Cell]:
    """The settings of earlier results that are in a search's space, the best first."""
    key = f"stages.{stage.name}.search.prior"
    if is_uri(folder):
        raise RequestError(f"{redacted(folder)}: search.prior takes folders; copy the results to one first")
    try:
        tables = load(typed_path(folder), store=False)
    except ResultsError as error:
        raise ResultsError(f"{key}: {error}") from None
    aim = next((one for one in stage.search.aims if one in tables.trials), "val_accuracy")
    cells: dict[str, Cell] = {}
    scores: dict[str, list[float]] = {}
    for row in tables.trials.to_dict("records"):
        known = {**axis_values(row), "seed": row["seed"]}
        if row["status"] != "done" or is_missing(row[aim]) or not _agrees(known, stage, sweep):
            continue
        cell = _in_space(known, stage.space)
        if cell is not None:
            name = canonical_json(cell)
            cells[name] = cell
            scores.setdefault(name, []).append(float(row[aim]))
    if not scores:
        raise RequestError(
            f"{key}: {printable(folder)} has no finished trial in the space of this stage, "
            f"whose axes are {listed(list(stage.space))}"
        )
    sign = -1 if aim in HIGHER_IS_BETTER else 1
    return [cells[name] for name in sorted(scores, key=lambda name: sign * sum(scores[name]) / len(scores[name]))]


def _agrees(known: Mapping[str, Value], stage: Stage, sweep: Sweep) -> bool:
    return all(axis in stage.space or known[axis] == getattr(sweep.train, axis) for axis in SAME)


def _in_space(known: Mapping[str, Value], space: Mapping[str, Values]) -> Cell | None:
    """A trial's values on the axes of a search that vary; None where it lies outside."""
    cell: Cell = {}
    for axis, values in space.items():
        if values.applies(cell):
            taken = [known.get(axis)] if values.kind in NUMERIC_KINDS else _same(known.get(axis), values.args)
            if not taken or taken[0] not in values:
                return None
            cell[axis] = taken[0]
    return {axis: value for axis, value in cell.items() if len(space[axis].args) > 1}


def _same(value: Value, listed_values: Sequence[Any]) -> list[Any]:
    """Those of listed values that a table has as this value: lists and objects as JSON."""
    return [one for one in listed_values if plain_value(one) == value]
