"""Results of sweeps that were never run: part 1 as it comes out, and all that can go wrong or look different."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from cnnsearch.results.tables import Tables
from tests.report.world import FASHION, Plan, luck, make, picture

__all__ = ["DROPOUT", "FASHION", "GRID", "NASTY", "Plan", "make", "picture"]

NASTY = (
    "<script>alert('owned')</script>",
    "</style><img src=x onerror=alert(1)>",
    "\"double\" & 'single' quotes",
    "שלום עולם",
    "a very long class name that goes on and on, long after anyone would have stopped reading it, and then some",
    "under_score*star*`tick`|pipe",
    "$math^2$",
    "{{ jinja }} {% raw %}",
    "犬 🐕",
    "../../etc/passwd",
)

GRID = {
    "name": "grid",
    "space": {
        "model": {"grid": ["plain", "residual"]},
        "lr": {"grid": [0.0001, 0.001]},
        "batch_size": {"grid": [16, 32]},
    },
}
DROPOUT = {
    "name": "dropout",
    "start_from": {"stage": "grid", "best": "val_accuracy", "per": "model"},
    "space": {"dropout": {"grid": [0.01, 0.1, 0.25, 0.5]}},
}


_LUCK = 0.05
"""The most that a seed adds to a network's ability, or takes from it. Seed 0 does neither."""


def lucky(seed: int, *setting: object) -> float:
    """What a seed does to the ability of the network of a setting: to each something else."""
    return _LUCK * luck(seed, *setting) if seed else 0.0


def grid_plans(seeds: Sequence[int] = (0,)) -> list[Plan]:
    """The eight cells of the grid, times seeds; residual is better, and so is the larger learning rate."""
    return [
        Plan(
            "grid",
            {"model": model, "lr": lr, "batch_size": batch, "dropout": 0.0},
            ability=0.3
            + 0.45 * (model == "residual")
            + 0.25 * (lr == 0.001)
            + 0.02 * (batch == 16)
            + lucky(seed, model, lr, batch),
            seed=seed,
            turn=0.3 if model == "plain" else 0.5,
        )
        for model in ("plain", "residual")
        for lr in (0.0001, 0.001)
        for batch in (16, 32)
        for seed in seeds
    ]


def dropout_plans(parents: Sequence[Plan], gains: Sequence[float] = (0.0, 0.2, 0.12, 0.02)) -> list[Plan]:
    """Four dropout rates from each parent, weights carried over."""
    return [
        replace(
            parent,
            stage="dropout",
            values={**parent.values, "dropout": rate},
            ability=parent.ability + (gain if parent.values["model"] == "residual" else gain / 4),
            parent=parent.trial_id,
            turn=2.0,
        )
        for parent in parents
        for rate, gain in zip((0.01, 0.1, 0.25, 0.5), gains, strict=True)
    ]


def part1(seeds: Sequence[int] = (0,), **options: Any) -> Tables:
    """Part 1 as it comes out: 8 cells, then 4 dropout rates from the best of each model, for each seed."""
    return make(grid_plans(seeds), [GRID, DROPOUT], children=_dropout_of_best, **options)


def confirmed(contenders: Sequence[float] = (0.1, 0.25, 0.5), fresh: Sequence[int] = (1, 2, 3, 4, 5)) -> Tables:
    """Part 1 with one seed, and some dropout rates of its best model trained again, with what they start from."""

    def children(rows: list[dict[str, Any]], plans: Sequence[Plan]) -> list[Plan]:
        once = _dropout_of_best(rows, plans)
        again = [one for one in once if one.values["dropout"] in contenders and one.values["model"] == "residual"]
        (start,) = [plan for plan in plans if plan.trial_id == again[0].parent]
        found = []
        for seed in fresh:
            parent = replace(start, stage="confirm", seed=seed, ability=start.ability + lucky(seed, "start"))
            found.append(parent)
            for one in again:
                ability = one.ability + lucky(seed, one.values["dropout"])
                found.append(
                    replace(
                        one, stage="confirm", seed=seed, parent=parent.trial_id, confirms=one.trial_id, ability=ability
                    )
                )
        return [*once, *found]

    return make(grid_plans(), [GRID, DROPOUT], children=children, confirm=len(fresh))


