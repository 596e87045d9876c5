"""Means and differences as they would vary with other seeds *and* with other images: crossed random effects.

A setting was trained with several seeds, and each of its networks answered the same images: a table of right answers
with a row for each seed and a column for each image. Both would be others if the experiment were repeated, so the
variances of both are added (Cornfield and Tukey 1956, Ann. Math. Stat. 27:907); what the two share, the chance of a
single answer, is in both and is taken off once. Degrees of freedom are Satterthwaite's (1946, Biometrics Bull. 2:110).

With few seeds their variance may by luck look far too small, and the images' many degrees of freedom would hide it. So
the result is never surer than Student's (or Welch's) t over the seeds alone, and the settings of a sweep share what
their seeds say about it (`sharing_spread`). How often these intervals hold what they promise is simulated in
`benchmarks.calibration` and in the tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from cnnsearch.stats import LEVEL, Estimate, score_interval


class Answered(NamedTuple):
    """The right answers of one side of a comparison, condensed."""

    mean: NDArray[np.float64]
    """Image -> mean over the replicates, [images]."""
    replicates: int
    """Number of seeds, or of other repetitions."""
    between: float
    """Variance of the overall mean that comes from the replicates: that of their means, over their number."""
    single: float
    """The part of `between` that the variance over images holds too: the chance of single answers."""
    degrees: float
    """Degrees of freedom of `between`: replicates − 1, and more where others vouch for it (see `sharing_spread`)."""
    worth: int = 0
    """Number of images that `mean` stands for, where it holds numbers of resamples (see `resampled`); else 0."""

    @property
    def images(self) -> int:
        """Number of images."""
        return self.worth or self.mean.size

    @classmethod
    def of(cls, table: NDArray[np.float64], worth: int = 0) -> Answered:
        """Condense a table [replicates, images] of right answers: 0 or 1, fractions, or differences of those.

        With one replicate nothing is known of the variance between them: it is 0. See `worth` for other tables.
        """
        replicates = len(table)
        if replicates < 2:
            return cls(table.mean(axis=0), replicates, 0.0, 0.0, 0.0, worth)
        by_image, between, single = _condensed(table[None], worth)
        return cls(by_image[0], replicates, float(between[0]), float(single[0]), replicates - 1.0, worth)


def _condensed(
    tables: NDArray[np.float64], worth: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """`mean`, `between` and `single` of many tables of two or more replicates, [tables, replicates, images]."""
    count, replicates, columns = tables.shape
    by_image, by_replicate = tables.mean(axis=1), tables.mean(axis=2)
    between = by_replicate.var(axis=1, ddof=1) / replicates
    rest = tables - by_image[:, None] - by_replicate[:, :, None] + by_image.mean(axis=1)[:, None, None]
    squares = np.sum((rest**2).reshape(count, -1), axis=1)
    return by_image, between, squares / max(1, (replicates - 1) * (columns - 1)) / (replicates * (worth or columns))


LEAST_SHARING = 4
"""Sides from which on the spread of all says something about that of each."""
_CAUTION = 1.0
"""Standard errors by which sides are taken to differ more in their spread than they seem to."""


def sharing_spread(sides: Sequence[Answered]) -> list[Answered]:
    """Let the sides of one experiment vouch for the spread of each other's replicates.

    Three seeds say little about how much seeds vary; 16 settings with three each say more, as far as they vary alike.
    How alike is read off them: the variance of one side is an estimate with a prior that all sides share (Smyth 2004,
    Stat. Appl. Genet. Mol. Biol. 3:3). A side that varies less than that is taken to have been lucky. One that varies
    more keeps its own variance and degrees of freedom: what is unstable is not made to look stable.
    """
    known = np.array([side.replicates > 1 and side.between > 0 for side in sides])
    if known.sum() < LEAST_SHARING:
        return list(sides)
    own = np.array([side.between * side.replicates for side in sides])
    degrees = np.array([side.degrees for side in sides])
    prior, worth = _prior(own[known], degrees[known])
    shared = []
    for side, variance, free, is_known in zip(sides, own, degrees, known, strict=True):
        more = min(worth, float(degrees[known].sum()) - free)
        moderated = (more * prior + free * variance) / (more + free)
        if side.replicates > 1 and (moderated > variance or not is_known):
            side = side._replace(between=float(moderated) / side.replicates, degrees=float(more + free))
        shared.append(side)
    return shared


def _prior(variances: NDArray[np.float64], degrees: NDArray[np.float64]) -> tuple[float, float]:
    """The variance that sides share, and how many degrees of freedom it is worth: fewer, the more they differ."""
    half = degrees / 2
    logs = np.log(np.maximum(variances, 1e-5 * np.median(variances))) - special.digamma(half) + np.log(half)
    by_chance = special.polygamma(1, half)
    error = np.mean(by_chance * np.sqrt((special.polygamma(3, half) / by_chance**2 + 2) / len(logs)))
    differing = float(logs.var(ddof=1) - by_chance.mean() + _CAUTION * error)
    if differing <= 1e-6:
        return float(np.exp(logs.mean())), float("inf")
    from scipy.optimize import brentq  # it takes a while to import, and few sweeps need it

    worth = 2 * brentq(lambda x: special.polygamma(1, x) - differing, 1e-3, 1e9)
    return float(np.exp(logs.mean() + special.digamma(worth / 2) - np.log(worth / 2))), float(worth)


class Crossed(NamedTuple):
    """An estimate over replicates and images, and the two-sided p-value of its being 0."""

    estimate: Estimate
    p_value: float
    between: float
    """The part of its variance that more replicates make smaller."""
    over_images: float
    """The part of its variance that more images make smaller."""


def difference(a: Answered, b: Answered, level: float = LEVEL) -> Crossed:
    """Mean of A minus mean of B on the same images; their replicates are independent of each other."""
    return _judged(a.mean - b.mean, (a, b), level)


def independent_difference(a: Answered, b: Answered, level: float = LEVEL) -> Crossed:
    """Mean of A minus mean of B, where each was tested on images of its own."""
    value = float(a.mean.mean() - b.mean.mean())
    variance = sum(float(side.mean.var()) / side.mean.size for side in (a, b))
    return _crossed(value, variance, min(a.mean.size, b.mean.size), (a, b), level)


def differs_from_zero(differences: Answered, level: float = LEVEL) -> Crossed:
    """Mean of differences that were made within each replicate, such as matched pairs of settings."""
    return _judged(differences.mean, (differences,), level)


def mean_of(side: Answered, level: float = LEVEL) -> Estimate:
    """Mean of one side of several replicates, with an interval as lopsided as Wilson's (see `stats.wilson`).

    Raises:
        ValueError: with fewer than two replicates, which say nothing about the variance between them.
    """
    if side.replicates < 2:
        raise ValueError("the variance between replicates takes two of them")
    images, value = side.images, min(1.0, float(side.mean.mean()))
    half = spread(side, level)
    z = float(special.ndtri((1 + level) / 2))
    worth = images if half == 0 else min(images * side.replicates, value * (1 - value) * (z / half) ** 2)
    return Estimate(value, *score_interval(value, worth, z))


def spread(side: Answered, level: float = LEVEL) -> float:
    """Half the width of the interval of a mean over several replicates, where it is as wide on both sides."""
    variance = float(side.mean.var()) / side.images - side.single
    return float(_half(_errors(variance, side.images, [(side.between, side.degrees)]), level))


def of_images(by_image: NDArray[np.float64], worth: int, level: float = LEVEL) -> tuple[Estimate, float]:
    """A mean difference of networks with a normal interval over images alone, and its standard error."""
    value = float(by_image.mean())
    total, squares = worth * value, worth * float(np.mean(by_image**2))
    error = float(np.sqrt(_over_images(total, squares, worth, 2.0)))
    half = float(special.ndtri((1 + level) / 2)) * error
    return Estimate(value, value - half, value + half), error


def less_sure(a: Crossed, b: Crossed) -> Crossed:
    """Of two judgements of the same value, take the wider interval and the larger p-value."""
    wider = a if a.estimate.high - a.estimate.low >= b.estimate.high - b.estimate.low else b
    return wider._replace(p_value=max(a.p_value, b.p_value))


def luck_of_the_best(sides: Sequence[Answered], chosen: int, *, on_same_images: bool) -> float:
    """How much of the chosen side's lead is likely to be luck: what its seeds, and the images, had to be chosen for.

    Of several sides the one with the highest mean is chosen, and it is there in part because its seeds happened to be
    good. By empirical Bayes (Efron and Morris 1973, JASA 68:117): what remains of the spread between the sides after
    the variance within them is real, and only that share of a side's lead is.

    Args:
        sides: what the choice was among, on the images by which it was made.
        chosen: which of them was chosen.
        on_same_images: whether to count the luck with these images too, or only that with the seeds, which the chosen
            side takes with it to other images.
    """
    means = np.stack([side.mean for side in sides])
    overall = means.mean(axis=1)
    count, columns = means.shape
    rest = means - means.mean(axis=0) - overall[:, None] + overall.mean()
    of_seeds = float(np.mean([side.between for side in sides]))
    single = float(np.mean([side.single for side in sides]))
    alike = float(np.sum(rest**2)) / max(1, (count - 1) * (columns - 1)) / sides[0].images
    within = of_seeds + max(0.0, alike - single)
    spread = float(overall.var(ddof=1))
    if spread == 0 or within == 0:
        return 0.0
    share = (within if on_same_images else of_seeds) / max(spread, within)
    return float(share * (overall[chosen] - overall.mean()))


TOGETHER = 2**17
"""Numbers that are computed at a time where there are many differences: a megabyte."""


def between_all(sides: Sequence[Answered]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The `difference` of every two sides: values and p-values, both [sides, sides]; p is 1 on the diagonal."""
    means = np.stack([side.mean for side in sides])
    overall = means.mean(axis=1)
    value = overall[:, None] - overall[None, :]
    images, count = sides[0].images, len(sides)
    products = means @ means.T * (images / means.shape[1])
    replicates = np.array([side.replicates for side in sides])
    single, between, degrees = (
        np.array([getattr(side, name) for side in sides]) for name in ("single", "between", "degrees")
    )
    own, p_values = np.diag(products), np.ones((count, count))
    step = max(1, TOGETHER // count)
    for start in range(0, count, step):  # a pair has one p-value, whichever of the two is first
        rows, columns = slice(start, start + step), slice(start, count)
        shape = value[rows, columns].shape
        squares = np.maximum(0.0, own[rows, None] + own[None, columns] - 2 * products[rows, columns])
        added = 2 / np.minimum.outer(replicates[rows], replicates[columns])
        variance = _over_images(value[rows, columns] * images, squares, images, added)
        parts = [
            (np.broadcast_to(between[rows, None], shape), np.broadcast_to(degrees[rows, None], shape)),
            (np.broadcast_to(between[None, columns], shape), np.broadcast_to(degrees[None, columns], shape)),
        ]
        errors = _errors(variance - np.add.outer(single[rows], single[columns]), images, parts)
        p_values[rows, columns] = _p_value(value[rows, columns], errors)
        p_values[columns, rows] = p_values[rows, columns].T
    np.fill_diagonal(p_values, 1.0)
    return value, p_values


def all_differ_from_zero(tables: NDArray[np.float64], worth: int = 0, level: float = LEVEL) -> list[Crossed]:
    """`differs_from_zero` of many tables of differences at once, [tables, replicates, images]; see `Answered.of`."""
    _, replicates, columns = tables.shape
    images = worth or columns
    if images == 0:
        raise ValueError("no examples to compare on")
    by_image, between, single = _condensed(tables, worth)
    value = by_image.mean(axis=1)
    each = images / columns
    variance = _over_images(each * by_image.sum(axis=1), each * np.sum(by_image**2, axis=1), images, 2 / replicates)
    over_images = np.maximum(0.0, variance - single)
    errors = _errors(over_images, images, [(between, replicates - 1.0)])
    half, p_values, most = _half(errors, level), _p_value(value, errors), np.inf if worth else 1.0
    ends = np.maximum(-most, value - half), np.minimum(most, value + half)
    estimates = map(Estimate, *(numbers.tolist() for numbers in (value, *ends)))
    return [*map(Crossed, estimates, p_values.tolist(), between.tolist(), over_images.tolist())]


def _judged(by_image: NDArray[np.float64], sides: Sequence[Answered], level: float) -> Crossed:
    images = sides[0].images
    if images == 0:
        raise ValueError("no examples to compare on")
    added, each = 2 / min(side.replicates for side in sides), images / by_image.size
    variance = float(_over_images(each * float(by_image.sum()), each * float(np.sum(by_image**2)), images, added))
    return _crossed(float(by_image.mean()), variance, images, sides, level)


def _crossed(value: float, variance: float, images: int, sides: Sequence[Answered], level: float) -> Crossed:
    """Put together a value and its two variances; `variance` over images still holds the chance of single answers."""
    over_images = max(0.0, variance - sum(side.single for side in sides))
    parts = [(side.between, side.degrees) for side in sides]
    errors = _errors(over_images, images, parts)
    half, p_value = float(_half(errors, level)), float(_p_value(value, errors))
    # A share moves by at most 1; what resamples stand for may be no share.
    most = np.inf if any(side.worth for side in sides) else 1.0
    estimate = Estimate(value, max(-most, value - half), min(most, value + half))
    return Crossed(estimate, p_value, sum(side.between for side in sides), over_images)


def _over_images(total: ArrayLike, squares: ArrayLike, images: int, added: ArrayLike) -> NDArray[np.float64]:
    """Variance of a mean difference over images, from the sums of the differences and of their squares.

    As in `stats.paired_difference`, one image is imagined that only A gets right, and one that only B does: of several
    replicates, in one of them (`added` is 2 over their number).
    """
    n = images + np.asarray(added)
    return np.asarray(((np.asarray(squares) + added) / n - (np.asarray(total) / n) ** 2) / n)


Variances = Sequence[tuple[ArrayLike, ArrayLike]]
"""Independent parts of a variance: (estimate, its degrees of freedom)."""


_Errors = tuple[tuple[NDArray[np.float64], NDArray[np.float64]], ...]
"""Standard errors of values, each with its degrees of freedom: over replicates and images, and over replicates alone.
What is said of a value is never surer than by either."""


def _errors(over_images: ArrayLike, images: int, between: Variances) -> _Errors:
    both = [*between, (np.maximum(0.0, over_images), max(1, images - 1))]
    return _error(both), _error(between)


def _error(parts: Variances) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    total = np.asarray(sum(np.asarray(variance) for variance, _ in parts), dtype=np.float64)
    squares = np.asarray(sum(np.asarray(variance) ** 2 / np.asarray(degrees) for variance, degrees in parts))
    return np.sqrt(total), np.divide(total**2, squares, out=np.ones_like(total), where=squares > 0)


def _half(errors: _Errors, level: float) -> NDArray[np.float64]:
    """Half the width of the interval of a value."""
    first, second = (special.stdtrit(freedom, (1 + level) / 2) * error for error, freedom in errors)
    return np.asarray(np.maximum(first, second))


def _p_value(value: ArrayLike, errors: _Errors) -> NDArray[np.float64]:
    """The two-sided p-value of a value being 0."""
    away = -np.abs(value)
    certain = np.where(np.asarray(value) == 0, 0.0, -np.inf)
    first, second = (
        special.stdtr(freedom, np.divide(away, error, out=certain.copy(), where=error > 0)) for error, freedom in errors
    )
    return np.asarray(np.minimum(1.0, 2 * np.maximum(first, second)))
