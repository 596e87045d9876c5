"""Which values of a `model` axis cannot take the images' size, and the stages without them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cnnsearch.spec.cells import grid, with_conditions
from cnnsearch.spec.data import DataSpec
from cnnsearch.spec.model_names import size_problem
from cnnsearch.spec.stage import Stage
from cnnsearch.spec.values import NUMERIC_KINDS, Values

Misfits = Mapping[tuple[str, int], str]
"""(model, image size) that do not go together -> why, where only the package that the model is from can say."""


def without_misfits(
    stages: Sequence[Stage], data: DataSpec, misfits: Misfits | None = None
) -> tuple[tuple[Stage, ...], tuple[str, ...]]:
    """Take from every stage's `model` axis the networks that cannot take any of its image sizes.

    Where none of an axis would be left, or nothing to search, or a network can take one size of several, the stage
    stays as it is: that is for its author to change.

    Args:
        stages: of the sweep.
        data: gives the images' size where no axis does.
        misfits: what is known beyond `size_problem`.

    Returns:
        The stages, and for each network that was taken out what it needs.
    """
    told: dict[str, None] = {}
    fitting = []
    for stage in stages:
        models = stage.space.get("model")
        problems = _problems(stage, models, data, misfits or {}) if models else {}
        if models and problems and len(problems) < len(models.args):
            space = _without(stage.space, set(problems))
            if stage.search.method == "grid" or any(len(values.args) > 1 for values in space.values()):
                told |= dict.fromkeys(problems.values())
                stage = stage.model_copy(update={"space": space})
        fitting.append(stage)
    return tuple(fitting), tuple(told)


def _problems(stage: Stage, models: Values, data: DataSpec, misfits: Misfits) -> dict[str, str]:
    """Network that can take none of the sizes it meets -> what it needs."""
    sizes = stage.space.get("image_size")
    if sizes is not None and sizes.kind in NUMERIC_KINDS:
        return {}
    met: dict[str, list[str | None]] = {}
    for cell in grid(with_conditions(stage.space, ("model", "image_size"))):
        if "model" in cell:
            model, size = str(cell["model"]), cell.get("image_size", data.image_size)
            met.setdefault(model, []).append(misfits.get((model, size)) or size_problem(model, size))
    return {model: found[0] for model, found in met.items() if found[0] is not None and None not in found}


def _without(space: dict[str, Values], models: set[str]) -> dict[str, Values]:
    """The space without these networks, without conditions on them, and without axes that only they have."""
    kept = {}
    for axis, values in space.items():
        if axis == "model":
            values = values.model_copy(update={"args": tuple(name for name in values.args if name not in models)})
        elif "model" in values.when:
            wanted = tuple(name for name in values.when["model"] if name not in models)
            if not wanted:
                continue
            values = values.model_copy(update={"when": {**values.when, "model": wanted}})
        kept[axis] = values
    return kept
