"""Do the report's sentences on settings keep their promise? Simulated sweeps, judged by the report's own code.

    python -m benchmarks.calibration              every cell, 1,000 sweeps each: about half an hour
    python -m benchmarks.calibration --sweeps 200

Each sweep is a grid of 16 settings: two models, four learning rates, two batch sizes. A network's answers depend on how
hard an image is, on its setting and on its seed, so that networks agree about as much as real ones do (two seeds of one
setting on 88 % of the images, at an accuracy of 80 %). A seed moves accuracy by a standard deviation of 0, 1.5 or 3
points. In sweeps of equal settings every difference that the report calls clear is false; in the others one setting is
3 points better than the rest.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from cnnsearch.evidence.configurations import AXES, Configuration
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.evidence.verdicts import CLEAR, SUGGESTIVE
from cnnsearch.planning.confirm import near_best
from cnnsearch.scores import Predicted, score
from cnnsearch.spec.confirm import CONFIRM
from cnnsearch.spec.metric import DEFAULT, METRICS

ACCURACY = 0.8
EFFECT = 0.03
_IMAGE, _SETTING, _SEED, _CHANCE = 1.0, 0.6, 0.4, 0.3
"""Standard deviations of what decides an answer: the image, its meeting with the setting, and with the seed."""
_TOTAL = float(np.sqrt(_IMAGE**2 + _SETTING**2 + _SEED**2 + _CHANCE**2))


class World(NamedTuple):
    """A kind of sweep."""

    settings: int = 16
    seeds: int = 3
    images: int = 1000
    sd: float = 0.015
    """Standard deviation of accuracy over seeds."""
    effect: float = 0.0
    """By how much the first setting is better than all others."""
    unstable: float = 0.0
    """Standard deviation over seeds of every fourth setting, where it is another."""

    def deviation(self, setting: int) -> float:
        """Standard deviation of a setting's accuracy over seeds."""
        return self.unstable if self.unstable and setting % 4 == 3 else self.sd


def threshold(accuracy: float) -> float:
    """The ability at which a network of no luck has this accuracy."""
    return float(special.ndtri(accuracy)) * _TOTAL


_SLOPE = float(np.exp(-(special.ndtri(ACCURACY) ** 2) / 2) / np.sqrt(2 * np.pi)) / _TOTAL
"""Accuracy for each unit of ability, near `ACCURACY`."""


def accuracy_of(ability: float, sd: float) -> float:
    """The mean accuracy of a setting over seeds and images."""
    return float(special.ndtr(ability / np.sqrt(_TOTAL**2 + (sd / _SLOPE) ** 2)))


class Simulated(Evidence):
    """The evidence of a sweep that was made up: answers instead of tables; all that is judged is the report's code."""

    def __init__(self, found: Sequence[Configuration], tables: dict[tuple[str, str], NDArray[np.float64]]) -> None:
        self._found, self._tables = list(found), tables
        self.metric = METRICS[DEFAULT]

    def by(self, metric: str, labels: NDArray[np.int64]) -> Simulated:
        """The same sweep by a metric that is no mean over images, which have these classes: see `ByMetric`."""
        return ByMetric(self._found, self._tables, metric, labels)

    @property
    def judged_on(self) -> str:
        return "test"

    @property
    def folds(self) -> int:
        return 0

    @cached_property
    def configurations(self) -> list[Configuration]:
        return self._found

    @cached_property
    def stages(self) -> list[str]:
        return list(dict.fromkeys(c.stage for c in self._found))

    @cached_property
    def models(self) -> list[str]:
        return list(dict.fromkeys(c.model for c in self._found))

    @cached_property
    def searches(self) -> list[Any]:
        return []

    def space(self, name: str) -> dict[str, Any]:
        return {}

    @property
    def _was_looked_at(self) -> bool:
        return False

    def size(self, split: str) -> int:
        return int(self._tables[self._found[0].key, split].shape[1])

    def table(
        self, configuration: Configuration, split: str | None = None, moment: str = "best"
    ) -> NDArray[np.float64]:
        return self._tables[configuration.key, split or self.judged_on]


