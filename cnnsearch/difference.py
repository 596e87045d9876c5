"""Two results folders held against each other, from what they hold: for programs. Only reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from cnnsearch import told
from cnnsearch.errors import RequestError
from cnnsearch.evidence.comparisons import LEAST_PAIRS, LEAST_SEEDS
from cnnsearch.evidence.configurations import Configuration, axes_in
from cnnsearch.evidence.contrasts import same_images
from cnnsearch.evidence.counterparts import Held, Pair, counterparts, held, judged_split
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.results.tables import load
from cnnsearch.spec.axis_words import describe
from cnnsearch.spec.metric import DEFAULT
from cnnsearch.telling import setting_of
from cnnsearch.use.choose import results_in
from cnnsearch.words import counted, printable

USUAL = ("model", "lr", "batch_size")
"""The axes that name settings where none differs."""
_SPLITS: dict[str, Literal["train", "validation", "test"]] = {"train": "train", "val": "validation", "test": "test"}
_UNTOLD = ("data.source",)
"""Where images lie, which is no difference."""


def difference(a: str, b: str, *, fail_on_regression: bool = False) -> told.Diff:
    """Hold the results in folder B against those in folder A.

    Raises RequestError where both are the same folder, and ResultsError where one cannot be read.
    """
    folders = [results_in(folder, "diff compares") for folder in (a, b)]
    if folders[0].path.resolve() == folders[1].path.resolve():
        raise RequestError(f"{printable(a)} is given twice: diff compares two different results folders")
    of_a, of_b = (Evidence(load(folder.path, store=False), DEFAULT) for folder in folders)
    return difference_of(of_a, of_b, str(folders[0]), str(folders[1]), fail_on_regression=fail_on_regression)


def difference_of(of_a: Evidence, of_b: Evidence, a: str, b: str, *, fail_on_regression: bool = False) -> told.Diff:
    """Hold the evidence of folder `b` against that of folder `a`."""
    found = counterparts(of_a, of_b)
    overall, each = held(of_a, of_b, found.pairs)
    is_regression = any(one.is_regression for one in ([overall] if overall else []) + each)
    by_pair = {id(one.pair): one for one in each}
    known = axes_in(one.values for one in [*of_a.configurations, *of_b.configurations])
    axes = [axis for axis in known if axis in {*of_a.varying, *of_b.varying}]
    axes = axes or _differing_axes(found.pairs, [*found.only_a, *found.only_b])
    has_stages = len({one.stage for one in [*of_a.configurations, *of_b.configurations]}) > 1
    split = judged_split(of_a, of_b)
    return told.Diff(
        exit_code=1 if is_regression and fail_on_regression else 0,
        a=a,
        b=b,
        sweep_a=of_a.tables.sweep.name,
        sweep_b=of_b.tables.sweep.name,
        settings=_settings(of_a, of_b),
        versions=_versions(of_a, of_b),
        images=_images(of_a, of_b, split),
        judged_on="test" if split == "test" else "validation",
        overall=_told(overall) if overall else None,
        both=[
            told.SettingOfBoth(
                name=_name(pair.a, axes, has_stages),
                a=_setting(of_a, pair.a, axes, has_stages),
                b=_setting(of_b, pair.b, axes, has_stages),
                held=_told(by_pair[id(pair)]) if id(pair) in by_pair else None,
            )
            for pair in found.pairs
        ],
        only_a=[_setting(of_a, one, axes, has_stages) for one in found.only_a],
        only_b=[_setting(of_b, one, axes, has_stages) for one in found.only_b],
        is_regression=is_regression,
        notes=_notes(of_a, of_b, found.pairs, each, overall),
    )


def _name(one: Configuration, axes: Sequence[str], has_stages: bool) -> str:
    words = ", ".join(describe(axis, one.values[axis]) for axis in axes)
    return f"{one.stage}: {words}" if has_stages else words


def _differing_axes(pairs: Sequence[Pair], others: Sequence[Configuration]) -> list[str]:
    """The axes that name settings where neither folder varies any: those in which the two differ."""
    every = [*(pair.a for pair in pairs), *others]
    known = axes_in(one.values for one in every)
    return [axis for axis in known if len({one.values[axis] for one in every}) > 1] or list(USUAL)


def _setting(evidence: Evidence, one: Configuration, axes: Sequence[str], has_stages: bool) -> told.Setting:
    return told.Setting(**{**setting_of(evidence, one), "name": _name(one, axes, has_stages)})


def _told(one: Held) -> told.HeldAgainst:
    found = one.comparison
    return told.HeldAgainst(
        difference=found.difference.value,
        low=found.difference.low,
        high=found.difference.high,
        verdict=one.verdict,
        repeats=found.basis,
        paired_by=one.paired,
        pairs=found.pairs,
        seeds=found.seeds,
        same_answers=one.same_answers,
        is_regression=one.is_regression,
    )


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[told.Differing]:
    names = dict.fromkeys([*a, *b])
    return [
        told.Differing(name=name, a=_text(a.get(name)), b=_text(b.get(name)))
        for name in names
        if a.get(name) != b.get(name)
    ]


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _settings(a: Evidence, b: Evidence) -> list[told.Differing]:
    """The keys of the sweeps that differ; of a stage that one of them lacks, its name alone."""
    flat = [_flat(evidence) for evidence in (a, b)]
    stages = [{stage.name for stage in evidence.tables.sweep.stages} for evidence in (a, b)]
    for alone, keys in ((stages[0] - stages[1], flat[0]), (stages[1] - stages[0], flat[1])):
        for name in alone:
            start = f"stages.{name}."
            for key in [key for key in keys if key.startswith(start)]:
                del keys[key]
            keys[start.rstrip(".")] = "a stage of its own"
    return _differing(*flat)


def _flat(evidence: Evidence) -> dict[str, Any]:
    """A sweep's keys, dotted as `--set` takes them."""
    found: dict[str, Any] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                add(f"{name}.{key}" if name else str(key), inner)
        elif name == "stages":
            for stage in value:
                add(f"stages.{stage['name']}", {key: inner for key, inner in stage.items() if key != "name"})
        elif name not in _UNTOLD:
            found[name] = value

    add("", evidence.tables.sweep.to_dict())
    return found


