"""Stages that continue others: the configurations that started from one parent, and what training on changed."""

from __future__ import annotations

from collections.abc import Sequence

from cnnsearch.evidence.comparisons import Comparison
from cnnsearch.evidence.configurations import Configuration, distinct
from cnnsearch.evidence.evidence import Evidence

_MOST_SHOWN = 40
"""Most configurations of a stage that are shown; each family gets the same share."""


def families(evidence: Evidence, stage: str) -> list[list[Configuration]]:
    """Group the configurations of a stage that have scores before and after by what they started from."""
    groups: dict[str | None, list[Configuration]] = {}
    for configuration in evidence.stage(stage):
        if evidence.score(configuration) and evidence.score(configuration, moment="before"):
            groups.setdefault(configuration.parent, []).append(configuration)
    axes = evidence.axes(stage)

    def order(configuration: Configuration) -> tuple[int, ...]:
        return tuple(distinct(evidence.stage(stage), axis).index(configuration.values[axis]) for axis in axes)

    kept = [sorted(group, key=order) for group in groups.values()]
    return [group[: _MOST_SHOWN // max(1, len(kept))] for group in kept]


def change(evidence: Evidence, configuration: Configuration) -> Comparison | None:
    """Compare a configuration after training with its start, on the same test examples."""
    return evidence.compare([(configuration, configuration)], moments=("best", "before"))


def control_of(evidence: Evidence, stage: str, group: Sequence[Configuration]) -> Configuration | None:
    """The child trained with the same values as its parent: the control for the effect of the stage's axes."""
    parent = evidence.by_key.get(group[0].parent or "")
    if parent is None:
        return None
    axes = evidence.axes(stage)
    return next((s for s in group if all(s.values[axis] == parent.values[axis] for axis in axes)), None)
