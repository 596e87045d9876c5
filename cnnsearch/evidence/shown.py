"""Which part of many trials, settings or classes a figure shows: limits that captions mention."""

from __future__ import annotations

from collections.abc import Sequence

from cnnsearch.evidence.configurations import Configuration
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.evidence.searches import Attempt, Searched, T, thinned
from cnnsearch.spec.axis_words import Value

MOST_POINTS = 500
"""Most trials of one kind that a panel shows; if there are more, `selection` picks some."""
MOST_LINES = 250
"""Most trials in parallel coordinates; if there are more, `selection` picks some."""
MOST_CLASSES = 40
"""Most classes whose images are counted; if there are more, those with the most and the fewest images."""
NUMBERED_CLASSES = 20
"""Most classes of a confusion matrix with counts in its cells; with more, the cells are too small."""
MATRIX_CLASSES = 100
"""Most classes of a whole confusion matrix; if there are more, it shows the `MOST_CLASSES` with most mistakes."""
COMPACT_CLASSES = 25
"""Most classes of a small confusion matrix, one of many; if there are more, those with most mistakes."""
PHONE_CLASSES = 10
"""Most classes of a confusion matrix that a phone's screen has room for."""
MOST_MAPS = 12
"""Most models with a heatmap each; if there are more, those with the best validation accuracy."""
MOST_PANELS = 48
"""Most panels of learning curves laid out as a table, many of which may be empty."""
MOST_OF_A_PART = 5
"""Most settings of each sweep that a comparison of several sweeps shows."""
BEST_OF_MANY = 12
"""Number of settings whose learning curves are shown if there are too many to show all."""
NAMED_COLUMNS = 6
"""Most columns of a heatmap whose names are written in full and whose cells have room for intervals."""
_MOST_CURVES = 24
_MOST_DOTS, _MOST_SUGGESTED_DOTS = 40, 20
_BEST_KEPT = 100


def has_intervals(columns: Sequence[Value]) -> bool:
    """Whether cells of a heatmap with these columns have room for intervals."""
    return len(columns) <= NAMED_COLUMNS


def are_many(evidence: Evidence, configurations: Sequence[Configuration]) -> bool:
    """Whether only the best are shown, because there are many or because a search's settings make no table."""
    return len(configurations) > _MOST_CURVES or any(c.key in evidence.attempts for c in configurations)


def with_curves(evidence: Evidence, configurations: Sequence[Configuration]) -> list[Configuration]:
    """The settings of a stage whose learning curves are shown: all in their order, or of many the best."""
    if not are_many(evidence, configurations):
        return list(configurations)
    return sorted(configurations, key=lambda c: (-c.worth, c.order))[:BEST_OF_MANY]


def curves_shown(evidence: Evidence, stage: str) -> str:
    """A note that says which curves of a stage are shown; empty where all are."""
    configurations = evidence.stage(stage)
    if not are_many(evidence, configurations) or len(configurations) <= BEST_OF_MANY:
        return ""
    return f"The {BEST_OF_MANY} best of {len(configurations)} settings by validation accuracy."


def maps_shown(evidence: Evidence, configurations: Sequence[Configuration]) -> list[str]:
    """The models of these configurations that have a heatmap each, in order."""
    best = {c.model: c for c in sorted(configurations, key=lambda c: c.worth)}
    ranked = sorted(best, key=lambda model: -best[model].worth)[:MOST_MAPS]
    return [model for model in evidence.models if model in ranked]


def most_dots(evidence: Evidence) -> int:
    """How many settings are shown as dots: fewer if a searcher suggested them, as nobody compares those one by one."""
    suggested = sum(c.key in evidence.attempts for c in evidence.configurations)
    return _MOST_SUGGESTED_DOTS if 2 * suggested > len(evidence.configurations) else _MOST_DOTS


def selection(search: Searched, attempts: Sequence[Attempt], most: int = MOST_POINTS) -> list[Attempt]:
    """The attempts to draw, in their order: all, or the best and an even selection of the others."""
    if len(attempts) <= most:
        return list(attempts)
    best = {one.number for one in search.ranked()[: min(_BEST_KEPT, most // 2)]}
    return _some(attempts, [one.number in best for one in attempts], most)


def some_settings(configurations: Sequence[Configuration], most: int = MOST_POINTS) -> list[Configuration]:
    """The settings to draw as points, in their order: all, or the best and an even selection of the others."""
    if len(configurations) <= most:
        return list(configurations)
    ranked = sorted(configurations, key=lambda one: (-one.worth, one.order))
    best = {one.key for one in ranked[: min(_BEST_KEPT, most // 2)]}
    return _some(configurations, [one.key in best for one in configurations], most)


def selected(total: int, what: str = "trials", most: int = MOST_POINTS) -> str:
    """A note for a caption where not all are drawn; else empty."""
    if total <= most:
        return ""
    return f" Of more than {most} {what} the best are drawn, and an even selection of the others."


def _some(items: Sequence[T], are_best: Sequence[bool], most: int) -> list[T]:
    """Take `most` of the items, in their order: the best, and an even selection of the others."""
    kept = {place for place, is_best in enumerate(are_best) if is_best}
    others = [place for place in range(len(items)) if place not in kept]
    return [items[place] for place in sorted([*kept, *thinned(others, most - len(kept))])]
