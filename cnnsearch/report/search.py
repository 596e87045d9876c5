"""How a search went: its figures with captions, its Pareto set, and a summary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from cnnsearch import plots
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.evidence.importance import LEAST_TRIALS, MOST_TRIALS, TREES
from cnnsearch.evidence.regions import contour_axes
from cnnsearch.evidence.searches import Searched
from cnnsearch.evidence.shown import MOST_LINES, MOST_POINTS, selected
from cnnsearch.report.pictures import Drawing, Picture
from cnnsearch.report.rows import Cell, Column, Row, Table
from cnnsearch.spec.axis_words import format_value, words
from cnnsearch.words import capitalised, counted, listed

_MOST_ON_FRONT = 15

_METHODS = {
    "random": "random draws", "qmc": "quasi-random draws that cover the space evenly (QMC)",
    "tpe": "a tree-structured Parzen estimator (TPE)", "gp": "a Gaussian process (GP)", "cmaes": "CMA-ES",
    "nsga2": "NSGA-II",
}  # fmt: skip
_RULES = {
    "asha": "asynchronous successive halving (ASHA)", "hyperband": "Hyperband", "median": "the median rule",
    "patience": "patience",
}  # fmt: skip


@dataclass(frozen=True)
class SearchSection:
    """The report's section on the search of one stage."""

    stage: str
    summary: str
    """The method, and how its trials ended."""
    pictures: list[Picture]
    why_no_importances: str
    """Why the section has no importances; empty if it has."""
    front: Table | None
    """Trials on the Pareto front; None with one objective, or without such trials."""
    front_note: str


def sections(evidence: Evidence, pictures: Mapping[str, list[Picture]]) -> list[SearchSection]:
    """Make a section for each stage that was searched, or in which trials were stopped early.

    `pictures` are those of each stage's `drawings`.
    """
    return [_section(search, pictures[search.stage]) for search in evidence.searches]


def drawings(search: Searched) -> list[Drawing]:
    """The figures of a search, in order."""
    found: list[Drawing | None] = [_history(search)] if search.is_search else []
    found += [_pareto(search), _rungs(search), _budgets(search)]
    if search.is_search:
        found += [_importances(search), _slices(search), _contour(search), _parallel(search)]
    return [drawing for drawing in found if drawing is not None]


def _section(search: Searched, pictures: list[Picture]) -> SearchSection:
    front = _front(search) if len(search.objectives) > 1 and search.front else None
    shown = min(_MOST_ON_FRONT, len(search.front))
    note = f"Shown are {shown} of {len(search.front)}, evenly spaced." if shown < len(search.front) else ""
    return SearchSection(search.stage, summary(search), pictures, _why_none(search), front, note)


def summary(search: Searched) -> str:
    """Describe the method and how its trials ended, in two or three sentences."""
    total, planned = len(search.attempts), search.spec.search.trials
    of = f" of {counted(planned, 'trial')}" if planned and planned > total else ""
    trials = f"{total:,}{of}" if of else counted(total, "trial")
    if search.is_search:
        sentences = [f"{capitalised(_METHODS[search.method])} suggested {trials}."]
    else:
        sentences = [f"{capitalised(trials)} ran."]
    kinds = [(search.done, "trained to the end"), (len(search.pruned), "stopped early")]
    kinds += [(sum(one.status == kind for one in search.lost), kind) for kind in ("failed", "diverged")]
    parts = [f"{count:,} {name}" for count, name in kinds if count]
    sentences.append(f"{capitalised(listed(parts))}.")
    rule = search.spec.stop_early
    if rule is not None:
        details = rule.model_dump(exclude={"method"})
        told = [f"{name.replace('_', ' ')} {format_value(value)}" for name, value in details.items()]
        sentences.append(f"Rule for stopping: {_RULES[rule.method]} ({', '.join(told)}).")
    return " ".join(sentences)


def _why_none(search: Searched) -> str:
    if not search.is_search or search.importances is not None:
        return ""
    known = len(search.comparable)
    if known >= LEAST_TRIALS:
        return "Importances are not shown: the scores, or the axes, do not vary."
    return (
        f"Importances and the map of the two axes that matter most are not shown: {counted(known, 'trial')} ended "
        f"with a score, and with fewer than {LEAST_TRIALS} settings the method (fANOVA) finds effects in noise."
    )


def _at(search: Searched) -> str:
    return f" at epoch {search.common_epoch}" if search.common_epoch else ""


def _name(search: Searched, what: str) -> str:
    return f"search-{search.stage}-{what}"


def _selected(search: Searched, most: int = MOST_POINTS) -> str:
    return selected(max(len(search.scored), len(search.stopped)), most=most)


def _history(search: Searched) -> Drawing:
    lost = " Crosses along the foot are trials without a score." if search.lost else ""
    stopped = " Hollow: stopped early, at the best they had reached by then." if search.stopped else ""
    caption = (
        f"Each trial’s {search.objective.label} in the order in which trials were suggested; the line is the best so "
        f"far among those trained to the end.{stopped}{lost} The best is the best of many, so its validation score is "
        f"optimistic.{_selected(search)}"
    )
    best = search.best
    trials = counted(len(search.attempts), "trial")
    alt = f"{capitalised(search.objective.label)} of {trials} in order, with the best so far as steps."
    if best is not None:
        alt += f" The best is trial {best.number} with {search.objective.text(search.score(best))}."
    draw = partial(plots.optimisation_history, search)
    return Drawing(draw, _name(search, "history"), caption, alt, partial(draw, narrow=True))


