"""Mistakes in a sweep that no stage can notice alone: sizes, combinations, and stages together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from pydantic import ValidationError

from cnnsearch.spec.arguments import ARGS
from cnnsearch.spec.cells import grid, with_conditions
from cnnsearch.spec.confirm import CONFIRM
from cnnsearch.spec.data import DataSpec, FoldsSplit
from cnnsearch.spec.document import KeyPath
from cnnsearch.spec.metric import MEASURES, METRICS
from cnnsearch.spec.part import SpecProblemError
from cnnsearch.spec.settings import AXES, Settings, TrainSpec, is_axis
from cnnsearch.spec.stage import MAX_TRIALS, Stage, StartFrom
from cnnsearch.spec.values import Values


def problems(
    stages: Sequence[Stage],
    seeds: Sequence[int],
    train: TrainSpec,
    data: DataSpec,
    code: Mapping[str, str],
    *,
    confirms: bool = False,
) -> Iterator[SpecProblemError]:
    """Find what makes the parts of a sweep impossible together. Each stage is sound in itself.

    `code` gives the digest of the code that each network of the user's own is from.
    """
    earlier: dict[str, Stage] = {}
    spaces: dict[str, dict[str, Values]] = {}
    for index, stage in enumerate(stages):
        at: KeyPath = ("stages", index)
        if stage.name in earlier:
            yield SpecProblemError((*at, "name"), f"two stages are named {stage.name!r}")
        if confirms and stage.name == CONFIRM.name:
            taken = "is the name of the stage that trains the best settings again; choose another name"
            yield SpecProblemError((*at, "name"), f"{stage.name!r} {taken}")
        yield from _size_problems(len(seeds), stage, at)
        if stage.start_from:
            yield from _start_problems(stage, stage.start_from, earlier, at)
        inherited = spaces.get(stage.start_from.stage, {}) if stage.start_from else {}
        spaces[stage.name] = _with_inherited(stage.space, inherited)
        yield from _combination_problems(train, data, code, spaces[stage.name], (*at, "space"))
        yield from _stopping_problems(stages, train, stage, spaces[stage.name], (*at, "stop_early"))
        earlier[stage.name] = stage


def fold_problems(
    stages: Sequence[Stage], seeds: Sequence[int], train: TrainSpec, data: DataSpec, *, confirms: bool
) -> Iterator[SpecProblemError]:
    """Find what does not go with folds: each of them has a seed of its own, and they take the place of other seeds."""
    if not isinstance(data.split, FoldsSplit):
        return
    instead = "with data.split.method folds every fold has a seed of its own; data.split.repeats trains on more of them"
    if seeds:
        yield SpecProblemError(("seeds",), f"given {list(seeds)}; {instead}")
    for index, stage in enumerate(stages):
        if "seed" in stage.space:
            yield SpecProblemError(("stages", index, "space", "seed"), f"is no axis here: {instead}")
    if confirms:
        yield SpecProblemError(
            ("confirm",),
            "does not go with data.split.method folds, which train every setting again and again; give more "
            "data.split.repeats, and look at the test set, which is in no fold",
        )
    if train.seed + data.split.count > 2**31:
        yield SpecProblemError(("train", "seed"), f"given {train.seed}; allowed: to {2**31 - data.split.count}")


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
    train: TrainSpec, data: DataSpec, code: Mapping[str, str], space: dict[str, Values], at: KeyPath
) -> Iterator[SpecProblemError]:
    """Find combinations of values that are each allowed, and together impossible."""
    together = (
        "model",
        "model_args",
        "optimizer",
        "optimizer_args",
        "momentum",
        "weights",
        "width",
        "lr_schedule",
        "warmup_epochs",
    )
    fixed = {name: getattr(train, name) for name in together} | {"image_size": data.image_size}
    varied = {*fixed, *(axis for axis in space if axis.startswith(ARGS))}
    for cell in grid(with_conditions(space, varied)):
        values = fixed | {axis: value for axis, value in cell.items() if axis in varied}
        try:
            Settings.model_validate({**values, "code": code.get(values["model"], "")})
        except ValidationError as error:
            yield SpecProblemError(at, str(error.errors()[0]["msg"]).removeprefix("Value error, "))
            return


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


def unmeasured(stages: Sequence[Stage], metric: str) -> Iterator[SpecProblemError]:
    """Find rules that go by what is not computed after every epoch: loss, accuracy and the sweep's metric are."""
    known = tuple(dict.fromkeys(("val_accuracy", "val_loss", METRICS[metric].measure)))
    for index, stage in enumerate(stages):
        if stage.stop_early is not None and (given := stage.stop_early.metric) not in known:
            needed = f"or metric: {MEASURES[given].name} for the whole sweep"
            yield SpecProblemError(
                ("stages", index, "stop_early", "metric"), f"given {given}; allowed: {', '.join(known)}, {needed}"
            )


def _start_problems(
    stage: Stage, start: StartFrom, earlier: dict[str, Stage], at: KeyPath
) -> Iterator[SpecProblemError]:
    here = (*at, "start_from")
    if start.stage not in earlier:
        known = ", ".join(earlier) or "no stage before it"
        yield SpecProblemError((*here, "stage"), f"given {start.stage!r}; allowed: {known}")
        return
    allowed = [*AXES, *(f"{group}NAME" for group in ARGS)]
    for axis in start.per:
        if not is_axis(axis):
            yield SpecProblemError((*here, "per"), f"given {axis!r}; allowed: {', '.join(allowed)}")
    for axis in ("model", "weights", "width", "image_size", "seed"):
        if axis in stage.space:
            yield SpecProblemError(
                (*at, "space", axis),
                f"{axis} comes with the weights of stage {start.stage} and cannot vary here",
            )
