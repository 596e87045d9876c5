"""A network as a folder that stands alone: its weights, programs for torch and for onnxruntime, and a card.

What is exported is run on the test images before the folder appears: it must answer as was recorded.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnsearch import data as images
from cnnsearch.data.dataset import Dataset
from cnnsearch.data.loading import reading_of
from cnnsearch.errors import DiskError, RequestError, ResultsError
from cnnsearch.execution.machine.hardware import detect
from cnnsearch.spec.own_code import trusted
from cnnsearch.storage.durable import temporary_folder
from cnnsearch.storage.paths import typed_path
from cnnsearch.use.card import Agreement, write_card
from cnnsearch.use.choose import Chosen
from cnnsearch.words import listed, printable

FORMATS = ("safetensors", "onnx", "pt2")
NEEDED = ("onnx", "onnxruntime", "onnxscript")
"""Packages that ONNX needs: the extra `export`."""
AT_ONCE = 64
"""Images that an exported program is tried on at a time."""

Answer = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Images uint8 [B, 3, S, S] -> probabilities [B, classes]."""


@dataclass(frozen=True)
class Exported:
    """A folder that was written."""

    folder: Path
    agreements: dict[str, Agreement]
    """Format -> how often it answers as was recorded."""


def checked_formats(asked: str) -> tuple[str, ...]:
    """Parse `safetensors,onnx`. Raises RequestError for one that is unknown, or whose packages are not installed."""
    formats = tuple(dict.fromkeys(part.strip() for part in asked.split(",") if part.strip()))
    if odd := [name for name in formats if name not in FORMATS]:
        raise RequestError(f"--format {printable(odd[0])}: allowed are {', '.join(FORMATS)}, with commas between")
    if not formats:
        raise RequestError(f"--format names none: give one or more of {', '.join(FORMATS)}")
    if "onnx" in formats and (missing := [name for name in NEEDED if find_spec(name) is None]):
        others = ",".join(name for name in formats if name != "onnx")
        without = f", or leave it out: --format {others}" if others else ""
        raise RequestError(f"--format onnx needs {listed(missing)}: pip install 'cnnsearch[export]'{without}")
    return formats


def checked_destination(given: str | Path) -> Path:
    """The folder to write. Raises RequestError where there is something in it, or it cannot be made."""
    folder = typed_path(given)
    if folder.is_dir() and not any(folder.iterdir()):
        return folder
    if os.path.lexists(folder):
        raise RequestError(f"{printable(str(folder))} exists already: give a folder that is new or empty")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"{printable(str(folder))} cannot be made: {error.strerror}") from None
    return folder