def _importances(search: Searched) -> Drawing | None:
    found = search.importances
    if found is None:
        return None
    drawn = f", each on {MOST_TRIALS:,} of them" if found.configurations > MOST_TRIALS else ""
    early = ""
    if search.common_epoch:
        early = (
            f" Most trials were stopped early, so scores are those at epoch {search.common_epoch}, which all of them "
            "reached: what matters later may differ."
        )
    caption = (
        "fANOVA: share of the variance over the whole space that an axis explains alone, from "
        f"{found.configurations:,} settings; what is missing from 100 % is joint effects. Forests of {TREES} trees, "
        f"repeated on other draws of the trials{drawn}: bars are means, lines run from the least to the most. Dotted: "
        "the most that a column of random numbers got; an axis is shown strong where even its least is more and scores "
        "in random order follow no axis as closely (permutation test at 1 %, corrected for the number of axes). Trials "
        f"in which an axis has no part count as if its value were random.{early}"
    )
    alt = f"Importance for {search.objective.label}{_at(search)}: " + "; ".join(
        f"{words(name).full} {100 * found.shares[name].value:.0f} %" for name in found.ranked
    )
    return Drawing(partial(plots.importance_bars, search), _name(search, "importances"), caption, f"{alt}.")


def _slices(search: Searched) -> Drawing:
    stopped = " Hollow: stopped early, at the best they had reached by then." if search.stopped else ""
    caption = (
        f"{capitalised(search.objective.label)} over one axis at a time, the most important first where that is known; "
        "all other axes vary as well. Lines are medians of trials trained to the end. A panel counts its trials where "
        f"its axis has a part in only some of them.{stopped}{_selected(search)}"
    )
    names = listed([words(axis.name).full for axis in search.by_importance])
    alt = (
        f"{capitalised(search.objective.label)} against {names}, a panel each. The numbers are in the table of trials."
    )
    return Drawing(partial(plots.slices, search), _name(search, "slices"), caption, alt)


def _contour(search: Searched) -> Drawing | None:
    chosen = contour_axes(search)
    if chosen is None:
        return None
    names = " and ".join(words(axis.name).full for axis in chosen)
    caption = (
        f"{capitalised(search.objective.label)}{_at(search)} over the two axes with the largest importance, smoothed "
        "between trials and averaged over all other axes; blank where no trial is near. Stronger colour is better."
        f"{_selected(search)}"
    )
    alt = f"{capitalised(search.objective.label)} as a map over {names}, with the trials as dots."
    return Drawing(partial(plots.contour, search), _name(search, "contour"), caption, alt)


def _parallel(search: Searched) -> Drawing:
    caption = (
        "One line per trial that was trained to its end, across every axis to its score; the best are strong. Listed "
        f"values are spread a little.{_selected(search, MOST_LINES)}"
    )
    alt = f"Parallel coordinates of {counted(len(search.scored), 'trial')}. The numbers are in the table of trials."
    return Drawing(partial(plots.parallel_coordinates, search), _name(search, "parallel"), caption, alt)


def _pareto(search: Searched) -> Drawing:
    wanted = [f"{one.label} {'high' if one.is_larger_better else 'low'}" for one in search.objectives]
    caption = (
        f"Wanted: {listed(wanted)}. Diamonds are the Pareto set: whatever is better than one of them in one objective "
        "is worse in another. Scores are of single trials, with the uncertainty the table of trials gives; only trials "
        f"trained to the end.{_selected(search)}"
    )
    names = capitalised(listed([one.label for one in search.objectives]))
    alt = f"{names} against each other; {counted(len(search.front), 'trial')} on the Pareto front."
    return Drawing(partial(plots.pareto_front, search), _name(search, "pareto"), caption, alt)


def _rungs(search: Searched) -> Drawing:
    caption = (
        "Left: trials that trained up to each epoch at which some were stopped. Right: validation accuracy by epoch, "
        "of an even selection where trials are many."
    )
    if search.stopped:
        caption += (
            " Scores after different numbers of epochs are not comparable: the best is chosen among trials trained to "
            "the end" + ("." if search.scored else ", of which there are none here.")
        )
    alt = "; ".join(f"epoch {s.name}: {s.reached} reached, {s.stopped} stopped" for s in search.rungs())
    draw, alt = partial(plots.rungs, search), f"Trials at each rung: {alt}."
    return Drawing(draw, _name(search, "rungs"), caption, alt, partial(draw, narrow=True))


def _budgets(search: Searched) -> Drawing:
    caption = "Left: how many trials trained for how long. Right: how many epochs went into them altogether."
    alt = f"Trials by the number of epochs trained, {counted(len(search.attempts), 'trial')} in all."
    draw = partial(plots.trials_by_budget, search)
    return Drawing(draw, _name(search, "budgets"), caption, alt, partial(draw, narrow=True))


def _front(search: Searched) -> Table:
    """Table of the Pareto set, sorted by the first objective; of many trials, an even selection with both ends."""
    axes = [axis.name for axis in search.axes]
    columns = [Column("trial", True), *(Column(one.label, True) for one in search.objectives)]
    columns += [Column(words(name).short, numeric=search.axis(name).is_ordered) for name in axes]
    front = search.front
    if len(front) > _MOST_ON_FRONT:
        step = (len(front) - 1) / (_MOST_ON_FRONT - 1)
        front = [front[round(i * step)] for i in range(_MOST_ON_FRONT)]
    rows = []
    for one in front:
        cells = [Cell(f"{one.number}", float(one.number))]
        cells += [Cell(o.text(one.scores[o.column]), one.scores[o.column]) for o in search.objectives]
        cells += [Cell(format_value(one.values[name]) if name in one.values else "–") for name in axes]
        rows.append(Row(tuple(cells)))
    return Table(tuple(columns), tuple(rows))
