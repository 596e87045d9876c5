"""Searches that were never run: suggestions that gather where scores are high, rungs, several objectives."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cnnsearch.results.tables import Tables
from tests.report.world import Plan, make

SPACE: dict[str, Any] = {
    "model": {"choice": ["plain", "residual"]},
    "lr": {"loguniform": [1e-5, 0.1]},
    "batch_size": {"choice": [16, 32, 64, 128]},
    "optimizer": {"choice": ["adam", "sgd"]},
    "momentum": {"uniform": [0.5, 0.99], "when": {"optimizer": ["sgd"]}},
    "weight_decay": {"loguniform": [1e-6, 0.01]},
    "dropout": {"uniform": [0.0, 0.6], "when": {"model": ["residual"]}},
    "label_smoothing": {"uniform": [0.0, 0.2]},
}
"""Two axes have a part only in some trials; the learning rate matters most, then the model; most others do nothing."""
ASHA = {"method": "asha", "metric": "val_accuracy", "min_epochs": 1, "reduction_factor": 3}
PATIENCE = {"method": "patience", "metric": "val_accuracy", "min_epochs": 2, "patience": 3}
DEFAULTS = {"momentum": 0.9, "dropout": 0.0, "width": 1.0}


def searched(
    count: int,
    method: str = "tpe",
    *,
    objectives: Sequence[str] = (),
    stop_early: dict[str, Any] | None = None,
    epochs: int = 27,
    lost: float = 0.04,
    best_lr: float = 0.0015,
    seed: int = 0,
    **options: Any,
) -> Tables:
    """`count` suggestions over `SPACE`; `tpe` and `nsga2` gather near the good ones, `random` does not."""
    rng = np.random.default_rng(seed)
    plans: list[Plan] = []
    units: list[dict[str, float]] = []
    ranked: list[int] = []
    for index in range(count):
        good = ranked[: max(4, index // 10)]
        near = units[int(rng.choice(good))] if method != "random" and index >= 10 and rng.random() < 0.7 else None
        unit = {
            axis: float(rng.random()) if near is None else float(np.clip(near[axis] + rng.normal(0, 0.13), 0, 0.9999))
            for axis in SPACE
        }
        units.append(unit)
        plans.append(_plan(unit, rng, best_lr=best_lr, lost=lost))
        bisect.insort(ranked, index, key=lambda i: -plans[i].ability)
    if stop_early:
        plans = _stopped(plans, stop_early, epochs, rng)
    search: dict[str, Any] = {"method": method, "trials": count, "seed": seed}
    if objectives:
        search["objectives"] = list(objectives)
    stage: dict[str, Any] = {"name": "search", "space": SPACE, "search": search}
    if stop_early:
        stage["stop_early"] = stop_early
    made: dict[str, Any] = {
        "name": "tune", "title": "The best classifier for these images",
        "question": "Which setting classifies these images best?", "epochs": epochs, "test_per_class": 20,
        "folder": Path("results/tune"), **options,
    }  # fmt: skip
    return make(plans, [stage], **made)


def _plan(unit: dict[str, float], rng: np.random.Generator, *, best_lr: float, lost: float) -> Plan:
    values: dict[str, Any] = {}
    for axis, raw in SPACE.items():
        when = raw.get("when", {})
        if any(values[name] not in allowed for name, allowed in when.items()):
            values[axis] = DEFAULTS[axis]
        elif "choice" in raw:
            values[axis] = raw["choice"][int(unit[axis] * len(raw["choice"]))]
        elif "loguniform" in raw:
            low, high = raw["loguniform"]
            values[axis] = float(low * (high / low) ** unit[axis])
        else:
            low, high = raw["uniform"]
            values[axis] = float(low + unit[axis] * (high - low))
    off = math.log10(values["lr"] / best_lr)
    residual = values["model"] == "residual"
    ability = 1.1 - 0.45 * off**2 + 0.4 * residual - 0.9 * (values["dropout"] - 0.25) ** 2 * residual
    ability += float(rng.normal(0, 0.08))
    seconds = (9.0 if residual else 4.0) * (1 + 24 / values["batch_size"]) * float(rng.uniform(0.95, 1.05))
    parameters = 2_800_000 if residual else 900_000
    sizes = {
        "seconds": seconds,
        "parameters": parameters,
        "model_bytes": 4 * parameters + 90_000 * int(1 + 9 * unit["momentum"]),
    }
    status, error = "done", None
    if values["lr"] > 0.03 and rng.random() < 0.5:
        status, error = "diverged", "training loss became nan in epoch 1"
    elif rng.random() < lost:
        status, error = "failed", "OutOfMemoryError: tried to allocate 2.00 GiB"
    return Plan("search", {**values, **sizes}, ability, status=status, error=error)


def _stopped(plans: list[Plan], rule: dict[str, Any], epochs: int, rng: np.random.Generator) -> list[Plan]:
    """Successive halving without waiting: at each rung the best of those seen there so far go on."""
    if rule["method"] != "asha":
        return [
            replace(
                plan,
                status="pruned",
                stopped_by=rule["method"],
                stopped_at=int(rng.integers(rule["min_epochs"] + 1, epochs)),
            )
            if plan.status == "done" and rng.random() < 0.8
            else plan
            for plan in plans
        ]
    factor, rung, levels = rule["reduction_factor"], rule["min_epochs"], []
    while rung < epochs:
        levels.append(rung)
        rung *= factor
    seen: dict[int, list[float]] = {level: [] for level in levels}
    found = []
    for plan in plans:
        out = plan
        for level in levels if plan.status == "done" else []:
            score = plan.ability + float(rng.normal(0, 0.5 / math.sqrt(level)))
            seen[level].append(score)
            if score < float(np.quantile(seen[level], 1 - 1 / factor)):
                out = replace(plan, status="pruned", stopped_by="asha", stopped_at=level)
                break
        found.append(out)
    return found
