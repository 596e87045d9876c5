"""The rules of `stop_early`, one class each: when a trial may be stopped, whether it is, how many epochs to expect.

Pure. A new rule is a class of settings in `spec.stage`, a class here, and a line in `RULES`.
"""

from __future__ import annotations

import functools
import math
import random
from abc import ABC, abstractmethod
from bisect import insort
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from cnnsearch.spec.metric import MEASURES
from cnnsearch.spec.stage import Asha, Hyperband, Median, Patience, StopEarly
from cnnsearch.words import percent

COMPARED = 3
"""Fewest other trials of which a median is taken."""
GROWTH = 1.5
"""With several seeds, the median rule judges a setting at epochs that are this many times as far each time."""
SIMULATED_TRIALS, SIMULATED = 100, 3000
"""For estimates: most trials in one simulated sweep, and trials in all simulated sweeps together."""
GUIDED_DRAWS = 2
"""A trial that a searcher suggests from outcomes is about as good as the best of this many random ones. Measured on
the grid of `benchmarks/recorded`, means of 10 seeds: of 60 trials with ASHA (min_epochs 3, η 3), suggestions of TPE
and of the Gaussian process trained 36 % of all epochs, random draws 29 %; two draws come to 36 % and 31 %, three to
38 %."""

Curve = Mapping[int, float]
"""Epoch -> value of the metric."""


@dataclass
class Curves:
    """The curves of trials that are compared with each other. Values are signed so that more is better."""

    sign: int
    """1 for accuracies, -1 for losses."""
    values: dict[str, dict[int, float]] = field(default_factory=dict)
    """Trial id -> epoch -> value. Values that were not numbers are left out."""
    averages: dict[str, dict[int, float]] = field(default_factory=dict)
    """Trial id -> epoch -> mean of its values up to there."""
    places: dict[str, int] = field(default_factory=dict)
    """Trial id -> its place in the stage, from 0."""

    def place(self, trial_id: str) -> None:
        """Give a trial the next place, unless it has one."""
        self.places.setdefault(trial_id, len(self.places))
        self.values.setdefault(trial_id, {})

    def add(self, trial_id: str, epoch: int, value: float) -> None:
        """Take in a value of the metric as it was measured; an epoch that is known already keeps its value."""
        curve = self.values[trial_id]
        if epoch not in curve:
            value = self.sign * value
            averages = self.averages.setdefault(trial_id, {})
            before = len(curve)
            averages[epoch] = value if not before else (averages[max(curve)] * before + value) / (before + 1)
            curve[epoch] = value


class Rule(ABC):
    """Decides about one stage's trials, by the settings given under `stop_early`.

    Where there are several seeds, a rule that compares decides about settings: what it gets as a trial's curve is then
    the mean over the setting's seeds.
    """

    compares = True
    """Whether it compares trials with each other."""

    is_expected = False
    """Whether `endings` are expected values; else they are upper bounds."""

    def __init__(self, settings: StopEarly) -> None:
        self.settings = settings

    def is_due(self, epoch: int, epochs: int) -> bool:
        """Say whether a trial that trains for `epochs` may be stopped after `epoch`."""
        return self.settings.min_epochs <= epoch < epochs

    def is_judged(self, curves: Curves, trial_id: str, epoch: int, epochs: int) -> bool:
        """Say whether the seeds of a setting wait for each other after `epoch`, to be judged together.

        Args:
            curves: of all settings so far.
            trial_id: the first trial of the setting.
            epoch: that a seed has reached.
            epochs: for which the setting would train if it were not stopped.
        """
        return self.is_due(epoch, epochs)

    def remembers(self, epoch: int, epochs: int) -> bool:
        """Say whether what a trial had shown at an epoch may matter to a decision about another one."""
        return self.compares

    @abstractmethod
    def reason(self, curves: Curves, trial_id: str, epoch: int, epochs: int) -> str:
        """Say why a trial is stopped after an epoch at which the rule may stop it; "" if it goes on."""

    def endings(self, epochs: int, trials: int, after: int = 0, guided_from: int | None = None) -> dict[int, float]:
        """Return how many epochs a trial may still train -> how probable that is.

        Args:
            epochs: for which the trial would train if it were not stopped.
            trials: number of trials that are compared.
            after: epochs that the trial has already trained.
            guided_from: place of the first trial that was suggested from the outcomes of others. From there on, trials
                tend to be better than those before, so more of them go on. None: no suggestion uses outcomes.
        """
        return {epochs - after: 1.0}

    def forecast(self, epochs: int, trials: int, guided_from: int | None) -> str:
        """Say in words when trials end early, and what share of the epochs is trained. See `endings` for arguments."""
        return f"trials may be stopped after {self.settings.min_epochs} of {epochs} epochs, how many cannot be said"


