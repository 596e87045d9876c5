"""What a sweep takes in: its images, in every form that trials need, and its pretrained weights."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cnnsearch import data as images
from cnnsearch.data.dataset import Dataset, Form
from cnnsearch.data.images import Interpolation
from cnnsearch.errors import RequestError, ResultsError
from cnnsearch.execution.context import Choices, SharedContext
from cnnsearch.execution.machine.hardware import Hardware, detect, lay_out
from cnnsearch.results.folder import Results
from cnnsearch.results.place import ResultsPlace
from cnnsearch.results.record import Record
from cnnsearch.spec.cells import combinations
from cnnsearch.spec.data import AutoSplit, DataSpec
from cnnsearch.spec.load import from_yaml
from cnnsearch.spec.metric import METRICS, problem
from cnnsearch.spec.model_names import is_timm
from cnnsearch.spec.own_code import Snapshot, trusted
from cnnsearch.spec.problems import fold_problems
from cnnsearch.spec.settings import ResolvedPrecision
from cnnsearch.spec.sweep import Sweep
from cnnsearch.training.models.checked_timm import misfits
from cnnsearch.training.models.pretrained import OWN_IMAGES, Key, Pretrained, find_weights
from cnnsearch.words import listed, printable

FEATURES_SHARE = 0.5
"""Share of memory that the outputs of frozen layers may take; they are mapped once for all trials."""


def features_limit(hardware: Hardware) -> int:
    """Most bytes that the outputs of frozen layers may take on a machine."""
    return int(FEATURES_SHARE * hardware.memory_bytes)


def image_sizes(sweep: Sweep) -> list[int]:
    """List every image size that a trial of the sweep may need."""
    possible = (cell for stage in sweep.stages for cell in combinations(stage, ["image_size"]))
    return sorted({sweep.data.image_size} | {int(cell["image_size"]) for cell in possible if "image_size" in cell})


def recorded_data(results: ResultsPlace, sweep: Sweep) -> DataSpec | None:
    """What earlier runs chose for these images; None where there were none.

    The split is left open where the sweep now asks for what does not go with the recorded one. Where results are at a
    URI, which is not read yet, all is left open that may be.
    """
    if results.remote is not None:
        return sweep.data
    try:
        data = from_yaml(results.here.sweep_text(), "").data
    except RequestError:
        return None
    if data.source != sweep.data.source:
        return None
    clash = fold_problems(sweep.stages, sweep.seeds, sweep.train, data, confirms=sweep.confirm is not None)
    return data.model_copy(update={"split": AutoSplit()}) if any(clash) else data


def load_forms(
    sweep: Sweep,
    weights: dict[Key, Pretrained],
    before: DataSpec | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    on_check: Callable[[int, int], None] | None = None,
) -> dict[Form, Dataset]:
    """Load the images at every size and in every interpolation that trials may need; bilinear ones always.

    These are looked at as well if `on_check` is given: see `data.loading.load`.
    """
    sizes = image_sizes(sweep)
    ways: list[Interpolation] = ["bilinear"]
    ways += sorted({found.preprocessing.interpolation for found in weights.values()} - {"bilinear"})
    how: dict[str, Any] = {"threads": detect().cores, "before": before, "on_progress": on_progress}
    loaded = {
        way: images.load(sweep.data, sizes, interpolation=way, on_check=on_check if way == "bilinear" else None, **how)
        for way in ways
    }
    return {(size, way): dataset for way in ways for size, dataset in loaded[way].items()}


def own_code(sweep: Sweep) -> tuple[Snapshot, ...]:
    """The code of the user's own that a sweep names. Raises RequestError where the user has not named its file."""
    found = []
    for one in sweep.code:
        snapshot = trusted(one.digest)
        if snapshot is None:
            raise RequestError(
                f"{listed(one.models)} is from the file {printable(one.file)}, and a sweep file alone runs no code.\n"
                f"Name the file: --code {shlex.quote(one.file)}; in a notebook code=[{one.file!r}]"
            )
        found.append(snapshot)
    return tuple(found)


def without_misfits(sweep: Sweep) -> tuple[Sweep, tuple[str, ...]]:
    """Leave out networks on a sweep's axes that cannot take the images' size, and refuse those that only stand there.

    Returns:
        The sweep, and for each network that was left out what it needs.

    Raises:
        RequestError: a trial would have images of a size that its model cannot take; or one of timm's models is named
            and timm is not installed, or has no such model.
    """
    known = misfits(_timm_sizes(sweep))
    fitting, left_out = sweep.without_misfits(known)
    for pair in _timm_sizes(fitting):
        if pair in known:
            raise RequestError(known[pair])
    return fitting, left_out


