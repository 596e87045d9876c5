"""Which trial another one continues: a trial with the same settings, except that it has fewer epochs.

This is possible if no training step depends on the number of epochs. Then the epochs of the shorter trial are the first
ones of the longer trial, and its training state, if it was kept, saves training them again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from cnnsearch.planning.trial import Status, Trial
from cnnsearch.results.record import Record


def shorter(trial: Trial, epochs: Iterable[int]) -> list[Trial]:
    """List the trials that `trial` could continue, the longest first; none if its steps depend on the number of epochs.

    Args:
        trial: the longer trial.
        epochs: numbers of epochs that known trials have.
    """
    settings = trial.settings
    if settings.lr_schedule != "constant":
        return []
    fewer = sorted({number for number in epochs if number < settings.epochs}, reverse=True)
    return [replace(trial, settings=settings.model_copy(update={"epochs": number})) for number in fewer]


def can_go_on(record: Record | None) -> bool:
    """Whether a longer trial can continue one that ended like this, given its training state."""
    return record is not None and record.status in (Status.DONE, Status.PRUNED)


def saved_epochs(trials: Iterable[Trial], records: Mapping[str, Record], kept: Iterable[str]) -> dict[str, int]:
    """Trial id -> epochs that it need not train, of the trials that continue another one.

    Args:
        trials: the trials to run.
        records: of the trials that ended, by id.
        kept: ids of the trials whose training state was kept.
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
