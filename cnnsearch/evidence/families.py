"""Stages that continue others: the configurations that started from one parent, and what training on changed."""

from __future__ import annotations

from collections.abc import Sequence

from cnnsearch.evidence.compared import Compared
from cnnsearch.evidence.configurations import Configuration, distinct

_MOST_SHOWN = 40
"""Most configurations of a stage that are shown; each family gets the same share, and at least one."""


def families(compared: Compared, stage: str) -> list[list[Configuration]]:
    """Group the configurations of a stage that have scores before and after by what they started from."""
    if not compared.continues(stage):
        return []
    groups: dict[str | None, list[Configuration]] = {}
    for configuration in compared.stage(stage):
        if compared.score(configuration) and compared.score(configuration, moment="before"):
            groups.setdefault(configuration.parent, []).append(configuration)
    axes = compared.axes(stage)

    def order(configuration: Configuration) -> tuple[int, ...]:
        return tuple(distinct(compared.stage(stage), axis).index(configuration.values[axis]) for axis in axes)

    kept = [sorted(group, key=order) for group in groups.values()]
    return [group[: max(1, _MOST_SHOWN // len(kept))] for group in kept[:_MOST_SHOWN]]


def control_of(compared: Compared, stage: str, group: Sequence[Configuration]) -> Configuration | None:
    """The child trained with the same values as its parent: the control for the effect of the stage's axes."""
    parent = compared.by_key.get(group[0].parent or "")
    if parent is None:
        return None
    axes = compared.axes(stage)
    return next((s for s in group if all(s.values[axis] == parent.values[axis] for axis in axes)), None)
