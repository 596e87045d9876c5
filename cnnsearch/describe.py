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


def write_description(ready: Prepared) -> bool:
    """Write the description of the sweep before its first trial, without which the records could not be understood.

    Returns whether the folder described another sweep before, or none.
    """
    dataset, results, described = ready.dataset, ready.results, to_yaml(ready.sweep)
    is_another = not results.here.sweep_file.is_file() or results.here.sweep_text() != described
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
    results.write("sweep.yaml", described)
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
    return is_another


def described_run(ready: Prepared, started_at: datetime, command: str) -> dict[str, Any]:
    """What the folder's history says of a run, but for how long it took."""
    hardware = ready.hardware
    return {
        "command": command,
        "started_at": started_at.isoformat(timespec="seconds"),
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


def write_provenance(ready: Prepared, run: dict[str, Any], seconds: float | None = None) -> None:
    """Put this run last in the folder's history: as it begins, without `seconds`, and again as it ends.

    The first entry stays where a run is killed, so that reports name the command that goes on with it.
    """
    runs = ready.results.here.read("provenance.json").get("runs", [])
    if seconds is not None:
        runs = [*(runs[:-1] if runs[-1:] == [run] else runs), {**run, "seconds": round(seconds, 3)}]
    else:
        runs = [*runs, run]
    choices = ready.results.here.read("choices.json")
    ready.results.write("provenance.json", {"runs": runs, "choices": choices})


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
