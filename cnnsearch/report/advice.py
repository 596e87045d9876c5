"""What to try next: past the edge of the grid, more seeds, more test images, longer training."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from cnnsearch import stats
from cnnsearch.evidence.comparisons import LEAST_SEEDS, Comparison, Score
from cnnsearch.evidence.configurations import Configuration, best_of, distinct, preferred
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.evidence.families import control_of, families
from cnnsearch.evidence.progress import is_improving
from cnnsearch.evidence.regions import edges as search_edges
from cnnsearch.evidence.searches import Searched
from cnnsearch.evidence.space import Axis
from cnnsearch.evidence.statements import of_values
from cnnsearch.evidence.verdicts import CANNOT_TELL
from cnnsearch.report.words import chance_text, points
from cnnsearch.spec.axis_words import Value, describe, format_value, words
from cnnsearch.words import capitalised, counted, listed, printable

_EQUAL_FOR_ALL_PURPOSES = 100_000  # test images
_MOST_EDGES = 3


@dataclass(frozen=True)
class Advice:
    """One thing to try, with the command that does it where there is one."""

    text: str
    command: str | None = None


def advice(evidence: Evidence) -> list[Advice]:
    """What to try next, in the order in which to try it."""
    found = _unfinished(evidence)
    best = evidence.best
    if best is None:
        return [*found, *_smaller_steps(evidence)]
    if not evidence.any_beats_chance:
        return [*found, _learn_anything(evidence)]
    edges = _edges(evidence)
    found += edges[:_MOST_EDGES]
    found += search_advice(evidence)
    found += _controls(evidence, edges)
    found += _longer(evidence, best)
    found += _seeds(evidence)
    found += _more_repeats(evidence, best) if evidence.folds else _more(evidence, best)
    return found


def next_values(axis: str, grid: Sequence[float], *, upwards: bool) -> list[float | int]:
    """Two values past an end of a grid: in steps of 1–3–10 for rates, in doublings for sizes.

    Empty where no value is left to try, such as below 0.
    """
    edge = max(grid) if upwards else min(grid)
    if axis in ("batch_size", "image_size", "epochs", "width"):
        steps = [edge * 2, edge * 4] if upwards else [edge / 2, edge / 4]
        whole = axis != "width"
        return [int(v) if whole else v for v in steps if not whole or (v >= 1 and v == int(v))]
    if axis in ("lr", "weight_decay"):
        return _one_three_ten(edge, upwards=upwards) if edge > 0 else []
    if axis == "dropout":
        tries = [0.5, 0.6, 0.7, 0.8, 0.9] if upwards else [0.0]
        return [value for value in tries if (value > edge if upwards else value < edge)][:2]
    return []


def _one_three_ten(edge: float, *, upwards: bool) -> list[float | int]:
    exponent = math.floor(math.log10(edge))
    ladder = [float(f"{digit}e{exponent + step}") for step in range(-3, 4) for digit in (1, 3)]
    # With a tolerance, so that 0.00030000000000000003 does not come after 0.0003.
    past = [v for v in ladder if (v > edge * 1.001 if upwards else v < edge * 0.999)]
    return list(past[:2] if upwards else past[::-1][:2])


def again(evidence: Evidence, extra: str = "") -> str | None:
    """The command that made these results, with something added; None where it is not recorded."""
    command = evidence.runs[-1].get("command") if evidence.runs else None
    return f"{command} {extra}".strip() if isinstance(command, str) and command else None


def _grid_command(evidence: Evidence, stage: str, axis: str, values: Sequence[Any]) -> str | None:
    listed_values = ", ".join(format_value(value) for value in values)
    return again(evidence, f"--set 'stages.{stage}.space.{axis}.grid=[{listed_values}]'")


def _grid(evidence: Evidence, stage: str, axis: str) -> list[float]:
    """The numbers of an axis's grid as planned, whether or not their trials finished."""
    values = evidence.space(stage).get(axis)
    grid = values.args if values is not None and values.kind == "grid" else ()
    return [v for v in grid if isinstance(v, int | float) and not isinstance(v, bool)]


def _unfinished(evidence: Evidence) -> list[Advice]:
    statuses = [str(status) for status in evidence.tables.trials["status"]]
    errors = [str(error) for error in evidence.tables.trials["error"][evidence.tables.trials["status"] == "failed"]]
    broken = [error for error in errors if OF_THE_PROGRAM.search(error)]
    waiting, failed = max(0, evidence.tables.planned - len(statuses)), len(errors) - len(broken)
    parts, found = [], []
    if broken:
        found.append(
            Advice(
                f"Change what failed: {counted(len(broken), 'trial')} ended in an error that would come again, "
                f"{printable(broken[0], on_page=True)}. Leave out such settings, or report the error."
            )
        )
    if waiting:
        parts.append(
            f"{counted(waiting, 'trial')} of {evidence.tables.planned} {'has' if waiting == 1 else 'have'} not run"
        )
    if failed:
        parts.append(f"{counted(failed, 'trial')} failed")
    if parts:
        text = f"Finish the sweep: {listed(parts)}. The same command again runs only what is missing."
        found.append(Advice(text, again(evidence)))
    return found


