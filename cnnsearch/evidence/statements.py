"""The comparisons that a report may state: of models, of the values of an axis, of what a later stage changed.

Which value leads is read off the data. So every two values of an axis, and every two models, count as compared, though
only the leader's comparisons are stated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TypeVar

from cnnsearch.evidence.axes import main_stage
from cnnsearch.evidence.compared import Compared, Pairs, basis_of
from cnnsearch.evidence.comparisons import LEAST_PAIRS, Comparison
from cnnsearch.evidence.configurations import Configuration, Matching, best_of, distinct, matched, preferred
from cnnsearch.evidence.families import families
from cnnsearch.spec.axis_words import Value

Key = tuple[Value, ...]
T = TypeVar("T")


SIBLINGS = "siblings"


def of_models(stage: str, ahead: str, behind: str) -> Key:
    """The statement on two models."""
    return ("model", stage, ahead, behind)


def of_values(stage: str, axis: str, value: Value, other: Value, model: str = "") -> Key:
    """The statement on two values of an axis, over all models or for one."""
    return ("axis", stage, axis, value, other, model)


def of_change(configuration: Configuration) -> Key:
    """The statement on what training on changed in the networks of a setting."""
    return ("change", configuration.key)


def of_siblings(a: Configuration, b: Configuration) -> Key:
    """The statement on two settings of a later stage that started from the same networks."""
    return (SIBLINGS, a.key, b.key)


def statements(compared: Compared) -> dict[Key, Comparison]:
    """Every comparison that a report may state, or that stands behind what it states."""
    found: dict[Key, Comparison] = {}
    listed = [(key, pairs) for key, pairs, is_stated in _pairs(compared) if is_stated or basis_of(pairs) != "networks"]
    for (key, _), comparison in zip(listed, compared.compare_all([pairs for _, pairs in listed]), strict=True):
        if comparison is not None:
            found[key] = comparison
    for stage in compared.stages:
        for configuration in compared.stage(stage) if compared.continues(stage) else ():
            change = compared.change(configuration)
            if change is not None:
                found[of_change(configuration)] = change
    return found


def _pairs(compared: Compared) -> Iterator[tuple[Key, Pairs, bool]]:
    """Yield each statement's key, the settings to compare, and whether it is stated whatever it shows."""
    yield from _of_models(compared)
    searched = {search.stage for search in compared.searches if search.is_search}
    for stage in compared.stages:
        if compared.continues(stage):
            yield from _of_families(compared, stage)
        elif stage in compared.fresh_stages and stage not in searched:
            # Suggested settings hardly ever differ in one axis alone.
            for axis in compared.axes(stage):
                if axis != "model":
                    yield from _of_axis(compared, stage, axis)


def champions(compared: Compared, among: Sequence[Configuration]) -> list[Configuration]:
    """The best setting of each model among these by validation accuracy, the best first."""
    found = [best_of(c for c in among if c.model == model) for model in compared.models]
    return sorted((c for c in found if c is not None), key=lambda c: (-c.worth, c.order))


def _of_models(compared: Compared) -> Iterator[tuple[Key, Pairs, bool]]:
    """Two models: over the settings that both were trained with, or else the best setting of each."""
    stage = main_stage(compared) or ""
    ranked = champions(compared, compared.stage(stage))
    for a, b in combinations(ranked, 2):
        pairs = matched(compared.stage(stage), "model", a.model, b.model)
        yield of_models(stage, a.model, b.model), pairs if len(pairs) >= LEAST_PAIRS else [(a, b)], a is ranked[0]


def _of_axis(compared: Compared, stage: str, axis: str) -> Iterator[tuple[Key, Pairs, bool]]:
    configurations = compared.stage(stage)
    values = distinct(configurations, axis)
    if len(values) < 2:
        return
    lead = preferred(configurations, axis)
    matching = Matching(configurations, axis)
    for value, other in _led(values, lead):
        yield of_values(stage, axis, value, other), matching.pairs(value, other), value == lead
        if len(values) == 2 and len(compared.models) > 1:
            for model in compared.models:
                of_one = [c for c in configurations if c.model == model]
                yield of_values(stage, axis, value, other, model), matched(of_one, axis, value, other), False


def _of_families(compared: Compared, stage: str) -> Iterator[tuple[Key, Pairs, bool]]:
    for group in families(compared, stage):
        best = best_of(group)
        for a, b in _led(group, best) if best is not None else ():
            yield of_siblings(a, b), [(a, b)], a is best


def _led(items: Sequence[T], lead: T) -> list[tuple[T, T]]:
    """Every two items once; the leader is the first of its pairs."""
    rest = [item for item in items if item != lead]
    return [*((lead, item) for item in rest), *combinations(rest, 2)]
