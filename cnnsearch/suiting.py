"""The text of a sweep that suits some images."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path

from cnnsearch import stats
from cnnsearch.data.dataset import SPLIT_WORDS
from cnnsearch.data.splits import in_words
from cnnsearch.data.survey import Survey
from cnnsearch.spec.data import FillSplit, FoldsSplit, StratifiedSplit
from cnnsearch.spec.schema import first_line
from cnnsearch.words import LISTED, counted, listed, plural, printable

SIDES = (32, 64, 96, 128, 224)
"""Image sizes that are chosen from."""
LEAST_SIDE = 8
MANY = 1000
"""Training images from which a searcher suits more than a small grid."""
WIDTH = 108
"""Characters of a line of a comment."""
FEW = 20
"""Training images of a class below which that is noted."""


def image_size(side: int) -> int:
    """The largest of `SIDES` that is not above a side; of smaller images their own."""
    return max((one for one in SIDES if one <= side), default=max(LEAST_SIDE, side))


def batch_sizes(training: int) -> list[int]:
    """Two batch sizes, with which an epoch has some ten steps or more where the images allow it."""
    largest = next((size for size in (64, 32, 16) if training >= 10 * size), 8)
    return [largest // 2, largest]


def sweep_name(source: str) -> str:
    """A name for the sweep, from that of the folder or file."""
    path = Path(source).resolve()
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", path.name if path.is_dir() else path.stem).strip("-_")
    return name[:40] or "images"


def sweep_text(found: Survey, source: str, *, follow_links: bool = False) -> str:
    """The sweep file, with comments that say why it is as it is, and one that names the schema to editors."""
    size, batches = image_size(found.side), batch_sizes(found.training)
    return "\n".join(
        [
            first_line(),
            *_comments(found),
            "",
            f"name: {sweep_name(source)}",
            "title: Classifiers for these images",
            f"question: Which network and settings classify the {counted(len(found.sizes), 'class', 'classes')} best?",
            "",
            "data:",
            f"  source: {json.dumps(source, ensure_ascii=False)}",
            f"  image_size: {size}  # {_why_size(found.side, size)}",
            *_split(found),
            *(["  follow_links: true"] if follow_links else []),
            *(["  on_bad_image: skip  # some files cannot be read"] if found.unreadable else []),
            "",
            *_train(found),
            "",
            "stages:",
            *(_search(batches) if found.training >= MANY else _grid(batches)),
            "",
        ]
    )


def _comments(found: Survey) -> list[str]:
    listing, sizes = found.listing, found.sizes
    named = [f"{printable(name)} {size:,}" for name, size in zip(listing.classes, sizes, strict=True)]
    more = f" and {len(named) - LISTED} more" if len(named) > LISTED else ""
    dealt = [f"{sum(found.counts[part]):,} {name}" for part, name in SPLIT_WORDS.items()]
    lines = [
        f"{counted(sum(sizes), 'image')} in {plural(len(sizes), 'class')}: {', '.join(named[:LISTED])}{more}.",
        f"Of these {listed(dealt)}.",
    ]
    if stats.are_uneven(sizes):
        lines.append(
            f"Classes are uneven: the largest has {max(sizes) / min(sizes):.1f} times the images of the smallest. "
            "With class_weights: balanced, below, each counts the same in training."
        )
    if found.unreadable:
        names = [printable(name) for name in found.unreadable[:LISTED]]
        lines.append(f"Cannot be read, of those that were tried: {', '.join(names)}, {len(found.unreadable):,} in all.")
    lines += [printable(warning) for warning in listing.warnings]
    if found.duplicates:
        same = "file has" if found.duplicates == 1 else "files have"
        lines.append(f"{found.duplicates:,} {same} the same bytes as another; copies in two splits flatter the scores.")
    if min(found.counts["train"]) < FEW:
        lines.append(
            f"Few images: a class has {min(found.counts['train'])} to train on. Expect wide intervals; augmentation "
            "helps."
        )
    wrapped = (textwrap.wrap(line, WIDTH, break_long_words=False, break_on_hyphens=False) for line in lines)
    return [f"# {line}" for part in wrapped for line in part]


def _why_size(side: int, size: int) -> str:
    measured = f"the median of the images' smaller sides is {side} pixels"
    if size == SIDES[-1] <= side:
        return f"{measured}; more than {size} takes long and seldom helps"
    return f"{measured}; a larger size would only enlarge them"


def _split(found: Survey) -> list[str]:
    words = in_words(found.split, found.listing.parts)
    if "val" in found.listing.parts:
        return [f"  # split: {words}"]
    if isinstance(found.split, FillSplit):
        keys = f"train_per_class: {found.split.train_per_class}, val_per_class: {found.split.val_per_class}"
    else:
        assert isinstance(found.split, StratifiedSplit)  # folds are asked for, never guessed
        keys = f"train: {found.split.train:g}, val: {found.split.val:g}"
    lines = [f"  # {words}", f"  split: {{method: {found.split.method}, {keys}}}"]
    if found.training < MANY and min(found.sizes) >= 2 * FoldsSplit().k:
        lines.append("  # With few images, {method: folds, k: 5} validates on each in turn, in five times the time.")
    return lines


def _train(found: Survey) -> list[str]:
    epochs = "27" if found.training >= MANY else "30  # few images make short epochs"
    lines = ["train:", f"  epochs: {epochs}", "  width: 0.25  # a quarter of the channels, which is faster; 1 is whole"]
    if found.training < MANY:
        lines.append("  augment: flip  # leave it out where left and right matter, as with letters")
    if stats.are_uneven(found.sizes):
        lines.append("  class_weights: balanced")
    return lines


def _grid(batches: list[int]) -> list[str]:
    return [
        "  # A small grid: few images tell few settings apart.",
        "  - name: grid",
        "    space:",
        "      model: {grid: [plain, residual]}",
        "      lr: {grid: [0.0003, 0.001, 0.003]}",
        f"      batch_size: {{grid: {batches}}}  # small enough for several steps in each epoch",
    ]


def _search(batches: list[int]) -> list[str]:
    return [
        "  # There are images enough to tell settings apart: a searcher suggests them, and the worse ones are stopped.",
        "  - name: search",
        "    search: {method: tpe, trials: 30, at_once: 4}",
        "    stop_early: {method: asha, min_epochs: 3, reduction_factor: 3}",
        "    space:",
        "      model: {choice: [plain, residual]}",
        "      lr: {loguniform: [0.0001, 0.03]}",
        "      weight_decay: {loguniform: [0.000001, 0.01]}",
        f"      batch_size: {{choice: {batches}}}",
        "      augment: {choice: [none, flip]}",
    ]
