"""Mistakes in a sweep that no single field can notice: axes, sizes, combinations, searches and stages together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import get_args

from pydantic import ValidationError

from cnnsearch.spec.cells import grid, with_conditions
from cnnsearch.spec.confirm import CONFIRM
from cnnsearch.spec.document import KeyPath
from cnnsearch.spec.settings import AXES, DataSpec, Settings, SpecProblemError, TrainSpec, value_message
from cnnsearch.spec.stage import (
    MAX_TRIALS,
    NUMERIC_KINDS,
    SINGLE_OBJECTIVES,
    Objective,
    Stage,
    StartFrom,
    Values,
    repeated,
)


def problems(
    stages: Sequence[Stage], seeds: Sequence[int], train: TrainSpec, data: DataSpec, *, confirms: bool = False
) -> Iterator[SpecProblemError]:
    """Find what makes the parts of a sweep impossible together; users are told the first problem."""
    if len(set(seeds)) < len(seeds):
        yield SpecProblemError(("seeds",), f"has a seed twice: {list(seeds)}")
    for seed in seeds:
        if not 0 <= seed < 2**31:
            yield SpecProblemError(("seeds",), f"given {seed}; allowed: 0 to {2**31 - 1}")
    earlier: dict[str, Stage] = {}
    spaces: dict[str, dict[str, Values]] = {}
    for index, stage in enumerate(stages):
        at: KeyPath = ("stages", index)
        if stage.name in earlier:
            yield SpecProblemError((*at, "name"), f"two stages are named {stage.name!r}")
        if confirms and stage.name == CONFIRM.name:
            taken = "is the name of the stage that trains the best settings again; choose another name"
            yield SpecProblemError((*at, "name"), f"{stage.name!r} {taken}")
        of_space = list(_space_problems(stage, (*at, "space")))
        yield from of_space
        if not of_space:
            yield from _size_problems(len(seeds), stage, at)
        yield from _search_problems(stage, at)
        if stage.start_from:
            yield from _start_problems(stage, stage.start_from, earlier, at)
        inherited = spaces.get(stage.start_from.stage, {}) if stage.start_from else {}
        spaces[stage.name] = _with_inherited(stage.space, inherited)
        if not of_space:
            yield from _combination_problems(train, data, spaces[stage.name], (*at, "space"))
            yield from _stopping_problems(stages, train, stage, spaces[stage.name], (*at, "stop_early"))
        earlier[stage.name] = stage


def _space_problems(stage: Stage, at: KeyPath) -> Iterator[SpecProblemError]:
    for axis, values in stage.space.items():
        if axis not in AXES:
            yield SpecProblemError((*at, axis), "unknown axis")
            continue
        here = (*at, axis) if values.kind == "constant" else (*at, axis, values.kind)
        for value in values.args:
            try:
                AXES[axis].validate_python(value)
            except ValidationError as error:
                yield SpecProblemError(here, value_message(value, error.errors()[0]["msg"]))
        yield from _when_problems(stage, axis, values, (*at, axis))
        if values.kind in NUMERIC_KINDS and Settings.model_fields[axis].annotation not in (int, float):
            yield SpecProblemError((*at, axis), f"{values.kind} needs a numeric axis; use {{choice: [...]}}")
        elif values.kind in ("uniform", "loguniform") and Settings.model_fields[axis].annotation is int:
            yield SpecProblemError(
                (*at, axis), f"{values.kind} draws fractions, and {axis} is a whole number; use {{int: [low, high]}}"
            )


def _when_problems(stage: Stage, axis: str, values: Values, at: KeyPath) -> Iterator[SpecProblemError]:
    """Find conditions on an axis that comes later, or on values it never takes."""
    before = list(stage.space)[: list(stage.space).index(axis)]
    for other, wanted in values.when.items():
        if other not in before:
            yield SpecProblemError((*at, "when"), f"given {other!r}; allowed: an axis that stands before {axis}")
            continue
        listed = stage.space[other]
        if listed.kind in NUMERIC_KINDS:
            yield SpecProblemError((*at, "when"), f"{other} takes values from a range, of which none can be named")
            continue
        for value in wanted:
            if value not in listed.args:
                yield SpecProblemError((*at, "when", other), f"given {value!r}; allowed: {list(listed.args)}")


def _size_problems(seeds: int, stage: Stage, at: KeyPath) -> Iterator[SpecProblemError]:
    """Find stages with more trials than could ever be listed, let alone run."""
    listed = stage.search.method == "grid"
    chosen = math.prod(len(values.args) for values in stage.space.values()) if listed else stage.search.trials or 1
    trials = chosen * max(1, seeds)
    if trials > MAX_TRIALS:
        yield SpecProblemError((*at, "space"), f"makes {trials:,} trials; a stage has at most {MAX_TRIALS:,}")


def _with_inherited(own: dict[str, Values], parents: dict[str, Values]) -> dict[str, Values]:
    """All axes in which trials of a stage can differ, those of the stage they start from first."""
    inherited = {axis: values for axis, values in parents.items() if axis not in own}
    # The axis that a condition names may have changed since, but the axis under the condition keeps its earlier value.
    freed = {axis: v.model_copy(update={"when": {}}) for axis, v in inherited.items() if v.when.keys() & own.keys()}
    return inherited | freed | own


def _combination_problems(
    train: TrainSpec, data: DataSpec, space: dict[str, Values], at: KeyPath
) -> Iterator[SpecProblemError]:
    """Find combinations of values that are each allowed, and together impossible."""
    together = ("model", "weights", "width", "lr_schedule", "warmup_epochs")
    fixed = {name: getattr(train, name) for name in together} | {"image_size": data.image_size}
    for cell in grid(with_conditions(space, fixed)):
        try:
            Settings.model_validate(fixed | {axis: value for axis, value in cell.items() if axis in fixed})
        except ValidationError as error:
            yield SpecProblemError(at, str(error.errors()[0]["msg"]).removeprefix("Value error, "))


def _search_problems(stage: Stage, at: KeyPath) -> Iterator[SpecProblemError]:
    search, here = stage.search, (*at, "search")
    if search.method == "grid":
        for axis, values in stage.space.items():
            if values.kind not in ("constant", "grid"):
                yield SpecProblemError(
                    (*at, "space", axis),
                    f"{values.kind} cannot be enumerated; give {{grid: [...]}}, "
                    "or the stage search: {method: random, trials: N}, or a searcher such as tpe",
                )
        if search.trials is not None:
            yield SpecProblemError((*here, "trials"), "a grid has as many trials as cells; use another method")
    elif search.trials is None:
        yield SpecProblemError(here, f"method {search.method} needs trials: N")
    if search.method in ("grid", "random", "qmc"):
        for name in ("at_once", "objectives"):
            if getattr(search, name):
                yield SpecProblemError(
                    (*here, name), f"method {search.method} looks at no outcomes; allowed with tpe, gp, cmaes, nsga2"
                )
    elif search.method == "nsga2":
        if len(search.objectives) < 2:
            yield SpecProblemError(
                here, f"method nsga2 needs objectives: two or more of {', '.join(get_args(Objective))}"
            )
        if (twice := repeated(list(search.objectives))) is not None:
            yield SpecProblemError((*here, "objectives"), f"has {twice} twice")
    elif len(search.aims) > 1 or search.aims[0] not in SINGLE_OBJECTIVES:
        yield SpecProblemError(
            (*here, "objectives"),
            f"given {list(search.objectives)}; allowed with {search.method}: one of {', '.join(SINGLE_OBJECTIVES)}; "
            "several objectives need method: nsga2",
        )
    if search.is_adaptive:
        yield from _adaptive_problems(stage, at)


def _adaptive_problems(stage: Stage, at: KeyPath) -> Iterator[SpecProblemError]:
    """Find spaces that a searcher cannot search."""
    if all(len(values.args) < 2 for values in stage.space.values()):
        yield SpecProblemError((*at, "space"), f"method {stage.search.method} needs an axis with more than one value")
    if stage.search.method == "cmaes" and not any(v.kind in NUMERIC_KINDS for v in stage.space.values()):
        yield SpecProblemError(
            (*at, "space"), f"method cmaes needs an axis with a range: one of {', '.join(NUMERIC_KINDS)}"
        )
    size = stage.space.get("image_size")
    if size is not None and size.kind in NUMERIC_KINDS:
        yield SpecProblemError(
            (*at, "space", "image_size"),
            f"images are resized before the first suggestion, to every size: give {{choice: [...]}}, not {size.kind}",
        )


def _stopping_problems(
    stages: Sequence[Stage], train: TrainSpec, stage: Stage, space: dict[str, Values], at: KeyPath
) -> Iterator[SpecProblemError]:
    """Find rules that could never stop a trial, or that leave nothing to start from."""
    rule = stage.stop_early
    if rule is None:
        return
    most = max(space["epochs"].args) if "epochs" in space else train.epochs
    if rule.min_epochs >= most:
        yield SpecProblemError((*at, "min_epochs"), f"given {rule.min_epochs}; allowed: fewer than the {most} epochs")
    later = [other.name for other in stages if other.start_from and other.start_from.stage == stage.name]
    if not rule.spares_one and later:
        yield SpecProblemError(
            (*at, "method"),
            f"patience may stop every trial, and stage {later[0]} starts from finished ones; allowed: asha, hyperband, "
            "median",
        )


def _start_problems(
    stage: Stage, start: StartFrom, earlier: dict[str, Stage], at: KeyPath
) -> Iterator[SpecProblemError]:
    here = (*at, "start_from")
    if start.stage not in earlier:
        known = ", ".join(earlier) or "no stage before it"
        yield SpecProblemError((*here, "stage"), f"given {start.stage!r}; allowed: {known}")
        return
    for axis in start.per:
        if axis not in AXES:
            yield SpecProblemError((*here, "per"), f"given {axis!r}; allowed: {', '.join(AXES)}")
    for axis in ("model", "weights", "width", "image_size", "seed"):
        if axis in stage.space:
            yield SpecProblemError(
                (*at, "space", axis),
                f"{axis} comes with the weights of stage {start.stage} and cannot vary here",
            )
