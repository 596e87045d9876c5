"""Simulates `--until-clear`: how often it names a winner where there is none, and how many trials it saves.

    python -m benchmarks.until_clear

Networks answer as in `answers`: some images are harder for all, some for one setting, and seeds move the accuracy of a
setting.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cnnsearch.evidence.crossed import Answered, difference
from cnnsearch.planning.confirm import near_best
from cnnsearch.planning.rounds import CLEAR, LOOKS, Bounds, judge
from cnnsearch.stats import holm

IMAGE, BOTH, SEED = 0.75, 0.3, 0.055
"""Standard deviations of how hard an image is, for all settings and for one, and of a seed: 1.5 points at 80 %. That of
a single answer is what is left of 1."""


class Contest(NamedTuple):
    """How a simulated comparison of contenders ended."""

    left: list[int]
    why: str
    """As in a round; "" where the looks ran out."""
    seeds: int
    """Seeds of all contenders together."""


def answers(
    rng: np.random.Generator, accuracies: Sequence[float], seeds: int, images: int, seed_sd: float = SEED
) -> NDArray[np.float64]:
    """Draw right answers: [setting, seed, image]. `accuracies` are means over all seeds and images there could be."""
    shape = (len(accuracies), seeds, images)
    shift = np.array([NormalDist().inv_cdf(accuracy) for accuracy in accuracies])[:, None, None]
    single = np.sqrt(1 - IMAGE**2 - BOTH**2 - SEED**2)
    latent = shift * np.sqrt(1 + seed_sd**2 - SEED**2) + IMAGE * rng.normal(size=(1, 1, images))
    latent = latent + BOTH * rng.normal(size=(shape[0], 1, images)) + seed_sd * rng.normal(size=(*shape[:2], 1))
    right: NDArray[np.float64] = (latent + single * rng.normal(size=shape) > 0).astype(np.float64)
    return right


def contest(table: NDArray[np.float64], margin: float = 0.005, first: int = LOOKS[0]) -> Contest:
    """Go through the looks from `first` seeds on, as a sweep would, until nothing is left to tell."""
    left, spent = list(range(len(table))), 0
    reached = dict.fromkeys(left, 0)
    for look in LOOKS[LOOKS.index(first) :]:
        if look > table.shape[1]:
            break
        spent += sum(look - reached[one] for one in left)
        reached |= dict.fromkeys(left, look)
        sides = {one: Answered.of(table[one, :look]) for one in left}

        def bounds(a: int, b: int, level: float, sides: dict[int, Answered] = sides) -> Bounds:
            return difference(sides[a], sides[b], level).estimate

        left, why = judge(left, len(table), margin, bounds)
        if why:
            return Contest(left, why, spent)
    return Contest(left, "", spent)


def winners_of_equal_pairs(rng: np.random.Generator, pairs: int, images: int, seed_sd: float = SEED) -> float:
    """Share of pairs of equally good settings that end with a winner."""
    found = [contest(answers(rng, [0.8, 0.8], LOOKS[-1], images, seed_sd)) for _ in range(pairs)]
    return sum(one.why == CLEAR for one in found) / pairs


class Saved(NamedTuple):
    """Sweeps of 16 settings, each decided twice from the same answers."""

    fixed: float
    """Share of sweeps that are settled by 5 seeds for every setting: 80 trials."""
    adaptive: float
    """Share settled by one seed for each setting, and then `--until-clear`."""
    trials: float
    """Mean trials that this takes in those sweeps that 5 seeds settle."""
    wrong: float
    """Share of sweeps in which it names a setting as best that is not."""


def saved(rng: np.random.Generator, sweeps: int, images: int, ahead: float, settings: int = 16) -> Saved:
    """Compare it with 5 seeds for every setting where the best is ahead of the next by `ahead`."""
    fixed = adaptive = wrong = 0
    trials: list[int] = []
    for _ in range(sweeps):
        order = rng.permutation(settings)
        accuracies = np.concatenate([[0.85], 0.85 - ahead - rng.uniform(0, 0.15, settings - 1)])[order]
        table = answers(rng, accuracies.tolist(), LOOKS[-1] + 5, images)
        is_fixed = _is_settled(table[:, :5])
        chosen = near_best(table[:, 0].mean(axis=1).tolist(), images)
        ended = contest(table[chosen, 5:])
        names_best = ended.why == CLEAR and len(ended.left) == 1
        fixed += is_fixed
        adaptive += names_best
        wrong += names_best and order[chosen[ended.left[0]]] != 0
        if is_fixed:
            trials.append(settings + ended.seeds)
    return Saved(fixed / sweeps, adaptive / sweeps, float(np.mean(trials)) if trials else float("nan"), wrong / sweeps)


def _is_settled(table: NDArray[np.float64]) -> bool:
    """Whether the best setting is told from every other at 5 %, by Holm's correction over these comparisons."""
    sides = [Answered.of(one) for one in table]
    best = max(sides, key=lambda side: side.mean.mean())
    return max(holm([difference(best, side).p_value for side in sides if side is not best])) < 0.05


def main() -> None:
    """Print both simulations at full size."""
    rng = np.random.default_rng(0)
    print("equal pairs of which one is named as better, of 1,000")
    for images in (200, 1000, 5000):
        for seed_sd in (0.0, SEED, 2 * SEED):
            share = winners_of_equal_pairs(rng, 1000, images, seed_sd)
            print(f"  {images:5,} images, seeds ± {seed_sd * 28:.1f} points  {share:.1%}")
    print("sweeps of 16 settings: settled by 5 seeds for all, and by --until-clear with so many trials in their place")
    for images, ahead in ((1000, 0.05), (1000, 0.08), (5000, 0.03), (5000, 0.05)):
        one = saved(rng, 200, images, ahead)
        print(
            f"  {images:5,} images, best ahead by {100 * ahead:.0f} points  {one.fixed:.0%} by 80 trials; "
            f"{one.adaptive:.0%} by --until-clear, {one.trials:.0f} trials where 80 settle it; wrong {one.wrong:.1%}"
        )


if __name__ == "__main__":
    main()
