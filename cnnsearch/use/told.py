"""What came of a classification: how many images were right, which classes were confused, in lines and in files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cnnsearch.errors import RequestError
from cnnsearch.planning.labels import setting, told_axes
from cnnsearch.stats import wilson
from cnnsearch.storage.durable import write_whole
from cnnsearch.told import Accuracy, Candidate, Prediction, Predictions
from cnnsearch.use.choose import Chosen
from cnnsearch.words import accuracy, listed, percent, plural, printable

WIDEST = 100
"""Most characters of a line of a confusion matrix that is printed."""


def check_top(top: int | None, classes: Sequence[str]) -> None:
    """Raise RequestError unless `top` is None or a number of classes that there are."""
    if top is not None and not 1 <= top <= len(classes):
        raise RequestError(f"top {top}: give a whole number from 1 to {len(classes)}, the number of classes")


class Right(NamedTuple):
    """How many images that could be read, and whose class is known, were classified correctly."""

    right: int
    of: int

    @property
    def share(self) -> Accuracy:
        """As `--json` prints it: with its 95 % Wilson interval."""
        low, high = wilson(self.right, self.of)
        return Accuracy(value=self.right / self.of, low=low, high=high, images=self.of)


def right(answers: pd.DataFrame) -> Right | None:
    """Count the right answers; None where the class of no image that could be read is known."""
    known = answers[answers["label"].notna() & answers["predicted"].notna()]
    return Right(int((known["label"] == known["predicted"]).sum()), len(known)) if len(known) else None


def confusion(answers: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Count images by their class (rows) and what they were taken for (columns), classes in the order of the data."""
    known = answers[answers["label"].notna() & answers["predicted"].notna()]
    place = {name: index for index, name in enumerate(classes)}
    matrix = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(matrix, (known["label"].map(place).to_numpy(int), known["predicted"].map(place).to_numpy(int)), 1)
    return pd.DataFrame(matrix, index=pd.Index(classes, name="label"), columns=list(classes))


WRITERS: dict[str, Callable[[pd.DataFrame], bytes]] = {
    ".csv": lambda answers: answers.to_csv(index=False).encode(),
    ".jsonl": lambda answers: answers.to_json(orient="records", lines=True, force_ascii=False).encode(),
    ".parquet": lambda answers: answers.to_parquet(index=False),
}


def write(answers: pd.DataFrame, classes: Sequence[str], file: Path) -> list[Path]:
    """Write answers and, where the class of some images is known, the confusion matrix beside them.

    Returns the files. Raises DiskError.
    """
    write_whole(file, WRITERS[file.suffix.lower()](answers))
    if right(answers) is None:
        return [file]
    beside = file.with_name(f"{file.stem}-confusion.csv")
    write_whole(beside, confusion(answers, classes).to_csv().encode())
    return [file, beside]


def trial_line(chosen: Chosen) -> str:
    """Say which trial is used: `trial 0f3c…, the best by validation: residual, lr 0.001, batch 16`."""
    which = ", the best by validation" if chosen.is_best else ""
    return f"trial {chosen.record.trial_id}{which}: {setting(chosen.record.settings, told_axes(chosen.sweep))}"


def summary(answers: pd.DataFrame, ignored: Sequence[str], files: Sequence[Path]) -> list[tuple[str, str]]:
    """What came of it, in a few labelled lines."""
    bad = int(answers["error"].notna().sum())
    rows = [("images", f"{len(answers):,}" + (f", of which {bad:,} cannot be read" if bad else ""))]
    if ignored:
        rows.append(("ignored", f"{len(ignored):,} not called like images, for example {printable(ignored[0])}"))
    if (found := right(answers)) is not None:
        over = plural(found.of, "image")
        rows.append(("accuracy", f"{accuracy(found.right / found.of, found.of)} of {over} whose class is known"))
    if files:
        rows.append(("written", listed([str(file) for file in files])))
    return rows


def as_table(answers: pd.DataFrame) -> str:
    """Answers as lines of aligned columns; an image that cannot be read has its reason there."""
    top = [name for name in answers.columns if name.startswith("class_")]
    has_labels = bool(answers["label"].notna().any())
    lines = [["path", "predicted", "confidence", *(["label"] if has_labels else [])]]
    for row in answers.to_dict("records"):
        name = printable(row["path"])
        if row["error"] is not None:
            lines.append([name, printable(row["error"])])
            continue
        others = [f"{printable(row[one])} {percent(row[one.replace('class', 'confidence')])}" for one in top[1:]]
        label = [printable(row["label"] or "")] if has_labels else []
        lines.append([name, printable(row["predicted"]), percent(row["confidence"]), *label, *others])
    whole = [line for line in lines if len(line) > 2]
    widths = [max(len(line[column]) for line in lines if len(line) > column) for column in range(1)]
    widths += [
        max(len(line[column]) for line in whole if len(line) > column) for column in range(1, len(max(whole, key=len)))
    ]
    return "\n".join(
        "  ".join(f"{cell:<{w}}" for cell, w in zip(line, widths, strict=False)).rstrip() for line in lines
    )


def confusion_text(answers: pd.DataFrame, classes: Sequence[str]) -> str:
    """The confusion matrix as lines; empty where no class is known, or it is too wide to read."""
    if right(answers) is None:
        return ""
    matrix = confusion(answers, classes)
    names = [printable(name) for name in classes]
    widths = [max(len(name), len(str(matrix[column].max()))) for name, column in zip(names, classes, strict=True)]
    first = max(map(len, names))
    if first + sum(widths) + 2 * len(widths) > WIDEST:
        return ""
    head = "  ".join([" " * first, *(f"{name:>{width}}" for name, width in zip(names, widths, strict=True))])
    rows = [
        "  ".join([f"{name:<{first}}", *(f"{count:>{width}}" for count, width in zip(counts, widths, strict=True))])
        for name, counts in zip(names, matrix.to_numpy().tolist(), strict=True)
    ]
    return "\n".join(["classes (rows) and what they were taken for (columns)", head.rstrip(), *rows])


def answer(chosen: Chosen, answers: pd.DataFrame, files: Sequence[Path]) -> Predictions:
    """What `--json` prints; it holds the answers unless they are in a file."""
    found, unreadable = right(answers), int(answers["error"].notna().sum())
    return Predictions(
        exit_code=1 if unreadable else 0,
        results=str(chosen.results),
        trial=chosen.record.trial_id,
        images=len(answers),
        unreadable=unreadable,
        accuracy=found and found.share,
        out=str(files[0]) if files else None,
        confusion=str(files[1]) if len(files) > 1 else None,
        predictions=None if files else [_prediction(row) for row in answers.to_dict("records")],
    )


def _prediction(row: Mapping[Any, Any]) -> Prediction:
    is_read = row["error"] is None
    places = [name.removeprefix("class_") for name in row if str(name).startswith("class_")]
    return Prediction(
        **{name: row[name] for name in ("path", "predicted", "label", "error")},
        confidence=row["confidence"] if is_read else None,
        top=[Candidate(name=row[f"class_{k}"], confidence=row[f"confidence_{k}"]) for k in places]
        if places and is_read
        else None,
    )