OF_THE_PROGRAM = re.compile(r"^\w+: .*\(\w+\.py, line \d+, in [\w<>]+\)$", re.DOTALL)
"""An exception that a trial raised, as records word it: `ValueError: no (train.py, line 9, in step)`."""


def _smaller_steps(evidence: Evidence) -> list[Advice]:
    """Advice where trials diverged and none finished: smaller learning rates."""
    rates = [float(row["lr"]) for row in evidence.rows if row["status"] == "diverged"]
    if not rates or "pruned" in set(evidence.tables.trials["status"]):
        return []
    shown = listed([format_value(min(rates) / 10), format_value(min(rates) / 100)], "or")
    many = "every trial that ran" if len(rates) > 1 else "the trial that ran"
    return [Advice(f"Take smaller steps: {many} diverged; try learning rate {shown}.")]


def _learn_anything(evidence: Evidence) -> Advice:
    scores = [score for c in evidence.configurations if (score := evidence.score(c)) is not None]
    if scores and max(score.high for score in scores) >= (1 + evidence.chance) / 2:
        images = counted(scores[0].n, f"{evidence.judged} image")
        do = "Validate on" if evidence.tables.is_sealed else "Test on"
        return Advice(f"{do} more images: {images} are too few to tell any setting from chance, even a good one.")
    fits = max(
        (s.scores["train_accuracy"] for s in evidence.configurations if "train_accuracy" in s.scores), default=None
    )
    seen = ""
    counts = evidence.class_counts("train")
    n = sum(counts)
    if fits is not None and n:
        most = Score.of(fits, n).text
        seen = f" At its epoch of best {evidence.chosen_by}, no setting gets more than {most} of training images right."
    return Advice(
        f"Nothing beats chance ({chance_text(evidence)}): look at the labels and the images before any other "
        f"setting.{seen}"
    )


def _edges(evidence: Evidence) -> list[Advice]:
    found = []
    for stage in evidence.stages:
        champion = best_of(evidence.stage(stage))
        if evidence.is_confirmed and evidence.best is not None:  # no other best than the one that was confirmed
            original = evidence.by_key.get(evidence.best.confirms or "")
            champion = evidence.best if original is not None and original.stage == stage else None
        if champion is None:
            continue
        for axis in evidence.axes(stage):
            grid = _grid(evidence, stage, axis)
            value = _asserted(evidence, stage, axis, champion.values[axis])
            if len(set(grid)) < 2 or value is None or value not in (min(grid), max(grid)):
                continue
            upwards = value == max(grid)
            tries = next_values(axis, grid, upwards=upwards)
            if not tries:
                continue
            end = "largest" if upwards else "smallest"
            shown = [format_value(v) for v in tries]
            what = f"{capitalised(words(axis).full)} {format_value(value)}"
            text = f"{what} is best by validation and the {end} in its grid: try {listed(shown)}."
            found.append(Advice(text, _grid_command(evidence, stage, axis, sorted({*grid, *tries}))))
    return found


def _asserted(evidence: Evidence, stage: str, axis: str, value: Value) -> Value:
    """The value of an axis to go on from: that of the best setting, unless the report says that another is better.

    None where the report says that the values of the axis cannot be told apart: more of them are no advice then.
    """
    lead = preferred(evidence.stage(stage), axis)
    others = [other for other in distinct(evidence.stage(stage), axis) if other != lead]
    told = {other: evidence.statements.get(of_values(stage, axis, lead, other)) for other in others}
    able = [other for other, comparison in told.items() if comparison is not None and comparison.can_tell]
    if able and all(evidence.verdict(of_values(stage, axis, lead, other)) == CANNOT_TELL for other in able):
        return None
    better = lead  # of what the report says, the value that is ahead of all others
    for other in able:
        comparison = told[other]
        is_told = evidence.verdict(of_values(stage, axis, lead, other)) != CANNOT_TELL
        if comparison is not None and is_told and comparison.difference.value < 0:
            better = other
    worse = [other for other in able if evidence.verdict(of_values(stage, axis, lead, other)) != CANNOT_TELL]
    return better if value in worse or better != lead else value


