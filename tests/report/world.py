"""Made-up trials on made-up images, consistent in every number a report may quote.

Each test image has a difficulty and each trial an ability; an image is right where the ability beats the difficulty
plus a little noise of the trial's own. So trials disagree about as much as real networks do, and the accuracies in
`trials` are counted from `predictions`, never set.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from cnnsearch.results.parquet import EPOCHS, PREDICTIONS, TRIALS
from cnnsearch.results.tables import Tables
from cnnsearch.spec.sweep import Sweep

FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


_WITH_SIZES = TRIALS
for _name, _type in (("epochs_done", pa.int64()), ("stopped_by", pa.string()), ("model_bytes", pa.int64())):
    if _name not in TRIALS.names:  # of tables as they will be
        _WITH_SIZES = _WITH_SIZES.append(pa.field(_name, _type))


@dataclass(frozen=True)
class Plan:
    """One trial to make up: its hyperparameters, its skill, and how its curves look."""

    stage: str
    values: dict[str, Any]
    ability: float
    seed: int = 0
    parent: str | None = None
    status: str = "done"
    error: str | None = None
    turn: float = 0.35  # where validation loss turns, as a share of the epochs; 1 or more: not at all
    stopped_at: int | None = None  # the epoch after which it was stopped early
    stopped_by: str | None = None  # the rule that did it
    confirms: str | None = None  # the first trial of the setting that this is a fresh seed of

    @functools.cached_property
    def trial_id(self) -> str:
        text = repr((self.stage, sorted(self.values.items()), self.seed, self.parent))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def luck(*of: object) -> float:
    """Between -1 and 1, always the same for the same network: what its seed is worth to it."""
    return int(hashlib.sha256(repr(of).encode()).hexdigest()[:8], 16) / 2**31 - 1


@dataclass
class World:
    """The images every trial is scored on, and the rows collected so far."""

    classes: tuple[str, ...]
    epochs: int
    val_per_class: int
    test_per_class: int
    rng: np.random.Generator
    difficulty: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    labels: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    wrong: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    epoch_rows: list[dict[str, Any]] = field(default_factory=list)
    answers: list[tuple[str, str, Answers]] = field(default_factory=list)
    """Trial, moment, and what it answered then."""
    before: dict[str, dict[str, Answers]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        k = len(self.classes)
        hardness = np.linspace(-0.6, 0.9, k)
        for split, each in (("val", self.val_per_class), ("test", self.test_per_class)):
            labels = np.repeat(np.arange(k), each)
            self.labels[split] = labels
            self.difficulty[split] = hardness[labels] + self.rng.normal(0, 1, labels.size)
            # Errors of one image mostly go to the same other class: what makes confusion matrices lumpy.
            self.wrong[split] = (labels + np.where(self.rng.random(labels.size) < 0.7, 1, k // 2 + 1)) % k
            self.wrong[split] = np.where(self.wrong[split] == labels, (labels + 1) % k, self.wrong[split])

    def examples(self, split: str) -> list[str]:
        return [f"{split}/{label:03d}/{index:05d}.png" for index, label in enumerate(self.labels[split])]


@dataclass(frozen=True)
class Answers:
    """What a trial says of the images of a split."""

    split: str
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float32]

    @property
    def accuracy(self) -> float:
        return float((self.labels == self.predicted).mean())


def _predict(world: World, plan: Plan, split: str) -> Answers:
    rng = np.random.default_rng(int(plan.trial_id[:8], 16) + (split == "test"))
    margin = plan.ability - world.difficulty[split] + rng.normal(0, 0.55, world.labels[split].size)
    predicted = np.where(margin > 0, world.labels[split], world.wrong[split])
    if plan.ability <= -9:  # guesses
        predicted = rng.integers(0, len(world.classes), predicted.size)
    confidence = (1 / (1 + np.exp(-1.2 * np.abs(margin) - 0.2))).astype(np.float32)
    return Answers(split, world.labels[split], predicted, confidence)


def _curves(world: World, plan: Plan, val_accuracy: float, start: float | None) -> list[dict[str, Any]]:
    """One row an epoch whose best validation accuracy is exactly `val_accuracy`; epoch 0 when continuing."""
    rng = np.random.default_rng(int(plan.trial_id[8:], 16))
    n = world.epochs
    x = np.linspace(1 / n, 1, n)
    lowest = 0.35 + 1.3 * (1 - val_accuracy)
    train = 2.3 * np.exp(-5 * x) + 0.02 + 0.02 * rng.random(n)
    rise = np.maximum(0, x - plan.turn)
    val_loss = lowest + (2.3 - lowest) * np.exp(-9 * x) + 1.1 * rise + 0.015 * rng.normal(size=n)
    floor = start if start is not None else 1 / len(world.classes)
    val = floor + (val_accuracy - floor) * (1 - np.exp(-7 * x)) - 0.02 * rng.random(n)
    grain = len(world.labels["val"])
    val = np.clip(np.floor(val * grain) / grain, 0, val_accuracy)
    best = max(1, round(0.6 * n)) - 1
    # Strictly below the best everywhere else, so that "the best epoch" has one answer.
    val = np.where(val >= val_accuracy, max(0.0, val_accuracy - 1 / grain), val)
    val[best] = val_accuracy
    train_accuracy = np.clip(1 - (1 - floor) * np.exp(-4.5 * x), 0, 1)
    rows = [
        {
            "trial_id": plan.trial_id, "epoch": i + 1, "train_loss": train[i], "train_accuracy": train_accuracy[i],
            "val_loss": val_loss[i], "val_accuracy": val[i], "lr": plan.values.get("lr"), "seconds": 0.9,
        }
        for i in range(n)
    ]  # fmt: skip
    if start is not None:
        rows.insert(0, {"trial_id": plan.trial_id, "epoch": 0, "val_loss": lowest + 0.2, "val_accuracy": start})
    return rows


def _add(world: World, plan: Plan, sweep: str) -> None:
    row: dict[str, Any] = {
        "trial_id": plan.trial_id, "sweep": sweep, "stage": plan.stage, "parent_id": plan.parent, "status": plan.status,
        "confirms": plan.confirms,
        "error": plan.error, "optimizer": "adam", "image_size": 32, "epochs": world.epochs, "seed": plan.seed,
        "precision": "bf16", "parameters": 4_700_000, "seconds": 9.5, "images_per_second": 870.0,
        "peak_memory_bytes": 700_000_000, "device": "cpu", "threads": 1, "host": "box", "schema_version": 1,
        "started_at": pd.Timestamp("2025-03-01T10:00:00Z"), **plan.values,
    }  # fmt: skip
    world.rows.append(row)
    if plan.stopped_at is not None:
        _stop(world, plan, row)
        return
    if plan.status != "done":
        world.epoch_rows += [
            {"trial_id": plan.trial_id, "epoch": 1, "train_loss": 2.4, "train_accuracy": 0.1, "val_loss": 2.5,
             "val_accuracy": 0.1},
            {"trial_id": plan.trial_id, "epoch": 2, "train_loss": float("nan"), "val_loss": float("inf"),
             "val_accuracy": 0.1},
        ]  # fmt: skip
        return
    found = {split: _predict(world, plan, split) for split in ("val", "test")}
    start = None
    if plan.parent is not None:
        for split, answers in world.before[plan.parent].items():
            world.answers.append((plan.trial_id, "before", answers))
            row[f"{split}_accuracy_before"] = answers.accuracy
            row[f"{split}_loss_before"] = 0.6 + 1.3 * (1 - answers.accuracy)
        start = row["val_accuracy_before"]
    world.before[plan.trial_id] = found
    world.answers += [(plan.trial_id, "best", answers) for answers in found.values()]
    curves = _curves(world, plan, found["val"].accuracy, start)
    world.epoch_rows += curves
    trained = [r for r in curves if r["epoch"] > 0]
    best = max(trained, key=lambda r: r["val_accuracy"])
    row |= {name: best[name] for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy")}
    row |= {"best_epoch": best["epoch"], "test_accuracy": found["test"].accuracy}
    row["test_loss"] = best["val_loss"] + 0.03


def _stop(world: World, plan: Plan, row: dict[str, Any]) -> None:
    """A trial that was stopped early: its curves until then, and its scores at the best of those epochs."""
    found = {split: _predict(world, plan, split) for split in ("val", "test")}
    curves = _curves(world, plan, found["val"].accuracy, None)[: plan.stopped_at]
    world.epoch_rows += curves
    best = max(curves, key=lambda r: r["val_accuracy"])
    row |= {name: best[name] for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy")}
    row |= {"best_epoch": best["epoch"], "epochs_done": plan.stopped_at, "stopped_by": plan.stopped_by}
    row["test_accuracy"] = best["val_accuracy"] * found["test"].accuracy
    row["error"] = f"{plan.stopped_by}: not among the best at epoch {plan.stopped_at}"


def picture(shade: int, size: int = 28) -> str:
    """A small gradient PNG, base64."""
    ramp = (np.add.outer(np.arange(size), np.arange(size)) * 255 // (2 * size - 2) * shade // 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(ramp).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def make(
    plans: Sequence[Plan],
    stages: list[dict[str, Any]],
    *,
    children: Callable[[list[dict[str, Any]], Sequence[Plan]], list[Plan]] | None = None,
    classes: Sequence[str] = FASHION,
    epochs: int = 10,
    val_per_class: int = 20,
    test_per_class: int = 100,
    name: str = "part1",
    title: str = "CNN classifiers trained from scratch",
    question: str = "How do learning rate, batch size, residual blocks and dropout change accuracy?",
    pictures: bool = False,
    waiting: int = 0,
    confirm: int | None = None,
    folder: Path = Path("results/part1"),
) -> Tables:
    """Tables of these trials on one made-up data set."""
    world = World(tuple(classes), epochs, val_per_class, test_per_class, np.random.default_rng(7))
    for plan in plans:
        _add(world, plan, name)
    for plan in children(world.rows, plans) if children else ():
        _add(world, plan, name)
    k = len(classes)
    description = {
        "name": "made-up",
        "title": title,
        "question": question,
        "data": {
            "source": "fashion-mini",
            "image_size": 32,
            "split": {"method": "fill", "train_per_class": 50, "val_per_class": val_per_class},
        },
        "train": {"epochs": epochs, "optimizer": "adam", "precision": "auto", "seed": 0},
        "stages": stages,
    }
    if confirm is not None:
        description["confirm"] = {"seeds": confirm}
    # The name may be one that no sweep file can have: what shows it must cope.
    sweep = Sweep.model_validate(description).model_copy(update={"name": name})
    provenance = {
        "runs": [
            {
                "command": f"python -m cnnsearch.sweep {name}",
                "started_at": "2025-03-01T10:00:00+00:00",
                "seconds": 161.2,
                "versions": {"python": "3.11.7", "torch": "2.8.0", "ray": "2.60.0", "cnnsearch": "0.1.0"},
                "hardware": {
                    "cpu": "Intel Xeon Platinum 8488C",
                    "cores": 2,
                    "memory_bytes": 25_000_000_000,
                    "gpus": [],
                },
                "git_commit": "0123456789abcdef0123456789abcdef01234567",
            }
        ],
        "choices": {"precision": "bf16", "threads": 1},
    }
    data = {
        "source": "fashion-mini",
        "fingerprint": "9c2f64d1a0b35e77",
        "classes": list(classes),
        "counts": {"train": [50] * k, "val": [val_per_class] * k, "test": [test_per_class] * k},
        "warnings": [],
    }
    tables = Tables(
        folder=folder,
        trials=_frame(world.rows, _WITH_SIZES),
        epochs=_frame(world.epoch_rows, EPOCHS),
        predictions=_predictions(world),
        sweep=sweep,
        provenance=provenance,
        data=data,
        pictures={},
        planned=len(world.rows) + waiting,
    )
    return with_pictures(tables, world) if pictures else tables


def with_pictures(tables: Tables, world: World) -> Tables:
    """The same, with pictures of some images of each class and of every test image."""
    sheet = {name: [picture(80 + 20 * j) for j in range(5)] for name in world.classes}
    examples = {name: picture(60 + 7 * (i % 25)) for i, name in enumerate(world.examples("test"))}
    return replace(tables, pictures={"sheet": sheet, "examples": examples})


def _frame(rows: list[dict[str, Any]], schema: pa.Schema) -> pd.DataFrame:
    frame: pd.DataFrame = pa.Table.from_pylist(rows, schema=schema).to_pandas()
    return frame


def _predictions(world: World) -> pd.DataFrame:
    if not world.answers:
        return _frame([], PREDICTIONS)
    trials, moments, answers = zip(*world.answers, strict=True)
    sizes, names = [one.labels.size for one in answers], np.array(world.classes, dtype=object)
    examples = {split: np.array(world.examples(split), dtype=object) for split in world.labels}
    columns = {
        "trial_id": np.repeat(np.array(trials, dtype=object), sizes),
        "split": np.repeat(np.array([one.split for one in answers], dtype=object), sizes),
        "moment": np.repeat(np.array(moments, dtype=object), sizes),
        "example": np.concatenate([examples[one.split] for one in answers]),
        "label": names[np.concatenate([one.labels for one in answers])],
        "predicted": names[np.concatenate([one.predicted for one in answers])],
        "confidence": np.concatenate([one.confidence for one in answers]),
    }
    frame = pa.Table.from_pandas(pd.DataFrame(columns), schema=PREDICTIONS, preserve_index=False)
    return pd.DataFrame(frame.to_pandas())
