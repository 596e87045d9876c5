"""What the JSON files of a results folder hold. A folder may come from a stranger, so nothing of it is taken on trust.

Every file is held against its shape when it is read. Keys that this version does not know are ignored, and those that
older versions did not write may be missing. Types are exact: a number in quotes is a word.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    JsonValue,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import from_json

from cnnsearch.results.record import Amount, Count, Share
from cnnsearch.spec.arguments import ARGS
from cnnsearch.spec.confirm import MOST_SEEDS
from cnnsearch.spec.document import shown
from cnnsearch.spec.settings import Settings

PICTURE_BYTES = 2**20
"""Most characters of a picture in pictures.json; ours have some thousands."""


def _moment(text: str) -> str:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None or not 1970 <= moment.year < 2200:
        raise ValueError("it should be a moment with its time zone, from 1970 on")
    return text


def _picture(text: str) -> str:
    if len(text) > PICTURE_BYTES:
        raise ValueError(f"it should have at most {PICTURE_BYTES:,} characters")
    try:
        base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("it should be base64") from None
    return text


def _different(names: list[str]) -> list[str]:
    if len(names) != len(set(names)):
        name = next(name for name, times in Counter(names).items() if times > 1)
        raise ValueError(f"{shown(name)} is there twice")
    return names


def _of_axes(suggestion: dict[str, Any]) -> dict[str, Any]:
    for axis, value in suggestion.items():
        if not (isinstance(value, str | int | float) or axis.startswith(ARGS)):
            raise ValueError(f"{shown(axis)} should be a word, a number or true or false")
    return suggestion


class Shape(BaseModel):
    """A JSON object of a results folder."""

    model_config = ConfigDict(strict=True, frozen=True)


class Examples(Shape):
    """The examples of one split."""

    names: list[str]
    labels: list[Count]


class Folds(Shape):
    """How images are dealt into folds."""

    fingerprints: list[str]
    """Of each fold, those of the first repeat first."""
    dealt: list[list[Count]]
    """For each repeat the fold of each image that does not test, counted from 0; in the order of `examples.val`."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        folds = sum(max(dealt, default=-1) + 1 for dealt in self.dealt)
        if len(self.fingerprints) != folds or len({len(dealt) for dealt in self.dealt}) > 1:
            raise ValueError(f"folds has {len(self.fingerprints):,} fingerprints for {folds:,} folds")
        return self


class Data(Shape):
    """data.json."""

    source: str = ""
    fingerprint: str
    classes: Annotated[list[str], Field(min_length=1), AfterValidator(_different)]
    counts: dict[Literal["train", "val", "test"], list[Count]] = {}
    warnings: list[str] = []
    weights: list[Annotated[list[str], Field(min_length=3, max_length=3)]] = []
    examples: dict[Literal["val", "test"], Examples] = {}
    parts: list[str] = []
    """Splits that the source brought."""
    check: Check | None = None
    folds: Folds | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.folds and any(len(dealt) != len(self.examples["val"].names) for dealt in self.folds.dealt):
            raise ValueError("folds.dealt has other images than examples.val")
        for split, counts in self.counts.items():
            if len(counts) != len(self.classes):
                raise ValueError(f"counts.{split} has {len(counts):,} numbers for {len(self.classes):,} classes")
        for split, listed in self.examples.items():
            if len(listed.names) != len(listed.labels):
                raise ValueError(f"examples.{split} has {len(listed.names):,} names and {len(listed.labels):,} labels")
            if max(listed.labels, default=0) >= len(self.classes):
                raise ValueError(f"examples.{split}.labels names class {max(listed.labels)} of {len(self.classes):,}")
            _different(listed.names)
        return self


class CheckedImage(Shape):
    """An image of a pair."""

    file: str
    split: str
    label: str


class CheckedPair(Shape):
    """Two images with the same picture."""

    kind: Literal["same file", "alike", "mirrored"]
    images: Annotated[list[CheckedImage], Field(min_length=2, max_length=2)]


class Check(Shape):
    """What stood out in the images before the sweep."""

    lines: list[Annotated[list[str], Field(min_length=2, max_length=2)]] = []
    pairs: list[CheckedPair] = []


class Hardware(Shape):
    """The machine of a run."""

    cpu: str | None = None
    cores: Count | None = None
    memory_bytes: Count | None = None
    gpus: list[str] = []


class Run(Shape):
    """One run of a sweep's command."""

    command: str | None = None
    started_at: Annotated[str, AfterValidator(_moment)] | None = None
    seconds: Amount | None = None
    versions: dict[str, str | None] = {}
    hardware: Hardware = Hardware()
    git_commit: str | None = None
    weights: list[dict[str, str]] = []
    """Pretrained weights: their model, their name, and which part of the file was taken."""


Choices = dict[str, dict[str, str | int]]


class Provenance(Shape):
    """provenance.json."""

    runs: list[Run] = []
    choices: Choices = {}


