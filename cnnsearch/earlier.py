"""The best settings of earlier sweeps, with which a search begins: `search.prior` becomes `search.first`.

That the searcher tries them, rather than believes them, makes a misleading sweep cost a tenth of the trials at most.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from itertools import chain, zip_longest
from typing import Any

import numpy as np

from cnnsearch.errors import CnnsearchError, RequestError
from cnnsearch.results.place import ResultsPlace
from cnnsearch.results.tables import load
from cnnsearch.spec.arguments import ARGS
from cnnsearch.spec.cells import Cell
from cnnsearch.spec.load import from_yaml
from cnnsearch.spec.settings import Settings
from cnnsearch.spec.stage import HIGHER_IS_BETTER, Stage
from cnnsearch.spec.sweep import Sweep
from cnnsearch.spec.values import Values
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
    search = stage.search
    own = search.first
    goes_on = before is not None and (before.space, before.search.prior) == (stage.space, search.prior)
    if goes_on and before is not None and before.search.first[: len(own)] == own and before.search.first:
        return stage.model_copy(update={"search": search.model_copy(update={"first": before.search.first})})
    assert search.trials is not None  # a searcher has them
    found = [_ranked(folder, stage, sweep) for folder in search.prior]
    turns = [cell for cell in chain.from_iterable(zip_longest(*found)) if cell is not None]
    first = list(own)
    compares = stage.stop_early is not None and stage.stop_early.spares_one
    # Several good ones would be stopped for being worse than each other: see benchmarks/README.md.
    for cell in turns[: 1 if compares else math.ceil(search.trials / TRIALS_FOR_ONE)]:
        first += [cell] if cell not in first else []
    return stage.model_copy(update={"search": search.model_copy(update={"first": tuple(first[: search.trials])})})


def _ranked(folder: str, stage: Stage, sweep: Sweep) -> list[Cell]:
    """The settings of earlier results that are in a search's space, the best first."""
    if is_uri(folder):
        raise RequestError(f"{redacted(folder)}: search.prior takes folders; copy the results to one first")
    tables = load(typed_path(folder), store=False)
    aim = next((one for one in stage.search.aims if one in tables.trials), "val_accuracy")
    scores: dict[tuple[tuple[str, Any], ...], list[float]] = {}
    for raw in tables.trials.to_dict("records"):
        row: dict[str, Any] = {str(name): value for name, value in raw.items()}
        if row["status"] == "done" and row[aim] is not None and not np.isnan(row[aim]):
            cell = _in_space(row, stage.space, sweep)
            if cell is not None:
                scores.setdefault(tuple(cell.items()), []).append(float(row[aim]))
    if not scores:
        axes = listed(list(stage.space))
        raise RequestError(
            f"stages.{stage.name}.search.prior: {printable(folder)} has no finished trial in the space of this stage, "
            f"whose axes are {axes}"
        )
    sign = -1 if aim in HIGHER_IS_BETTER else 1
    ranked = sorted(scores.items(), key=lambda item: sign * sum(item[1]) / len(item[1]))
    return [dict(cell) for cell, _ in ranked]


def _in_space(row: Mapping[str, Any], space: Mapping[str, Values], sweep: Sweep) -> Cell | None:
    """A trial's values on the axes of a search; None where it lies outside."""
    if any(axis not in space and row[axis] != getattr(sweep.train, axis) for axis in SAME):
        return None
    cell: Cell = {}
    chosen: Cell = {}
    for axis, values in space.items():
        if not values.applies(cell):
            continue
        value = _plain(row, axis)
        if value not in values:
            return None
        cell[axis] = value
        if len(values.args) > 1:
            chosen[axis] = value
    return chosen


def _plain(row: Mapping[str, Any], axis: str) -> Any:
    """A trial's value on an axis as a sweep file has it."""
    if axis.startswith(ARGS):
        return json.loads(row.get("model_args") or "{}").get(axis.removeprefix(ARGS))
    value = row.get(axis)
    kind = Settings.model_fields[axis].annotation if axis in Settings.model_fields else None
    return kind(value) if kind in (int, float) and value is not None and not np.isnan(value) else value
