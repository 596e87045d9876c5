"""How trials and their settings are named where people read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cnnsearch.planning.trial import Trial
from cnnsearch.spec.axis_words import NONE, words
from cnnsearch.spec.settings import Settings
from cnnsearch.spec.sweep import Sweep


def varied_axes(sweep: Sweep) -> list[str]:
    """List the axes that take more than one value, in order of appearance; with `seed` where there are several."""
    axes = [axis for stage in sweep.stages for axis, values in stage.space.items() if values.varies]
    axes += ["seed"] if len(sweep.replicates) > 1 or sweep.confirm else []
    return list(dict.fromkeys(axes))


def setting(settings: Settings, axes: Iterable[str]) -> str:
    """Name a setting by some axes: `residual, lr 0.001, batch 16`. A dropout of zero is left out."""
    return ", ".join(" ".join(part) for part in setting_parts(settings, axes))


def told_axes(sweep: Sweep) -> list[str]:
    """List the axes to mention where nothing else says what the sweep varies: three usual ones and all that vary."""
    return list(dict.fromkeys(["model", "lr", "batch_size", *varied_axes(sweep)]))


def trial_label(trial: Trial, axes: Iterable[str]) -> str:
    """Name a trial so that it can stand alone, with its full id: `grid: residual, lr 0.001, batch 16 [0f3c…]`."""
    return f"{trial.stage}: {setting(trial.settings, axes)} [{trial.id}]"


def job_label(trials: Sequence[Trial], axes: Sequence[str]) -> str:
    """Name trials that run together: what they have in common, their number, the id of the first."""
    first = trials[0]
    if len(trials) == 1:
        return trial_label(first, axes)
    common = [axis for axis in axes if len({trial.settings.value(axis) for trial in trials}) == 1]
    shared = f"{text}, " if (text := setting(first.settings, common)) else ""
    return f"{first.stage}: {shared}{len(trials)} trials [{first.id} …]"


def setting_parts(settings: Settings, axes: Iterable[str]) -> Sequence[tuple[str, ...]]:
    """Split a setting's name into (name, value) pairs; the name is empty if the value needs none, as `residual`."""
    parts = []
    for axis in axes:
        value = settings.value(axis)
        if value is None:  # an argument that this network does not have
            continue
        is_absent = axis in NONE and value == NONE[axis] and axis != "class_weights"
        if is_absent or (axis == "momentum" and settings.optimizer != "sgd"):
            continue
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        name = words(axis).label
        parts.append((name, shown) if name else (shown,))
    return parts
