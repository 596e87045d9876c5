"""When a trial is stopped before its last epoch. Pure: what is known of the trials of a stage decides.

Trials run one after another or side by side and are never paused, so every rule decides when a trial has reached an
epoch, by what the others showed at theirs. Values are kept by trial: one that comes past an epoch again, since it was
cut off, is not counted twice.
"""

from __future__ import annotations

import functools
import math
import random
from bisect import insort
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np

from cnnsearch.spec.stage import Asha, Hyperband, Median, Patience, StopEarly

COMPARED = 3
"""Trials that the median of others is taken of at least."""
SIMULATED_TRIALS, SIMULATED = 100, 3000
"""For estimates: trials of a sweep at most, and of all sweeps together."""
GUIDED_DRAWS = 2
"""A trial that a searcher suggests from outcomes is about as good as the best of so many random ones. From the recorded
grid of `benchmarks/recorded`: of 60 trials with ASHA (3, η 3), TPE's and the Gaussian process's trained 36 % of all
epochs in the mean of 10 seeds and random draws 29 %; two draws come to 36 % and 31 %, three to 38 %."""
MAX_SECONDS = "max_seconds"
"""What stops a trial that has had its time; no rule of a stage."""
Curve = Mapping[int, float]
"""Epoch -> value of the metric."""


@dataclass(frozen=True)
class Stop:
    """A trial is to end after an epoch."""

    epoch: int
    rule: str
    reason: str
    """In a line, as its record says it."""


@dataclass
class Orders:
    """What whoever runs a job is told meanwhile; looked at after each epoch."""

    stops: dict[str, Stop] = field(default_factory=dict)
    """Trial id -> when it is to end."""
    pause: bool = False
    """Save all there is after this epoch, and leave the job: it goes on another time."""

    def stop(self, trial_id: str, epoch: int) -> Stop | None:
        """The order for a trial that has come to an epoch."""
        found = self.stops.get(trial_id)
        return found if found and epoch >= found.epoch else None


def rungs(rule: Asha | Hyperband, epochs: int, first: int = 0) -> list[int]:
    """Epochs min_epochs · ηᵏ, k ≥ `first`, below `epochs`, at which trials of that many epochs are compared."""
    found, at = [], rule.min_epochs * rule.reduction_factor**first
    while at < epochs:
        found.append(at)
        at *= rule.reduction_factor
    return found


def is_due(rule: StopEarly, epoch: int, epochs: int) -> bool:
    """Whether a trial that trains for `epochs` may be stopped after this epoch."""
    if not rule.min_epochs <= epoch < epochs:
        return False
    return epoch in rungs(rule, epochs) if isinstance(rule, Asha | Hyperband) else True


@functools.lru_cache
def brackets(rule: Hyperband, epochs: int) -> tuple[int, ...]:
    """The bracket of each trial of one round, by its place: the number of rungs that its trials have.

    Algorithm 1 of the paper: of s_max + 1 brackets, the one with s rungs has ⌈(s_max + 1) ηˢ / (s + 1)⌉ trials.
    """
    most = len(rungs(rule, epochs))
    found: list[int] = []
    for s in range(most, -1, -1):
        found += [s] * math.ceil((most + 1) * rule.reduction_factor**s / (s + 1))
    return tuple(found)


def expected_epochs(rule: StopEarly, epochs: int, trials: int, after: int = 0, guided_from: int | None = None) -> float:
    """Epochs that a trial is expected to add: the mean of its `endings`."""
    return expected(endings(rule, epochs, trials, after, guided_from))


def expected(shares: Mapping[float, float] | Mapping[int, float]) -> float:
    """The mean of values, from how probable each is."""
    return sum(value * share for value, share in shares.items())