def part2(abilities: Sequence[float] = (0.3, 0.8), seeds: Sequence[int] = (0,), **options: Any) -> Tables:
    """Part 2 as it comes out: a pretrained network of which the last layer trains, or two convolutions as well."""
    cases = (("head", 5_130, 0.4), ("last-2-convs", 4_723_722, 16.0))
    pretrained = {"model": "resnet18", "weights": "/w/resnet18.pth", "lr": 0.001, "batch_size": 16, "dropout": 0.0}
    plans = [
        Plan(
            "transfer",
            {**pretrained, "fine_tune": fine_tune, "parameters": parameters, "seconds": seconds},
            ability=ability + lucky(seed, fine_tune),
            seed=seed,
        )
        for (fine_tune, parameters, seconds), ability in zip(cases, abilities, strict=True)
        for seed in seeds
    ]
    stage = {"name": "transfer", "space": {"fine_tune": {"grid": ["head", "last-2-convs"]}}}
    return make(plans, [stage], **{"name": "part2", "folder": Path("results/part2"), **options})


def _dropout_of_best(rows: list[dict[str, Any]], plans: Sequence[Plan]) -> list[Plan]:
    """Dropout from the cell of each model with the best mean validation accuracy, as the sweep itself chooses."""
    scores: dict[tuple[Any, ...], list[float]] = {}
    for row, plan in zip(rows, plans, strict=True):
        scores.setdefault((plan.values["model"], *plan.values.values()), []).append(row["val_accuracy"])
    parents = []
    for model in ("plain", "residual"):
        best = max((cell for cell in scores if cell[0] == model), key=lambda cell: sum(scores[cell]))
        parents += [plan for plan in plans if tuple(plan.values.values()) == best[1:]]
    return dropout_plans(parents)


def with_trouble() -> Tables:
    """Part 1's grid with one failed, one diverged and one pruned trial."""
    plans = grid_plans()
    plans[1] = replace(plans[1], status="failed", error="OutOfMemoryError: tried to allocate 2.00 GiB <b>now</b>")
    plans[2] = replace(plans[2], status="diverged", error="training loss became nan in epoch 2")
    plans[3] = replace(plans[3], status="pruned", error=None)
    return make(plans, [GRID])


def one_trial() -> Tables:
    """A single finished trial: nothing to compare."""
    return make(grid_plans()[-1:], [{"name": "grid", "space": {"model": "residual", "lr": 0.001, "batch_size": 32}}])


def all_failed() -> Tables:
    """A sweep that finished nothing."""
    plans = [replace(plan, status="failed", error="RuntimeError: no space left on device") for plan in grid_plans()]
    return make(plans, [GRID])