def search_advice(evidence: Evidence) -> list[Advice]:
    """For each search, a wider range where the best lie at its end, and more trials where it still improved."""
    found = []
    for search in evidence.searches:
        if not search.is_search:
            continue
        wider = [one for axis, upwards in search_edges(search) if (one := _wider(evidence, search, axis, upwards))]
        found += wider[:_MOST_EDGES]
        if is_improving(search):
            seeds = len(evidence.tables.sweep.replicates)
            more = 2 * math.ceil(len(search.attempts) / seeds)  # suggestions, which are what a search counts
            each = "" if seeds == 1 else " suggestions"
            text = (
                f"More trials: the last third of {len(search.attempts):,} was still finding better ones. A search of "
                f"{more:,}{each} goes on from where this one ended."
            )
            found.append(Advice(text, again(evidence, f"--set stages.{search.stage}.search.trials={more}")))
    return found


_ENDS = {"dropout": (0.0, 0.9), "label_smoothing": (0.0, 0.5), "momentum": (0.0, 0.999), "width": (0.1, math.inf)}
"""Axis -> the least and the most value that advice may name."""


def _wider(evidence: Evidence, search: Searched, axis: Axis, upwards: bool) -> Advice | None:
    """The wider range or list to search; None where there is nothing past the end."""
    end = "upper" if upwards else "lower"
    at = axis.high if upwards else axis.low
    what = f"{capitalised(words(axis.name).full)}: the best trials lie at the {end} end of what was searched"
    key = f"stages.{search.stage}.space.{axis.name}.{axis.kind}"
    if not axis.is_range:
        grid = [float(value) for value in axis.listed if isinstance(value, int | float)]
        whole = all(isinstance(value, int) for value in axis.listed)
        tries = next_values(axis.name, [int(value) for value in grid] if whole else grid, upwards=upwards)
        if not tries:
            return None
        values = ", ".join(format_value(value) for value in sorted({*axis.listed, *tries}))  # type: ignore[type-var]
        shown = listed([format_value(value) for value in tries])
        text = f"{what} ({format_value(axis.listed[-1 if upwards else 0])}): try {shown}."
        return Advice(text, again(evidence, f"--set '{key}=[{values}]'"))
    low, high = axis.low, axis.high
    least, most = _ENDS.get(axis.name, (0.0, math.inf))
    if axis.is_log:
        low, high = (low, high * 10) if upwards else (low / 10, high)
    else:
        step = (high - low) / 2
        low, high = (low, high + step) if upwards else (low - step, high)
    low, high = max(least, low), min(most, high)
    if axis.kind == "int":
        low, high = max(1, math.floor(low)), math.ceil(high)
    if (low, high) == (axis.low, axis.high):
        return None
    ends = [format_value(int(end) if axis.kind == "int" else float(f"{end:.4g}")) for end in (low, high)]
    text = f"{what} ({format_value(at)}): search {ends[0]} to {ends[1]}."
    return Advice(text, again(evidence, f"--set '{key}=[{ends[0]}, {ends[1]}]'"))


def _controls(evidence: Evidence, edges: Sequence[Advice]) -> list[Advice]:
    """For each stage that continues another without a control: add the values of its parents."""
    found = []
    for stage in evidence.stages:
        axes, groups = evidence.axes(stage), families(evidence, stage) if evidence.continues(stage) else []
        if len(axes) != 1 or not groups or any(control_of(evidence, stage, group) for group in groups):
            continue
        parents = [evidence.by_key[g[0].parent] for g in groups if g[0].parent in evidence.by_key]
        values = {parent.values[axes[0]] for parent in parents}
        grid = _grid(evidence, stage, axes[0])
        if len(values) != 1 or not grid:
            continue
        value = next(iter(values))
        command = _grid_command(evidence, stage, axes[0], [value, *grid])
        if any(edge.command == command for edge in edges) or not isinstance(value, int | float):
            continue
        text = (
            f"Continue with {describe(axes[0], value)} as well: only that separates the effect of "
            f"{words(axes[0]).full} from that of further training."
        )
        found.append(Advice(text, command))
    return found


def _longer(evidence: Evidence, best: Configuration) -> list[Advice]:
    epochs, at = best.values["epochs"], best.scores.get("best_epoch")
    if not isinstance(epochs, int) or at is None or at < 0.9 * epochs:
        return []
    if evidence.risen(best.trial_ids):
        return []
    text = (
        f"Train longer: the best epoch of the best setting is {at:.0f} of {epochs}, and its validation loss does not "
        "rise again."
    )
    return [Advice(text, again(evidence, f"--set train.epochs={2 * epochs}"))]


def _seeds(evidence: Evidence) -> list[Advice]:
    is_asked = evidence.tables.sweep.confirm is not None  # then finishing the sweep does it
    if evidence.tells_settings_apart or len(evidence.configurations) < 2 or evidence.folds or is_asked:
        return []
    trained = max(len(c.trial_ids) for c in evidence.configurations)
    text = (
        f"Confirm the best: train the contenders again with fresh seeds. Each setting was trained "
        f"{'once' if trained == 1 else f'with {trained} seeds'}; how much of a difference is the luck of initial "
        f"weights and data order takes {LEAST_SEEDS} or more to say."
    )
    return [Advice(text, again(evidence, "--confirm 5"))]


