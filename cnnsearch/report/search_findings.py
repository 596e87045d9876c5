"""What searches show, in sentences."""

from __future__ import annotations

from dataclasses import replace

from cnnsearch.evidence.comparisons import Score, in_percent
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.evidence.progress import late_gain, late_on_front
from cnnsearch.evidence.regions import region
from cnnsearch.evidence.searches import Attempt, Searched
from cnnsearch.evidence.space import Axis
from cnnsearch.evidence.verdicts import CANNOT_TELL, CLEAR, SUGGESTIVE, Verdict
from cnnsearch.report.claims import Finding
from cnnsearch.spec.axis_words import describe, format_value, rounded, words
from cnnsearch.spec.metric import MEASURES
from cnnsearch.words import capitalised, counted, listed, number_word

ENOUGH = 40
"""Settings from which on importances are called clear."""


def of_searches(evidence: Evidence) -> list[Finding]:
    """For each search: axes that matter, the best regions, progress, early stopping, the Pareto set."""
    found = []
    for search in evidence.searches:
        start = f"In stage {search.stage}: " if len(evidence.searches) > 1 else ""
        told = [*_of_front(search), *_of_stopping(search)]
        if search.is_search:
            told = [*_of_axes(search), *_of_regions(search), *told, *_of_progress(search)]
        found += [replace(one, sentence=f"{start}{one.sentence}") for one in told]
    return found


def anchor(search: Searched) -> str:
    """Id of the search's section."""
    return f"search-{search.stage}"


def _of_axes(search: Searched) -> list[Finding]:
    found = search.importances
    if found is None:
        return []
    clear = [name for name in found.ranked if found.stands_out(name)]
    likely = [name for name in found.ranked if found.is_likely(name) and name not in clear]
    at = f" at epoch {search.common_epoch}" if search.common_epoch else ""
    where = f"of the variance of {search.objective.label}{at} over the space searched"
    source = f"fANOVA, {counted(found.configurations, 'setting')}"
    source += ", the last epoch that all of them reached" if search.common_epoch else ""
    if not clear and not likely:
        sentence = (
            f"Which axes matter is not clear: {search.objective.label}{at} follows none of them more closely than "
            f"it does in random order ({source})."
        )
        return [Finding(sentence, CANNOT_TELL, anchor(search))]

    def share(name: str) -> str:
        return in_percent(*found.shares[name], decimals=0)

    leaders = clear or likely
    verb = "matters" if clear else "may matter"
    sentence = f"{capitalised(words(leaders[0]).full)} {verb} most: alone it explains {share(leaders[0])} {where}"
    rest = [f"{words(name).full} {share(name)}" for name in leaders[1:4]]
    sentence += f", {listed(rest)}" if rest else ""
    if clear and likely:
        sentence += f"; {listed([words(name).full for name in likely[:3]])} may matter as well"
    others = len(found.ranked) - len(clear) - len(likely)
    if others:
        which = "the other axis" if others == 1 else f"the {number_word(others)} other axes"
        sentence += f"; of {which} that is not clear"
    verdict: Verdict = CLEAR if clear and found.configurations >= ENOUGH else SUGGESTIVE
    return [Finding(f"{sentence} ({source}).", verdict, anchor(search))]


def _of_regions(search: Searched) -> list[Finding]:
    top, found = search.top, search.importances
    if len(search.scored) < 2 * len(top) or found is None:
        return []
    axes = [axis for axis in search.by_importance if found.stands_out(axis.name)]
    axes = axes or [axis for axis in search.by_importance if found.is_likely(axis.name)]
    spans = [f"{text}{_searched(search, axis)}" for axis in axes[:3] if (text := region(search, axis))]
    if not spans:
        return []
    sentence = f"The best {len(top)} of {len(search.scored):,} trials by validation: {listed(spans)}."
    # Not clear: the trials were picked for their scores, and a searcher looks most where scores are high.
    return [Finding(sentence, SUGGESTIVE, anchor(search))]


def _searched(search: Searched, axis: Axis) -> str:
    if not axis.is_range:
        return ""
    return f" (searched: {format_value(axis.low)} to {format_value(axis.high)})"


