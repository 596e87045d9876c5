"""Makes the rounds of a sweep that trains its best settings again: which these are, and which get more seeds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cnnsearch.planning.confirm import Confirmation, Contender, first_round
from cnnsearch.planning.rounds import Bounds, next_round
from cnnsearch.planning.trial import Outcome
from cnnsearch.prepare import Prepared
from cnnsearch.scores import Predicted, resamples
from cnnsearch.spec.cells import Cell
from cnnsearch.spec.metric import DEFAULT, METRICS

UNKNOWN: Bounds = (0.0, -np.inf, np.inf)
"""A difference of which nothing is known."""


class Chooser:
    """Makes and records rounds for a queue.

    A round follows from the records of the rounds before it alone. The time decides only whether there is one.
    """

    def __init__(self, ready: Prepared, until_clear: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        """`until_clear` are the seconds during which seeds may be added; None: none are."""
        self._ready = ready
        self._seconds = until_clear
        self._clock = clock
        self._since: float | None = None
        self._known: dict[str, Predicted] = {}

    @property
    def may_add(self) -> bool:
        """Whether seeds may be added though all trials of the plan have ended."""
        found = self._ready.plan.confirmation
        return self._seconds is not None and found is not None and bool(found.contenders) and not found.is_settled

    def __call__(self, found: Confirmation, outcomes: Mapping[str, Outcome]) -> list[Cell]:
        """Make and record the next round; none where nothing is left to do, or no time. Raises DiskError."""
        confirm = self._ready.sweep.confirm
        assert confirm is not None
        made: Cell | None
        if found.is_open:
            made = first_round(found, outcomes, self._ready.sizes.val, confirm.contenders)
        elif self._seconds is None:
            return []
        else:
            self._since = self._clock() if self._since is None else self._since
            self._ready.results.pull()
            made = next_round(found, outcomes, confirm.seeds, confirm.margin / 100, self.compare)
            if made is None or ("ended" not in made and not self._is_time_for(made, found, outcomes)):
                return []
        self._ready.results.record_suggestions(found.study, [made])
        return [made]

    def _is_time_for(self, made: Cell, found: Confirmation, outcomes: Mapping[str, Outcome]) -> bool:
        """Whether the trials of a round may end in time, if they take as long as those so far."""
        assert self._seconds is not None
        assert self._since is not None
        seconds = 0.0
        for contender in map(found.of, made["contenders"]):
            ended = (outcomes.get(trial.id) for line in contender.lines for trial in line)
            so_far = sum(outcome.seconds or 0.0 for outcome in ended if outcome)
            seconds += so_far / len(contender.lines) * (made["seeds"] - len(contender.lines))
        return self._clock() - self._since + seconds / self._ready.layout.trials_at_once <= self._seconds

    def compare(self, a: Contender, b: Contender, seeds: int, level: float) -> Bounds:
        """Compare two contenders on the validation images, with other seeds and other images in mind."""
        from cnnsearch.evidence.crossed import Answered, difference

        worth = self._worth
        sides = [self._observed([trial.id for trial in one.again[:seeds]], worth) for one in (a, b)]
        if sides[0] is None or sides[1] is None:
            return UNKNOWN
        return difference(Answered.of(sides[0], worth), Answered.of(sides[1], worth), level).estimate

    @cached_property
    def _worth(self) -> int:
        """See `Answered.worth`."""
        from cnnsearch.evidence.resampled import worth_images

        metric = METRICS[self._ready.sweep.metric]
        return 0 if metric.name == DEFAULT else worth_images(metric, self._labels)

    @cached_property
    def _labels(self) -> NDArray[np.int64]:
        return self._ready.dataset.labels[self._ready.dataset.indices["val"]]

    @cached_property
    def _draws(self) -> NDArray[np.float64]:
        return resamples(self._labels, by_class=METRICS[self._ready.sweep.metric].by_class)

    def _observed(self, trial_ids: Sequence[str], worth: int) -> NDArray[np.float64] | None:
        """Right answers of these networks, or numbers of resamples by another metric; None where these are not had."""
        from cnnsearch.evidence.resampled import observations

        metric, networks = METRICS[self._ready.sweep.metric], [self._predicted(id_) for id_ in trial_ids]
        if metric.name == DEFAULT:
            return np.stack([network.right for network in networks])
        return observations(metric, networks, self._draws, worth)

    def _predicted(self, trial_id: str) -> Predicted:
        if trial_id not in self._known:
            trial = self._ready.results.here.trial(trial_id)
            predicted, confidence = trial.predictions()["val", "best"]
            chances = trial.probabilities().get("val")
            classes = len(self._ready.dataset.classes)
            self._known[trial_id] = Predicted(self._labels, classes, predicted, confidence, chances)
        return self._known[trial_id]
