"""A stage of a sweep: its search space, how cells are chosen from it, and when trials are stopped early."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import (
    BeforeValidator,
    Field,
    model_validator,
)

from cnnsearch.spec.arguments import ARGS
from cnnsearch.spec.metric import MEASURES, Measure
from cnnsearch.spec.part import Float, Int, Part, SpecProblemError, SpecProblemsError, Spelled, value_message
from cnnsearch.spec.settings import Settings, axis_problem, is_axis
from cnnsearch.spec.values import NUMERIC_KINDS, Values, repeated

MAX_TRIALS = 1_000_000
"""Most trials that one stage may have."""
AT_ONCE = 8
"""Default number of a searcher's suggestions that may be without an outcome at a time."""


class StartFrom(Part):
    """Carry the weights and settings of an earlier stage's best trials into this stage."""

    stage: str = Field(description="name of an earlier stage")
    best: Measure = Field("val_accuracy", description="metric that decides which trial is best; by default the sweep's")
    per: Annotated[tuple[str, ...], BeforeValidator(lambda raw: (raw,) if isinstance(raw, str) else raw)] = Field(
        (), description="axes of that stage: the best setting is taken for each of their values"
    )


Objective = Literal[Measure, "seconds", "parameters", "bytes"]
HIGHER_IS_BETTER = frozenset(name for name, metric in MEASURES.items() if metric.is_larger_better)
"""Objectives that are better when higher; the others are better when lower."""
SINGLE_OBJECTIVES = tuple(MEASURES)


FIRST_AT_RANDOM = {"tpe": 10, "gp": 10, "cmaes": 1, "nsga2": 20}
"""Searcher -> suggestions that it draws at random before it learns: Optuna's defaults, and the population in
`planning.search`."""


class Search(Part):
    """How a stage's cells are chosen from its space."""

    method: Literal["grid", "random", "tpe", "gp", "cmaes", "qmc", "nsga2"] = Field(
        "grid", description="how combinations are chosen: all of them, at random, or by one of Optuna's searchers"
    )
    trials: Int | None = Field(
        None, ge=1, le=MAX_TRIALS, description="number of draws or suggestions; required unless method is grid"
    )
    seed: Int = Field(0, ge=0, description="seed of the draws or suggestions")
    at_once: Int | None = Field(
        None,
        ge=1,
        le=1000,
        description="suggestions that may run at the same time: suggestion k is made from the outcomes of suggestions "
        "0 to k - at_once; the default is 8 (tpe, gp, cmaes, nsga2 only)",
    )
    objectives: tuple[Objective, ...] = Field(
        (),
        description="what to optimize: a metric on validation, by default the sweep's, as val_accuracy or val_loss; "
        "with nsga2, two or more of these, and of seconds, parameters (the trained ones), bytes (of the model) (all "
        "minimized)",
    )

    first: tuple[dict[str, Any], ...] = Field(
        (),
        description="settings that are suggested first, such as [{lr: 0.01, batch_size: 32}]; the searcher chooses "
        "what they leave out (tpe, gp, cmaes, qmc, nsga2 only)",
    )
    prior: tuple[str, ...] = Field(
        (),
        description="results folders of earlier sweeps: the best settings that they found are suggested first, a tenth "
        "of the trials, or one with a rule that compares trials (tpe, gp, cmaes, qmc, nsga2 only)",
    )

    @property
    def is_adaptive(self) -> bool:
        """Whether cells are suggested one after another rather than known from the start."""
        return self.method not in ("grid", "random")

    @property
    def window(self) -> int:
        """Suggestions that may be without an outcome at a time; all for a searcher that looks at no outcomes."""
        if self.method == "qmc":
            return self.trials or 1
        return self.at_once or AT_ONCE

    @property
    def guided_from(self) -> int | None:
        """Index of the first suggestion that is made from outcomes; None for a method that looks at none."""
        first = FIRST_AT_RANDOM.get(self.method)
        return None if first is None else first + self.window - 1

    @property
    def aims(self) -> tuple[Objective, ...]:
        """The objectives, or the default where none is given."""
        return self.objectives or ("val_accuracy",)


class _Stopping(Part):
    """The settings that every rule has."""

    metric: Measure = Field(
        "val_accuracy",
        description="metric by which trials are judged, by default the sweep's: that, val_accuracy or val_loss",
    )
    min_epochs: Int = Field(1, ge=1, description="epochs that every trial completes before it can be stopped")

    spares_one: ClassVar[bool] = True
    """Whether one of the trials it compares always trains to its end."""


class Asha(_Stopping):
    """Asynchronous successive halving: Li et al., arXiv:1810.05934."""

    method: Literal["asha"] = Field(
        "asha", description="compares trials at rungs, epochs further and further apart, and stops all but the best"
    )
    reduction_factor: Int = Field(
        3,
        ge=2,
        le=1000,
        description="η: one trial in η continues past a rung, and each rung is η times as many epochs as the last",
    )


class Hyperband(_Stopping):
    """Several brackets of successive halving that differ in how early they begin: Li et al., arXiv:1603.06560."""

    method: Literal["hyperband"] = Field(
        "hyperband", description="several brackets of asha, some of which start comparing later"
    )
    reduction_factor: Int = Field(
        3,
        ge=2,
        le=1000,
        description="η: one trial in η continues past a rung, and each rung is η times as many epochs as the last",
    )


class Median(_Stopping):
    """The median stopping rule: Golovin et al., Google Vizier, KDD 2017."""

    method: Literal["median"] = Field(
        "median", description="stops a trial whose best value is worse than the median of the other trials' averages"
    )


