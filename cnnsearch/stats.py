"""The intervals and tests behind every claim of a report. Pure: numbers in, numbers out.

Accuracies are fractions in [0, 1]. "Correct" arrays hold one value per test example, in the same order for both sides
of a comparison: 0 or 1 for one trained network, a fraction in [0, 1] for the mean of several. What is sampled are the
examples: intervals and p-values here say how far the answer could move with other examples of the same kind. How far it
could move with other seeds as well is what `evidence.crossed` says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

LEVEL = 0.95
SIGNIFICANCE = 0.05

# Above this many steps of the exact distribution the normal approximation is indistinguishable from it.
_EXACT_STEPS = 200_000


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


class Estimate(NamedTuple):
    """A point estimate and its confidence interval."""

    value: float
    low: float
    high: float


class AgainstChance(NamedTuple):
    """How a score compares with guessing. `p_value` is one-sided: how often guessing does as well or better."""

    chance: float
    p_value: float
    better: bool


def wilson(successes: float, n: int, level: float = LEVEL) -> Interval:
    """Score interval of a proportion (Wilson 1927; recommended by Newcombe 1998, Stat. Med. 17:857).

    `successes` may be fractional (a mean over several networks on the same `n` examples).

    Raises:
        ValueError: unless 0 <= successes <= n and n >= 1.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"successes must lie between 0 and n >= 1, got {successes} of {n}")
    low, high = score_interval(successes / n, n, _normal_quantile(level))
    # At 0 and n the closed form gives exactly 0 and 1 but for rounding.
    return Interval(0.0 if successes == 0 else low, 1.0 if successes == n else high)


def score_interval(p: float, n: float, z: float) -> Interval:
    """Wilson's interval of a proportion `p` that is worth `n` independent examples; `z` is the quantile to use."""
    centre = p + z * z / (2 * n)
    margin = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return Interval(max(0.0, (centre - margin) / scale), min(1.0, (centre + margin) / scale))


