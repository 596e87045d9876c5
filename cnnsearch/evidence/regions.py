"""Where along the axes of a search its best trials lie."""

from __future__ import annotations

import numpy as np

from cnnsearch.evidence.searches import LEAST_FOR_PROGRESS, Searched
from cnnsearch.evidence.space import Axis
from cnnsearch.spec.axis_words import format_value, rounded, words
from cnnsearch.words import listed

_EDGE = 0.08
"""Share of a range that counts as its end."""


def region(search: Searched, axis: Axis) -> str:
    """The values of an axis that the best tenth have, in words; empty where that is nearly the whole axis."""
    top = [one for one in search.top if axis.name in one.values]
    if len(top) < 5:
        return ""
    if not axis.is_range:
        counts = {value: sum(one.values[axis.name] == value for one in top) for value in axis.listed}
        kept = [value for value in axis.listed if counts[value] >= 0.15 * len(top)]
        if len(kept) >= max(2, 0.75 * len(axis.listed)) or not kept:
            return ""
        names = listed([format_value(value) for value in kept], "or")
        return names if axis.name in ("model", "optimizer") else f"{words(axis.name).full} {names}"
    positions = sorted(position for one in top if (position := axis.position(one.values[axis.name])) is not None)
    low, high = np.quantile(positions, [0.1, 0.9])
    if high - low > 0.6:
        return ""
    ends = [format_value(rounded(axis.value_at(float(position)))) for position in (low, high)]
    span = f"about {ends[0]}" if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"
    return f"{words(axis.name).full} {span}"


def contour_axes(search: Searched) -> tuple[Axis, Axis] | None:
    """The two most important axes, that along x first; None where importances are not known or trials too few."""
    if search.importances is None:
        return None
    axes = [search.axis(name) for name in search.importances.ranked][:2]
    if len(axes) < 2 or sum(all(axis.name in one.values for axis in axes) for one, _ in search.comparable) < 10:
        return None
    # Listed values go along y, where their names have room.
    return (axes[1], axes[0]) if axes[1].is_range and not axes[0].is_range else (axes[0], axes[1])


def edges(search: Searched) -> list[tuple[Axis, bool]]:
    """The ends of numeric axes where the best trials lie, as (axis, whether it is the upper end)."""
    best, found = search.best, []
    if best is None or len(search.scored) < LEAST_FOR_PROGRESS:
        return []
    known = search.importances
    for axis in search.by_importance if known is None else [a for a in search.axes if known.is_likely(a.name)]:
        at = axis.position(best.values[axis.name]) if axis.is_ordered and axis.name in best.values else None
        if at is None:
            continue
        places = [
            p
            for one in search.top
            if axis.name in one.values and (p := axis.position(one.values[axis.name])) is not None
        ]
        middle = sorted(places)[len(places) // 2] if places else 0.5
        for upwards in (False, True):
            near = (1 - at if upwards else at) <= (_EDGE if axis.is_range else 0)
            is_end = near and (1 - middle if upwards else middle) <= 3 * _EDGE
            if is_end and not _diverges(search, axis, upwards=upwards):
                found.append((axis, upwards))
    return found


def _diverges(search: Searched, axis: Axis, *, upwards: bool) -> bool:
    """Whether more than a quarter of the trials at this end diverged, so that nothing lies past it."""
    there = [
        one
        for one in search.attempts
        if axis.name in one.values
        and (at := axis.position(one.values[axis.name])) is not None
        and (1 - at if upwards else at) <= 2 * _EDGE
    ]
    return 4 * sum(one.status == "diverged" for one in there) > len(there)
