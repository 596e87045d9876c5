"""Suggestions of Optuna's searchers, as a function of the space, the seed and the outcomes told.

Suggestion k is made knowing exactly the outcomes of the suggestions 0 to k - at_once; later ones count as running. So
neither the order in which trials end nor the number of cores changes what is suggested.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from cnnsearch.spec.arguments import plain_value
from cnnsearch.spec.cells import Cell
from cnnsearch.spec.stage import FIRST_AT_RANDOM, HIGHER_IS_BETTER, Search
from cnnsearch.spec.values import Values
from cnnsearch.storage.checksums import canonical_json

POPULATION = FIRST_AT_RANDOM["nsga2"]
"""Size of a generation of NSGA-II, the first of which is random: small, since trials of neural networks are few."""


class Ending(StrEnum):
    """How a suggestion ended, as told to a searcher."""

    COMPLETE = "complete"
    PRUNED = "pruned"
    """Stopped early, with the values it had by then."""
    DIVERGED = "diverged"
    """Diverged, so the settings are bad: it counts as the worst known so far."""
    FAILED = "failed"
    """Failed, which says nothing about the settings."""


@dataclass(frozen=True)
class Told:
    """The outcome of one suggestion."""

    ending: Ending
    values: tuple[float, ...] = ()
    """One for each objective; empty where there are none."""


class Searcher:
    """Makes the suggestions of one study, in their order.

    What was suggested and told so far is held in memory only: `recall` rebuilds it from records.
    """

    def __init__(self, space: dict[str, Values], search: Search, group: Sequence[Any] = ()) -> None:
        """`group` distinguishes studies that share a space and a seed."""
        optuna.logging.set_verbosity(optuna.logging.CRITICAL)
        self._space = space
        self._search = search
        self._group = tuple(group)
        self._method = _METHODS[search.method]
        self._higher = [name in HIGHER_IS_BETTER for name in search.aims]
        directions = [StudyDirection.MAXIMIZE if higher else StudyDirection.MINIMIZE for higher in self._higher]
        self._study = optuna.create_study(directions=directions, sampler=RandomSampler(0))
        self._numbers: list[int] = []
        """Index of a suggestion -> number of its trial in Optuna."""
        self._told = 0
        self._worst: tuple[float, ...] = ()

    @property
    def count(self) -> int:
        """Number of suggestions made or recalled so far."""
        return len(self._numbers)

    def recall(self, suggestion: Cell, outcomes: Sequence[Told]) -> None:
        """Take a recorded suggestion as the next one. See `suggest` for `outcomes`."""
        self._catch_up(outcomes)
        if self._method.keeps_state:
            self._study.enqueue_trial(self._plain(suggestion))
            self._ask()
        else:
            self._remember(suggestion)

    def suggest(self, outcomes: Sequence[Told]) -> Cell:
        """Make the next suggestion; the first ones are those that the search names, where it names any.

        Args:
            outcomes: of the earlier suggestions, in order; at least of those that the next one is to know.

        Returns:
            Axis -> value, for the axes that the searcher chose; `cells.cell_of` makes a cell of it.
        """
        self._catch_up(outcomes)
        if self.count < len(self._search.first):
            self._study.enqueue_trial(self._plain(self._search.first[self.count]))
        number, suggestion = self._ask()
        if not self._method.keeps_state:
            # The sampler's notes beside it are in no record: forget it, and keep what a record would give.
            self._numbers.pop()
            self._study.tell(number, state=TrialState.FAIL)
            self._remember(suggestion)
        return suggestion

    def _ask(self) -> tuple[int, Cell]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            self._study.sampler = self._method.sampler(self._seed(), self._seed(self.count))
            trial = self._study.ask()
            _ = trial.relative_params  # computed on demand, and then also of a recalled suggestion
            suggestion: Cell = {}
            cell: Cell = {}
            for axis, values in self._space.items():
                applies = values.applies(cell)
                if len(values.args) > 1 and (applies or not self._method.follows_conditions):
                    suggestion[axis] = _suggested(trial, axis, values)
                if applies:
                    cell[axis] = suggestion.get(axis, values.args[0])
        self._numbers.append(trial.number)
        return trial.number, suggestion

    def _plain(self, suggestion: Cell) -> Cell:
        """A suggestion as Optuna takes it: lists and objects, which it does not know, as JSON; fractions as such."""
        fractions = {axis for axis in suggestion if self._space[axis].kind in ("uniform", "loguniform")}
        return {axis: float(v) if axis in fractions else plain_value(v) for axis, v in suggestion.items()}

    def _remember(self, suggestion: Cell) -> None:
        """Add a running suggestion without asking for it."""
        self._numbers.append(self._add(suggestion, TrialState.RUNNING))

    def _add(self, suggestion: Cell, state: TrialState, value: float | None = None) -> int:
        distributions = {axis: distribution(self._space[axis]) for axis in suggestion}
        reached = {} if value is None else {1: value}
        self._study.add_trial(
            create_trial(
                state=state,
                params=self._plain(suggestion),
                distributions=distributions,
                value=value,
                intermediate_values=reached,
            )
        )
        return len(self._study.get_trials(deepcopy=False)) - 1

    def _catch_up(self, outcomes: Sequence[Told]) -> None:
        """Tell the outcomes that the next suggestion is to know."""
        for index in range(self._told, known(self._search, self.count)):
            self._tell(index, outcomes[index])
            self._told += 1

    def _tell(self, index: int, outcome: Told) -> None:
        number, values = self._numbers[index], outcome.values
        if outcome.ending is Ending.DIVERGED:
            values = self._worst
        if outcome.ending is Ending.FAILED or not values:
            self._study.tell(number, state=TrialState.FAIL)
        elif outcome.ending is Ending.PRUNED and self._method.ranks_pruned:
            self._study.tell(number, state=TrialState.FAIL)
            params = self._study.get_trials(deepcopy=False)[number].params
            suggestion = {axis: _original(self._space[axis], value) for axis, value in params.items()}
            self._numbers[index] = self._add(suggestion, TrialState.PRUNED, values[0])
        else:
            self._study.tell(number, list(values))
        if outcome.ending is Ending.COMPLETE:
            pairs = zip(self._worst or values, values, self._higher, strict=True)
            self._worst = tuple(min(a, b) if higher else max(a, b) for a, b, higher in pairs)

    def _seed(self, index: int | None = None) -> int:
        facts = canonical_json([self._search.seed, list(self._group), index])
        return int.from_bytes(hashlib.sha256(facts.encode()).digest()[:4]) >> 1


def known(search: Search, index: int) -> int:
    """Count the earlier suggestions whose outcomes must be known when the suggestion with this index is made."""
    return max(0, index - search.window + 1)


def _suggested(trial: optuna.Trial, axis: str, values: Values) -> Any:
    match distribution(values):
        case CategoricalDistribution(choices=choices):
            return _original(values, trial.suggest_categorical(axis, choices))
        case IntDistribution(low=low, high=high):
            return trial.suggest_int(axis, low, high)
        case FloatDistribution(low=low, high=high, log=log):
            return trial.suggest_float(axis, low, high, log=log)


def distribution(values: Values) -> BaseDistribution:
    """The values of an axis as Optuna describes them."""
    match values.kind:
        case "uniform" | "loguniform":
            low, high = values.args
            return FloatDistribution(low, high, log=values.kind == "loguniform")
        case "int":
            low, high = values.args
            return IntDistribution(low, high)
    return CategoricalDistribution([plain_value(value) for value in values.args])


def _original(values: Values, plain: Any) -> Any:
    """The inverse for one value."""
    return next(
        (value for value in values.args if isinstance(value, list | dict) and plain_value(value) == plain), plain
    )


@dataclass(frozen=True)
class _Method:
    """How one of Optuna's samplers is used."""

    sampler: Callable[[int, int], BaseSampler]
    """Makes a sampler from the seed of the study and that of the suggestion. It carries no state from one suggestion to
    the next, or a study rebuilt from records would go on differently."""
    keeps_state: bool = False
    """Whether the sampler stores its state beside its suggestions, so that it must be asked again for recorded ones."""
    follows_conditions: bool = False
    """Whether it is asked only for the axes whose conditions hold. The others know one fixed space: they are asked for
    every axis, and the value of an axis that does not apply has no effect."""
    ranks_pruned: bool = False
    """Whether it treats pruned trials as such; else they count with the values they had."""


def _cmaes(study: int, suggestion: int) -> BaseSampler:
    # CMA-ES knows ranges only: listed values are left to TPE.
    listed = TPESampler(seed=suggestion)
    return CmaEsSampler(seed=suggestion, independent_sampler=listed, warn_independent_sampling=False)


def _qmc(study: int, suggestion: int) -> BaseSampler:
    first = RandomSampler(seed=suggestion)
    return QMCSampler(scramble=True, seed=study, independent_sampler=first, warn_independent_sampling=False)


_METHODS = {
    "tpe": _Method(
        lambda study, suggestion: TPESampler(seed=suggestion, multivariate=True, group=True, constant_liar=True),
        follows_conditions=True,
        ranks_pruned=True,
    ),
    "gp": _Method(lambda study, suggestion: GPSampler(seed=suggestion, warn_independent_sampling=False)),
    "cmaes": _Method(_cmaes, keeps_state=True),
    "qmc": _Method(_qmc, keeps_state=True),
    "nsga2": _Method(
        lambda study, suggestion: NSGAIISampler(seed=suggestion, population_size=POPULATION), keeps_state=True
    ),
}
