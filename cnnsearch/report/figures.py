"""The report's figures, to be drawn: each with its caption and description."""

from __future__ import annotations

from functools import partial

from matplotlib.figure import Figure

from cnnsearch import plots
from cnnsearch.evidence.axes import main_stage, map_axes
from cnnsearch.evidence.comparisons import LEAST_SEEDS
from cnnsearch.evidence.configurations import Configuration, best_of, distinct
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.evidence.families import families
from cnnsearch.evidence.shown import (
    COMPACT_CLASSES,
    MATRIX_CLASSES,
    MOST_CLASSES,
    MOST_MAPS,
    NUMBERED_CLASSES,
    PHONE_CLASSES,
    curves_shown,
    has_intervals,
    maps_shown,
    most_dots,
    selected,
    with_curves,
)
from cnnsearch.plots.curves import Metric
from cnnsearch.report.pictures import Drawing
from cnnsearch.report.words import in_label
from cnnsearch.spec.axis_words import Value, words
from cnnsearch.spec.metric import DEFAULT
from cnnsearch.words import capitalised, counted, listed

MOST_FOLDED = 24


def all_settings(evidence: Evidence) -> Drawing:
    """Figure for section 3: all settings as dots."""
    total, shown = len(evidence.configurations), most_dots(evidence)
    alt = f"Dots with intervals: {evidence.judged_by} of {counted(min(total, shown), 'setting')}. "
    best, score = evidence.best, evidence.score(evidence.best) if evidence.best else None
    if best is not None and score is not None:
        alt += f"Best by validation: {evidence.label(best)}, {score.text}. "
    alt += "The numbers are in the table of trials."
    what = f"Share of the {evidence.judged} images each setting gets right"
    if evidence.metric.name != DEFAULT:
        what = f"{capitalised(evidence.judged_by)} of each setting"
    caption = (
        f"{what}, sorted"
        f"{' within each model' if len(evidence.models) > 1 else ''}, with 95 % intervals over {_covered(evidence)}. "
    )
    worse = (
        f"clearly worse than another over {evidence.unit}s and {evidence.judged} images, corrected for all pairs. "
        "Overlapping intervals do not settle that: all settings saw the same images."
    )
    if evidence.is_confirmed:
        again = "those that were trained again on fresh seeds"
        caption += f"Hollow: not among {again}" + (f", or of these {worse}" if evidence.tells_settings_apart else ".")
    elif evidence.tells_settings_apart:
        caption += f"Hollow: {worse}"
    else:
        caption += f"Comparing settings takes {LEAST_SEEDS} {evidence.unit}s of each."
    if total > shown:
        caption += f" Shown are the {shown} best of {total} settings by {evidence.chosen_by}; the table has all."
    draw = partial(plots.all_settings, evidence)
    return Drawing(draw, "settings", caption, alt, partial(draw, narrow=True))


def _covered(evidence: Evidence) -> str:
    """What the intervals of the settings' scores cover."""
    scores = [score for c in evidence.configurations if (score := evidence.score(c)) is not None]
    if all(score.covers_seeds for score in scores):
        return f"{evidence.unit}s and images"
    return "images alone" + (
        f" ({LEAST_SEEDS} {evidence.unit}s or more: {evidence.unit}s, too)"
        if any(s.covers_seeds for s in scores)
        else ""
    )


def heatmaps(evidence: Evidence) -> Drawing | None:
    """Figure for section 4: heatmaps of the main stage, or dots if it has one axis."""
    stage = main_stage(evidence)
    if stage is None:
        return None
    used, averaged = map_axes(evidence, stage)
    if not used:
        return None
    names = listed([words(axis).full for axis in used])
    scored = [c for c in evidence.stage(stage) if evidence.score(c) is not None]
    shown = maps_shown(evidence, scored)
    if len(used) == 2:
        interval = has_intervals(distinct(evidence.stage(stage), used[1]))
        how = " with its 95 % interval" if interval else " in percent" if evidence.metric.is_share else ""
        caption = (
            f"{capitalised(evidence.judged_by)}{how}; stronger colour is "
            f"{'higher' if evidence.metric.is_larger_better else 'lower'}, on one scale for all models. The framed "
            "cell holds the setting of each model that validation prefers."
        )
        caption += "" if interval else " The intervals are in the table of trials."
        if averaged:
            caption += f" Each cell is the mean over {listed([words(axis).plural for axis in averaged])}."
    else:
        caption = f"{capitalised(evidence.judged_by)} with its 95 % interval, one dot per setting."
        caption += selected(sum(c.model in shown for c in scored), "settings")
    if len(drawn := {c.model for c in scored}) > MOST_MAPS:
        caption += f" Shown are the {MOST_MAPS} of {len(drawn)} models with the best {evidence.chosen_by}."
    models = listed(evidence.models) or "the model"
    alt = f"{capitalised(evidence.judged_by)} by {names}, for {models}. The numbers are in the table of trials."
    draw = partial(plots.heatmaps, evidence, stage)
    return Drawing(draw, "heatmaps", caption, alt, partial(draw, narrow=True))


