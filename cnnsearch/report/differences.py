"""What differs between sweeps that are compared, beside the settings that they vary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cnnsearch.evidence.contrasts import same_test_images
from cnnsearch.evidence.part import Part
from cnnsearch.report.cost import machine
from cnnsearch.spec.axis_words import format_value
from cnnsearch.words import listed

_MOST_DIFFERING = 8


def warnings(parts: Sequence[Part]) -> list[str]:
    """What a reader of the comparison must know first: other classes, images, recipes, versions or machines."""
    found = [f"{part.name} has no finished trial: it is left out." for part in parts if part.best is None]
    parts = [part for part in parts if part.best is not None]
    if len(parts) < 2:
        return found
    if len({frozenset(part.evidence.classes) for part in parts}) > 1:
        found.append("The sweeps tell different classes apart: their accuracies do not measure the same task.")
    prints = [str(part.evidence.tables.data.get("fingerprint") or "not recorded") for part in parts]
    same = all(same_test_images(parts[0], part) for part in parts[1:])
    if len(set(prints)) > 1:
        named = listed([f"{part.name} {mark}" for part, mark in zip(parts, prints, strict=True)])
        start = f"The sweeps did not use the same data (fingerprints: {named})."
        end = "Their test images have the same names and classes, and are taken to be the same." if same else ""
        found.append(f"{start} {end}".strip())
    if not same:
        found.append(
            "The sweeps were not all tested on the same images, or their answers are not recorded: those are not "
            "comparable image by image. Their intervals are for independent samples (Newcombe), and part of a "
            "difference may be that one set of images is easier."
        )
    found += _differing(parts)
    machines = [machine(part) or "not recorded" for part in parts]
    if len(set(machines)) > 1:
        named = "; ".join(f"{part.name}: {where}" for part, where in zip(parts, machines, strict=True))
        found.append(f"The times are from different machines ({named}).")
    return found


def _differing(parts: Sequence[Part]) -> list[str]:
    """Say what differs between the sweeps beside what they vary: recipe, images and versions."""
    told = [{**_flat(part.evidence.tables.sweep.to_dict()), **_versions(part)} for part in parts]
    varied = {axis for part in parts for stage in part.evidence.tables.sweep.stages for axis in stage.space}
    names = [name for name in dict.fromkeys(name for one in told for name in one) if name.split(".")[-1] not in varied]
    differing = [name for name in names if len({str(one.get(name)) for one in told}) > 1]
    if not differing:
        return []
    shown = [
        f"{name.removeprefix('train.')} ({'; '.join(_as_told(one.get(name)) for one in told)})"
        for name in differing[:_MOST_DIFFERING]
    ]
    rest = f", and {len(differing) - _MOST_DIFFERING} more" if len(differing) > _MOST_DIFFERING else ""
    return [f"Beside what they vary, the sweeps differ in {', '.join(shown)}{rest}; a difference may be due to those."]


def _flat(sweep: dict[str, Any]) -> dict[str, Any]:
    """The recipe and the data of a sweep with dotted names; not where the images lie, which is no difference."""
    found = {}
    for part in ("train", "data"):
        for name, value in (sweep.get(part) or {}).items():
            inner = value.items() if isinstance(value, dict) else [("", value)]
            found.update({f"{part}.{name}" + (f".{key}" if key else ""): one for key, one in inner})
    return {name: value for name, value in found.items() if name not in ("data.source", "data.on_bad_image")}


def _versions(part: Part) -> dict[str, Any]:
    runs = part.evidence.runs
    return {
        name: version for name, version in ((runs[-1].get("versions") if runs else None) or {}).items() if name != "ray"
    }


def _as_told(value: Any) -> str:
    return "not given" if value is None else format_value(value) if isinstance(value, int | float | str) else str(value)
