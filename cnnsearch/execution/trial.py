"""One trial by itself, from its settings to its record."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from cnnsearch.execution.context import SharedContext
from cnnsearch.execution.record import (
    Attempt,
    CheckpointTimer,
    Evaluations,
    failure,
    finish_trial,
    model_bytes,
    new_record,
    row_before_training,
    stop_due,
)
from cnnsearch.execution.start import arrange, saved_state, starting_model
from cnnsearch.planning.stopping import Orders
from cnnsearch.planning.trial import EpochRow, Status, Trial
from cnnsearch.results.folder import Results
from cnnsearch.results.record import Record
from cnnsearch.training.compute.device import reset_process
from cnnsearch.training.evaluate import evaluate
from cnnsearch.training.pixels import Pixels
from cnnsearch.training.train import train


def run_trial(trial: Trial, context: SharedContext, orders: Orders) -> Iterator[EpochRow | Record]:
    """Train and evaluate one trial, writing its records; yields a row after each epoch, then the record.

    Continues from the trial's checkpoint if there is one, and ends early if `orders` say so after an epoch. If they say
    to pause, or that the trial waits, it leaves a checkpoint and no record. An exception becomes a `failed` record.

    Raises OutOfMemoryError and DiskError, which are the machine's fault: the trial may be run again.
    """
    started_at = datetime.now(UTC)
    try:
        yield from _run(trial, context, orders, started_at)
    except Exception as error:
        facts = {"status": Status.FAILED, "error": failure(error)}
        folder = Results(context.results).trial(trial.id)
        folder.make()
        yield folder.commit(new_record(trial, context, started_at).model_copy(update=facts))


def _run(trial: Trial, context: SharedContext, orders: Orders, started_at: datetime) -> Iterator[EpochRow | Record]:
    settings, choices = trial.settings, context.choices
    folder = Results(context.results).trial(trial.id)
    reset_process(choices.threads)
    pixels = Pixels.shared(context.dataset(trial), choices.device, context.expected_statistics(settings))
    model = starting_model(trial, context)
    state, examples = arrange(model, trial, context, pixels)
    precision = context.precision(settings)

    def measure() -> Evaluations:
        return {
            split: evaluate(state.trained, examples, split, precision=precision, whole=True)
            for split in context.measured
        }

    # A trial that starts from another is first measured as it starts.
    before: Evaluations = {}
    if trial.parent_id is not None:
        before = measure()
        state.rows.append(row_before_training(trial, before))
    checkpoint = saved_state(trial, context, "model")
    if checkpoint is not None:
        state.load_state_dict(checkpoint)
    begun = len(state.rows) if folder.checkpoint_file.exists() else 0
    folder.begin(trial, state.rows)
    if context.compares(trial):  # what it had shown may be lost but for its checkpoint
        yield from (row for row in state.rows[:begun] if row.epoch > 0)
        if begun and orders.waits_at(trial.id, state.rows[-1].epoch):
            return

    timer = CheckpointTimer(context)
    epochs = train(state, examples, settings, precision=precision)
    while (stop := stop_due(trial, state.rows, context, orders)) is None and (row := next(epochs, None)) is not None:
        folder.append_epoch(row)
        if row.epoch < settings.epochs and timer.is_due(row.epoch):
            folder.save_checkpoint(state.state_dict())
        yield row
        is_left = orders.pause or orders.waits_at(trial.id, row.epoch)
        if is_left and row.is_finite and row.epoch < settings.epochs:
            folder.save_checkpoint(state.state_dict())
            return

    def measure_best() -> Evaluations:
        state.model.load_state_dict(state.best_weights, strict=False)
        return measure()

    folder.write_epochs(state.rows)
    parameters = sum(p.numel() for p in state.model.parameters() if p.requires_grad)
    attempt = Attempt(trial, context, started_at, parameters, model_bytes(state.model), before)
    yield finish_trial(attempt, state, stop, measure_best, lambda: state.best_weights)
