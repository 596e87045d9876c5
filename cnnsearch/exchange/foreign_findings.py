"""The sentences of a report on trials of another tool. They rest on seeds alone, and say what cannot be said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cnnsearch.evidence.comparisons import LEAST_PAIRS, LEAST_SEEDS
from cnnsearch.evidence.importance import LEAST_TRIALS
from cnnsearch.evidence.verdicts import CANNOT_TELL, CLEAR, SUGGESTIVE, Verdict
from cnnsearch.exchange.foreign import Foreign, ForeignSetting
from cnnsearch.exchange.judged import MOST_PAIRED, Judged, Statement
from cnnsearch.report.claims import Answer, Finding
from cnnsearch.spec.axis_words import format_value
from cnnsearch.stats import Estimate
from cnnsearch.words import counted, listed, number_word, percent, signed

MOST_OF_AN_AXIS = 3
"""Most sentences about one axis."""


def score_text(foreign: Foreign, value: float, interval: Estimate | None = None) -> str:
    """A score as people read it, with its interval: "78.9 % (76.3–81.3)"."""
    if foreign.is_share:
        low_high = f" ({100 * interval.low:.1f}–{100 * interval.high:.1f})" if interval else ""
        return f"{percent(value)}{low_high}"
    return f"{value:.4g}" + (f" ({interval.low:.4g} to {interval.high:.4g})" if interval else "")


def gain_text(foreign: Foreign, gain: Estimate) -> str:
    """A difference as people read it: "6.6 points (3.2 to 10.0)"."""
    if foreign.is_share:
        return f"{signed(100 * gain.value)} points ({signed(100 * gain.low)} to {signed(100 * gain.high)})"
    return f"{gain.value:.3g} ({gain.low:.3g} to {gain.high:.3g})".replace("-", "−")


def answer(foreign: Foreign, stages: Sequence[Judged]) -> Answer:
    """The best setting, how good it is, and how sure one can be of that."""
    if not stages:
        return Answer("No trial has ended with a score, so nothing can be said.", CANNOT_TELL)
    main = stages[0]
    best, others = main.best, len(main.settings) - 1
    shown = score_text(foreign, best.mean, main.interval(best))
    where = f"In {main.stage}, the" if len(stages) > 1 else "The"
    first = f"{where} best setting by {foreign.roles.score} is {best.label(main.axes)}: {foreign.roles.judged} {shown}"
    if best.seeds > 1:
        first += f", the mean of {best.seeds} seeds"
    if not others:
        return Answer(f"{first}. It is the only setting.", CANNOT_TELL)
    if len(main.settings) > MOST_PAIRED and main.usual_seeds >= LEAST_SEEDS:
        return Answer(f"{first}. More than {MOST_PAIRED:,} settings are not compared two by two.", CANNOT_TELL)
    if not main.tells_settings_apart:
        once = "Each setting was run once" if main.usual_seeds == 1 else f"Settings have {main.usual_seeds} seeds each"
        rest = f"{once}, which is too little to say whether another of the {len(main.settings):,} is better."
        return Answer(f"{first}. {rest}", CANNOT_TELL)
    near = len(main.near_best)
    if main.best.index in main.worse:
        return Answer(f"{first}, but another setting is better by {foreign.roles.judged}.", CANNOT_TELL)
    if near == 0:
        which = "the other setting" if others == 1 else f"all {number_word(others)} other settings"
        return Answer(f"{first}. It is better than {which}.", CLEAR)
    said = f"{near:,} of {others:,} other settings may be as good" if others > 1 else "the other setting may be as good"
    return Answer(f"{first}, but {said}.", CANNOT_TELL if near == others else SUGGESTIVE)


def findings(foreign: Foreign, stages: Sequence[Judged]) -> list[Finding]:
    """What was found, stage by stage, the largest differences first; then what cannot be said, and trouble."""
    found: list[Finding] = []
    for one in stages:
        where = f"In {one.stage}: " if len(stages) > 1 else ""
        said = [*_of_axes(foreign, one), *_of_importance(foreign, one)]
        said.sort(key=lambda finding: (finding.verdict == CANNOT_TELL, -finding.size))
        said += _of_what_cannot_be_said(one)
        found += [Finding(where + item.sentence, item.verdict, item.anchor, item.size) for item in said]
    return found


def _of_axes(foreign: Foreign, one: Judged) -> Iterator[Finding]:
    for axis in one.axes:
        said = sorted((s for s in one.statements if s.axis == axis), key=lambda s: -s.comparison.difference.value)
        for statement in said[:MOST_OF_AN_AXIS]:
            size = statement.comparison.difference.value
            yield Finding(_sentence(foreign, statement), statement.verdict, "axes", size)


def _sentence(foreign: Foreign, said: Statement) -> str:
    names = f"{said.axis} {_named(said.ahead)}", _named(said.behind)
    gain = gain_text(foreign, said.comparison.difference)
    over = f"on average over {said.comparison.pairs:,} matched settings"
    if said.verdict == CLEAR:
        return f"{names[0]} is better than {names[1]}: it is ahead by {gain} {over}."
    if said.verdict == SUGGESTIVE:
        return f"{names[0]} may be better than {names[1]}: it is ahead by {gain} {over}."
    return f"Whether {names[0]} or {names[1]} is better is not clear: the first is ahead by {gain} {over}."


def _named(value: object) -> str:
    return "none" if value is None else format_value(value)  # type: ignore[arg-type]  # a Value


def _of_importance(foreign: Foreign, one: Judged) -> Iterator[Finding]:
    found = one.importances
    if found is None:
        return
    silent = []
    for axis in one.unpaired:
        share = found.shares[axis]
        text = f"{100 * share.value:.0f} % ({100 * share.low:.0f}–{100 * share.high:.0f})"
        verdict: Verdict = CLEAR if found.stands_out(axis) else SUGGESTIVE if found.is_likely(axis) else CANNOT_TELL
        if verdict == CANNOT_TELL:
            silent.append(axis)
            continue
        matters = "matters" if verdict == CLEAR else "may matter"
        alone = f"alone it explains {text} of the variance of {foreign.roles.judged} between settings"
        yield Finding(f"{axis} {matters}: {alone}.", verdict, "importance", share.value)
    if silent:
        names = listed(silent) if len(silent) <= 5 else f"{listed(silent[:5])} and {len(silent) - 5} more"
        matter = "matters" if len(silent) == 1 else "matter"
        yield Finding(f"Whether {names} {matter} is not clear.", CANNOT_TELL, "importance")


def _of_what_cannot_be_said(one: Judged) -> Iterator[Finding]:
    if len(one.settings) > 1 and not one.tells_settings_apart and one.usual_seeds < LEAST_SEEDS:
        many = "one seed" if one.usual_seeds == 1 else f"{number_word(one.usual_seeds)} seeds"
        yield Finding(
            f"With {many} of each setting nothing can be said of single settings: that takes {LEAST_SEEDS} of each.",
            CANNOT_TELL,
            "all-settings",
        )
    if one.unpaired and one.importances is None and len(one.settings) > 1:
        yield Finding(
            f"Of {listed(one.unpaired)} nothing can be said: that takes {LEAST_PAIRS} pairs of settings that differ in "
            f"nothing else, or {LEAST_TRIALS} settings.",
            CANNOT_TELL,
            "axes",
        )
    fewer = [setting for setting in one.settings if setting.seeds < one.usual_seeds]
    if fewer:
        has = "setting has" if len(fewer) == 1 else "settings have"
        yield Finding(
            f"{len(fewer):,} {has} fewer seeds than others, and ranks behind them.", CANNOT_TELL, "all-settings"
        )


def notes(foreign: Foreign, stages: Sequence[Judged]) -> list[tuple[str, str]]:
    """How this was done, under headings."""
    roles, raw = foreign.roles, foreign.raw
    better = "higher" if roles.is_larger_better else "lower"
    split = (
        f"Settings are chosen by {roles.score} and compared by {roles.judged}"
        if roles.judged != roles.score
        else f"Settings are chosen and compared by {roles.score}. What chose the best setting flatters it: its "
        "interval is moved by what that luck with seeds is likely to be worth, its luck with the images is not known"
    )
    rules = [
        ("Source", f"{raw.source}, of {raw.tool}. " + (f"Scores are {raw.measured}." if raw.measured else "")),
        ("Scores", f"{split}; {better} is better."),
        (
            "Seeds alone",
            "There are no predictions of single images here. So intervals cover other seeds, not other images, and it "
            "cannot be said what of a difference the choice of images explains.",
        ),
        (
            "Settings",
            f"Two settings are compared over {LEAST_SEEDS} seeds or more of each: Welch's t-test, where settings vouch "
            "for each other's spread as far as they vary alike, and Holm's correction over all pairs at 2.5 %.",
        ),
        (
            "Axes",
            f"Two values of an axis are compared over {LEAST_PAIRS} or more pairs of settings that differ in nothing "
            "else: Student's t-test over pairs, Holm's correction over all that are compared, at 2.5 %. Without such "
            f"pairs, from {LEAST_TRIALS} settings on, fANOVA says what explains their spread, held against a column of "
            "random numbers and permuted scores.",
        ),
        ("Trials", "Failed, stopped and unfinished trials are counted and not compared."),
    ]
    if roles.left_out:
        shown = listed(list(roles.left_out[:20]))
        more = f" and {len(roles.left_out) - 20} more" if len(roles.left_out) > 20 else ""
        rules.append(("Columns that were not used", f"{shown}{more}. --map axes=... takes them as settings."))
    if roles.fixed:
        fixed = ", ".join(f"{axis} {_named(value)}" for axis, value in list(roles.fixed.items())[:20])
        rules.append(("The same in all trials", fixed))
    if len(stages) > 1:
        sizes = [f"{one.stage} ({counted(len(one.settings), 'setting')})" for one in stages]
        rules.append(("Stages", f"Trials of different stages are never compared: {listed(sizes)}."))
    return rules


def label_of(setting: ForeignSetting, one: Judged) -> str:
    """The name of a setting among those of its stage."""
    return setting.label(one.axes)
