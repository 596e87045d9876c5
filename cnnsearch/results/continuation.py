"""Which trial another goes on from: one that equals it in everything but that it trains for fewer epochs.

Only where no step depends on the number of epochs; then the shorter trial's are the longer one's first epochs, and its
training state, where it was kept, saves training them again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from cnnsearch.planning.trial import Status, Trial
from cnnsearch.results.record import Record


def shorter(trial: Trial, epochs: Iterable[int]) -> list[Trial]:
    """Trials that `trial` could go on from, the longest first; none where its steps depend on the number of epochs.

    Args:
        trial: with its number of epochs.
        epochs: numbers of epochs that trials are known to have.
    """
    settings = trial.settings
    if settings.lr_schedule != "constant":
        return []
    fewer = sorted({number for number in epochs if number < settings.epochs}, reverse=True)
    return [replace(trial, settings=settings.model_copy(update={"epochs": number})) for number in fewer]


def can_go_on(record: Record | None) -> bool:
    """Whether a trial that ended like this is the beginning of a longer one, if its state was kept."""
    return record is not None and record.status in (Status.DONE, Status.PRUNED)


def saved_epochs(trials: Iterable[Trial], records: Mapping[str, Record], kept: Iterable[str]) -> dict[str, int]:
    """Trial id -> epochs it need not train, of the trials that go on from another.

    Args:
        trials: that are to run.
        records: of those that ended.
        kept: ids of those whose state was kept.
    """
    with_state = {trial_id: records[trial_id] for trial_id in kept if can_go_on(records.get(trial_id))}
    numbers = {record.settings.epochs for record in with_state.values()}
    found = {}
    for trial in trials:
        for other in shorter(trial, numbers):
            if other.id in with_state:
                found[trial.id] = with_state[other.id].epochs_done
                break
    return found
