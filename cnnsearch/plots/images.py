"""Images per class and split, as bars."""

from __future__ import annotations

from matplotlib.figure import Figure

from cnnsearch.data.dataset import SPLIT_WORDS, SPLITS
from cnnsearch.evidence.evidence import Evidence, as_evidence
from cnnsearch.evidence.shown import MOST_CLASSES
from cnnsearch.plots import style
from cnnsearch.results.tables import Tables


def images_per_class(source: Tables | Evidence, *, narrow: bool = False) -> Figure | None:
    """Draw a panel for each split with a bar for each class, all on one scale: equal counts have equal bars.

    If there are more than `MOST_CLASSES`, only the largest and the smallest are drawn. With `narrow`, for a phone.
    """
    evidence = as_evidence(source)
    counts = {split: evidence.counts_of_one(split) for split in SPLITS}
    classes = evidence.classes
    if not classes or any(len(values) != len(classes) for values in counts.values()):
        return None
    order = list(range(len(classes)))
    if len(order) > MOST_CLASSES:
        totals = [sum(counts[split][i] for split in SPLITS) for i in order]
        by_size = sorted(order, key=lambda i: (-totals[i], i))
        order = [*by_size[: MOST_CLASSES // 2], *by_size[-MOST_CLASSES // 2 :]]
    with style.drawing():
        figure = _draw([classes[i] for i in order], {s: [counts[s][i] for i in order] for s in SPLITS}, narrow=narrow)
        style.put_title(figure, images_title(evidence))
    return figure


def images_title(evidence: Evidence) -> str:
    """Title of the figure: how many images of each class every split has."""
    parts = []
    for split, name in SPLIT_WORDS.items():
        counts = evidence.counts_of_one(split)
        if not counts:
            continue
        low, high = min(counts), max(counts)
        parts.append(f"{low:,} {name}" if low == high else f"{low:,} to {high:,} {name}")
    return f"{', '.join(parts[:-1])} and {parts[-1]} images of each class" if len(parts) > 1 else "Images per class"


def _draw(classes: list[str], counts: dict[str, list[int]], *, narrow: bool) -> Figure:
    names = [style.shorten(name, 13 if narrow else 26) for name in classes]
    most = max(1, *(max(values) for values in counts.values()))
    left = 0.1 + 0.075 * max(len(name) for name in names)
    gap, row = 0.15 + 0.07 * len(f"{most:,}"), 0.21
    width = max(0.25, (style.PHONE - left) / 3 - gap) if narrow else 1.75
    height = row * len(names)
    figure = style.new_figure(left + 3 * (width + gap), height + 0.4)
    for index, (split, name) in enumerate(SPLIT_WORDS.items()):
        axes = style.axes_at(figure, left + index * (width + gap), 0.32, width, height)
        dashed = split == "val"
        axes.barh(
            range(len(names)), counts[split], height=0.66, color=style.THEME["paper" if dashed else "muted"],
            edgecolor=style.THEME["muted"], linewidth=0.9, linestyle=style.VALIDATION_DASHES if dashed else "-",
        )  # fmt: skip
        for y, count in enumerate(counts[split]):
            axes.annotate(
                f"{count:,}", (count, y), xytext=(4, 0), textcoords="offset points", va="center_baseline",
                fontsize=style.SMALL, color=style.THEME["ink"],
            )  # fmt: skip
        axes.set_xlim(0, most)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_yticks(range(len(names)), names if index == 0 else [""] * len(names))
        axes.tick_params(length=0, labelcolor=style.THEME["ink"])
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        axes.set_title(name, loc="left", fontsize=10, fontweight="bold", pad=6)
    return figure
