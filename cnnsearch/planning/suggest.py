"""Makes and records a searcher's next suggestions, from what is recorded. Optuna is imported when one is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cnnsearch.planning.plan import Study
from cnnsearch.planning.trial import Outcome, Status
from cnnsearch.results.records import Results
from cnnsearch.spec.cells import Cell

if TYPE_CHECKING:
    from cnnsearch.planning.search import Searcher, Told


class Suggester:
    """What a queue asks for suggestions. It keeps searchers in memory for the time of a run."""

    def __init__(self, results: Results) -> None:
        self._results = results
        self._searchers: dict[str, Searcher] = {}
        self._told: dict[str, list[Told]] = {}

    def __call__(self, study: Study, outcomes: Mapping[str, Outcome], count: int) -> list[Cell]:
        """The next suggestions of a study, recorded. Raises DiskError where they cannot be."""
        from cnnsearch.planning.search import Searcher

        if study.id not in self._searchers:
            self._searchers[study.id] = Searcher(study.stage.space, study.stage.search, study.group)
            self._told[study.id] = []
        searcher, told = self._searchers[study.id], self._told[study.id]
        told += [of_suggestion(study, index, outcomes) for index in range(len(told), study.ended(outcomes))]
        for suggestion in study.suggestions[searcher.count :]:
            searcher.recall(suggestion, told)
        new = [searcher.suggest(told) for _ in range(count)]
        about = {"stage": study.stage.name, "group": list(study.group), "method": study.stage.search.method}
        self._results.study(study.id).append(len(study.suggestions), new, about)
        return new


def of_suggestion(study: Study, index: int, outcomes: Mapping[str, Outcome]) -> Told:
    """What is told of a suggestion all of whose trials ended: the means over its seeds.

    Settings that diverge with one seed are no good with the others. A failure may have been the machine's, and says
    nothing.
    """
    from cnnsearch.planning.search import Ending, Told

    found = [outcomes[trial.id] for trial in study.trials[index]]
    statuses = {outcome.status for outcome in found}
    if Status.FAILED in statuses:
        return Told(Ending.FAILED)
    if Status.DIVERGED in statuses:
        return Told(Ending.DIVERGED)
    columns = [[getattr(outcome, aim) for outcome in found] for aim in study.stage.search.aims]
    if any(value is None for column in columns for value in column):
        return Told(Ending.FAILED)
    return Told(Ending.PRUNED if Status.PRUNED in statuses else Ending.COMPLETE, tuple(map(_mean, columns)))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
