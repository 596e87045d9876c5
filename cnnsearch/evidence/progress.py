"""Whether a search was still getting better when it ended."""

from __future__ import annotations

from cnnsearch.evidence.searches import LEAST_FOR_PROGRESS, Searched


def late_gain(search: Searched) -> float | None:
    """How much the last third of the suggestions improved the first objective, or 0.

    None with fewer than `LEAST_FOR_PROGRESS` trials trained to the end, or none in either part.
    """
    count = len(search.attempts)
    early = [search.score(one) for one in search.scored if one.number <= count - count // 3]
    late = [search.score(one) for one in search.scored if one.number > count - count // 3]
    if len(search.scored) < LEAST_FOR_PROGRESS or not early or not late:
        return None
    sign = 1 if search.objective.is_larger_better else -1
    return max(0.0, max(sign * score for score in late) - max(sign * score for score in early))


def late_on_front(search: Searched) -> int:
    """How many of the Pareto set are from the last third of the suggestions."""
    count = len(search.attempts)
    return sum(one.number > count - count // 3 for one in search.front)


def is_improving(search: Searched) -> bool:
    """Whether the last third of the suggestions found anything better."""
    return bool(late_on_front(search) if len(search.objectives) > 1 else late_gain(search))
