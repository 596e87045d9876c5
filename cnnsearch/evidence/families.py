"""Stages that go on from others: the settings that started from one parent, and what going on changed."""

from __future__ import annotations

from collections.abc import Sequence

from cnnsearch.evidence.comparisons import Comparison
from cnnsearch.evidence.configurations import Configuration, distinct
from cnnsearch.evidence.evidence import Evidence

_MOST_SHOWN = 40
"""Settings of a stage, dealt evenly to its families."""


def families(evidence: Evidence, stage: str) -> list[list[Configuration]]:
    """The settings of a stage with scores before and after, grouped by what they started from."""
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
    """After against before, on the same test examples."""
    return evidence.compare([(configuration, configuration)], moments=("best", "before"))


def control_of(evidence: Evidence, stage: str, group: Sequence[Configuration]) -> Configuration | None:
    """The child that goes on with its parent's own values: tells the stage's axes from mere further training."""
    parent = evidence.by_key.get(group[0].parent or "")
    if parent is None:
        return None
    axes = evidence.axes(stage)
    return next((s for s in group if all(s.values[axis] == parent.values[axis] for axis in axes)), None)