class Pictures(Shape):
    """pictures.json."""

    sheet: dict[str, list[Annotated[str, AfterValidator(_picture)]]] = {}
    examples: dict[str, Annotated[str, AfterValidator(_picture)]] = {}


class Training(Shape):
    """training.json: the training images whose labels the best networks doubt most."""

    trials: list[str]
    images: Annotated[int, Field(ge=1)]
    doubted: list[tuple[str, Count, Count, Share]]

    @model_validator(mode="before")
    @classmethod
    def _rows(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not isinstance(given.get("doubted"), list):
            return given
        rows = [tuple(row) if isinstance(row, list) else row for row in given["doubted"]]
        return {**given, "doubted": rows}


class _Choices(Shape):
    """choices.json: a device and what was chosen for it."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")
    __pydantic_extra__: dict[str, dict[str, str | int]]


class Unsealed(Shape):
    """unsealed.json."""

    at: Annotated[str, AfterValidator(_moment)]


class DecisionLine(Shape):
    """A line of what stopping rules decided: see `planning.decisions.Note`."""

    rule: str
    trial: str
    epoch: Annotated[int, Field(ge=1, le=1_000_000)]
    value: FiniteFloat | None = None
    reason: str | None = None


class TablesNote(Shape):
    """tables.json."""

    digest: str
    planned: Annotated[int, Field(ge=0, le=10**8)]
    files: dict[Literal["trials.parquet", "epochs.parquet", "predictions.parquet"], str] = Field(min_length=3)


class ReportNote(Shape):
    """report.json."""

    made_from: str
    summary: list[Annotated[list[str], Field(min_length=2, max_length=2)]]
    files: dict[
        Annotated[str, Field(pattern=r"^(report\.(html|md)|doubted\.csv|plots/[A-Za-z0-9_][A-Za-z0-9_.-]*\.png)$")], str
    ]


class ProgressNote(Shape):
    """progress.json."""

    seconds_left: Amount


class Begun(BaseModel):
    """trial.json."""

    model_config = ConfigDict(frozen=True)

    stage: str
    settings: Settings
    parent_id: str | None = None


class EpochLine(Shape):
    """A line of epochs.jsonl."""

    epoch: Annotated[int, Field(ge=0, le=1_000_000)]
    train_loss: FiniteFloat | None = None
    train_accuracy: FiniteFloat | None = None
    val_loss: FiniteFloat | None = None
    val_accuracy: Share | None = None
    val_balanced_accuracy: Share | None = None
    val_macro_f1: Share | None = None
    val_auroc: Share | None = None
    val_average_precision: Share | None = None
    val_top5_accuracy: Share | None = None
    val_brier: Amount | None = None
    val_ece: Share | None = None
    lr: FiniteFloat
    seconds: Amount


_EPOCHS = TypeAdapter(list[EpochLine])
_LONG_NUMBER = re.compile(rb"\d{20}")


def whole_epochs(lines: Sequence[bytes]) -> list[dict[str, Any]] | None:
    """Parse the lines of an epochs.jsonl all at once, which takes a fifth of the time.

    None where any of them is no row of an epoch, or holds what has to be looked at by itself.
    """
    content = b"[%s]" % b",".join(lines)
    if _LONG_NUMBER.search(content):
        return None
    try:
        rows = from_json(content, allow_inf_nan=False)
        _EPOCHS.validate_python(rows)
    except ValueError:
        return None
    is_plain = len(rows) == len(lines) and all(row.keys() <= EpochLine.model_fields.keys() for row in rows)
    return rows if is_plain else None


class Round(Shape):
    """A round of the stage that trains the best settings again, recorded as a suggestion."""

    contenders: list[Count]
    seeds: Annotated[int, Field(ge=1, le=MOST_SEEDS)] = 1
    lost: list[Count] = []
    ended: str = ""


class StudyLine(Shape):
    """A line of a searcher's suggestions."""

    index: Count
    suggestion: Round | Annotated[dict[str, JsonValue], AfterValidator(_of_axes)]


SHAPES: dict[str, type[Shape]] = {
    "data.json": Data,
    "provenance.json": Provenance,
    "choices.json": _Choices,
    "pictures.json": Pictures,
    "training.json": Training,
    "unsealed.json": Unsealed,
}
"""The files of the folder itself."""


def problem(shape: type[BaseModel], plain: Any) -> str:
    """Say where a parsed file differs from its shape, what is allowed and what was given; empty if it fits."""
    try:
        shape.model_validate(plain)
    except ValidationError as error:
        return explained(error)
    return ""


def explained(error: ValidationError) -> str:
    """Word the first of pydantic's complaints: `runs.0.seconds: it should be a valid number, given "x"`."""
    first = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(shown(part) for part in first["loc"] if part != "[key]")
    wanted = first["msg"].removeprefix("Value error, ").replace("Input should", "it should").replace("Field", "it is")
    given = "" if first["type"] == "missing" or isinstance(first["input"], dict) else f", given {shown(first['input'])}"
    return f"{where}: {wanted}{given}" if where else wanted
