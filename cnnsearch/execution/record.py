"""From the end of a trial's training to its record, the same for a trial by itself and for heads trained together."""

from __future__ import annotations

import socket
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import nn

from cnnsearch.errors import DiskError, OutOfMemoryError
from cnnsearch.execution.context import SharedContext
from cnnsearch.planning.stopping import MAX_SECONDS, Orders, Stop
from cnnsearch.planning.trial import EpochRow, Status, Trial
from cnnsearch.results.folder import Results
from cnnsearch.results.record import Inputs, Measures, Record
from cnnsearch.scores import scores
from cnnsearch.spec.own_code import files_of_own_code
from cnnsearch.training.compute.device_kinds import DEVICES
from cnnsearch.training.evaluate import Evaluation, measured
from cnnsearch.training.pixels import Pixels
from cnnsearch.training.train import Weights

Evaluations = Mapping[str, Evaluation]
"""Split -> loss, accuracy and predictions on it."""


class TrainingResult(Protocol):
    """What ending a trial needs of its training: a `TrainingState` or a `HeadState`."""

    @property
    def rows(self) -> list[EpochRow]:
        """The epochs so far."""

    @property
    def best(self) -> EpochRow | None:
        """The best epoch; None where no loss was ever a number."""

    def state_dict(self) -> dict[str, Any]:
        """What training can continue from."""


@dataclass(frozen=True)
class Attempt:
    """One run of a trial, from the facts known at its start to the reason for its end."""

    trial: Trial
    context: SharedContext
    started_at: datetime
    parameters: int
    """Trainable parameters."""
    model_bytes: int
    """See `model_bytes`."""
    before: Evaluations
    """Results before training; empty for a trial that starts from no other."""


@dataclass
class CheckpointTimer:
    """Says after which epochs a checkpoint is due."""

    context: SharedContext
    saved_at: float = field(default_factory=time.monotonic)

    def is_due(self, epoch: int) -> bool:
        """Whether to make a checkpoint after this epoch; if so, the time until the next one starts now."""
        every = self.context.checkpoint_epochs
        by_epochs = every is not None and epoch % every == 0
        if not by_epochs and time.monotonic() - self.saved_at < self.context.checkpoint_seconds:
            return False
        self.saved_at = time.monotonic()
        return True


def row_before_training(trial: Trial, before: Evaluations) -> EpochRow:
    """Return the row of epoch 0 for a trial that starts from another: its validation results before training."""
    val, settings = before["val"], trial.settings
    return EpochRow(0, None, None, val.loss, val.accuracy, settings.lr, 0.0, **measured(settings.metric, val))


def stop_due(trial: Trial, rows: Sequence[EpochRow], context: SharedContext, orders: Orders) -> Stop | None:
    """Return why a trial must end now, before its last epoch; None if it goes on, or has trained all its epochs."""
    epoch = rows[-1].epoch if rows else 0
    if not 0 < epoch < trial.settings.epochs or not rows[-1].is_finite:
        return None
    if context.max_seconds is not None:
        seconds = sum(row.seconds for row in rows if row.epoch > 0)
        if seconds > context.max_seconds:
            used = f"{MAX_SECONDS}: {seconds:.3g} s of {context.max_seconds:g} s used at epoch {epoch}"
            return Stop(epoch, MAX_SECONDS, used)
    return orders.stop(trial.id, epoch)


def finish_trial(
    attempt: Attempt,
    training: TrainingResult,
    stop: Stop | None,
    evaluate_best: Callable[[], Evaluations],
    best_weights: Callable[[], Weights],
) -> Record:
    """Write all that is kept of a trial that was trained, its record last.

    Args:
        attempt: the run that ends.
        training: its epochs and state; the trial's folder holds all rows already.
        stop: why it ended before its last epoch, if it did.
        evaluate_best: evaluates the best epoch. Not called for a trial that diverged.
        best_weights: what training changed, at the best epoch. Called after `evaluate_best`, where weights are kept.
    """
    trial, context, last = attempt.trial, attempt.context, training.rows[-1]
    folder = Results(context.results).trial(trial.id)
    # A trial that was stopped by its time limit may be given more time later.
    keep_state = last.is_finite and (context.keep_state or (stop is not None and stop.rule == MAX_SECONDS))
    if keep_state:
        folder.save_checkpoint(training.state_dict())
    record = new_record(
        trial,
        context,
        attempt.started_at,
        training.rows,
        parameters=attempt.parameters,
        model_bytes=attempt.model_bytes,
        precision=context.precision(trial.settings),
        before=_measures(attempt.before) if attempt.before else None,
    )
    if not last.is_finite:
        error = f"the loss was no longer a number in epoch {last.epoch}"
        return folder.commit(record.model_copy(update={"status": Status.DIVERGED, "error": error}))
    if stop:
        pruned = {"status": Status.PRUNED, "error": stop.reason, "stopped_by": stop.rule}
        record = record.model_copy(update=pruned)
    assert training.best is not None
    best = evaluate_best()
    if record.outcome.is_comparable:
        folder.save_weights(best_weights())
        folder.save_probabilities({split: found.probabilities for split, found in best.items()})
    folder.save_predictions(answers(attempt.before, best))
    of_best = {
        "best_epoch": training.best.epoch,
        "train_loss": training.best.train_loss,
        "train_accuracy": training.best.train_accuracy,
        "best": _measures(best),
        "inputs": inputs_of(trial, context),
    }
    return folder.commit(record.model_copy(update=of_best), keep_state=keep_state)


