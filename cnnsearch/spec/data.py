"""Which images a sweep trains on, and how they are split."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, Strict, field_validator, model_validator

from cnnsearch.spec.part import Float, Int, Part, SpecProblemError


class FillSplit(Part):
    """Walk the files in sorted order: fill training, then validation; the rest is test."""

    method: Literal["fill"] = Field(
        "fill", description="takes files in sorted order: training, then validation; the rest is test"
    )
    train_per_class: Int = Field(50, ge=1, description="training images per class")
    val_per_class: Int = Field(20, ge=1, description="validation images per class")


class StratifiedSplit(Part):
    """Shuffle the images of each class with a seed, then deal them out; the rest is test."""

    method: Literal["stratified"] = Field(
        "stratified", description="shuffles each class, then deals it out; the rest is test"
    )
    train: Annotated[Int | Float, Field(gt=0)] = Field(
        0.6, description="training images per class: a fraction below 1, or a number"
    )
    val: Annotated[Int | Float, Field(gt=0)] = Field(
        0.2, description="validation images per class: a fraction below 1, or a number"
    )
    seed: Int = Field(0, ge=0, description="seed of the shuffle")


class FoldsSplit(Part):
    """Keep a test set apart, then deal the other images into k folds; each validates once, while the others train."""

    method: Literal["folds"] = Field(
        "folds", description="k-fold cross-validation: every setting is trained once for each fold"
    )
    k: Int = Field(5, ge=2, le=50, description="number of folds")
    repeats: Int = Field(1, ge=1, le=100, description="how often all images are dealt anew; k x repeats trials each")
    test: Annotated[Int | Float, Field(gt=0)] = Field(
        0.2, description="test images per class, in no fold: a fraction below 1, or a number"
    )
    group: str | None = Field(
        None,
        min_length=1,
        description="what images must have in common to stay in the same fold: a column of a table, or a regular "
        "expression that finds it in their names, as in 'patient[0-9]+'",
    )
    seed: Int = Field(0, ge=0, description="seed of the shuffles")

    @field_validator("group")
    @classmethod
    def _is_pattern(cls, group: str | None) -> str | None:
        try:
            re.compile(group or "")
        except re.error as error:
            raise SpecProblemError((), f"given {group!r}, no regular expression: {error}") from None
        return group

    @model_validator(mode="after")
    def _are_enough(self) -> Self:
        if self.count < LEAST_FOLDS:
            allowed = f"k x repeats from {LEAST_FOLDS} on, since fewer say nothing about how far they vary"
            raise SpecProblemError(("k",), f"given k: {self.k}, repeats: {self.repeats}; allowed: {allowed}")
        return self

    @property
    def count(self) -> int:
        """Number of trials that every setting takes."""
        return self.k * self.repeats


LEAST_FOLDS = 3
"""Fewest trials of a setting that say how far it varies."""


class AutoSplit(Part):
    """What suits the images: see `data.splits.suited`."""

    method: Literal["auto"] = Field(
        "auto",
        description="as fill, if every class has enough images and at least a quarter of all images then train; else "
        "as stratified. A results folder keeps what it began with",
    )


ChosenSplit = FillSplit | StratifiedSplit | FoldsSplit
Split = Annotated[AutoSplit | ChosenSplit, Field(discriminator="method")]
SPLIT_KINDS: tuple[type[Part], ...] = (StratifiedSplit, FillSplit, FoldsSplit, AutoSplit)


ChosenJpeg = Literal["exact", "scaled"]


class DataSpec(Part):
    """Which images, at which size, and how they are split."""

    source: str = Field(
        "fashion-mini",
        description="fashion-mini, torchvision:NAME, or a path: of a folder of images, of a table of them (.csv, .tsv, "
        ".parquet), or of files that hold them (.parquet, .tar); see data.md",
    )
    image_size: Int = Field(64, ge=8, le=1024, description="side length of the square images, in pixels")
    split: Split = AutoSplit()
    layout: Literal["auto", "classes"] = Field(
        "auto",
        description="what the sub-folders of a folder are. auto: splits if they are called train, val and test or "
        "something like it, else classes; classes: classes, whatever their names",
    )
    follow_links: Annotated[bool, Strict()] = Field(
        False, description="whether symbolic links in a folder of images, and paths in a table, may lead out of it"
    )
    grey_range: Literal["full"] | tuple[Int, Int] = Field(
        "full",
        description="of 16-bit grey images, the values that become black and white: full (0 to 65535), or two numbers, "
        "as [0, 4095] for images of 12 bits",
    )
    jpeg: Literal["auto"] | ChosenJpeg = Field(
        "auto",
        description="how JPEG files are decoded. exact: at full size; scaled: at 1/2, 1/4 or 1/8 of it where both "
        "sides stay at least as long as image_size, in about half the time and with slightly other pixels; auto: "
        "scaled where there are more than 20,000 images. A results folder keeps what it began with",
    )
    on_bad_image: Literal["refuse", "skip"] = Field(
        "refuse", description="what to do with unreadable images: end with an error, or skip them"
    )

    @field_validator("split", mode="before")
    @classmethod
    def _name_method(cls, split: Any) -> Any:
        """Add the method that the keys belong to: `train: 0.7` says enough."""
        if isinstance(split, dict) and "method" not in split:
            kind = (
                max(SPLIT_KINDS, key=lambda kind: len(split.keys() & kind.model_fields.keys())) if split else AutoSplit
            )
            return {**split, "method": kind.model_fields["method"].default}
        return split

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.grey_range != "full" and not 0 <= self.grey_range[0] < self.grey_range[1] <= 65535:
            given = list(self.grey_range)
            allowed = "full, or two whole numbers from 0 to 65535, the smaller one first, such as [0, 4095]"
            raise SpecProblemError(("grey_range",), f"given {given}; allowed: {allowed}")
        return self