def export(
    chosen: Chosen, destination: str | Path, formats: Sequence[str] = FORMATS, data: str | None = None
) -> Exported:
    """Write a network's folder, complete or not at all.

    Args:
        chosen: the trial.
        destination: a folder that is new or empty.
        formats: what to write, of `FORMATS`.
        data: where the images of the sweep are now; None: where they were.

    Raises:
        RequestError: the images, or weights, are missing or not those of the sweep; or what was exported answers
            otherwise than was recorded, though the trial computed in fp32 as it does.
        DiskError: the folder cannot be written.
    """
    from cnnsearch.use.programs import (
        StandAlone,
        exported_program,
        onnx_answer,
        pt2_answer,
        save_onnx,
        save_pt2,
        save_weights,
    )

    folder = checked_destination(destination)
    module = StandAlone.of(chosen, data)
    dataset = _dataset(chosen, module.interpolation, data)
    split, recorded = _recorded(chosen)
    try:
        draft = temporary_folder(folder.absolute().parent)
    except OSError as error:
        raise RequestError(f"{printable(str(folder))} cannot be made: {error.strerror}") from None
    try:
        answers: dict[str, Answer] = {}
        if "safetensors" in formats:
            save_weights(module, chosen, draft / "weights.safetensors")
            answers["safetensors"] = module.answer
            _write_code(draft, chosen)
        program = exported_program(module) if {"onnx", "pt2"} & set(formats) else None
        if "onnx" in formats and program is not None:
            save_onnx(program, draft / "model.onnx")
            answers["onnx"] = onnx_answer(draft / "model.onnx")
        if "pt2" in formats and program is not None:
            save_pt2(program, draft / "model.pt2")
            answers["pt2"] = pt2_answer(draft / "model.pt2")
        tried = functools.partial(_agreement, dataset=dataset, split=split, recorded=recorded)
        agreements = {name: tried(answer) for name, answer in answers.items()}
        for name, found in agreements.items():
            _refuse_others(name, found, chosen)
        _write_json(draft / "classes.json", list(chosen.classes))
        _write_json(draft / "preprocessing.json", _preprocessing(chosen, module))
        write_card(draft / "README.md", chosen, module.interpolation, agreements)
        draft.chmod(0o755)
        draft.rename(folder)
    except OSError as error:
        raise DiskError(f"{folder} cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Exported(folder, agreements)


def _dataset(chosen: Chosen, interpolation: Any, data: str | None) -> Dataset:
    """Load the images of the sweep, as the trial saw them. Raises RequestError where they are missing or others."""
    sweep = chosen.sweep if data is None else chosen.sweep.with_values({"data.source": data})
    size = chosen.record.settings.image_size
    threads = detect().cores
    found = images.load(sweep.data, [size], interpolation=interpolation, threads=threads, before=sweep.data)[size]
    is_known = not found.folds or chosen.record.data in found.fold_fingerprints
    if found.fingerprint != chosen.data["fingerprint"] or not is_known:
        raise RequestError(
            f"{sweep.data.source}: these are not the images of {chosen.results}, on which what is exported is tried; "
            "--data says where they are"
        )
    return found.of(chosen.record.data) if found.folds else found


def _recorded(chosen: Chosen) -> tuple[str, NDArray[np.int32]]:
    """The split that is tried, validation if the test set is sealed; and the class recorded for each of its images."""
    found = chosen.results.trial(chosen.record.trial_id).predictions()
    for split in ("val",) if chosen.is_sealed else ("test", "val"):
        if (split, "best") in found:
            return split, found[split, "best"][0]
    raise ResultsError(f"{chosen.results.path}: trial {chosen.record.trial_id} has no predictions to compare with")


def _agreement(answer: Answer, dataset: Dataset, split: str, recorded: NDArray[np.int32]) -> Agreement:
    rows = dataset.indices[split]
    if len(rows) != len(recorded):
        raise ResultsError(f"{len(recorded):,} predictions are recorded for {len(rows):,} images")
    same = 0
    for start in range(0, len(rows), AT_ONCE):
        batch = np.ascontiguousarray(dataset.images[rows[start : start + AT_ONCE]].transpose(0, 3, 1, 2))
        same += int((answer(batch).argmax(axis=1) == recorded[start : start + AT_ONCE]).sum())
    return Agreement(same, len(rows), split)


def _refuse_others(name: str, found: Agreement, chosen: Chosen) -> None:
    if found.same < found.of and chosen.record.precision == "fp32":
        raise RequestError(
            f"trial {chosen.record.trial_id}: exported as {name} it answers otherwise than was recorded for "
            f"{found.of - found.same:,} of {found.of:,} {found.images}; nothing was written"
        )


_JPEG = {
    False: "decoded at full size",
    True: "decoded at the smallest of 1, 1/2, 1/4 and 1/8 of its size at which both sides have image_size pixels",
}
"""Whether JPEG files are scaled as they are decoded -> how."""


def _preprocessing(chosen: Chosen, module: Any) -> dict[str, Any]:
    return {
        "image_size": module.image_size,
        "colour": "RGB",
        "input": {"dtype": "uint8", "shape": ["batch", 3, module.image_size, module.image_size]},
        "jpeg": _JPEG[reading_of(chosen.sweep.data).scales_jpeg],
        "orientation": "turned upright as EXIF says",
        "transparency": "blended with white",
        "grey_range_16_bit": chosen.sweep.data.model_dump(mode="json")["grey_range"],
        "resize": {"filter": module.interpolation, "antialias": True, "keeps_aspect_ratio": False},
        "mean": module.mean.flatten().tolist(),
        "std": module.std.flatten().tolist(),
        "normalisation": "(value from 0 to 255 - mean) / std; done inside model.onnx and model.pt2",
    }


def _write_code(folder: Path, chosen: Chosen) -> None:
    """Write the code of a network of the user's own, which the state dict alone does not say."""
    snapshot = trusted(chosen.record.settings.code)
    for name, source in snapshot.files.items() if snapshot else ():
        file = folder / "code" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source, encoding="utf-8")


def _write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