def many(count: int = 300, epochs: int = 6) -> Tables:
    """A large grid over lr, batch size and weight decay."""
    rates = [float(f"{1e-5 * 10 ** (i / 5):.3g}") for i in range(count // 20)]
    space = {
        "model": {"grid": ["plain", "residual"]},
        "lr": {"grid": rates},
        "batch_size": {"grid": [8, 16, 32, 64, 128]},
        "weight_decay": {"grid": [0.0, 0.01]},
    }
    plans = [
        Plan(
            "grid",
            {"model": model, "lr": lr, "batch_size": batch, "weight_decay": decay},
            ability=0.9 - 0.1 * abs(i - 0.7 * len(rates)) + 0.4 * (model == "residual") - 0.02 * j,
        )
        for model in ("plain", "residual")
        for i, lr in enumerate(rates)
        for j, batch in enumerate((8, 16, 32, 64, 128))
        for decay in (0.0, 0.01)
    ]
    return make(plans, [{"name": "grid", "space": space}], epochs=epochs)


def at_chance() -> Tables:
    """Networks that guess."""
    return make([replace(plan, ability=-9.0) for plan in grid_plans()], [GRID])


def nasty() -> Tables:
    """Class names meant to break out of HTML, Markdown, SVG and layouts."""
    return make(grid_plans()[2:6], [GRID], classes=NASTY, pictures=True)


def two_classes() -> Tables:
    """The smallest data set."""
    return part1(classes=("cat", "dog"), test_per_class=60)


def two_classes_grid() -> Tables:
    """The first stage alone, quick to draw."""
    return make(grid_plans()[4:], [GRID], classes=("cat", "dog"), test_per_class=60)


def hundred_classes() -> Tables:
    """A matrix too large for numbers in its cells."""
    return make(grid_plans(), [GRID], classes=[f"class {i:02d}" for i in range(100)], val_per_class=3, test_per_class=8)


def lr_only(seeds: Sequence[int] = (0,)) -> Tables:
    """A sweep along one axis, with one model."""
    plans = [
        Plan("rates", {"model": "plain", "lr": lr, "batch_size": 32}, ability=a + lucky(seed, lr), seed=seed)
        for lr, a in ((1e-5, -0.5), (1e-4, 0.4), (1e-3, 0.8), (1e-2, 0.3))
        for seed in seeds
    ]
    space = {"model": "plain", "lr": {"grid": [1e-5, 1e-4, 1e-3, 1e-2]}, "batch_size": 32}
    return make(plans, [{"name": "rates", "space": space}], name="rates")


def optimizers(seeds: Sequence[int] = (0,)) -> Tables:
    """Axes that are words: three models, three optimizers."""
    plans = [
        Plan(
            "grid",
            {"model": model, "optimizer": optimizer, "lr": 0.001, "batch_size": 32},
            ability=0.3 + a + b + lucky(seed, model, optimizer),
            seed=seed,
        )
        for model, a in (("plain", 0.0), ("residual", 0.4), ("resnet18", 0.9))
        for optimizer, b in (("adam", 0.2), ("adamw", 0.22), ("sgd", -0.3))
        for seed in seeds
    ]
    space = {
        "model": {"grid": ["plain", "residual", "resnet18"]},
        "optimizer": {"grid": ["adam", "adamw", "sgd"]},
        "lr": 0.001,
        "batch_size": 32,
    }
    return make(plans, [{"name": "grid", "space": space}], name="optimizers")


def validation_and_test_disagree(seeds: Sequence[int] = (0,)) -> Tables:
    """Validation prefers the first of two settings although the second is better on the test images."""
    plans = grid_plans(seeds)[-2 * len(seeds) :]
    tables = make(plans, [GRID], val_per_class=20)
    trials, epochs, right = tables.trials.copy(), tables.epochs.copy(), tables.predictions.copy()
    for plan in plans:
        val, test = (0.90, 0.70) if plan.values["batch_size"] == 16 else (0.50, 0.80)
        right = _share_right(_share_right(right, plan.trial_id, "val", val), plan.trial_id, "test", test)
        mask = trials["trial_id"] == plan.trial_id
        trials.loc[mask, ["val_accuracy", "test_accuracy"]] = [val, test]
        best = int(trials.loc[mask, "best_epoch"].iloc[0])
        mine = epochs["trial_id"] == plan.trial_id
        epochs.loc[mine, "val_accuracy"] = epochs.loc[mine, "val_accuracy"].clip(upper=val - 0.01)
        epochs.loc[mine & (epochs["epoch"] == best), "val_accuracy"] = val
    return replace(tables, trials=trials, epochs=epochs, predictions=right)


def _share_right(predictions: pd.DataFrame, trial: str, split: str, share: float) -> pd.DataFrame:
    """The predictions with exactly `share` of one trial's answers right."""
    frame = predictions.reset_index(drop=True)
    rows = frame.index[(frame["trial_id"] == trial) & (frame["split"] == split)]
    right = rows[: round(share * len(rows))]
    other = {label: FASHION[(FASHION.index(label) + 1) % len(FASHION)] for label in FASHION}
    frame.loc[rows, "predicted"] = frame.loc[rows, "label"].map(other)
    frame.loc[right, "predicted"] = frame.loc[right, "label"]
    return frame