class AshaRule(Rule):
    """Asynchronous successive halving (Li et al., arXiv:1810.05934), as Ray Tune's AsyncHyperBandScheduler decides it.

    A trial stops if its value at a rung is below the (1 - 1/η) quantile of other trials' values there. Ray Tune
    compares only with trials that reached the rung earlier. Here all known values count, so a trial that reaches the
    rung again, after it was cut off, is compared with the same values or more.
    """

    settings: Asha | Hyperband
    is_expected = True

    def rungs(self, epochs: int, first: int = 0) -> list[int]:
        """List the rungs of trials with `epochs`: the epochs min_epochs · ηᵏ, k ≥ `first`, below `epochs`."""
        found, at = [], self.settings.min_epochs * self.settings.reduction_factor**first
        while at < epochs:
            found.append(at)
            at *= self.settings.reduction_factor
        return found

    def is_due(self, epoch: int, epochs: int) -> bool:
        return super().is_due(epoch, epochs) and epoch in self.rungs(epochs)

    def remembers(self, epoch: int, epochs: int) -> bool:
        return self.is_due(epoch, epochs)

    def reason(self, curves: Curves, trial_id: str, epoch: int, epochs: int) -> str:
        return self._of_rung(curves, list(curves.values), trial_id, epoch)

    def _of_rung(self, curves: Curves, compared: Sequence[str], trial_id: str, epoch: int) -> str:
        value = curves.values[trial_id][epoch]
        known = (curves.values[other] for other in compared if other != trial_id)
        others = [curve[epoch] for curve in known if epoch in curve]
        if not others or not value < np.percentile(others, (1 - 1 / self.settings.reduction_factor) * 100):
            return ""
        place = 1 + sum(other > value for other in others)
        return f"{_ordinal(place)} of {len(others) + 1} at epoch {epoch}"

    def endings(self, epochs: int, trials: int, after: int = 0, guided_from: int | None = None) -> dict[int, float]:
        return self._ladder(self.rungs(epochs), epochs, trials, after, guided_from)

    def _ladder(
        self, rungs: Sequence[int], epochs: int, trials: int, after: int, guided_from: int | None
    ) -> dict[int, float]:
        """Return `endings` for trials that are compared at these rungs."""
        simulated = min(trials, SIMULATED_TRIALS)
        guided = simulated if guided_from is None else guided_from
        shares = _shares(len(rungs), self.settings.reduction_factor, simulated, guided)
        found, here, come = {}, 1.0, 1.0
        for rung, share in zip(rungs, shares, strict=True):
            if rung <= after:
                come = share
                continue
            found[rung - after] = here - share / come
            here = share / come
        found[epochs - after] = here
        return found

    def forecast(self, epochs: int, trials: int, guided_from: int | None) -> str:
        rungs = self.rungs(epochs)
        share = mean(self.endings(epochs, trials, guided_from=guided_from)) / epochs
        return (
            f"one in {self.settings.reduction_factor} goes on from epoch{'s' * (len(rungs) > 1)} "
            f"{', '.join(map(str, rungs))}; about {percent(share)} of all epochs are trained"
        )


class HyperbandRule(AshaRule):
    """Asynchronous successive halving in brackets that begin at different rungs (Li et al., arXiv:1603.06560).

    Trials are never paused, so each bracket is asynchronous. A trial's bracket follows from its place in the stage.
    """

    settings: Hyperband

    def brackets(self, epochs: int) -> tuple[int, ...]:
        """Return the bracket of each trial of one round, by its place: the number of rungs in the bracket.

        Algorithm 1 of the paper: of s_max + 1 brackets, the one with s rungs has ⌈(s_max + 1) ηˢ / (s + 1)⌉ trials.
        """
        return _brackets(len(self.rungs(epochs)), self.settings.reduction_factor)

    def is_judged(self, curves: Curves, trial_id: str, epoch: int, epochs: int) -> bool:
        dealt = self.brackets(epochs)
        return epoch in self._rungs_of(dealt[curves.places[trial_id] % len(dealt)], epochs)

    def _rungs_of(self, bracket: int, epochs: int) -> list[int]:
        return self.rungs(epochs, len(self.rungs(epochs)) - bracket)

    def reason(self, curves: Curves, trial_id: str, epoch: int, epochs: int) -> str:
        dealt = self.brackets(epochs)
        bracket_of = {other: dealt[place % len(dealt)] for other, place in curves.places.items()}
        bracket = bracket_of[trial_id]
        if epoch not in self._rungs_of(bracket, epochs):
            return ""
        return self._of_rung(
            curves, [other for other in curves.values if bracket_of[other] == bracket], trial_id, epoch
        )

    def endings(self, epochs: int, trials: int, after: int = 0, guided_from: int | None = None) -> dict[int, float]:
        most, dealt = len(self.rungs(epochs)), self.brackets(epochs)
        rounds, rest = divmod(trials, len(dealt))
        placed = Counter(dealt[:rest])
        for s, n in Counter(dealt).items():
            placed[s] += rounds * n
        found: dict[int, float] = {}
        for s, n in (+placed).items():
            guided = None if guided_from is None else guided_from * n // trials
            for added, share in self._ladder(self.rungs(epochs, most - s), epochs, n, after, guided).items():
                found[added] = found.get(added, 0) + share * n / trials
        return found