def endings(
    rule: StopEarly, epochs: int, trials: int, after: int = 0, guided_from: int | None = None
) -> dict[int, float]:
    """Epochs that a trial which has done `after` may add -> how probable that is.

    All that are left, where nothing can be said.

    Args:
        rule: that may stop it.
        epochs: that it would train for.
        trials: that are compared.
        after: epochs it has done.
        guided_from: place of the first trial that was suggested knowing others' outcomes: from there on trials tend to
            be better than those before, so that more of them go on. None: they come in any order.
    """
    if isinstance(rule, Asha):
        return _ladder(rungs(rule, epochs), rule.reduction_factor, epochs, trials, after, guided_from)
    if not isinstance(rule, Hyperband):
        return {epochs - after: 1.0}
    most, dealt = len(rungs(rule, epochs)), brackets(rule, epochs)
    rounds, rest = divmod(trials, len(dealt))
    placed = Counter(dealt[:rest])
    for s, n in Counter(dealt).items():
        placed[s] += rounds * n
    found: Counter[int] = Counter()
    for s, n in (+placed).items():
        guided = None if guided_from is None else guided_from * n // trials
        of_bracket = _ladder(rungs(rule, epochs, most - s), rule.reduction_factor, epochs, n, after, guided)
        for added, share in of_bracket.items():
            found[added] += share * n / trials  # type: ignore[assignment]
    return dict(found)


def is_expected(rule: StopEarly) -> bool:
    """Whether `expected_epochs` expects anything; else it is what a trial takes at most."""
    return isinstance(rule, Asha | Hyperband)


def _ladder(
    at: Sequence[int], factor: int, epochs: int, trials: int, after: int, guided_from: int | None
) -> dict[int, float]:
    simulated = min(trials, SIMULATED_TRIALS)
    shares = _shares(len(at), factor, simulated, simulated if guided_from is None else guided_from)
    found, here, come = {}, 1.0, 1.0
    for rung, share in zip(at, shares, strict=True):
        if rung <= after:
            come = share
            continue
        found[rung - after] = here - share / come
        here = share / come
    found[epochs - after] = here
    return found


