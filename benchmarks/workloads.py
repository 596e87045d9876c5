"""What is measured: each workload is a sweep on images of its own, in a size for tests, the gate and the figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cnnsearch.planning.plan import make_plan
from cnnsearch.spec.settings import Settings
from cnnsearch.spec.sweep import Sweep

Scale = Literal["tiny", "short", "full"]
SCALES: tuple[Scale, ...] = ("tiny", "short", "full")
ALL_RIVALS = ("notebook", "plain_ray", "tuned_ray", "loop")


@dataclass(frozen=True)
class Size:
    """One size of a workload."""

    image_size: int
    epochs: int
    space: Mapping[str, Any]
    """As in a sweep file."""
    per_class: tuple[int, int, int] = (50, 20, 30)
    """Training, validation and test images of each of ten classes."""
    width: float = 1.0
    samples: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Rival -> trials and epochs it really runs; its time is extrapolated. For work that would take it days."""

    @property
    def images(self) -> dict[str, int]:
        """Split -> images of each class."""
        return dict(zip(("train", "val", "test"), self.per_class, strict=True))


@dataclass(frozen=True)
class Workload:
    """One thing to measure."""

    name: str
    what: str
    sizes: Mapping[Scale, Size]
    precision: str | None = None
    """What R+ and S compute in where it is not what this machine is fastest at; tiny layers gain nothing from bf16."""

    def with_options(self, *, width: float | None, epochs: int | None) -> Workload:
        """The same at another width (networks trained from scratch only) or number of epochs."""
        sizes: dict[Scale, Size] = {}
        for scale, size in self.sizes.items():
            changed = size if epochs is None else replace(size, epochs=epochs)
            if width is not None and "model" in size.space:
                changed = replace(changed, width=width)
            sizes[scale] = changed
        return replace(self, sizes=sizes)

    @property
    def fine_tunes(self) -> bool:
        """Whether it needs weights."""
        return any("fine_tune" in size.space for size in self.sizes.values())


GRID = {
    "model": {"grid": ["plain", "residual"]},
    "lr": {"grid": [0.0001, 0.001]},
    "batch_size": {"grid": [16, 32]},
}
TINY_GRID = {"model": {"grid": ["plain", "residual"]}, "lr": 0.001, "batch_size": 8}
FEW = (6, 4, 4)


def _rates(count: int) -> list[float]:
    """Learning rates from 1e-4 to 1e-1."""
    return [float(f"{rate:.3g}") for rate in np.geomspace(1e-4, 1e-1, count)]


def _transfer(fine_tune: str, count: int) -> dict[str, Any]:
    return {"fine_tune": fine_tune, "lr": {"grid": _rates(count)}, "batch_size": 16}


def _heads(rates: int, batch_sizes: list[int], seeds: int) -> dict[str, Any]:
    grids = {"lr": _rates(rates), "batch_size": batch_sizes, "seed": list(range(seeds))}
    return {"fine_tune": "head", **{axis: {"grid": values} for axis, values in grids.items()}}


def _short_trials(rates: int, seeds: int) -> dict[str, Any]:
    grids = {"model": ["plain", "residual"], "lr": _rates(rates), "batch_size": [10, 20], "seed": list(range(seeds))}
    return {axis: {"grid": values} for axis, values in grids.items()}


SAMPLED = {"notebook": (2, 2), "plain_ray": (4, 2), "tuned_ray": (4, 2)}

_ALL = (
    Workload(
        "grid-32",
        "part 1's grid at 32×32",
        {
            "tiny": Size(8, 1, TINY_GRID, FEW, width=0.05),
            "short": Size(32, 1, GRID, width=0.25),
            "full": Size(32, 2, GRID),
        },
    ),
    Workload(
        "grid-64",
        "part 1's grid at 64×64",
        {
            "tiny": Size(8, 1, TINY_GRID, FEW, width=0.05),
            "short": Size(64, 1, GRID, width=0.25),
            "full": Size(64, 1, GRID),
        },
    ),
    Workload(
        "head",
        "the last layer of a ResNet-18",
        {
            "tiny": Size(32, 1, _transfer("head", 2), FEW),
            "short": Size(64, 3, _transfer("head", 2)),
            "full": Size(128, 10, _transfer("head", 4)),
        },
    ),
    Workload(
        "last-2-convs",
        "the last two convolutions and the last layer of a ResNet-18",
        {
            "tiny": Size(32, 1, _transfer("last-2-convs", 2), FEW),
            "short": Size(64, 3, _transfer("last-2-convs", 2)),
            "full": Size(128, 10, _transfer("last-2-convs", 4)),
        },
    ),
    Workload(
        "thousand-heads",
        "the last layer of a ResNet-18, many settings",
        {
            "tiny": Size(32, 2, _heads(2, [4, 8], 2), FEW),
            "short": Size(64, 20, _heads(10, [16, 32], 5), (40, 16, 16), samples=SAMPLED),
            "full": Size(64, 100, _heads(25, [8, 16, 32, 64], 10), (40, 16, 16), samples=SAMPLED),
        },
    ),
    Workload(
        "short-trials",
        "trials of well under a second",
        {
            "tiny": Size(8, 1, _short_trials(1, 1), FEW, width=0.05),
            "short": Size(8, 3, _short_trials(5, 2), FEW, width=0.05),
            "full": Size(8, 12, _short_trials(10, 5), FEW, width=0.05),
        },
        precision="fp32",
    ),
    Workload(
        "five-thousand",
        "5,000 training images, one trial of each of part 1's models",
        {
            "tiny": Size(8, 1, TINY_GRID, (60, 4, 4), width=0.05),
            "short": Size(32, 1, TINY_GRID | {"batch_size": 32}, (100, 20, 30), width=0.25),
            "full": Size(32, 3, TINY_GRID | {"batch_size": 32}, (500, 50, 50), width=0.25),
        },
    ),
)
WORKLOADS = {workload.name: workload for workload in _ALL}


def make_sweep(name: str, size: Size, images: Path, weights: Path | None) -> Sweep:
    """A size as a sweep on a folder of images."""
    train: dict[str, Any] = {"epochs": size.epochs, "optimizer": "adam", "seed": 0, "width": size.width}
    if weights is not None:
        train |= {"model": "resnet18", "weights": str(weights)}
    return Sweep.model_validate(
        {
            "name": name,
            "data": {"source": str(images), "image_size": size.image_size},
            "train": train,
            "run": {"dashboard": False},
            "stages": [{"name": "grid", "space": dict(size.space)}],
        }
    )


def settings_of(sweep: Sweep) -> tuple[Settings, ...]:
    """The trials' settings, in the sweep's order."""
    named = {(sweep.train.model, sweep.train.weights): "0" * 16}
    return tuple(trial.settings for trial in make_plan(sweep, "0" * 16, {}, named).trials.values())


def describe(workload: Workload, size: Size, trials: int) -> str:
    """In a line, for people."""
    train, val, test = (10 * count for count in size.per_class)
    width = f", width {size.width:g}" if size.width != 1 else ""
    epochs = f"{size.epochs} epoch{'s' * (size.epochs > 1)}"
    return (
        f"{workload.what}; {trials:,} trials of {epochs}, {size.image_size}×{size.image_size}{width}, "
        f"{train:,}/{val:,}/{test:,} images"
    )
