"""What a results folder says about its sweep: its data, the choices made, each run, and the pictures of its report."""

from __future__ import annotations

import base64
import functools
from datetime import datetime
from typing import Any

from cnnsearch import data as images
from cnnsearch.checking import Checked
from cnnsearch.data.dataset import SHEET_CLASSES, Dataset, png
from cnnsearch.execution.machine import software
from cnnsearch.prepare import Prepared
from cnnsearch.results.kept_code import keep
from cnnsearch.results.place import ResultsPlace
from cnnsearch.spec.load import to_yaml

SHEET_IMAGES = 8
"""Images of each class in the report's contact sheet."""


def write_description(ready: Prepared) -> None:
    """Write the description of the sweep before its first trial, without which the records could not be understood."""
    dataset, results = ready.dataset, ready.results
    folds, listed = dataset.folds, dict(dataset.indices)
    if folds is not None:
        listed["val"] = folds.rows
    examples = {
        split: {
            "names": [dataset.names[row] for row in listed[split]],
            "labels": dataset.labels[listed[split]].tolist(),
        }
        for split in ("val", "test")
    }
    dealt = [folds.dealt(repeat).tolist() for repeat in range(folds.split.repeats)] if folds else []
    keep(results, ready.code)
    results.write("sweep.yaml", to_yaml(ready.sweep))
    results.write(
        "data.json",
        {
            "source": dataset.source,
            "fingerprint": dataset.fingerprint,
            "classes": list(dataset.classes),
            "parts": list(dataset.parts),
            "counts": {split: dataset.counts(split) for split in images.SPLITS},
            "warnings": list(dataset.warnings),
            "weights": [[*key, found.identity] for key, found in ready.weights.items()],
            "examples": examples,
            **({"folds": {"fingerprints": list(dataset.fold_fingerprints), "dealt": dealt}} if folds else {}),
            "check": Checked(dataset).recorded(is_sealed=ready.is_sealed),
        },
    )
    chosen = {"precision": ready.precision, "threads": ready.layout.threads}
    results.write("choices.json", {**results.here.read("choices.json"), ready.layout.device: chosen})


def write_provenance(ready: Prepared, started_at: datetime, seconds: float, command: str) -> None:
    """Add this run to the folder's history."""
    hardware = ready.hardware
    this = {
        "command": command,
        "started_at": started_at.isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        "versions": software.versions(),
        "hardware": {
            "cpu": hardware.cpu,
            "cores": hardware.cores,
            "memory_bytes": hardware.memory_bytes,
            "gpus": list(hardware.gpus),
        },
        "layout": {"trials_at_once": ready.layout.trials_at_once, "threads": ready.layout.threads},
        "git_commit": software.commit(),
        "weights": [
            {"model": model, "weights": name, "taken": found.note or "all of it"}
            for (model, name), found in ready.weights.items()
        ],
    }
    before = ready.results.here.read("provenance.json")
    choices = ready.results.here.read("choices.json")
    ready.results.write("provenance.json", {"runs": [*before.get("runs", []), this], "choices": choices})


def write_pictures(results: ResultsPlace, dataset: Dataset, examples: list[str]) -> dict[str, Any]:
    """Store and return the pictures that the report shows, so that it can be made again without the images.

    `examples` are the names of the images that it shows, beside those of the contact sheet.
    """
    rows = {name: row for row, name in enumerate(dataset.names)}
    train = dataset.indices["train"]
    sheet = {
        name: train[dataset.labels[train] == label][:SHEET_IMAGES]
        for label, name in enumerate(dataset.classes[:SHEET_CLASSES])
    }
    encoded = functools.partial(_encoded, dataset)
    pictures = {
        "sheet": {name: [encoded(int(row)) for row in some] for name, some in sheet.items()},
        "examples": {name: encoded(rows[name]) for name in examples if name in rows},
    }
    results.write("pictures.json", pictures)
    return pictures


def _encoded(dataset: Dataset, row: int) -> str:
    return base64.b64encode(png(dataset, row)).decode("ascii")