@functools.lru_cache
def _shares(rungs: int, factor: int, trials: int, guided_from: int) -> tuple[float, ...]:
    """Which share of some trials is expected to pass one rung, two, and so on.

    From a few sweeps whose trials keep their rank from rung to rung. Ranks that change would let fewer pass: as with
    all estimates here, more is said rather than less.
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


@dataclass
class Stopper:
    """The trials that are compared with each other, and what became of them."""

    rule: StopEarly
    curves: dict[str, dict[int, float]] = field(default_factory=dict)
    """Trial id -> its curve. Values that were not numbers are left out."""
    stops: dict[str, Stop] = field(default_factory=dict)
    """Trial id -> when it is to end."""
    _places: dict[str, int] = field(default_factory=dict)
    _averages: dict[str, dict[int, float]] = field(default_factory=dict)
    """Trial id -> epoch -> mean of its values up to there."""

    def place(self, trial_id: str, curve: Curve) -> None:
        """Take in a trial of the stage, in the stage's order, with what is known of it from before."""
        self._places.setdefault(trial_id, len(self._places))
        self.curves.setdefault(trial_id, {})
        for epoch in sorted(curve):
            self._add(trial_id, epoch, curve[epoch])

    def resume(self, trial_id: str, epochs: int) -> Stop | None:
        """Whether a trial that goes on was to end where it had come to when it was cut off."""
        curve = self.curves.get(trial_id, {})
        if trial_id not in self.stops and curve:
            self._decide(trial_id, max(curve), epochs)
        return self.stops.get(trial_id)

    def hear(self, trial_id: str, epoch: int, value: float, epochs: int) -> Stop | None:
        """Take in a value, and say whether the trial is to end. What was decided once stays decided.

        Args:
            trial_id: of a trial that has its place.
            epoch: from 1.
            value: of the rule's metric.
            epochs: that the trial would train for.
        """
        curve = self.curves[trial_id]
        if epoch not in curve and math.isfinite(value):
            self._add(trial_id, epoch, value)
            if max(curve) == epoch:
                self._decide(trial_id, epoch, epochs)
        return self.stops.get(trial_id)

    def _add(self, trial_id: str, epoch: int, value: float) -> None:
        curve = self.curves[trial_id]
        if epoch not in curve:
            averages = self._averages.setdefault(trial_id, {})
            before = len(curve)
            averages[epoch] = value if not before else (averages[max(curve)] * before + value) / (before + 1)
            curve[epoch] = value

    def _decide(self, trial_id: str, epoch: int, epochs: int) -> None:
        if not is_due(self.rule, epoch, epochs):
            return
        if isinstance(self.rule, Median):
            reason = self._by_median(trial_id, epoch)
        elif isinstance(self.rule, Patience):
            reason = _without_gain(self.rule, self.curves[trial_id], epoch, self._sign)
        else:
            reason = self._by_rung(self.rule, trial_id, epoch, epochs)
        if reason:
            self.stops[trial_id] = Stop(epoch, self.rule.method, f"{self.rule.method}: {reason}")

    @property
    def _sign(self) -> int:
        """What turns values so that more is better."""
        return 1 if self.rule.metric == "val_accuracy" else -1

    def _bracket(self, trial_id: str, epochs: int) -> int:
        """Rungs of the trial's bracket; -1 where there are no brackets."""
        if not isinstance(self.rule, Hyperband):
            return -1
        dealt = brackets(self.rule, epochs)
        return dealt[self._places[trial_id] % len(dealt)]

    def _by_rung(self, rule: Asha | Hyperband, trial_id: str, epoch: int, epochs: int) -> str:
        """Stop below the (1 - 1/η) quantile of the values that others of the bracket had at this rung.

        The rule of Ray Tune's AsyncHyperBandScheduler, which decides by those that came before: here all that are
        known, so that a trial which comes here again meets the same or more.
        """
        bracket = self._bracket(trial_id, epochs)
        if bracket >= 0 and epoch not in rungs(rule, epochs, len(rungs(rule, epochs)) - bracket):
            return ""
        value = self._sign * self.curves[trial_id][epoch]
        others = [
            self._sign * curve[epoch]
            for other, curve in self.curves.items()
            if epoch in curve and other != trial_id and self._bracket(other, epochs) == bracket
        ]
        if not others or not value < np.percentile(others, (1 - 1 / rule.reduction_factor) * 100):
            return ""
        place = 1 + sum(other > value for other in others)
        return f"{_ordinal(place)} of {len(others) + 1} at epoch {epoch}"

    def _by_median(self, trial_id: str, epoch: int) -> str:
        """Stop where the best so far is worse than the median of the averages that others had up to this epoch."""
        best = max(self._sign * value for value in self.curves[trial_id].values())
        averages = [
            self._sign * average[epoch]
            for other, average in self._averages.items()
            if epoch in average and other != trial_id
        ]
        if len(averages) < COMPARED or best >= median(averages):
            return ""
        middle = f"{abs(median(averages)):.4g}, the median average of {len(averages)} others"
        return f"its best, {abs(best):.4g}, is worse at epoch {epoch} than {middle}"


def _without_gain(rule: Patience, curve: Curve, epoch: int, sign: int) -> str:
    best, since = -math.inf, 0
    for at in sorted(curve):
        if sign * curve[at] > best + rule.min_change:
            best, since = sign * curve[at], at
    if epoch - since < rule.patience:
        return ""
    return f"no better {rule.metric.replace('_', ' ')} after epoch {since} until epoch {epoch}"


def _ordinal(number: int) -> str:
    last = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{last}"


def curve_of(rule: StopEarly, rows: Iterable[Mapping[str, float | None]]) -> dict[int, float]:
    """A trial's curve from the rows of its `epochs.jsonl`; without epoch 0, which is before training."""
    found = {}
    for row in rows:
        epoch, value = row.get("epoch"), row.get(rule.metric)
        if epoch and value is not None and math.isfinite(value):
            found[int(epoch)] = float(value)
    return found
