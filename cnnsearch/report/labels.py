"""What to look at in the data: labels that the best networks doubt, copies, and what else stands out."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cnnsearch.data.dataset import SPLIT_WORDS
from cnnsearch.evidence.doubts import Doubt, doubts, judges, shown
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.words import counted

COLUMNS = ("file", "split", "label", "networks_say", "label_probability", "place_in_split")
"""Columns of doubted.csv."""
_KINDS = {"same file": "the same file", "alike": "almost the same picture", "mirrored": "almost the same, mirrored"}


@dataclass(frozen=True)
class Doubted:
    """An image whose label is doubted, as the report shows it."""

    example: str
    split: str
    label: str
    predicted: str
    png: str | None
    """Base64, where there is a picture."""


@dataclass(frozen=True)
class Shown:
    """An image of a pair."""

    file: str
    split: str
    label: str
    png: str | None


@dataclass(frozen=True)
class Copies:
    """Two images with the same picture."""

    kind: str
    images: tuple[Shown, ...]
    differs: bool
    """Whether their labels differ."""


@dataclass(frozen=True)
class Labels:
    """What to look at in the data."""

    doubts: list[Doubted]
    note: str
    csv: bytes | None
    """Content of doubted.csv; None where no network could be asked."""
    found: list[tuple[str, str]]
    """(what, how many): what stood out in the images."""
    pairs: list[Copies]


def labels(evidence: Evidence) -> Labels:
    """Collect what to look at; nothing where no network finished, and the images were not looked at."""
    tables = evidence.tables
    pictures = tables.pictures.get("examples") or {}
    found = doubts(evidence)
    some = [
        Doubted(one.example, SPLIT_WORDS[one.split], one.label, one.predicted, pictures.get(one.example))
        for one in shown(found)
    ]
    check = tables.data.get("check") or {}
    return Labels(
        doubts=some,
        note=_note(evidence, found),
        csv=_csv(found) if found else None,
        found=[(str(what), str(text)) for what, text in check.get("lines") or []],
        pairs=[_copies(pair, pictures) for pair in check.get("pairs") or []],
    )


def pairs_wanted(data: Mapping[str, Any]) -> list[str]:
    """Names of the images of pairs that a report shows pictures of."""
    pairs = (data.get("check") or {}).get("pairs") or []
    return [str(image["file"]) for pair in pairs for image in pair["images"]]


def _copies(pair: Mapping[str, Any], pictures: Mapping[str, str]) -> Copies:
    images = tuple(
        Shown(image["file"], image["split"], image["label"], pictures.get(image["file"])) for image in pair["images"]
    )
    return Copies(_KINDS[pair["kind"]], images, images[0].label != images[1].label)


def _note(evidence: Evidence, found: list[Doubt]) -> str:
    networks = counted(len(judges(evidence)), "best network")
    text = (
        f"The images whose labels the {networks} by validation doubt most, by the probability that they give the "
        "label. Some are wrong labels, others only hard; nothing here changes a score."
    )
    if not any(doubt.split == "train" for doubt in found):
        return f"{text} Training images are not among them: no network was asked about those."
    return (
        f"{text} Networks believe the labels that they were trained on, so an image is compared with others of its "
        "split alone; wrong labels of training images that were learnt by heart are not found."
    )


def _csv(found: list[Doubt]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in found:
        split = SPLIT_WORDS[one.split]
        writer.writerow((one.example, split, one.label, one.predicted, f"{one.given:.4f}", f"{one.place:.4f}"))
    return text.getvalue().encode(errors="backslashreplace")