def inputs_of(trial: Trial, context: SharedContext) -> Inputs:
    """How decoded images become the inputs of this trial's network."""
    expected, dataset = context.expected_statistics(trial.settings), context.dataset(trial)
    pixels = Pixels.shared(dataset, context.choices.device, expected)  # which its training has made
    interpolation = context.preprocessing(trial.settings).interpolation
    return Inputs(interpolation=interpolation, mean=tuple(pixels.mean.tolist()), std=tuple(pixels.std.tolist()))


def new_record(
    trial: Trial, context: SharedContext, started_at: datetime, rows: Sequence[EpochRow] = (), **facts: Any
) -> Record:
    """Make a record of the fields that every record has, however the trial ended, and of further `facts`."""
    trained = [row for row in rows if row.epoch > 0]
    seconds = sum(row.seconds for row in trained)
    images = len(context.dataset(trial).indices["train"]) * len(trained)
    return Record.of(
        trial,
        Status.DONE,
        epochs_done=len(trained),
        seconds=seconds if trained else None,
        images_per_second=images / seconds if seconds else None,
        peak_memory_bytes=DEVICES[context.choices.device].peak_memory_bytes(),
        device=context.choices.device,
        threads=context.choices.threads,
        host=socket.gethostname(),
        started_at=started_at,
        **facts,
    )


def _measures(evaluations: Evaluations) -> Measures:
    val = evaluations["val"]
    return with_test(Measures(val_loss=val.loss, val_accuracy=val.accuracy, **_added("val", val)), evaluations)


def _added(split: str, found: Evaluation) -> dict[str, float | None]:
    return {f"{split}_{name}": value for name, value in scores(found.whole).items()}


def with_test(measures: Measures, evaluations: Evaluations) -> Measures:
    """Add the results on the test set to those on validation, if there are any."""
    test = evaluations.get("test")
    if test is None:
        return measures
    of_test = {"test_loss": test.loss, "test_accuracy": test.accuracy, **_added("test", test)}
    return measures.model_copy(update=of_test)


def answers(before: Evaluations, best: Evaluations) -> dict[tuple[str, str], tuple[NDArray[Any], NDArray[Any]]]:
    """Gather what `TrialFolder.save_predictions` takes from results before training and at the best epoch."""
    return {
        (split, moment): (found.predicted, found.confidence)
        for moment, evaluations in (("before", before), ("best", best))
        for split, found in evaluations.items()
    }


def model_bytes(model: nn.Module) -> int:
    """Size of all of a model's weights, trained or not, and of the statistics that belong to them."""
    return sum(value.nbytes for value in model.state_dict().values())


def failure(error: Exception) -> str:
    """Return what a `failed` record says about an exception.

    Raises DiskError and OutOfMemoryError instead: those are the machine's fault, and the trial may be run again.
    """
    if isinstance(error, DiskError):
        raise error
    if is_out_of_memory(error):
        raise OutOfMemoryError(_explain(error)) from None
    return _explain(error)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on the host or on a GPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


_NO_MEMORY = (
    "can't allocate memory",
    "alloc_cpu.cpp",
    "could not create a primitive",  # oneDNN's message for its status out_of_memory
    "could not create a memory",
    "CUDA out of memory",
    "CUDA error: out of memory",  # from a context or a library that does not use PyTorch's allocator
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "MPS backend out of memory",
    "OUT_OF_DEVICE_MEMORY",  # from Intel's runtime, below PyTorch's allocator
)


def _explain(error: BaseException) -> str:
    """An exception in one line: its kind, its message, and where it came from.

    That is the last frame of the user's own code that it passed through, or else the last one of this package.
    """
    ours, own = str(Path(__file__).parents[1]), files_of_own_code()
    frames = traceback.extract_tb(error.__traceback__)[::-1]
    theirs = (frame for frame in frames if frame.filename in own)
    frame = next(theirs, None) or next((frame for frame in frames if frame.filename.startswith(ours)), None)
    where = f" ({Path(frame.filename).name}, line {frame.lineno}, in {frame.name})" if frame else ""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message[:300]}{where}"