class ByMetric(Simulated):
    """A made-up sweep that is judged by another metric: a wrong answer names one of the next two classes."""

    def __init__(
        self,
        found: Sequence[Configuration],
        tables: dict[tuple[str, str], NDArray[np.float64]],
        metric: str,
        labels: NDArray[np.int64],
    ) -> None:
        super().__init__(found, tables)
        self.metric = METRICS[metric]
        self._labels = labels
        self._found = [self._with_score(c) for c in found]

    @property
    def measured(self) -> dict[str, str]:
        return {"val": "validation", "test": "test"}

    @cached_property
    def labels(self) -> dict[str, NDArray[np.int64]]:
        return dict.fromkeys(self.measured, self._labels)

    def predicted(self, trial_id: str, split: str, moment: str = "best", *, whole: bool = False) -> Predicted:
        key, _, seed = trial_id.rpartition("-")
        classes, right = int(self._labels.max()) + 1, self._tables[key, split][int(seed)]
        # Networks make the same mistakes on the same images, but for a few.
        rng = np.random.default_rng([ord(letter) for letter in trial_id + split])
        wrong = 1 + (np.arange(len(right)) % 2 + (rng.random(len(right)) < 0.1)) % 2
        predicted = np.where(right == 1, self._labels, (self._labels + wrong) % classes)
        return Predicted(self._labels, classes, predicted, np.ones(len(right), np.float32))

    def _with_score(self, one: Configuration) -> Configuration:
        found = [score(self.metric.name, self.predicted(id_, "val")) or 0.0 for id_ in one.trial_ids]
        scores = {**one.scores, self.metric.measure: float(np.mean(found))}
        return replace(one, metric=self.metric.name, scores=scores)


def simulate(world: World, rng: np.random.Generator) -> tuple[Simulated, dict[str, float]]:
    """A sweep, and key -> true accuracy of each of its settings."""
    abilities, images, meeting = _drawn(world, rng)
    return _trained(abilities, world, rng, range(world.settings), "grid", images, meeting)


Drawn = dict[str, NDArray[np.float64]]


def _drawn(world: World, rng: np.random.Generator) -> tuple[list[float], Drawn, Drawn]:
    """The abilities of all settings; by split, how hard each image is, and how it meets each setting."""
    abilities = [threshold(ACCURACY + (world.effect if i == 0 else 0.0)) for i in range(world.settings)]
    images = {split: rng.normal(0, _IMAGE, world.images) for split in ("val", "test")}
    return abilities, images, {split: rng.normal(0, _SETTING, (world.settings, world.images)) for split in images}


