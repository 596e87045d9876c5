"""What to try after one trial: by how it failed, diverged or was stopped, or by its curves."""

from __future__ import annotations

from collections.abc import Iterable

from cnnsearch.evidence.evidence import Evidence
from cnnsearch.planning.stopping import MAX_SECONDS
from cnnsearch.planning.trial import Status
from cnnsearch.report.advice import OF_THE_PROGRAM, Advice, advice, again, next_values
from cnnsearch.results.record import Record
from cnnsearch.spec.axis_words import format_value
from cnnsearch.words import listed

MOST = 3
"""Most things to try that are named."""
_LATE = 0.9
"""Share of the epochs after which a best epoch says that more of them may help."""
_NO_MEMORY = "out of memory"


def trial_advice(evidence: Evidence, record: Record, others: Iterable[Record]) -> list[Advice]:
    """What to try next, the first thing first.

    Args:
        evidence: of the sweep.
        record: of the trial.
        others: the records of other trials of its stage.
    """
    if record.status is Status.FAILED:
        return _after_failure(evidence, record)
    if record.status is Status.DIVERGED:
        return [_after_divergence(record, others)]
    if record.status is Status.PRUNED:
        return [_after_stop(evidence, record)]
    if record.trial_id == evidence.best_trial:
        return advice(evidence)[:MOST]
    return _after_training(evidence, record)


def _after_failure(evidence: Evidence, record: Record) -> list[Advice]:
    error, settings = record.error or "", record.settings
    if settings.code and OF_THE_PROGRAM.search(error):
        text = "Mend the network's code: it is then another network, which the same command trains."
        return [Advice(text, again(evidence))]
    if OF_THE_PROGRAM.search(error):
        return [Advice("It would fail again: leave out such a setting, or report the error.")]
    retry = Advice("The same command tries it again.", again(evidence))
    if _NO_MEMORY not in error:
        return [retry]
    smaller = [f"batch size {settings.batch_size // 2}"] if settings.batch_size > 1 else []
    smaller += [f"image size {settings.image_size // 2}"] if settings.image_size >= 16 else []
    text = f"Make it smaller: try {listed(smaller, 'or')}." if smaller else "Take a machine with more memory."
    return [Advice(text), retry]


def _after_divergence(record: Record, others: Iterable[Record]) -> Advice:
    own = _without_rate(record)
    calmer = [other.settings.lr for other in others if other.status is Status.DONE and _without_rate(other) == own]
    if lower := [lr for lr in calmer if lr < record.settings.lr]:
        worked = format_value(max(lower))
        return Advice(f"Leave it out: with learning rate {worked} and all else equal, training went to its end.")
    tries = [format_value(value) for value in next_values("lr", [record.settings.lr], upwards=False)]
    warm_up = "" if record.settings.warmup_epochs else "; a warm-up helps too (train.warmup_epochs=1)"
    return Advice(f"Take smaller steps: try learning rate {listed(tries, 'or')}{warm_up}.")


def _without_rate(record: Record) -> dict[str, object]:
    deciding = record.settings.deciding() | {"weights": record.settings.weights, "parent": record.parent_id}
    return {name: value for name, value in deciding.items() if name != "lr"}


def _after_stop(evidence: Evidence, record: Record) -> Advice:
    if record.stopped_by == MAX_SECONDS:
        limit = evidence.tables.sweep.train.max_seconds
        extra = "" if limit is None else f"--set train.max_seconds={format_value(2 * limit)}"
        return Advice("Give it more time: it goes on from where it was stopped.", again(evidence, extra))
    if record.stopped_by == "patience":
        return Advice("Nothing is lost: it no longer got better, and its scores count as those of a finished trial.")
    text = "Train all trials of this stage to their end, if their ranking may still change."
    return Advice(text, again(evidence, f"--set stages.{record.stage}.stop_early=null"))


def _after_training(evidence: Evidence, record: Record) -> list[Advice]:
    epochs, turned = record.settings.epochs, evidence.turn(record.trial_id)
    if turned is not None:
        return [
            Advice(
                f"Hold it back: its validation loss rises after epoch {turned} of {epochs}. Try dropout, weight decay, "
                "augmentation or fewer epochs."
            )
        ]
    if record.best_epoch is not None and record.best_epoch >= _LATE * epochs:
        text = f"Train longer: its best epoch is {record.best_epoch} of {epochs}."
        return [Advice(text, again(evidence, f"--set train.epochs={2 * epochs}"))]
    return [Advice("Look at the best trial instead: cnnsearch explain with best in place of the id.")]
