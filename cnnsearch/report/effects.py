"""Findings on what each axis, each later stage and training time do to accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from cnnsearch.evidence.axes import main_stage
from cnnsearch.evidence.comparisons import Comparison
from cnnsearch.evidence.configurations import (
    Configuration,
    best_of,
    distinct,
    matched,
    mean_worths,
    preferred,
)
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.evidence.families import control_of, families
from cnnsearch.evidence.statements import champions, of_change, of_models, of_siblings, of_values
from cnnsearch.evidence.verdicts import CANNOT_TELL, CLEAR, SUGGESTIVE, Verdict, together
from cnnsearch.report.claims import Finding
from cnnsearch.report.words import points, repeated, trained_layers
from cnnsearch.spec.axis_words import Value, describe, format_value, words
from cnnsearch.spec.metric import DEFAULT
from cnnsearch.words import capitalised, counted, duration, listed

_MOST_LISTED = 4


def of_model(evidence: Evidence) -> list[Finding]:
    """The best model by validation against each other one, in the main stage."""
    stage = main_stage(evidence) or ""
    ranked = champions(evidence, evidence.stage(stage))
    known = [
        (other, evidence.statements[key], evidence.verdict(key))
        for other in ranked[1:]
        if (key := of_models(stage, ranked[0].model, other.model)) in evidence.statements
    ]
    if not known:
        return []
    if len(known) == 1 and len(ranked) == 2:
        return [_two_models(evidence, ranked[0], *known[0])]
    score, of_stage = evidence.score(ranked[0]), _of_stage(evidence, ranked)
    gets = f" with {score.text} on the {evidence.judged} images" if score else ""
    if not any(comparison.can_tell for _, comparison, _ in known):
        each = listed([f"{c.model} {text.text}" for c in ranked if (text := evidence.score(c)) is not None])
        start = f"Which of {len(ranked)} models is best is not clear from {_seeds(known[0][1])}"
        return [
            Finding(
                f"{start}: {'right on' if evidence.metric.name == DEFAULT else f'the {evidence.judged_by} on'} the "
                f"{evidence.judged} images {'are' if evidence.metric.name == DEFAULT else 'is'}, at its best "
                f"setting{of_stage}, {each}.",
                CANNOT_TELL,
                "all-settings",
            )
        ]
    told = "; ".join(_against(other.model, comparison, verdict) for other, comparison, verdict in known)
    sentence = f"Of {len(ranked)} models, {ranked[0].model} is best by validation{of_stage}{gets}. It is {told}."
    return [Finding(sentence, together([verdict for *_, verdict in known]), "all-settings")]


def _two_models(
    evidence: Evidence, first: Configuration, second: Configuration, comparison: Comparison, verdict: Verdict
) -> Finding:
    sign = 1 if comparison.difference.value >= 0 else -1
    ahead, behind = (first, second) if sign == 1 else (second, first)
    by = points(comparison.difference, sign)
    size = abs(comparison.difference.value)
    names = f"There is no clear difference between the models {ahead.model} and {behind.model}: "
    better = f"{_blocks(ahead, behind)} {ahead.model} is better than {behind.model}"
    if verdict == SUGGESTIVE:
        better = f"Model {ahead.model} may be better than {behind.model}"
    if comparison.pairs > 1:
        wins = comparison.ahead if sign == 1 else comparison.pairs - comparison.ahead
        at = f"by {by}{repeated(comparison)}, in {'all' if wins == comparison.pairs else wins} of which it is ahead"
        sentence = f"{names}{ahead.model} is ahead {at}." if verdict == CANNOT_TELL else f"{better} {at}."
        return Finding(sentence, verdict, "all-settings", size)
    high, low = evidence.score(ahead), evidence.score(behind)
    assert high is not None  # both were compared
    assert low is not None
    verb = f"gets {high.text} of the {evidence.judged} images right"
    if evidence.metric.name != DEFAULT:
        verb = f"reaches a {evidence.judged_by} of {high.text}"
    gets = (
        f"the best {ahead.model} setting{_of_stage(evidence, [ahead, behind])} {verb}, the best "
        f"{behind.model} one {low.text}, a difference of {by}{repeated(comparison)}."
    )
    if not comparison.can_tell:
        return Finding(
            f"Which model is better is not clear from {_seeds(comparison)}: {gets}", verdict, "all-settings", size
        )
    return Finding(f"{names if verdict == CANNOT_TELL else f'{better}: '}{gets}", verdict, "all-settings", size)


def _of_stage(evidence: Evidence, settings: Sequence[Configuration]) -> str:
    """Name the stage of the best settings where a model has a better one among the contenders of the report."""
    best = {c.key for c in champions(evidence, evidence.contenders)}
    return "" if best >= {c.key for c in settings} else f" of stage {settings[0].stage}"


def _blocks(ahead: Configuration, behind: Configuration) -> str:
    lead = {"residual": "Residual blocks help:", "plain": "Residual blocks hurt:"}
    return lead[ahead.model] if {ahead.model, behind.model} == set(lead) else "Model"


def _seeds(comparison: Comparison) -> str:
    return f"one {comparison.unit}" if comparison.seeds == 1 else f"{comparison.seeds} {comparison.unit}s"


def of_axes(evidence: Evidence) -> list[Finding]:
    """Every axis but the model of every stage that starts from scratch."""
    found = []
    for stage in evidence.fresh_stages:
        for axis in evidence.axes(stage):
            if axis != "model":
                found += _of_axis(evidence, stage, axis)
    return found


def _of_axis(evidence: Evidence, stage: str, axis: str) -> list[Finding]:
    configurations = evidence.stage(stage)
    values = distinct(configurations, axis)
    lead = preferred(configurations, axis)
    worths = mean_worths(configurations, axis)
    known = [
        (value, evidence.statements[key], evidence.verdict(key))
        for value in sorted(values, key=lambda value: -worths[value])
        if value != lead and (key := of_values(stage, axis, lead, value)) in evidence.statements
    ]
    if not known:
        return []
    if len(values) == 2:
        other, comparison, verdict = known[0]
        pairs = matched(configurations, axis, lead, other)
        opposed = _opposed(evidence, stage, axis, lead, other)
        return [opposed or _two_values(axis, lead, other, comparison, verdict, pairs)]
    return [_many_values(axis, lead, known)]


def _two_values(
    axis: str,
    lead: Value,
    other: Value,
    comparison: Comparison,
    verdict: Verdict,
    pairs: Sequence[tuple[Configuration, Configuration]],
) -> Finding:
    sign = 1 if comparison.difference.value >= 0 else -1
    ahead, behind = (lead, other) if sign == 1 else (other, lead)
    a, b = (trained_layers(v) if axis == "fine_tune" else format_value(v) for v in (ahead, behind))
    by = f"by {points(comparison.difference, sign)}{repeated(comparison)}"
    name = "training" if axis == "fine_tune" else words(axis).full
    if not comparison.can_tell:
        sentence = (
            f"Whether {name} {a} or {b} is better is not clear from {_seeds(comparison)}: the networks with {a} are "
            f"ahead {by}."
        )
    elif verdict == CANNOT_TELL:
        plural = "training" if axis == "fine_tune" else words(axis).plural
        sentence = f"There is no clear difference between {plural} {a} and {b}: {a} is ahead {by}."
    else:
        better = "is better than" if verdict == CLEAR else "may be better than"
        sentence = f"{capitalised(name)} {a} {better} {b}: it is ahead {by}."
    if axis == "fine_tune":
        sentence += _costs([pair[::sign] for pair in pairs])
    return Finding(sentence, verdict, "heatmaps", abs(comparison.difference.value))


def _costs(pairs: Sequence[tuple[Configuration, ...]]) -> str:
    """How many parameters the first of each pair trains, and how long, against the second."""
    parts = []
    for column, told in (("parameters", "trains {} parameters instead of {}"), ("seconds", "takes {} instead of {}")):
        known = [(a.scores[column], b.scores[column]) for a, b in pairs if column in a.scores and column in b.scores]
        if known:
            shown = [
                f"{value:,.0f}" if column == "parameters" else duration(value)
                for value in map(median, zip(*known, strict=True))
            ]
            parts += [told.format(*shown)] if shown[0] != shown[1] else []
    return f" It {' and '.join(parts)}{' (medians)' if len(pairs) > 1 else ''}." if parts else ""


def _opposed(evidence: Evidence, stage: str, axis: str, lead: Value, other: Value) -> Finding | None:
    """The finding that models prefer opposite values, where none of their preferences is in doubt; else None."""
    found = [
        (model, evidence.statements[key].difference)
        for model in evidence.models
        if evidence.verdict(key := of_values(stage, axis, lead, other, model)) == CLEAR
    ]
    if len({difference.value > 0 for _, difference in found}) < 2:
        return None
    parts = []
    for model, difference in found:
        sign = 1 if difference.value > 0 else -1
        a, b = (lead, other) if sign == 1 else (other, lead)
        better = f"{format_value(a)} is better than {format_value(b)}"
        parts.append(f"for {model} {better}, by {points(difference, sign)}")
    sentence = f"The better {words(axis).full} depends on the model: {'; '.join(parts)}."
    return Finding(sentence, CLEAR, "heatmaps", max(abs(difference.value) for _, difference in found))


def _many_values(axis: str, lead: Value, known: Sequence[tuple[Value, Comparison, Verdict]]) -> Finding:
    able = [comparison for _, comparison, _ in known if comparison.can_tell]
    size = max(abs(comparison.difference.value) for _, comparison, _ in known)
    start = f"Of {len(known) + 1} {words(axis).plural}, {format_value(lead)} is best by validation"
    if not able:
        sentence = f"{start}. Whether it is better than the others is not clear from {_seeds(known[0][1])}."
        return Finding(sentence, CANNOT_TELL, "heatmaps", size)
    if len(known) <= _MOST_LISTED:
        text = "; ".join(_against(format_value(value), comparison, verdict) for value, comparison, verdict in known)
    else:
        ahead = sum(verdict == CLEAR and comparison.difference.value > 0 for _, comparison, verdict in known)
        runner_up, comparison, verdict = known[0]
        text = f"better than {ahead} of {len(known)} other values; against the runner-up it is "
        text += _against(format_value(runner_up), comparison, verdict)
    pairs = max(comparison.pairs for _, comparison, _ in known)
    over = f", on average over {pairs} matched settings" if pairs > 1 else ""
    sentence = f"{start}{over}. It is {text}."
    return Finding(sentence, together([verdict for *_, verdict in known]), "heatmaps", size)


def _against(name: str, comparison: Comparison, verdict: Verdict) -> str:
    """How the leader compares with one other on the same images, after "It is"."""
    value = comparison.difference.value
    by = points(comparison.difference, 1 if value >= 0 else -1)
    side = "ahead of" if value >= 0 else "behind"
    if verdict == CLEAR:
        return f"{'better' if value >= 0 else 'worse'} than {name} by {by}"
    if verdict == SUGGESTIVE:
        return f"perhaps {'better' if value >= 0 else 'worse'} than {name}, by {by}"
    return f"not clearly different from {name}, {side.removesuffix(' of')} by {by}"


def of_going_on(evidence: Evidence) -> list[Finding]:
    """For each setting that a later stage continues: its best child before and after, and against its siblings."""
    found = []
    for stage in evidence.stages:
        if evidence.continues(stage):
            found += [_of_family(evidence, stage, group) for group in families(evidence, stage)]
    return [finding for finding in found if finding is not None]


def _of_family(evidence: Evidence, stage: str, group: Sequence[Configuration]) -> Finding | None:
    best = best_of(group)
    if best is None or of_change(best) not in evidence.statements:
        return None
    change, verdict = evidence.statements[of_change(best)], evidence.verdict(of_change(best))
    control = control_of(evidence, stage, group)
    judged = [
        (s, evidence.statements[key], evidence.verdict(key))
        for s in group
        if s.key != best.key and (key := of_siblings(best, s)) in evidence.statements
    ]
    axes = evidence.axes(stage)
    sentence = f"{_went_on(evidence, best, axes, change, verdict)}{_siblings(axes, best, judged)}."
    of_control = [(c, v) for s, c, v in judged if control is not None and s.key == control.key]
    what = words(axes[0]).full if len(axes) == 1 else "the new values"
    if of_control:
        comparison, verdict = of_control[0]  # the control is what the effect of the axis is held against
        meaning = {CLEAR: "", SUGGESTIVE: ", which may be luck"}.get(verdict, ", which is not a clear one")
        sentence += f" Compared with continuing unchanged, the difference is {points(comparison.difference)}{meaning}."
    elif control is None and verdict != CANNOT_TELL and len(axes) == 1:
        sentence += (
            f" None was continued {_unchanged(axes[0], _parent_value(evidence, best, axes[0]))}, so the extra epochs "
            f"rather than {what} may explain it."
        )
    return Finding(sentence, verdict, f"continued-{stage}")


def _unchanged(axis: str, value: Value) -> str:
    return f"with {describe(axis, value)}" if value else f"without {words(axis).full}"


def _parent_value(evidence: Evidence, child: Configuration, axis: str) -> Value:
    parent = evidence.by_key.get(child.parent or "")
    return parent.values[axis] if parent is not None else 0.0


def _went_on(
    evidence: Evidence, best: Configuration, axes: Sequence[str], comparison: Comparison, verdict: Verdict
) -> str:
    before, after = evidence.score(best, moment="before"), evidence.score(best)
    assert before is not None  # both were compared
    assert after is not None
    what = ", ".join(describe(axis, best.values[axis]) for axis in axes)
    epochs = best.values["epochs"]
    more = f" for {counted(epochs, 'more epoch')}" if isinstance(epochs, int) else ", starting from its weights,"
    start = f"Training the best {best.model} network with {what}{more}"
    sign, direction = (1 if comparison.difference.value >= 0 else -1), evidence.metric.sign
    numbers = f"{before.text} before, {after.text} after"
    if verdict == CANNOT_TELL:
        return (
            f"{start} makes no difference that {after.n:,} {evidence.judged} images can show: {numbers}, a change of "
            f"{points(comparison.difference)}"
        )
    verb = (
        ("raised" if sign == direction else "lowered")
        if verdict == CLEAR
        else f"may have {'raised' if sign == direction else 'lowered'}"
    )
    return f"{start} {verb} its {evidence.judged_by} by {points(comparison.difference, sign)}: {numbers}"


def _siblings(
    axes: Sequence[str], best: Configuration, judged: Sequence[tuple[Configuration, Comparison, Verdict]]
) -> str:
    """Which of the other values cannot be told from the best one."""
    if not judged:
        return ""
    near = [configuration for configuration, _, verdict in judged if verdict != CLEAR]
    better = [configuration for configuration, c, verdict in judged if verdict == CLEAR and c.difference.value < 0]
    name = words(axes[0]).full if len(axes) == 1 else "values"

    def short(configurations: Sequence[Configuration]) -> str:
        if len(configurations) > _MOST_LISTED:
            return f"{len(configurations)} of {len(judged)} other values"
        if len(axes) == 1:
            return f"{name} {listed([format_value(c.values[axes[0]]) for c in configurations])}"
        return listed([", ".join(describe(axis, s.values[axis]) for axis in axes) for s in configurations])

    parts = []
    if near:
        seeds = min((c.seeds for _, c, _ in judged if not c.can_tell), default=0)
        unit = judged[0][1].unit
        since = "" if not seeds else f" with one {unit}" if seeds == 1 else f" with {seeds} {unit}s"
        parts.append(f"no clear difference from {short(near)}{since}")
    if better:
        parts.append(f"{short(better)} did better on the test images, though not in validation")
    if not near and not better:
        count = len(judged)
        parts.append(f"the other {count} values are worse" if count > 1 else "the other value is worse")
    return "; " + "; ".join(parts)