_POWER = 0.8


def _more(evidence: Evidence, best: Configuration) -> list[Advice]:
    """How many seeds or test images would tell the best from the closest rival by validation."""
    for rival in sorted(evidence.near_best, key=lambda c: (-c.worth, c.order)):
        comparison = evidence.compare([(best, rival)])
        if comparison is None or comparison.basis != "seeds" or comparison.difference.value == 0:
            continue
        images = evidence.size(evidence.judged_on)
        seeds, more_images = repetitions_needed(comparison, images)
        if seeds <= comparison.seeds and more_images <= images:
            continue
        sign = 1 if comparison.difference.value > 0 else -1
        gap = f"{'behind' if sign == 1 else 'ahead'} by {points(comparison.difference, sign)}"
        if more_images > _EQUAL_FOR_ALL_PURPOSES or seeds > _MOST_SEEDS:
            text = (
                f"Treat the best and {evidence.label(rival)} as equal: at the difference seen, telling them apart "
                f"takes more than {_EQUAL_FOR_ALL_PURPOSES:,} {evidence.judged} images or {_MOST_SEEDS} seeds."
            )
            return [Advice(text)]
        parts = [f"about {seeds} seeds of each"] if seeds > comparison.seeds else []
        parts += [f"about {_rounded(more_images):,} {evidence.judged} images"] if more_images > images else []
        text = (
            f"Telling the best from {evidence.label(rival)}, which is {gap}, takes {listed(parts)} for a power of 80 % "
            f"if that difference is real; there are {comparison.seeds} seeds and {images:,} images."
        )
        return [Advice(text)]
    return []


def _more_repeats(evidence: Evidence, best: Configuration) -> list[Advice]:
    """How many repeats would tell the best from the closest rival; where none would, how many images."""
    split = evidence.tables.sweep.folds
    rivals = sorted(evidence.near_best, key=lambda c: (-c.worth, c.order))
    comparison = evidence.compare([(best, rivals[0])]) if rivals else None
    if split is None or comparison is None or comparison.basis != "seeds" or comparison.difference.value == 0:
        return []
    overlap = 1 / (split.k - 1)  # of Nadeau and Bengio's correction; repeats do not make it smaller
    allowed = (comparison.difference.value / _quantiles()) ** 2 / comparison.between * (1 / comparison.seeds + overlap)
    wanted = math.ceil(1 / (allowed - overlap) / split.k) if allowed > overlap else math.inf
    sign = 1 if comparison.difference.value > 0 else -1
    gap = f"{'behind' if sign == 1 else 'ahead'} by {points(comparison.difference, sign)}"
    start = f"Telling the best from {evidence.label(rivals[0])}, which is {gap}, takes about"
    end = f"for a power of 80 % if that difference is real; there are {counted(split.repeats, 'repeat')}."
    if split.repeats < wanted <= _MOST_REPEATS:
        command = again(evidence, f"--set data.split.repeats={wanted}")
        return [Advice(f"{start} {wanted} repeats of the folds {end}", command)]
    images = evidence.size("val")
    more = math.ceil(images * (1 / comparison.seeds + overlap) / allowed)
    if wanted <= split.repeats or more <= images:
        return []
    if more > _EQUAL_FOR_ALL_PURPOSES:
        return [Advice(f"Treat the best and {evidence.label(rivals[0])} as equal: the difference seen is too small.")]
    return [Advice(f"{start} {_rounded(more):,} images to train and validate on, where there are {images:,}.")]


_MOST_REPEATS = 20
"""More repeats say hardly more, since all are of the same images."""
_MOST_SEEDS = 50


def _rounded(count: int) -> int:
    return round(count, -max(0, len(str(count)) - 2))


def _quantiles() -> float:
    """Standard errors that a difference must be for the wanted power."""
    normal = NormalDist()
    return normal.inv_cdf(1 - stats.SIGNIFICANCE / 2) + normal.inv_cdf(_POWER)


def repetitions_needed(comparison: Comparison, images: int) -> tuple[int, int]:
    """Seeds of each side and test images with which a difference as seen is significant in four of five repetitions.

    Only seeds where the images are enough; else both, each for half of the variance that may be left.
    """
    allowed = (comparison.difference.value / _quantiles()) ** 2
    if comparison.over_images < allowed / 2:
        return math.ceil(comparison.seeds * comparison.between / (allowed - comparison.over_images)), images
    return (
        math.ceil(comparison.seeds * comparison.between / (allowed / 2)),
        math.ceil(images * comparison.over_images / (allowed / 2)),
    )