class MedianRule(Rule):
    """Stop a trial whose best is worse than the median of the averages that others had up to its epoch.

    Golovin et al., Google Vizier, KDD 2017. A trial may be stopped after any epoch. If several seeds waited for each
    other at every epoch, that would take longer than it saves: they are judged less and less often.
    """

    settings: Median

    def is_judged(self, curves: Curves, trial_id: str, epoch: int, epochs: int) -> bool:
        at = self.settings.min_epochs
        while at < epoch:
            at = max(at + 1, math.ceil(GROWTH * at))
        return at == epoch and self.is_due(epoch, epochs)

    def reason(self, curves: Curves, trial_id: str, epoch: int, epochs: int) -> str:
        best = max(curves.values[trial_id].values())
        averages = [
            average[epoch] for other, average in curves.averages.items() if epoch in average and other != trial_id
        ]
        if len(averages) < COMPARED or best >= median(averages):
            return ""
        middle = f"{abs(median(averages)):.4g}, the median average of {len(averages)} others"
        return f"its best, {abs(best):.4g}, is worse at epoch {epoch} than {middle}"


class PatienceRule(Rule):
    """Stop a trial whose own curve has not improved for a number of epochs.

    With several seeds, each is stopped by its own curve. It then has had its best epoch, as far as one can tell, so its
    score may be compared with those of other seeds and settings, and their mean is over all seeds. The mean curve would
    stop some seeds that still improve, and keep others long after they have stopped.
    """

    settings: Patience
    compares = False

    def reason(self, curves: Curves, trial_id: str, epoch: int, epochs: int) -> str:
        curve, best, since = curves.values[trial_id], -math.inf, 0
        for at in sorted(curve):
            if curve[at] > best + self.settings.min_change:
                best, since = curve[at], at
        if epoch - since < self.settings.patience:
            return ""
        return f"no better val {MEASURES[self.settings.metric].words} after epoch {since} until epoch {epoch}"


RULES: dict[type[Any], type[Rule]] = {
    Asha: AshaRule,
    Hyperband: HyperbandRule,
    Median: MedianRule,
    Patience: PatienceRule,
}
"""Settings of a rule -> the rule."""


@functools.cache
def rule_of(settings: StopEarly) -> Rule:
    """Return the rule that a stage asks for under `stop_early`."""
    return RULES[type(settings)](settings)


def mean(shares: Mapping[float, float] | Mapping[int, float]) -> float:
    """Return the mean of values, given how probable each is."""
    return sum(value * share for value, share in shares.items())


@functools.cache
def _brackets(most: int, factor: int) -> tuple[int, ...]:
    found: list[int] = []
    for s in range(most, -1, -1):
        found += [s] * math.ceil((most + 1) * factor**s / (s + 1))
    return tuple(found)


@functools.lru_cache
def _shares(rungs: int, factor: int, trials: int, guided_from: int) -> tuple[float, ...]:
    """Estimate which share of trials passes one rung, two, and so on.

    A few sweeps are simulated whose trials keep their rank from rung to rung. If ranks changed, fewer would pass: like
    all estimates here, this one is rather too high than too low.
    """
    rng, passed, sweeps = random.Random(0), [0] * rungs, -(-SIMULATED // trials)
    for _ in range(sweeps):
        ladder: list[list[int]] = [[] for _ in range(rungs)]
        values = [max(rng.random() for _ in range(1 if k < guided_from else GUIDED_DRAWS)) for k in range(trials)]
        for level in np.argsort(np.argsort(values)).tolist():
            for number, there in enumerate(ladder):
                at = (len(there) - 1) * (1 - 1 / factor)
                low = math.floor(at)
                goes_on = not there or level >= there[low] + (at - low) * (there[low + (at > low)] - there[low])
                insort(there, level)
                if not goes_on:
                    break
                passed[number] += 1
    return tuple(number / (sweeps * trials) for number in passed)


def _ordinal(number: int) -> str:
    last = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{last}"