def learning_curves(evidence: Evidence, stage: str, prefix: str = "") -> list[Drawing]:
    """Figures for section 5: learning curves of one stage, first loss, then accuracy."""
    found = []
    note, shown = curves_shown(evidence, stage), with_curves(evidence, evidence.stage(stage))
    metrics: tuple[Metric, ...] = ("loss", "accuracy")
    for metric in metrics:
        caption = "Training solid, validation dashed; all panels share their axes."
        several = max((len(c.trial_ids) for c in evidence.stage(stage)), default=1) > 1
        if metric == "loss" and not several and any(evidence.turn(c.trial_ids[0]) is not None for c in shown):
            caption += " The number under a triangle is the epoch at which validation loss starts to rise."
        caption += f" One thin line per {evidence.unit}." if several else ""
        caption += f" {note}" if note else ""
        alt = f"Learning curves: {metric} of training and validation by epoch, for the settings of stage {stage}."
        draw = partial(plots.learning_curves, evidence, metric, stage)
        found.append(Drawing(draw, f"{prefix}{metric}", caption, alt))
    return found


def before_after(evidence: Evidence, stage: str) -> Drawing:
    """Figure for section 6: accuracy before and after, for a stage that continues another."""
    caption = (
        "Hollow: the weights carried over, before any further training. Filled: after it, at the epoch of best "
        f"{evidence.chosen_by}. Lines are 95 % intervals, dashed for validation."
    )
    splits = listed([*evidence.measured.values()])
    alt = f"Accuracy before and after stage {stage}, for {splits}. The numbers are in the table below."
    draw = partial(plots.before_after, evidence, stage)
    return Drawing(draw, f"continued-{stage}", caption, alt, partial(draw, narrow=True))


def best_confusion(evidence: Evidence) -> Drawing | None:
    """Figure for section 7: the confusion matrix of the best setting."""
    best = evidence.best
    if best is None:
        return None
    counts = ": counts" if len(evidence.classes) <= NUMBERED_CLASSES else ""
    times = len(evidence.whole_answers(best.trial_ids))
    over = "repeats" if evidence.folds else "seeds"
    summed = f", summed over {times} {over}" if times > 1 else ""
    if evidence.folds:
        summed += "; each image was answered by the network that was not trained on it"
    caption = (
        f"{evidence.judged.capitalize()} images of {in_label(evidence, best)}{counts}{summed}. The stronger the "
        "colour, the larger the share of the row, that is, of the true class."
    )
    if len(evidence.classes) > MATRIX_CLASSES:
        caption += f" Shown are the {MOST_CLASSES} of {len(evidence.classes):,} classes with the most mistakes."
    classes = counted(len(evidence.classes), "class", "classes")
    alt = f"Confusion matrix of {in_label(evidence, best)} on the {evidence.judged} images, {classes}."
    draw = partial(plots.confusion_matrix, evidence, best)
    narrow = partial(draw, compact=True) if len(evidence.classes) <= PHONE_CLASSES else None
    return Drawing(draw, "confusion", caption, alt, narrow)


def other_confusions(evidence: Evidence) -> list[Drawing]:
    """Figures for section 7: further confusion matrices.

    They show the best setting of each model and fine-tuning mode in each stage; for a stage that continues another,
    each setting and the one it started from."""
    chosen: list[tuple[Configuration, str]] = []
    for stage in evidence.stages:
        configurations = evidence.stage(stage)
        if evidence.continues(stage):
            for group in families(evidence, stage):
                chosen.append((group[0], "before"))
                chosen += [(c, "best") for c in group]
        else:
            kinds: dict[tuple[str, Value], list[Configuration]] = {}
            for configuration in configurations:
                kinds.setdefault((configuration.model, configuration.values["fine_tune"]), []).append(configuration)
            champions = [best_of(group) for group in kinds.values()]
            chosen += [(c, "best") for c in champions if c is not None]
    skip = {(evidence.best.key, "best")} if evidence.best else set()
    found = []
    for configuration, moment in [item for item in chosen if (item[0].key, item[1]) not in skip][:MOST_FOLDED]:
        name = f"confusion-{configuration.stage}-{configuration.key[:8]}" + ("-before" if moment == "before" else "")
        score = evidence.score(configuration, moment=moment)
        caption = f"{capitalised(evidence.judged_by)} {score.text}." if score else ""
        if len(evidence.classes) > COMPACT_CLASSES:
            caption += f" The {COMPACT_CLASSES} of {len(evidence.classes):,} classes with the most mistakes."
        alt = f"Confusion matrix of {evidence.label(configuration)} on the {evidence.judged} images."
        found.append(Drawing(partial(_other_confusion, evidence, configuration, moment), name, caption, alt))
    return found


def _other_confusion(evidence: Evidence, configuration: Configuration, moment: str) -> Figure | None:
    figure = plots.confusion_matrix(evidence, configuration, moment, compact=True)
    # Before training, the children of a parent are the same network: name the parent.
    start = evidence.by_key.get(configuration.parent or "") if moment == "before" else None
    if figure is not None and start is not None:
        figure.texts[-1].set_text(f"{evidence.label(start)}, before stage {configuration.stage}")
    return figure


def images_per_class(evidence: Evidence) -> Drawing:
    """Figure for section 9: how many images each class has."""
    counts = {split: sum(evidence.counts_of_one(split)) for split in ("train", "val", "test")}
    classes = len(evidence.classes)
    caption = (
        f"{counts['train']:,} training, {counts['val']:,} validation and {counts['test']:,} test images in "
        f"{counted(classes, 'class', 'classes')}."
    )
    if evidence.folds:
        caption += f" These are the sizes in the first of {evidence.folds} folds, which hardly differ."
    if classes > MOST_CLASSES:
        caption += f" Shown are the {MOST_CLASSES // 2} largest and the {MOST_CLASSES // 2} smallest classes."
    alt = "Images of each class in the training, validation and test split, as bars."
    draw = partial(plots.images_per_class, evidence)
    return Drawing(draw, "images", caption, alt, partial(draw, narrow=True))