def _versions(a: Evidence, b: Evidence) -> list[told.Differing]:
    """What differs in what they were computed with, as far as both have recorded it."""
    both = _last_run(a), _last_run(b)
    shared = both[0].keys() & both[1].keys()
    return _differing(*({name: value for name, value in one.items() if name in shared} for one in both))


def _last_run(evidence: Evidence) -> dict[str, Any]:
    """What the last run of a folder was computed with, and all of its trials."""
    found: dict[str, Any] = {}
    if evidence.runs:
        run = evidence.runs[-1]
        hardware = run.get("hardware") or {}
        found = {**(run.get("versions") or {}), "code": run.get("git_commit"), "processor": hardware.get("cpu")}
        found["GPUs"] = ", ".join(hardware.get("gpus") or []) or None
    trials = evidence.tables.trials
    for name in ("device", "threads", "precision"):
        values = sorted({str(value) for value in trials[name].dropna()}) if name in trials else []
        found[name] = ", ".join(values) or None
    return found


def _images(a: Evidence, b: Evidence, split: str) -> told.ImagesOfBoth:
    prints = [evidence.tables.data.get("fingerprint") for evidence in (a, b)]
    classes = [[str(name) for name in evidence.tables.data.get("classes", [])] for evidence in (a, b)]
    return told.ImagesOfBoth(
        are_same=prints[0] is not None and prints[0] == prints[1],
        fingerprint_a=prints[0],
        fingerprint_b=prints[1],
        judged_are_same=same_images(a, b, split),
        classes_only_a=[name for name in classes[0] if name not in classes[1]],
        classes_only_b=[name for name in classes[1] if name not in classes[0]],
        splits=[_split(a, b, split, name) for split, name in _SPLITS.items()],
    )


def _split(a: Evidence, b: Evidence, split: str, name: Literal["train", "validation", "test"]) -> told.SplitOfBoth:
    sizes = [sum(evidence.tables.data.get("counts", {}).get(split, [])) for evidence in (a, b)]
    known = [_named(evidence, split) for evidence in (a, b)]
    both = None if known[0] is None or known[1] is None else len(known[0] & known[1])
    return told.SplitOfBoth(split=name, a=sizes[0], b=sizes[1], both=both)


def _named(evidence: Evidence, split: str) -> set[tuple[str, str]] | None:
    """Name and class of each image of a split; None where they are not recorded, as for training."""
    names, codes = evidence.examples.get(split), evidence.labels.get(split)
    if not names or codes is None:
        return None
    return {(name, evidence.classes[code] if code >= 0 else "") for name, code in zip(names, codes, strict=True)}


def _notes(a: Evidence, b: Evidence, pairs: Sequence[Pair], each: Sequence[Held], overall: Held | None) -> list[str]:
    found = []
    split = judged_split(a, b)
    where = a.measured.get(split, split)
    if pairs and not same_images(a, b, split):
        found.append(
            f"The {where} images differ, so only seeds count, and nothing is compared image by image. One set of "
            "images may be easier: no difference is called clear."
        )
    if split == "val" and "test" in {*a.measured, *b.measured}:
        found.append("The test set of one of them is sealed: both are compared on the validation images.")
    few = [one for one in each if not one.comparison.can_tell]
    if few:
        found.append(
            f"{counted(len(few), 'setting')} of {len(each)} cannot be told apart, whatever the networks show: that "
            f"takes {LEAST_SEEDS} seeds in both."
        )
    if overall is None and 0 < len(pairs) < LEAST_PAIRS:
        found.append(f"With fewer than {LEAST_PAIRS} settings in both, nothing is said of them together.")
    found += [
        f"{folder}: no run has come to its end, so its versions and its machine are not recorded."
        for folder, evidence in (("A", a), ("B", b))
        if not evidence.runs
    ]
    found += [
        f"{folder}: {counted(len(evidence.tables.damaged), 'trial')} damaged and left out."
        for folder, evidence in (("A", a), ("B", b))
        if evidence.tables.damaged
    ]
    return found