class Patience(_Stopping):
    """Stop a trial by its own curve alone."""

    spares_one: ClassVar[bool] = False
    method: Literal["patience"] = Field("patience", description="stops a trial that no longer improves")
    patience: Int = Field(10, ge=1, description="epochs without improvement after which a trial is stopped")
    min_change: Float = Field(
        0.0, ge=0, description="only a larger change counts as an improvement (a fraction, or a loss)"
    )


StopEarly = Annotated[Asha | Hyperband | Median | Patience, Field(discriminator="method")]


class Stage(Part):
    """Trials that can be planned together."""

    name: Annotated[
        str,
        Spelled(
            "[a-z][a-z0-9_-]{0,39}", "up to 40 lower-case letters, digits, - and _, of which the first is a letter"
        ),
    ] = Field(description="name of the stage: a lower-case word")
    start_from: StartFrom | None = None
    space: dict[str, Values] = Field(description="axis -> its values; the first axis varies slowest")
    search: Search = Search()
    stop_early: StopEarly | None = Field(
        None, description="rule that stops trials before their last epoch; by default none does"
    )

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        if found := (*_space_problems(self), *_search_problems(self)):
            raise SpecProblemsError(found)
        return self

    def following(self, measure: Measure) -> Stage:
        """Return the stage with the sweep's metric wherever it does not say by what to choose."""
        start, rule, search = self.start_from, self.stop_early, self.search
        changed: dict[str, Part] = {}
        if start is not None and "best" not in start.model_fields_set:
            changed["start_from"] = start.model_copy(update={"best": measure})
        if rule is not None and "metric" not in rule.model_fields_set:
            changed["stop_early"] = rule.model_copy(update={"metric": measure})
        if search.is_adaptive and search.method != "qmc" and not search.objectives:
            changed["search"] = search.model_copy(update={"objectives": (measure,)})
        return self.model_copy(update=changed)


def _space_problems(stage: Stage) -> Iterator[SpecProblemError]:
    for axis, values in stage.space.items():
        if not is_axis(axis):
            yield SpecProblemError(("space", axis), "unknown axis")
            continue
        here = ("space", axis) if values.kind == "constant" else ("space", axis, values.kind)
        for value in values.args:
            if problem := axis_problem(axis, value):
                yield SpecProblemError(here, value_message(value, problem))
        yield from _when_problems(stage, axis, values)
        if axis.startswith(ARGS):
            continue
        if values.kind in NUMERIC_KINDS and Settings.model_fields[axis].annotation not in (int, float):
            yield SpecProblemError(("space", axis), f"{values.kind} needs a numeric axis; use {{choice: [...]}}")
        elif values.kind in ("uniform", "loguniform") and Settings.model_fields[axis].annotation is int:
            yield SpecProblemError(
                ("space", axis),
                f"{values.kind} draws fractions, and {axis} is a whole number; use {{int: [low, high]}}",
            )


def _when_problems(stage: Stage, axis: str, values: Values) -> Iterator[SpecProblemError]:
    """Find conditions on an axis that comes later, or on values it never takes."""
    here = ("space", axis, "when")
    before = list(stage.space)[: list(stage.space).index(axis)]
    for other, wanted in values.when.items():
        if other not in before:
            yield SpecProblemError(here, f"given {other!r}; allowed: an axis that stands before {axis}")
            continue
        listed = stage.space[other]
        if listed.kind in NUMERIC_KINDS:
            yield SpecProblemError(here, f"{other} takes values from a range, of which none can be named")
            continue
        for value in wanted:
            if value not in listed.args:
                yield SpecProblemError((*here, other), f"given {value!r}; allowed: {list(listed.args)}")


def _search_problems(stage: Stage) -> Iterator[SpecProblemError]:
    search, here = stage.search, ("search",)
    if search.method == "grid":
        for axis, values in stage.space.items():
            if values.kind not in ("constant", "grid"):
                yield SpecProblemError(
                    ("space", axis),
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
        yield from _adaptive_problems(stage)
        yield from _first_problems(stage)
    else:
        for name in ("first", "prior"):
            if getattr(search, name):
                yield SpecProblemError(
                    (*here, name), f"method {search.method} has no suggestions; allowed with tpe, gp, cmaes, qmc, nsga2"
                )


def _first_problems(stage: Stage) -> Iterator[SpecProblemError]:
    """Find settings to suggest first that are not in the space."""
    search = stage.search
    if search.trials is not None and len(search.first) > search.trials:
        yield SpecProblemError(("search", "first"), f"has {len(search.first)} settings for {search.trials} trials")
    for index, cell in enumerate(search.first):
        for axis, value in cell.items():
            here = ("search", "first", index, axis)
            if axis not in stage.space:
                yield SpecProblemError(here, f"{axis} is not in the space; allowed: {', '.join(stage.space)}")
            elif value not in stage.space[axis]:
                allowed = list(stage.space[axis].args)
                words = f"from {allowed[0]} to {allowed[1]}" if stage.space[axis].kind in NUMERIC_KINDS else allowed
                yield SpecProblemError(here, f"given {value!r}; allowed: {words}")


def _adaptive_problems(stage: Stage) -> Iterator[SpecProblemError]:
    """Find spaces that a searcher cannot search."""
    if all(len(values.args) < 2 for values in stage.space.values()):
        yield SpecProblemError(("space",), f"method {stage.search.method} needs an axis with more than one value")
    if stage.search.method == "cmaes" and not any(v.kind in NUMERIC_KINDS for v in stage.space.values()):
        yield SpecProblemError(
            ("space",), f"method cmaes needs an axis with a range: one of {', '.join(NUMERIC_KINDS)}"
        )
    size = stage.space.get("image_size")
    if size is not None and size.kind in NUMERIC_KINDS:
        yield SpecProblemError(
            ("space", "image_size"),
            f"images are resized before the first suggestion, to every size: give {{choice: [...]}}, not {size.kind}",
        )