def _timm_sizes(sweep: Sweep) -> list[tuple[str, int]]:
    """Every pair of one of timm's models and an image size that trials of a sweep may have."""
    base = {"model": sweep.train.model, "image_size": sweep.data.image_size}
    found: dict[tuple[str, int], None] = {}
    spaces: dict[str, list[dict[str, Any]]] = {}
    for stage in sweep.stages:
        roots = spaces[stage.start_from.stage] if stage.start_from else [base]
        cells = [{name: value for name, value in cell.items() if name in base} for cell in combinations(stage, base)]
        unique = {tuple(sorted({**root, **cell}.items())): None for root in roots for cell in cells}
        spaces[stage.name] = [dict(items) for items in unique]
        found |= {(one["model"], one["image_size"]): None for one in spaces[stage.name] if is_timm(one["model"])}
    return list(found)


def named_weights(sweep: Sweep) -> set[Key]:
    """List every pair of model and pretrained weights that a trial of the sweep starts from."""
    base = {"model": sweep.train.model, "weights": sweep.train.weights}
    roots = (stage for stage in sweep.stages if stage.start_from is None)
    used = [{**base, **cell} for stage in roots for cell in combinations(stage, base)]
    return {(cell["model"], cell["weights"]) for cell in used if cell["weights"] != "none"}


def digests(weights: dict[Key, Pretrained]) -> dict[Key, str]:
    """Return what planning needs to know about the weights: (model, name) -> digest."""
    return {key: found.identity for key, found in weights.items()}


def recorded_context(results: Results, sweep: Sweep) -> SharedContext:
    """What the trials of a sweep shared, with its images and its choices: for using trials that ended.

    Raises RequestError where images or weights are not those of the sweep.
    """
    weights = find_weights(named_weights(sweep))
    datasets, hardware = load_forms(sweep, weights, sweep.data), detect()
    recorded = results.read("data.json").get("fingerprint")
    if datasets[sweep.data.image_size, "bilinear"].fingerprint != recorded:
        raise RequestError(f"{sweep.data.source}: these are not the images of {results}; --data says where they are")
    layout = lay_out(sweep.run, hardware=hardware)
    by_device = results.read("choices.json")
    chosen: dict[str, Any] = by_device.get(layout.device) or next(iter(by_device.values()), {})
    threads, precision = int(chosen.get("threads", layout.threads)), chosen.get("precision", "fp32")
    choices = Choices(layout.device, threads, precision)
    return SharedContext(results.path, datasets, choices, 0.0, weights, features_limit(hardware))


def context_again(results: Results, sweep: Sweep, records: Sequence[Record], place: Path) -> SharedContext:
    """What some recorded trials shared, to train them again in another folder.

    Args:
        results: where they are recorded.
        sweep: theirs, with the source of its images as it is now.
        records: of the trials; the first one's device, threads and precision are chosen.
        place: results folder to write.

    Raises RequestError where images or weights are not those that the trials were trained on.
    """
    first = records[0]
    keys: set[Key] = {(r.settings.model, r.settings.weights) for r in records if r.settings.weights != "none"}
    weights = recorded_weights(results, keys, first.trial_id)
    needed = {
        (record.settings.image_size, (weights[key].preprocessing if key in weights else OWN_IMAGES).interpolation)
        for record in records
        for key in [(record.settings.model, record.settings.weights)]
    }
    forms = {
        (size, way): images.load(sweep.data, [size], interpolation=way, threads=detect().cores, before=sweep.data)[size]
        for size, way in sorted(needed)
    }
    for record in records:
        if any(record.data not in (one.fold_fingerprints or (one.fingerprint,)) for one in forms.values()):
            raise RequestError(
                f"{sweep.data.source}: these are not the images, or not the split, that trial {record.trial_id} was "
                "trained on; --data says where they are"
            )
    precision: ResolvedPrecision = "bf16" if first.precision == "bf16" else "fp32"
    choices = Choices(device_again(first), first.threads or 1, precision)
    is_sealed = results.is_sealed(sweep)
    limit = features_limit(detect())
    return SharedContext(place, forms, choices, math.inf, weights, limit, is_sealed=is_sealed)


def device_again(record: Record) -> str:
    """The device that a recorded trial is computed on again: its own, where this machine has one."""
    return detect().device if record.device == detect().device else "cpu"


def recorded_weights(results: Results, keys: set[Key], trial_id: str) -> dict[Key, Pretrained]:
    """Find pretrained weights that a trial has used. Raises ResultsError where they are others now."""
    found = find_weights(keys)
    known = {(model, name): identity for model, name, identity in results.read("data.json").get("weights", [])}
    for key in sorted(keys):
        if found[key].identity != known.get(key):
            raise ResultsError(f"{found[key].file}: these are not the weights that trial {trial_id} started from")
    return found


def refuse_metrics(sweep: Sweep, classes: int) -> None:
    """Raise RequestError where something is chosen by a metric that makes no sense with so many classes."""
    for name, key in sweep.chosen_by.items():
        if reason := problem(name, classes):
            allowed = ", ".join(other for other in METRICS if problem(other, classes) is None)
            raise RequestError(f"{key}: {reason}; allowed: {allowed}")