def _trained(
    abilities: Sequence[float],
    world: World,
    rng: np.random.Generator,
    chosen: Iterable[int],
    stage: str,
    images: Drawn,
    meeting: Drawn,
) -> tuple[Simulated, dict[str, float]]:
    """Train some settings with fresh seeds, on images that stay the same."""
    found, tables, truth = [], {}, {}
    grid = list(product(("plain", "residual"), (0.0001, 0.0003, 0.001, 0.003), (16, 32), range(64)))
    for i in chosen:
        model, lr, batch_size, width = grid[(i % 16) * 64 + i // 16]
        key = f"{stage}-{i}"
        sd = world.deviation(i)
        luck = rng.normal(0, sd / _SLOPE, (world.seeds, 1)) if sd else 0.0
        for split, hardness in images.items():
            own = rng.normal(0, np.hypot(_SEED, _CHANCE), (world.seeds, world.images))
            tables[key, split] = (abilities[i] + luck + hardness + meeting[split][i] + own > 0).astype(np.float64)
        values: dict[str, Any] = dict.fromkeys(AXES) | {
            "model": model,
            "lr": lr,
            "batch_size": batch_size,
            "width": width,
        }
        scores = {f"{split}_accuracy": float(tables[key, split].mean()) for split in images}
        ids = tuple(f"{key}-{seed}" for seed in range(world.seeds))
        confirms = key if stage == CONFIRM.name else None
        found.append(Configuration(key, i, stage, values, ids, tuple(range(world.seeds)), None, scores, confirms))
        truth[key] = accuracy_of(abilities[i], sd)
    return Simulated(found, tables), truth


class Counts(NamedTuple):
    """Shares of simulated sweeps."""

    clear: float
    """With a statement on a model or an axis that is called clear."""
    apart: float
    """With two settings told apart."""
    suggestive: float
    """With a statement that is called suggestive, or clear."""
    kept: float
    """In which the first setting, the best where one is, is in the set that may be best."""
    covers: float
    """Share of all settings whose interval covers their accuracy."""
    winner: float
    """In which the interval of the best by validation covers its accuracy."""


def counted(world: World, sweeps: int, seed: int = 0, *, confirm: bool = False) -> Counts:
    """Simulate sweeps and count what their reports would say; with `confirm`, of what is trained again."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(sweeps):
        evidence, truth = (confirmed if confirm else simulate)(world, rng)
        verdicts = [evidence.verdict(key) for key in evidence.statements]
        lost = {c.order for c in evidence.told_apart}
        covered = {
            c.key: score.low <= truth[c.key] <= score.high
            for c in evidence.configurations
            if (score := evidence.score(c)) is not None
        }
        rows.append(
            (
                CLEAR in verdicts,
                bool(lost),
                CLEAR in verdicts or SUGGESTIVE in verdicts,
                0 not in lost,
                np.mean(list(covered.values())),
                evidence.best is not None and covered[evidence.best.key],
            )
        )
    return Counts(*(float(np.mean(column)) for column in zip(*rows, strict=True)))


def confirmed(world: World, rng: np.random.Generator) -> tuple[Simulated, dict[str, float]]:
    """A sweep of one seed, and its contenders trained again with `world.seeds` fresh ones."""
    abilities, images, meeting = _drawn(world, rng)
    first, _ = _trained(abilities, world._replace(seeds=1), rng, range(world.settings), "grid", images, meeting)
    chosen = near_best([c.worth for c in first.configurations], world.images)
    return _trained(abilities, world, rng, chosen, CONFIRM.name, images, meeting)


SEEDS, IMAGES, SDS = (1, 3, 5), (100, 1_000, 10_000), (0.0, 0.015, 0.03)
UNSTABLE = ((0.005, 0.04), (0.01, 0.1))
"""Standard deviations over seeds: of three in four settings, and of the fourth."""


def table(sweeps: int, images: Iterable[int] = IMAGES) -> Iterator[str]:
    """Rows of a Markdown table, one for each cell, in percent of the sweeps."""
    names = ("sweep", "images", "seeds", "sd, points", *Counts._fields)
    yield f"| {' | '.join(names)} |"
    yield f"|{' --- |' * len(names)}"
    cells: list[tuple[str, int, float, bool, Sequence[int]]] = [
        ("equal", 16, 0.0, False, SEEDS),
        ("one better", 16, EFFECT, False, SEEDS),
        *((f"confirmed, of {count}", count, 0.0, True, (5,)) for count in (4, 16, 64)),
    ]
    for (name, count, effect, confirm, of), n in product(cells, images):
        for seeds, sd in product(of, SDS):
            found = counted(World(count, seeds, n, sd, effect), sweeps, confirm=confirm)
            yield _row(name, n, seeds, f"{100 * sd:g}", found)
    for n, seeds, (sd, unstable) in product(images, SEEDS[1:], UNSTABLE):
        found = counted(World(16, seeds, n, sd, unstable=unstable), sweeps)
        yield _row("equal, a quarter unstable", n, seeds, f"{100 * sd:g}, {100 * unstable:g}", found)


def _row(name: str, images: int, seeds: int, sd: str, found: Counts) -> str:
    numbers = " | ".join(f"{100 * value:.1f}" for value in found)
    return f"| {name} | {images:,} | {seeds} | {sd} | {numbers} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=1000, help="simulated sweeps in each cell")
    parser.add_argument("--images", type=int, nargs="+", default=list(IMAGES), help="numbers of test images")
    given = parser.parse_args()
    for line in table(given.sweeps, given.images):
        print(line, flush=True)


if __name__ == "__main__":
    main()
