"""The claims about what each axis, each later stage and training time do to accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from cnnsearch.evidence.axes import main_stage
from cnnsearch.evidence.comparisons import Comparison
from cnnsearch.evidence.configurations import Configuration, best_of, distinct, matched, mean_validation, preferred
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.evidence.families import change, control_of, families
from cnnsearch.evidence.verdicts import CANNOT_TELL, CLEAR, SUGGESTIVE, Verdict, is_told_apart, together
from cnnsearch.report.claims import Claim, Finding, plain
from cnnsearch.report.words import points, trained_layers
from cnnsearch.spec.axis_words import Value, describe, format_value, words
from cnnsearch.words import capitalised, counted, duration, listed

_MOST_LISTED = 4
_MOST_TURNED = 0.8
"""Share of trials from which on "overfitting starts" is clear."""


def of_model(evidence: Evidence) -> list[Claim]:
    """The best setting of each other model against that of the best model, in the main stage."""
    stage = main_stage(evidence) or ""
    configurations = evidence.stage(stage)
    champions = [best_of(s for s in configurations if s.model == model) for model in evidence.models]
    ranked = sorted((c for c in champions if c is not None), key=lambda s: (-s.val_accuracy, s.order))
    if len(ranked) < 2:
        return []
    pairs = [(other, evidence.compare([(ranked[0], other)])) for other in ranked[1:]]
    known = [(other, comparison) for other, comparison in pairs if comparison is not None]
    if not known:
        return []
    if len(ranked) == 2:
        return [_two_models(evidence, ranked[0], *known[0])]

    def tell(verdicts: Sequence[Verdict]) -> Finding:
        score = evidence.score(ranked[0])
        parts = [_against(s.model, c, v) for (s, c), v in zip(known, verdicts, strict=True)]
        gets = f" with {score.text} on the test images" if score else ""
        sentence = f"Of {len(ranked)} models, {ranked[0].model} is best by validation{gets}: {'; '.join(parts)}."
        return Finding(sentence, together(verdicts), "all-settings")

    return [Claim(tuple(comparison for _, comparison in known), tell)]


def _two_models(evidence: Evidence, first: Configuration, second: Configuration, comparison: Comparison) -> Claim:
    sign = 1 if comparison.difference.value >= 0 else -1
    ahead, behind = (first, second) if sign == 1 else (second, first)

    def tell(verdicts: Sequence[Verdict]) -> Finding:
        high, low = evidence.score(ahead), evidence.score(behind)
        assert high is not None  # both were compared
        assert low is not None
        by = points(comparison.difference, sign)
        if verdicts[0] == CANNOT_TELL:
            sentence = (
                f"The best {ahead.model} and the best {behind.model} network cannot be told apart: "
                f"{high.text} against {low.text} on the test images, a difference of {by}."
            )
        else:
            lead = {"residual": "Residual blocks help: the", "plain": "Residual blocks hurt: the"}
            start = lead[ahead.model] if {ahead.model, behind.model} == set(lead) else "The"
            sentence = (
                f"{start} best {ahead.model} network gets {high.text} of the test images right, the best "
                f"{behind.model} one {low.text}, a difference of {by}{_everywhere(evidence, ahead, behind)}."
            )
        return Finding(sentence, verdicts[0], "all-settings")

    return Claim((comparison,), tell)


def _everywhere(evidence: Evidence, ahead: Configuration, behind: Configuration) -> str:
    """Of the settings that both models were trained with, at how many the better model is ahead."""
    pairs = matched(evidence.stage(ahead.stage), "model", ahead.model, behind.model)
    if len(pairs) < 2:
        return ""
    wins = sum(a.scores.get("test_accuracy", 0) > b.scores.get("test_accuracy", 0) for a, b in pairs)
    which = f"all {len(pairs)}" if wins == len(pairs) else f"{wins} of {len(pairs)}"
    return f"; {ahead.model} is ahead at {which} settings they share"


def of_axes(evidence: Evidence) -> list[Claim]:
    """Every axis but the model of every stage that starts from scratch."""
    claims = []
    searched = {search.stage for search in evidence.searches if search.is_search}
    for stage in evidence.stages:
        # Suggested settings hardly ever differ in one axis alone; `search_findings` covers them.
        if not evidence.continues(stage) and stage not in searched:
            for axis in evidence.axes(stage):
                if axis != "model":
                    claims += _of_axis(evidence, stage, axis)
    return claims


def _of_axis(evidence: Evidence, stage: str, axis: str) -> list[Claim]:
    configurations = evidence.stage(stage)
    values = distinct(configurations, axis)
    lead = preferred(configurations, axis)
    others = sorted(
        (value for value in values if value != lead), key=lambda value: -mean_validation(configurations, axis, value)
    )
    known = []
    for other in others:
        pairs = matched(configurations, axis, lead, other)
        comparison = evidence.compare(pairs)
        if comparison is not None:
            known.append((other, comparison))
    if not known:
        return []
    if len(known) == 1:
        other, comparison = known[0]
        opposed = _opposed(evidence, configurations, axis, lead, other)
        return [opposed or _two_values(axis, lead, other, comparison, matched(configurations, axis, lead, other))]
    return [_many_values(axis, lead, known)]


def _two_values(
    axis: str, lead: Value, other: Value, comparison: Comparison, pairs: Sequence[tuple[Configuration, Configuration]]
) -> Claim:
    sign = 1 if comparison.difference.value >= 0 else -1
    ahead, behind = (lead, other) if sign == 1 else (other, lead)

    def tell(verdicts: Sequence[Verdict]) -> Finding:
        by, name = points(comparison.difference, sign), words(axis)
        over = f", averaged over {comparison.pairs} matched settings" if comparison.pairs > 1 else ""
        if verdicts[0] != CANNOT_TELL and not comparison.is_consistent:
            wins = comparison.ahead if sign == 1 else comparison.networks - comparison.ahead
            over += f", but ahead in only {wins} of {comparison.networks}"
        a, b = format_value(ahead), format_value(behind)
        if axis == "fine_tune":
            costs = _costs([pair[::sign] for pair in pairs])
            sentence = _fine_tuned(ahead, behind, f"{by}{over}", verdicts[0]) + costs
        elif verdicts[0] == CANNOT_TELL:
            sentence = f"{capitalised(name.plural)} {a} and {b} cannot be told apart: {a} is ahead by {by}{over}."
        else:
            sentence = f"{capitalised(name.full)} {a} is better than {b} by {by}{over}."
        return Finding(sentence, verdicts[0], "heatmaps")

    return Claim((comparison,), tell)


def _fine_tuned(ahead: Value, behind: Value, by: str, verdict: Verdict) -> str:
    a, b = trained_layers(ahead), trained_layers(behind)
    if verdict == CANNOT_TELL:
        return f"Training {a} cannot be told apart from training {b}: it is ahead by {by}."
    return f"Training {a} is better than {'' if behind == 'head' else 'training '}{b} by {by}."


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


def _opposed(
    evidence: Evidence, configurations: Sequence[Configuration], axis: str, lead: Value, other: Value
) -> Claim | None:
    """The claim that two models prefer opposite values, where each preference is significant; else None."""
    found = []
    for model in evidence.models:
        pairs = matched([s for s in configurations if s.model == model], axis, lead, other)
        comparison = evidence.compare(pairs)
        if comparison is not None and is_told_apart(comparison):
            found.append((model, comparison))
    if len({comparison.difference.value > 0 for _, comparison in found}) < 2:
        return None

    def tell(verdicts: Sequence[Verdict]) -> Finding:
        parts = []
        for model, comparison in found:
            sign = 1 if comparison.difference.value > 0 else -1
            a, b = (lead, other) if sign == 1 else (other, lead)
            parts.append(f"{model} does better with {format_value(a)} than with {format_value(b)}, "
                         f"by {points(comparison.difference, sign)}")  # fmt: skip
        sentence = f"The better {words(axis).full} depends on the model: {'; '.join(parts)}."
        return Finding(sentence, CLEAR if set(verdicts) == {CLEAR} else SUGGESTIVE, "heatmaps")

    return Claim(tuple(comparison for _, comparison in found), tell)


def _many_values(axis: str, lead: Value, known: Sequence[tuple[Value, Comparison]]) -> Claim:
    def tell(verdicts: Sequence[Verdict]) -> Finding:
        judged = [(value, c, v) for (value, c), v in zip(known, verdicts, strict=True)]
        if len(judged) <= _MOST_LISTED:
            text = "; ".join(_against(format_value(value), c, v) for value, c, v in judged)
        else:
            ahead = [c for _, c, v in judged if v != CANNOT_TELL and c.difference.value > 0]
            runner_up, comparison, verdict = judged[0]
            text = f"it is ahead of {len(ahead)} of {len(judged)} other values; the runner-up by validation: "
            text += _against(format_value(runner_up), comparison, verdict)
        pairs = max(comparison.pairs for _, comparison in known)
        over = f", averaged over {pairs} matched settings" if pairs > 1 else ""
        sentence = (
            f"Of {len(known) + 1} {words(axis).plural}, {format_value(lead)} is best by validation{over}: {text}."
        )
        return Finding(sentence, together(verdicts), "heatmaps")

    return Claim(tuple(comparison for _, comparison in known), tell)


def _against(name: str, comparison: Comparison, verdict: Verdict) -> str:
    """How the leader compares with one other on the test images."""
    value = comparison.difference.value
    by = points(comparison.difference, 1 if value >= 0 else -1)
    side = "ahead of" if value >= 0 else "behind"
    if verdict == CANNOT_TELL:
        return f"not told apart from {name}, {side.removesuffix(' of')} by {by}"
    return f"{side} {name} by {by}"


def of_going_on(evidence: Evidence) -> list[Claim]:
    """For each setting that a later stage continues: its best child before and after, and against its siblings."""
    claims = []
    for stage in evidence.stages:
        if evidence.continues(stage):
            claims += [_of_family(evidence, stage, group) for group in families(evidence, stage)]
    return [claim for claim in claims if claim is not None]


def _of_family(evidence: Evidence, stage: str, group: Sequence[Configuration]) -> Claim | None:
    best = best_of(group)
    after_before = change(evidence, best) if best else None
    if best is None or after_before is None:
        return None
    control = control_of(evidence, stage, group)
    rivals = [s for s in group if s.key != best.key]
    compared = [(s, c) for s in rivals if (c := evidence.compare([(best, s)])) is not None]
    axes = evidence.axes(stage)

    def tell(verdicts: Sequence[Verdict]) -> Finding:
        judged = [(s, c, v) for (s, c), v in zip(compared, verdicts[1:], strict=True)]
        sentence = _went_on(evidence, best, axes, after_before, verdicts[0])
        sentence += _siblings(axes, best, judged) + "."
        verdict = verdicts[0]
        of_control = [(c, v) for s, c, v in judged if control is not None and s.key == control.key]
        if of_control:
            comparison, verdict = of_control[0]
            sentence += f" Against going on unchanged the difference is {points(comparison.difference)}."
        elif control is None and verdict != CANNOT_TELL and len(axes) == 1:
            sentence += (
                f" No arm goes on {_unchanged(axes[0], _parent_value(evidence, best, axes[0]))}, so the extra epochs "
                "alone may explain it."
            )
        return Finding(sentence, verdict, f"continued-{stage}")

    return Claim((after_before, *(comparison for _, comparison in compared)), tell)


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
    more = f" for {counted(epochs, 'more epoch')}" if isinstance(epochs, int) else ""
    start = f"Going on from the best {best.model} network with {what}{more}"
    if verdict == CANNOT_TELL:
        return (
            f"{start} makes no difference that {after.n:,} test images can show: {before.text} before, "
            f"{after.text} after, a change of {points(comparison.difference)}"
        )
    sign = 1 if comparison.difference.value >= 0 else -1
    verb = "raises" if sign == 1 else "lowers"
    by = points(comparison.difference, sign)
    return f"{start} {verb} test accuracy from {before.text} to {after.text}, by {by}"


def _siblings(
    axes: Sequence[str], best: Configuration, judged: Sequence[tuple[Configuration, Comparison, Verdict]]
) -> str:
    """Which of the other values cannot be told from the best one."""
    if not judged:
        return ""
    near = [configuration for configuration, _, verdict in judged if verdict == CANNOT_TELL]
    better = [
        configuration for configuration, c, verdict in judged if verdict != CANNOT_TELL and c.difference.value < 0
    ]
    name = words(axes[0]).full if len(axes) == 1 else "values"

    def short(configurations: Sequence[Configuration]) -> str:
        if len(configurations) > _MOST_LISTED:
            return f"{len(configurations)} of {len(judged)} other values"
        if len(axes) == 1:
            return f"{name} {listed([format_value(c.values[axes[0]]) for c in configurations])}"
        return listed([", ".join(describe(axis, s.values[axis]) for axis in axes) for s in configurations])

    parts = []
    if near:
        parts.append(f"{short(near)} cannot be told apart from it")
    if better:
        parts.append(f"{short(better)} did better on the test images, though not in validation")
    if not near and not better:
        count = len(judged)
        parts.append(f"the other {count} values are worse" if count > 1 else "the other value is worse")
    return "; " + "; ".join(parts)


def of_overfitting(evidence: Evidence) -> list[Claim]:
    """Where validation loss turned in the main stage."""
    stage = main_stage(evidence) or ""
    models = {trial: s.model for s in evidence.stage(stage) for trial in s.trial_ids}
    models = {trial: model for trial, model in models.items() if len(evidence.curve(trial, "val_loss")[0])}
    if not models:
        return []
    turns = evidence.turns(list(models))
    last = max(int(evidence.curve(trial, "val_loss")[0][-1]) for trial in models)
    unit = "setting" if all(len(s.trial_ids) == 1 for s in evidence.stage(stage)) else "trial"
    total = counted(len(models), unit)
    if not turns:
        which = "" if len(models) == 1 else f" in {'either' if len(models) == 2 else 'any'} of {total}"
        sentence = f"No overfitting is seen: validation loss does not clearly turn within {last} epochs{which}."
        return [plain(sentence, CANNOT_TELL, "curves")]
    if len(models) == 1:
        where = ""
    elif len(turns) < len(models):
        where = f" in {len(turns)} of {total}"
    else:
        where = f" in both {unit}s" if len(turns) == 2 else f" in all {total}"
    verdict = CLEAR if len(turns) >= _MOST_TURNED * len(models) else SUGGESTIVE
    return [plain(_turning_sentence(evidence, turns, models, where, last, verdict), verdict, "curves")]


def _turning_sentence(
    evidence: Evidence, turns: Mapping[str, int], models: Mapping[str, str], where: str, last: int, verdict: Verdict
) -> str:
    turned = list(dict.fromkeys(models[trial] for trial in turns))
    low, high = min(turns.values()), max(turns.values())
    by_model = [f"{model} {_span([turn for t, turn in turns.items() if models[t] == model])}" for model in turned]
    detail = f" ({', '.join(by_model)})" if len(turned) > 1 and low < high else ""
    when = f"at epoch {low}" if low == high else f"between epochs {low} and {high}"
    starts = "starts" if verdict == CLEAR else "may start"
    sentence = f"Overfitting {starts} {when} of {last}: there validation loss turns{where}{detail}"
    growth = []
    falls = True
    for trial, turn in turns.items():
        epoch, loss = evidence.curve(trial, "val_loss")
        at_turn = float(loss[epoch == turn][0])
        if at_turn > 0:
            growth.append(float(loss[-1]) / at_turn)
        train_epoch, train = evidence.curve(trial, "train_loss")
        falls = falls and len(train) > 0 and float(train[-1]) < float(train[train_epoch <= turn][-1])
    if falls:
        sentence += " while training loss goes on falling"
    if growth:
        typical = "" if len(growth) == 1 else " (median)"
        sentence += f"; at the end it is {median(growth):.1f} times what it was there{typical}"
    return sentence + "."


def _span(epochs: Sequence[int]) -> str:
    low, high = min(epochs), max(epochs)
    return f"{low}" if low == high else f"{low} to {high}"
