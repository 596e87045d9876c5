"""The next suggestions of a searcher, made from what is recorded. Optuna is imported when the first one is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from cnnsearch.planning.study import Study
from cnnsearch.planning.trial import Outcome, Status
from cnnsearch.spec.cells import Cell

if TYPE_CHECKING:
    from cnnsearch.planning.search import Searcher, Told


class Suggester:
    """Makes suggestions for a queue, keeping searchers in memory during a run."""

    def __init__(self, record: Callable[[Study, Sequence[Cell]], None]) -> None:
        """`record` stores the next suggestions of a study durably; it is called before any of their trials run."""
        self._record = record
        self._searchers: dict[str, Searcher] = {}
        self._told: dict[str, list[Told]] = {}

    def __call__(self, study: Study, outcomes: Mapping[str, Outcome], count: int) -> list[Cell]:
        """Make and record the next `count` suggestions of a study. Raises what `record` raises."""
        from cnnsearch.planning.search import Searcher

        if study.id not in self._searchers:
            self._searchers[study.id] = Searcher(study.stage.space, study.stage.search, study.group)
            self._told[study.id] = []
        searcher, told = self._searchers[study.id], self._told[study.id]
        told += [of_suggestion(study, index, outcomes) for index in range(len(told), study.ended(outcomes))]
        for suggestion in study.suggestions[searcher.count :]:
            searcher.recall(suggestion, told)
        new = [searcher.suggest(told) for _ in range(count)]
        self._record(study, new)
        return new


def of_suggestion(study: Study, index: int, outcomes: Mapping[str, Outcome]) -> Told:
    """Return what a searcher is told about a suggestion whose trials have all ended: the means over its seeds.

    If one seed diverged, the settings count as bad. If one failed, the machine may have been the cause, so the failure
    says nothing about the settings.
    """
    from cnnsearch.planning.search import Ending, Told

    found = [outcomes[trial.id] for trial in study.trials[index]]
    statuses = {outcome.status for outcome in found}
    if Status.FAILED in statuses:
        return Told(Ending.FAILED)
    if Status.DIVERGED in statuses:
        return Told(Ending.DIVERGED)
    means = []
    for aim in study.stage.search.aims:
        values = [value for outcome in found if (value := outcome.measured(aim)) is not None]
        if len(values) < len(found):
            return Told(Ending.FAILED)
        means.append(_mean(values))
    return Told(Ending.PRUNED if Status.PRUNED in statuses else Ending.COMPLETE, tuple(means))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
