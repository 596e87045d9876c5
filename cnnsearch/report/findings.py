"""What the tables show, in sentences, each with a verdict on how sure one can be."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from cnnsearch.evidence.comparisons import LEAST_SEEDS, Score
from cnnsearch.evidence.configurations import Configuration, best_of, is_missing
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.evidence.families import families
from cnnsearch.evidence.mistakes import recalls
from cnnsearch.evidence.statements import of_change
from cnnsearch.evidence.verdicts import CANNOT_TELL, CLEAR, SUGGESTIVE, Verdict
from cnnsearch.report import effects, search_findings
from cnnsearch.report.claims import Answer, Finding, Kind
from cnnsearch.report.overfitting import of_overfitting
from cnnsearch.report.uneven import of_uneven_classes, recall_text
from cnnsearch.report.words import chance_text, in_words, points, reaches
from cnnsearch.spec.axis_words import describe
from cnnsearch.spec.metric import DEFAULT
from cnnsearch.words import counted, listed, share

MOST = 7


def findings(evidence: Evidence) -> list[Finding]:
    """At most `MOST` findings, on models, axes by size of their effect, later stages, overfitting and trouble."""
    searched = _about("search", search_findings.of_searches(evidence))
    if not evidence.configurations:
        return searched
    before = [*_about("model", effects.of_model(evidence)), *searched]
    axes = sorted(_about("axis", effects.of_axes(evidence)), key=lambda finding: -finding.size)
    after = _about("trouble", _of_trouble(evidence)) + _about("stage", effects.of_going_on(evidence))
    after += _about("overfitting", of_overfitting(evidence)) + _about("chance", _of_chance(evidence))
    after += _about("divergence", _of_divergence(evidence)) + _about("comparison", _of_nothing_to_compare(evidence))
    room = max(1, MOST - len(before) - len(after))
    return [*before, *axes[:room], *after][:MOST]


def _about(kind: Kind, found: Iterable[Finding]) -> list[Finding]:
    return [replace(finding, kind=kind) for finding in found]


def answer(evidence: Evidence) -> Answer:
    """The best setting with its test accuracy, and which others may be the best as well."""
    best = evidence.best
    if best is None:
        return Answer(f"No answer: {_why_none(evidence)}.", CANNOT_TELL)
    score, name = evidence.score(best), in_words(evidence, best)
    if score is None:
        lacks = "was not measured" if evidence.accuracy(best) is None else "cannot be told from what is recorded"
        return Answer(f"Best by validation is {name}; its {evidence.judged_by} {lacks}.", CANNOT_TELL)
    if not evidence.beats_chance(best):
        return Answer(_no_better(evidence, best, name), CANNOT_TELL)
    gets = reaches(evidence, score)
    if score.seeds > 1:
        gets += f", the mean of {score.seeds} {score.unit}s"
    if len(evidence.contenders) == 1:
        which = "confirmed" if evidence.is_confirmed else "that finished"
        return Answer(f"The one setting {which}, {name}, {gets}.", CANNOT_TELL)
    name += _level(evidence, best)
    start = f"Best by validation is {name}: it {gets}"
    if evidence.tables.is_sealed:
        start = f"The test set is sealed. {start}"
    if not evidence.tells_settings_apart:
        trained = "once" if score.seeds == 1 else f"with {score.seeds} {score.unit}s"
        return Answer(
            f"{start}. Each setting was trained {trained}, which is too little to say whether another of the "
            f"{len(evidence.contenders)} is better.",
            CANNOT_TELL,
        )
    if evidence.is_confirmed:
        start += f". It was chosen among {len(evidence.contenders)} contenders that were trained again on fresh seeds"
    return Answer(f"{start}{_rivals(evidence, best)}.", sureness(evidence))


def _level(evidence: Evidence, best: Configuration) -> str:
    """That other settings have the very same score on validation, so that only their order made this one the best."""
    count = sum(c.worth == best.worth and len(c.trial_ids) == len(best.trial_ids) for c in evidence.contenders)
    return f", the first of {count} with the same {evidence.chosen_by}" if count > 1 else ""


def _no_better(evidence: Evidence, best: Configuration, name: str) -> str:
    """The answer where the best by validation is not better than chance, by its accuracy or its mean recall."""
    balanced, score = evidence.balanced(best), evidence.accuracy(best)
    if balanced is not None or score is None:
        assert balanced is not None  # where nothing was measured, nothing is said to be no better
        gets = f"has a mean recall over classes of {recall_text(balanced[0])}, "
        gets += f"and guessing has {share(evidence.chance_score)}"
    else:
        score = (evidence.score(best) if evidence.metric.name == DEFAULT else None) or score
        gets = f"gets {score.text} of {score.n:,} {evidence.judged} images right, "
        gets += f"and always naming the largest class gets {share(evidence.chance)}"
    if not evidence.any_beats_chance:
        return f"No setting can be said to work: the best by validation, {name}, {gets}."
    working = sum(evidence.beats_chance(c) for c in evidence.configurations)
    do = "setting is" if working == 1 else "settings are"
    return (
        f"The best by validation cannot be said to work: {name} {gets}; {working} other {do} better than chance on the "
        f"{evidence.judged} images."
    )


def _why_none(evidence: Evidence) -> str:
    """Why there is no best setting, as the end of a sentence."""
    statuses = [str(status) for status in evidence.tables.trials["status"]]
    if not statuses:
        return "no trial has ended yet"
    kinds = [status for status in ("failed", "diverged", "pruned") if status in statuses]
    if "pruned" in kinds:
        return f"no trial was trained to its end: {_lost(statuses, kinds)}{_highest_stopped(evidence)}"
    if len(kinds) > 1:
        parts = listed([f"{statuses.count(kind)} {kind}" for kind in kinds])
        return f"none of {len(statuses)} trials finished: {parts}"
    ran = " that ran" if len(statuses) < evidence.tables.planned else ""
    which = f"the one trial{ran}" if len(statuses) == 1 else f"all {len(statuses)} trials{ran}"
    meaning = ": the loss was no longer a number" if kinds == ["diverged"] else ""
    return f"{which} {kinds[0]}{meaning}"


def _lost(statuses: Sequence[str], kinds: Sequence[str]) -> str:
    names = {"pruned": "stopped early"}
    return f"of {len(statuses)} trials " + listed([f"{statuses.count(kind)} {names.get(kind, kind)}" for kind in kinds])


def _highest_stopped(evidence: Evidence) -> str:
    """Name the stopped trial that stood highest. It is no winner: others might have passed it."""
    metric = evidence.metric
    known = [
        (score, one)
        for search in evidence.searches
        for one in search.stopped
        if (score := one.scores.get(metric.measure)) is not None
    ]
    if not known:
        return ""
    score, one = max(known, key=lambda item: (metric.sign * item[0], -item[1].number))
    of = f" of {one.planned}" if one.planned else ""
    images = evidence.size("val")
    had = metric.text(score)
    if metric.name == DEFAULT:
        had = Score.of(score, images).text if images else share(score)
    end = "highest" if metric.is_larger_better else "lowest"
    what = ", ".join(describe(axis, value) for axis, value in one.values.items())
    return f"; the {end} validation {metric.words} at a lower budget is {had}, after {one.epochs}{of} epochs ({what})"


def summary(evidence: Evidence) -> list[tuple[str, str]]:
    """The answer as labelled lines: the best setting, its scores, and what cannot be told apart from it."""
    best = evidence.best
    if best is None:
        return [("no answer", _why_none(evidence))]
    sealed = [("test set", f"sealed, until cnnsearch unseal {evidence.tables.folder}")] * evidence.tables.is_sealed
    by = "" if evidence.metric.name == DEFAULT else f"{evidence.metric.words} "
    scores = [
        f"{name} {by}{score.text}"
        for split, name in evidence.measured.items()
        if (score := evidence.score(best, split)) is not None
    ]
    lines = [("best", evidence.label(best)), ("scores", ", ".join(scores) or "not measured"), *sealed]
    if not evidence.beats_chance(best):
        lines.append(("warning", f"no better than chance ({chance_text(evidence)}) on the {evidence.judged} images"))
    level = _level(evidence, best).removeprefix(", the ")
    if level:
        lines.append(("tie", f"the {level}; the others are as good a choice"))
    near, others = evidence.near_best, len(evidence.contenders) - 1
    if not evidence.tells_settings_apart and others:
        lines.append(
            ("not compared", f"{counted(others, 'other setting')}: that takes {LEAST_SEEDS} {evidence.unit}s of each")
        )
    elif near:
        names = _alternatives(evidence, best, near, limit=4)
        some = f"the same with {names}" if names else f"{len(near)} of {counted(others, 'other setting')}"
        lines.append(("may be as good", some))
    if others:
        lines.append(
            (
                "verdict",
                f"{sureness(evidence)}{': it is better than all others' if sureness(evidence) == CLEAR else ''}",
            )
        )
    for better in evidence.better_than_best:
        lines.append((f"better on {evidence.judged}", evidence.label(better)))
    return lines


def sureness(evidence: Evidence) -> Verdict:
    """How sure it is that the best setting by validation is the best: clear if all others are told apart from it."""
    if evidence.better_than_best or not evidence.told_apart:
        return CANNOT_TELL
    return SUGGESTIVE if evidence.near_best else CLEAR


def _rivals(evidence: Evidence, best: Configuration) -> str:
    """Which other settings may be the best, and which do better on the test images."""
    near, better = evidence.near_best, evidence.better_than_best
    others = len(evidence.contenders) - 1
    parts = []
    if not near and not better:
        parts.append("the other setting is worse" if others == 1 else f"{_all(others)} other settings are worse")
    if near:
        alternatives = _alternatives(evidence, best, near)
        alike = shared(evidence, [best, *near])
        each = "" if not alike else f", {'also' if len(near) == 1 else 'all'} {alike},"
        if len(near) == others:
            parts.append("the other setting may be as good" if others == 1 else _none_worse(others))
        elif alternatives:
            parts.append(f"the same with {alternatives} may be as good")
        else:
            parts.append(f"{len(near)} of {others} other settings{each} may be as good")
        ahead = [c for c in near if _judged(evidence, c) > _judged(evidence, best)]
        if ahead:
            leader = max(ahead, key=functools.partial(_judged, evidence))
            score = evidence.score(leader)
            reached = f", with {score.text}" if score else ""
            parts[-1] += f"; {in_words(evidence, leader)} looks better on the {evidence.judged} images{reached}"
    if better:
        leader = max(better, key=functools.partial(_judged, evidence))
        score = evidence.score(leader)
        reached = f" with {score.text}" if score else ""
        parts.append(f"{in_words(evidence, leader)}, which validation ranked lower, does better on them{reached}")
    return (", but " if near or better else ", and ") + ", and ".join(parts)


def _none_worse(others: int) -> str:
    return f"{'neither' if others == 2 else 'none'} of the {others} others is clearly worse"


def _all(count: int) -> str:
    return "both" if count == 2 else f"all {count}"


def _alternatives(evidence: Evidence, best: Configuration, near: Sequence[Configuration], *, limit: int = 3) -> str:
    """Name rivals by what they change in the best, to follow "the same with".

    Empty where they are many, or change more than two axes.
    """
    changed = [[axis for axis in evidence.varying if s.values[axis] != best.values[axis]] for s in near]
    if len(near) > limit or any(not 1 <= len(axes) <= 2 for axes in changed):
        return ""
    texts = [
        " and ".join(describe(axis, configuration.values[axis]) for axis in axes)
        for configuration, axes in zip(near, changed, strict=True)
    ]
    repeated = "with " if any(len(axes) > 1 for axes in changed) else ""  # else it is not clear what belongs together
    return listed([texts[0], *(f"{repeated}{text}" for text in texts[1:])], "or")


def _judged(evidence: Evidence, configuration: Configuration) -> float:
    return evidence.metric.sign * score.value if (score := evidence.score(configuration)) else -math.inf


def shared(evidence: Evidence, configurations: Sequence[Configuration]) -> str:
    """What these settings share, but not all, so that the sweep does settle it: "residual with lr 0.001"."""
    common = [
        axis
        for axis in evidence.varying
        if len({s.values[axis] for s in configurations}) == 1
        and len({s.values[axis] for s in evidence.contenders}) > 1
        and not any(axis in evidence.without_part.get(s.key, ()) for s in configurations)
    ]
    kinds = [describe(axis, configurations[0].values[axis]) for axis in common if axis == "model"]
    values = [describe(axis, configurations[0].values[axis]) for axis in common if axis != "model"]
    return " ".join([*kinds, f"with {listed(values)}"] if values else kinds)


def _of_trouble(evidence: Evidence) -> list[Finding]:
    """What a reader would see first: classes that are never found, settings that collapse, seeds that are missing."""
    return [*_of_lost_classes(evidence), *_of_collapse(evidence), *_of_incomplete(evidence)]


_ENOUGH_IMAGES = 5
"""Test images of a class from which on it is said that none of them was found."""


def _of_lost_classes(evidence: Evidence) -> list[Finding]:
    best = evidence.best
    found = recalls(evidence, best) if best is not None and evidence.beats_chance(best) else []
    lost = [(name, score.n) for name, score in found if score.value == 0 and score.n >= _ENOUGH_IMAGES]
    if not lost:
        return []
    named = listed([f"{name} ({count:,} {evidence.judged} images)" for name, count in lost[:_MOST_NAMED]])
    rest = f" and {len(lost) - _MOST_NAMED} more classes" if len(lost) > _MOST_NAMED else ""
    return [Finding(f"The best setting never finds {named}{rest}.", CLEAR, "errors")]


_MOST_NAMED = 3
_COLLAPSE = 0.1
"""Accuracy that a setting loses by going on, from which on it is said to collapse."""


def _of_collapse(evidence: Evidence) -> list[Finding]:
    """Settings of later stages that lost much of what they started with, unless a finding on their family tells it."""
    if not evidence.metric.is_share:
        return []
    fallen = []
    for stage in evidence.stages:
        for group in families(evidence, stage) if evidence.continues(stage) else ():
            best = best_of(group)
            for c in group:
                change = evidence.statements.get(of_change(c))
                if change is None or c is best or evidence.verdict(of_change(c)) != CLEAR:
                    continue
                if change.difference.value <= -_COLLAPSE:
                    fallen.append((change.difference, c))
    if not fallen:
        return []
    worst, c = min(fallen, key=lambda item: item[0].value)
    more = f"; {len(fallen) - 1} other settings lost more than 10 points, too" if len(fallen) > 2 else ""
    more = "; one other setting lost more than 10 points, too" if len(fallen) == 2 else more
    sentence = f"Continuing with {evidence.label(c)} lost {points(worst, -1)} of {evidence.judged_by}{more}."
    return [Finding(sentence, CLEAR, f"continued-{c.stage}")]


def _of_incomplete(evidence: Evidence) -> list[Finding]:
    lacking = evidence.incomplete
    if not lacking:
        return []
    named = listed(
        [f"{in_words(evidence, c)} ({counted(len(c.trial_ids), evidence.unit)})" for c in lacking[:_MOST_NAMED]]
    )
    rest = f" and {len(lacking) - _MOST_NAMED} more" if len(lacking) > _MOST_NAMED else ""
    unit = evidence.unit
    sentence = (
        f"{counted(len(lacking), 'setting has', 'settings have')} fewer {unit}s than others, because trials failed, "
        f"diverged, were stopped or did not run: {named}{rest}. They rank behind all settings with every {unit}."
    )
    return [Finding(sentence, CANNOT_TELL, "trials")]


def _of_chance(evidence: Evidence) -> list[Finding]:
    lost = [c for c in evidence.configurations if not evidence.beats_chance(c)]
    total = len(evidence.configurations)
    told = [*of_uneven_classes(evidence)]
    if lost:
        which = "" if len(lost) > 2 else f": {listed([evidence.label(c) for c in lost])}"
        subject = f"None of {total} settings" if len(lost) == total > 1 else f"{len(lost)} of {total} settings"
        verb = "is" if len(lost) == total > 1 else "is not" if len(lost) == 1 else "are not"
        sentence = (
            f"{subject} {verb} clearly better than chance ({chance_text(evidence)}) on the {evidence.judged} "
            f"images{which}."
        )
        told.append(Finding(sentence, CANNOT_TELL, "all-settings"))
    return told


def _of_divergence(evidence: Evidence) -> list[Finding]:
    rows = evidence.rows
    lost = [row for row in rows if row["status"] == "diverged"]
    if not lost:
        return []
    shared = [
        describe(axis, lost[0][axis])
        for axis in evidence.varying
        if not is_missing(lost[0].get(axis)) and len({row[axis] for row in lost}) == 1
    ]
    with_what = f", {'all ' if len(lost) > 1 else ''}with {', '.join(shared)}" if shared else ""
    return [Finding(f"{counted(len(lost), 'trial')} of {len(rows)} diverged{with_what}.", CLEAR, "trials")]


def _of_nothing_to_compare(evidence: Evidence) -> list[Finding]:
    if len(evidence.configurations) == 1:
        return [Finding("Only one setting finished, so there is nothing to compare it with.", CANNOT_TELL, "trials")]
    if all(evidence.correct(c) is None for c in evidence.configurations):
        sentence = (
            f"The trials' answers on the {evidence.judged} images are not recorded, so settings cannot be compared "
            "image by image."
        )
        return [Finding(sentence, CANNOT_TELL, "trials")]
    return []