def _of_progress(search: Searched) -> list[Finding]:
    gain, best = late_gain(search), search.best
    if gain is None or best is None:
        return []
    count = len(search.attempts)
    third = f"the last third of the search (trials {count - count // 3 + 1:,} to {count:,})"
    if len(search.objectives) > 1:
        late = late_on_front(search)
        were = "was" if late == 1 else "were"
        sentence = f"Of the {len(search.front)} trials that no other beats, {late or 'none'} {were} found in {third}."
        return [Finding(sentence, SUGGESTIVE if count >= ENOUGH else CANNOT_TELL, anchor(search))]
    if gain == 0:
        sentence = (
            f"The search had stopped improving: its best is trial {best.number:,} of {count:,}, and {third} found "
            "nothing better."
        )
        # Draws that learn nothing from those before them have no trend that could stop.
        learns = search.method not in ("random", "qmc")
        return [Finding(sentence, SUGGESTIVE if learns and count >= ENOUGH else CANNOT_TELL, anchor(search))]
    accuracy = search.objective.column == "val_accuracy"
    known = MEASURES.get(search.objective.column)
    by = f"{100 * gain:.1f} percentage points" if known is not None and known.is_share else f"{gain:.3f}"
    images = search.recorded.size("val")
    grain = 1 / images if images and accuracy else 0.0
    few = f", {counted(round(gain * images), 'validation image')} of {images:,}" if grain else ""
    # Within one standard error of a score, a gain may be a few lucky images.
    value = search.score(best)
    is_noise = bool(grain) and gain <= (value * (1 - value) / images) ** 0.5
    was = "may still have been" if is_noise else "was still"
    sentence = f"The search {was} improving: {third} improved {search.objective.label} by {by}{few}."
    return [Finding(sentence, CANNOT_TELL if is_noise else SUGGESTIVE, anchor(search))]


def _of_stopping(search: Searched) -> list[Finding]:
    stopped, total = len(search.pruned), len(search.attempts)
    if not stopped:
        return []
    spent = sum(one.epochs for one in search.attempts)
    full = sum(one.planned or one.epochs for one in search.attempts)
    saved = f", which left {100 * spent / full:.0f} % of the epochs of training all to the end" if full else ""
    steps = search.rungs()
    where = f"at epoch {steps[0].name}" if len(steps) == 1 else f"between epochs {steps[0].first} and {steps[-1].last}"
    were = "was" if stopped == 1 else "were"
    start = f"{stopped:,} of {counted(total, 'trial')} {were} stopped early, {where}{saved}"
    best = search.best
    if best is None:
        sentence = (
            f"{start}. None was trained to its end: any winner here is one at a lower budget, and scores after "
            "different numbers of epochs are not comparable."
        )
        return [Finding(sentence, CANNOT_TELL, anchor(search))]
    if best.status == "pruned":
        of = f" of {best.planned}" if best.planned else ""
        sentence = (
            f"{start}. The winner is one of them: it was stopped after {best.epochs}{of} epochs, having got no better"
        )
        return [Finding(f"{sentence}.", CLEAR, anchor(search))]
    rest = len(search.scored)
    which = "trained to the end" if rest == search.done else "that trained to the end or got no better"
    sentence = f"{start}. The winner was trained to its end, and chosen among the {rest:,} {which}"
    sentence += _higher_when_stopped(search, best)
    return [Finding(f"{sentence}.", CLEAR, anchor(search))]


def _higher_when_stopped(search: Searched, best: Attempt) -> str:
    column = search.objective.column
    ahead = [
        one
        for one in search.stopped
        if column in one.scores and search.objective.is_better(one.scores[column], search.score(best))
    ]
    if not ahead:
        return ""
    which = counted(len(ahead), "stopped trial")
    return f"; {which} stood higher when stopped, and what more training would have made of them is not known"


def _of_front(search: Searched) -> list[Finding]:
    if len(search.objectives) < 2 or not search.front:
        return []
    front, total = search.front, sum(one.is_comparable for one in search.attempts)
    names = listed([one.label for one in search.objectives])
    if len(front) == 1:
        sentence = f"One of {total:,} trials is best in {names} alike: {_named(search, front[0])}."
        return [Finding(sentence, SUGGESTIVE, anchor(search))]
    ends = [f"for {search.objective.label}, {_told(search, front[0])}"]
    for other in search.objectives[1:]:
        pick = min(front, key=lambda one: (-1 if other.is_larger_better else 1) * one.scores[other.column])
        if pick is not front[0]:
            ends.append(f"for {other.label}, {_told(search, pick)}")
    sentence = f"No one trial is best in {names}: {len(front)} of {total:,} are beaten by no other"
    sentence += f". The best {'; '.join(ends)}."
    # Membership rests on single scores: one lucky trial pushes its neighbours off the front.
    return [Finding(sentence, SUGGESTIVE, anchor(search))]


def _told(search: Searched, one: Attempt) -> str:
    scores = [_score(search, one, index) for index in range(len(search.objectives))]
    return f"trial {one.number:,} ({_named(search, one)}), has {listed(scores)}"


def _score(search: Searched, one: Attempt, index: int) -> str:
    objective = search.objectives[index]
    value = one.scores[objective.column]
    images = search.recorded.size("val")
    if objective.column == "val_accuracy" and images:
        return Score.of(value, images).text
    return objective.text(value)


def _named(search: Searched, one: Attempt) -> str:
    """The values of the three axes that a reader needs first."""
    names = [axis.name for axis in search.telling if axis.name in one.values][:3]
    return ", ".join(describe(name, rounded(one.values[name])) for name in names)