def sign_flip_exact(differences: ArrayLike) -> float:
    """Two-sided exact p-value that paired integer `differences` are symmetric about 0 (Fisher's sign-flip test).

    With differences of -1, 0 and 1 this is McNemar's exact test (1947). Larger ones arise when each example carries the
    sum over several pairs of networks, so that an example counts once however many networks saw it.
    """
    values = np.abs(_integers(differences))
    observed = abs(int(np.sum(_integers(differences))))
    values = values[values > 0]
    if values.size == 0:
        return 1.0
    unit = int(np.gcd.reduce(values))
    values, observed = values // unit, observed // unit
    steps = int(values.sum())
    if int(values.max()) == 1:
        return min(1.0, 2.0 * float(special.bdtr((steps - observed) // 2, steps, 0.5)))
    if steps > _EXACT_STEPS:
        return 2.0 * NormalDist().cdf(-observed / math.sqrt(float(np.sum(values.astype(np.float64) ** 2))))
    return _sign_flip_tail(values, observed, steps)


def _sign_flip_tail(values: NDArray[np.int64], observed: int, steps: int) -> float:
    """P(|sum of randomly signed values| >= observed), from the characteristic function, a product of cosines."""
    size = 2 * steps + 1
    angles = 2 * np.pi * np.arange(size) / size
    characteristic = np.ones(size)
    for magnitude, count in zip(*np.unique(values, return_counts=True), strict=True):
        characteristic *= np.cos(magnitude * angles) ** int(count)
    probability = np.fft.ifft(characteristic).real  # index s holds P(sum = s), index size - s holds P(sum = -s)
    if observed == 0:
        return 1.0
    return float(np.clip(2 * probability[observed : steps + 1].sum(), 0.0, 1.0))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for the number of tests made (Holm 1979), in the order given: R's `p.adjust(p, "holm")`."""
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def paired_difference(correct_a: ArrayLike, correct_b: ArrayLike, level: float = LEVEL) -> Estimate:
    """Accuracy of A minus accuracy of B on the same examples, with its interval.

    Wald interval with the adjustment of Bonett & Price (2012, J. Educ. Behav. Stat. 37:479): one imagined example is
    added that only A gets right and one that only B does. Fagerland, Lydersen & Laake (2014, Stat. Med. 33:2850)
    recommend it for all sample sizes. Written in terms of the per-example difference it also holds for fractions,
    where the variance is that of the per-example means.
    """
    differences = np.asarray(correct_a, dtype=np.float64) - np.asarray(correct_b, dtype=np.float64)
    n = differences.size
    if n == 0:
        raise ValueError("no examples to compare on")
    total, squares = float(differences.sum()), float((differences**2).sum())
    centre = total / (n + 2)
    variance = max(0.0, (squares + 2) / (n + 2) - centre**2)
    margin = _normal_quantile(level) * math.sqrt(variance / (n + 2))
    return Estimate(total / n, max(-1.0, centre - margin), min(1.0, centre + margin))


def mean_interval(values: Sequence[float], level: float = LEVEL) -> Estimate:
    """Mean over seeds with Student's t-interval.

    One value says nothing about its spread: the interval is then infinite on both sides.
    """
    n = len(values)
    if n == 0:
        raise ValueError("no values to average")
    mean = math.fsum(values) / n
    if n == 1:
        return Estimate(mean, -math.inf, math.inf)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    margin = float(special.stdtrit(n - 1, (1 + level) / 2)) * deviation / math.sqrt(n)
    return Estimate(mean, mean - margin, mean + margin)


def holm_bound(p_values: NDArray[np.float64], significance: float = SIGNIFICANCE) -> float:
    """The bound below which p-values are significant after Holm's correction; for many at once. See `holm`."""
    ordered = np.sort(p_values)
    allowed = significance / np.arange(ordered.size, 0, -1)
    failing = np.flatnonzero(ordered >= allowed)
    if not failing.size:
        return math.inf if ordered.size else 0.0
    return float(min(ordered[failing[0]], allowed[failing[0]]))


TURNS_BY_NOISE = 0.005
"""Share of flat or falling curves, at most, in which `turning_epoch` takes noise for a turn."""

# Epochs -> how many times its roughness a curve without a turn may rise, in all but `TURNS_BY_NOISE` of simulated ones:
# the largest over flat and falling curves, and over noise that carries none to 80 % of itself to the next epoch.
_RISES_BY_NOISE = {6: 7.0, 30: 5.5, 100: 3.6, 300: 2.8}
LEAST_EPOCHS = min(_RISES_BY_NOISE)
"""Fewest epochs of a loss of which anything is said."""
_BLOCKS = 15
_LEAST_TAIL = 3
LEAST_RISE = 0.05
"""Share of its lowest value by which a loss has to end above it to count as risen."""


def turning_epoch(val_loss: Sequence[float], first_epoch: int = 1) -> int | None:
    """The epoch of least smoothed validation loss if the loss then clearly rises: where overfitting starts. Else None.

    Clearly: the mean of the last fifth of the epochs, at least three and all after the minimum, is above it by more
    than 5 % (the "generalization loss" of Prechelt 1998, "Early stopping: but when?") and by more than noise makes it.

    The noise of neighbouring epochs is alike, which hides its size from their differences. So a curve of 30 epochs or
    more is first averaged over blocks of a 15th of them, which also smooths it; a shorter one is smoothed by a running
    median of three, so that a spike is no minimum. The rise is divided by the roughness of the blocks: the root mean
    square of their second differences, to which a straight slope adds nothing, without the first third, where loss
    falls steeply. Its limits are simulated for independent and for autocorrelated noise.

    `val_loss[0]` belongs to `first_epoch`; whatever follows the first non-finite value is ignored.
    """
    smoothed = _smoothed(val_loss)
    if smoothed is None or not smoothed.is_rising:
        return None
    loss, blocks, length, skipped = smoothed.loss, smoothed.blocks, smoothed.length, smoothed.skipped
    bends = np.diff(blocks, n=2)
    roughness = math.sqrt(float(np.mean(bends[bends.size // 3 :] ** 2)))
    limit = np.interp(math.log(loss.size), np.log(list(_RISES_BY_NOISE)), list(_RISES_BY_NOISE.values()))
    if smoothed.end - smoothed.least <= limit * roughness:
        return None
    start, end = skipped + smoothed.lowest * length, skipped + (smoothed.lowest + 1) * length
    if length == 1:
        start, end = max(0, start - 1), end + 1  # the three epochs of the median
    return first_epoch + start + int(np.argmin(loss[start:end]))


def ends_above_lowest(val_loss: Sequence[float]) -> float | None:
    """Loss at the end as a multiple of its least smoothed value, if more than 5 % above it, be it by noise. Else None.

    Every curve that `turning_epoch` finds to turn is among these, and curves that are too rough for it to say.
    """
    smoothed = _smoothed(val_loss)
    if smoothed is None or not smoothed.is_rising:
        return None
    return smoothed.end / smoothed.least if smoothed.least > 0 else math.inf


class _Smoothed(NamedTuple):
    """A loss averaged over blocks of epochs, its least smoothed value, and the mean of the last fifth after that."""

    loss: NDArray[np.float64]
    blocks: NDArray[np.float64]
    length: int
    skipped: int
    lowest: int
    least: float
    end: float

    @property
    def is_rising(self) -> bool:
        return self.end - self.least > LEAST_RISE * self.least


def _smoothed(val_loss: Sequence[float]) -> _Smoothed | None:
    """Smooth a loss; None where it has too few epochs in all, or after its minimum."""
    loss = np.asarray(val_loss, dtype=np.float64)
    finite = np.isfinite(loss)
    loss = loss if finite.all() else loss[: int(np.argmin(finite))]
    if loss.size < LEAST_EPOCHS:
        return None
    length = max(1, loss.size // _BLOCKS)
    skipped = loss.size % length
    blocks = loss[skipped:].reshape(-1, length).mean(axis=1)
    smooth = _median_of_three(blocks) if length == 1 else blocks
    lowest = int(np.argmin(smooth))
    after = blocks[lowest + 1 :]
    if after.size * length < _LEAST_TAIL:
        return None
    tail = after[-max(math.ceil(_LEAST_TAIL / length), blocks.size // 5) :]
    return _Smoothed(loss, blocks, length, skipped, lowest, float(smooth[lowest]), float(tail.mean()))


def _median_of_three(values: NDArray[np.float64]) -> NDArray[np.float64]:
    padded = np.concatenate([values[:1], values, values[-1:]])
    smooth: NDArray[np.float64] = np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0)
    return smooth


def more_than_noise_turns(turned: int, curves: int) -> bool:
    """Whether so many of these curves turned that noise alone would hardly (5 %) turn as many."""
    return turned > 0 and float(special.bdtrc(turned - 1, curves, TURNS_BY_NOISE)) < SIGNIFICANCE


def fisher_exact(right_a: int, n_a: int, right_b: int, n_b: int) -> float:
    """Two-sided exact p-value that two independent proportions are equal (Fisher 1935): R's `fisher.test`."""
    right = right_a + right_b
    counts = np.arange(max(0, right - n_b), min(right, n_a) + 1)

    def log_choose(n: int, k: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1))

    logs = log_choose(n_a, counts) + log_choose(n_b, right - counts)
    shares = np.exp(logs - special.logsumexp(logs))
    # Equally likely tables may differ by rounding; the tolerance is R's.
    return min(1.0, float(shares[shares <= shares[right_a - counts[0]] * (1 + 1e-7)].sum()))


def better_than_chance(correct: float, n: int, classes: int | Sequence[int]) -> AgainstChance:
    """One-sided exact binomial test that `correct` of `n` is more than guessing gets right, at 5 %.

    `classes` is the number of classes (chance is 1/classes) or the examples of each class (chance is the share of the
    largest: what always naming that class would score). A fractional `correct` is rounded down, against the claim.
    """
    chance = 1 / classes if isinstance(classes, int) else max(classes) / sum(classes)
    if not 0 <= correct <= n or n < 1:
        raise ValueError(f"correct must lie between 0 and n >= 1, got {correct} of {n}")
    whole = math.floor(correct + 1e-9)
    p_value = 1.0 if whole == 0 else float(special.bdtrc(whole - 1, n, chance))
    return AgainstChance(chance, p_value, p_value < SIGNIFICANCE)


UNEVEN = 1.5
"""How many times its even share the largest class has where accuracy hides what happens to the others."""


def are_uneven(class_counts: Sequence[int]) -> bool:
    """Whether the largest class is so large that balanced accuracy is tested instead of accuracy."""
    present = [count for count in class_counts if count]
    return bool(present) and max(present) / sum(present) > UNEVEN / len(present)


def balanced_accuracy(correct: Sequence[float], class_counts: Sequence[int]) -> tuple[Estimate, float]:
    """Mean recall over the classes with its 95 % interval, and a one-sided p-value against 1 / classes.

    Guessing, or always naming one class, has an expected mean recall of 1 / classes, whatever the classes' sizes. The
    interval and the test are normal; so that a recall of 0 or 1 does not count as known for sure, each class enters the
    variance with one right and one wrong answer more. `correct` has the right answers of each class, a mean over seeds.
    """
    right, of = np.array([(c, n) for c, n in zip(correct, class_counts, strict=True) if n], dtype=np.float64).T
    value = float(np.mean(right / of))
    padded = (right + 1) / (of + 2)
    error = math.sqrt(float(np.sum(padded * (1 - padded) / (of + 2)))) / of.size
    margin = _normal_quantile(LEVEL) * error
    p_value = NormalDist().cdf((1 / of.size - value) / error)
    return Estimate(value, max(0.0, value - margin), min(1.0, value + margin)), p_value


def _normal_quantile(level: float) -> float:
    return NormalDist().inv_cdf((1 + level) / 2)


def _integers(values: ArrayLike) -> NDArray[np.int64]:
    return np.asarray(values).astype(np.int64)
