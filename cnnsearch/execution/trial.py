"""One trial from its settings to its record: the unit of work that every executor runs the same way."""

from __future__ import annotations

import functools
import socket
import traceback
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cnnsearch.errors import DiskError, OutOfMemoryError
from cnnsearch.execution.workplace import CheckpointTimes, Workplace
from cnnsearch.planning.identity import model_version
from cnnsearch.planning.stopping import MAX_SECONDS, Orders, Stop
from cnnsearch.planning.trial import EpochRow, Status, Trial
from cnnsearch.results.continuation import can_go_on, shorter
from cnnsearch.results.records import Measures, Record, Results
from cnnsearch.spec.settings import ResolvedPrecision, Settings
from cnnsearch.training.compute.device import peak_memory_bytes, reset_process
from cnnsearch.training.evaluate import MEASURED, Evaluation, evaluate
from cnnsearch.training.features import Examples, Features, bytes_needed, compute, shared
from cnnsearch.training.models.build import initial_model, reset_head
from cnnsearch.training.pixels import Pixels
from cnnsearch.training.train import TrainingState, train


def run_trial(trial: Trial, place: Workplace, orders: Orders) -> Iterator[EpochRow | Record]:
    """Train and evaluate one trial, writing its records; yields a row an epoch, then the record.

    Goes on from the trial's checkpoint where there is one, and ends early where `orders` say so after an epoch; where
    they say to pause, there is a checkpoint then and no record. An exception becomes a `failed` record, unless it is
    the machine's: OutOfMemoryError and DiskError are raised, and the trial may be run again.
    """
    started_at = datetime.now(UTC)
    try:
        yield from _run(trial, place, orders, started_at)
    except DiskError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise OutOfMemoryError(explain(error)) from None
        folder = Results(place.results).trial(trial.id)
        folder.make()
        yield folder.commit(
            new_record(trial, place, started_at).model_copy(update={"status": Status.FAILED, "error": explain(error)})
        )


def _run(trial: Trial, place: Workplace, orders: Orders, started_at: datetime) -> Iterator[EpochRow | Record]:
    settings, choices = trial.settings, place.choices
    precision = place.precision(settings)
    folder = Results(place.results).trial(trial.id)
    reset_process(choices.threads)
    pixels = Pixels.shared(place.dataset(settings), choices.device, place.expected_statistics(settings))
    model = starting_model(trial, place)
    state, examples = arrange(model, trial, place, pixels)
    # A trial that starts from another is first measured as it starts.
    before: dict[str, Evaluation] = {}
    if trial.parent_id is not None:
        before = {split: evaluate(state.trained, examples, split, precision=precision) for split in MEASURED}
        state.rows.append(EpochRow(0, None, None, before["val"].loss, before["val"].accuracy, settings.lr, 0.0))
    checkpoint = saved_state(trial, place, "model")
    if checkpoint is not None:
        state.load_state_dict(checkpoint)
    folder.begin(trial, state.rows)

    due = CheckpointTimes(place)
    epochs = train(state, examples, settings, precision=precision)
    while (stop := stop_due(trial, state.rows, place, orders)) is None and (row := next(epochs, None)) is not None:
        folder.append_epoch(row)
        if row.epoch < settings.epochs and due.now(row.epoch):
            folder.save_checkpoint(state.state_dict())
        yield row
        if orders.pause and row.is_finite and row.epoch < settings.epochs:
            folder.save_checkpoint(state.state_dict())
            return

    keep_state = keeps_state(place, stop)
    if keep_state and state.rows[-1].is_finite:
        folder.save_checkpoint(state.state_dict())
    folder.write_epochs(state.rows)
    parameters = sum(p.numel() for p in state.model.parameters() if p.requires_grad)
    record = new_record(trial, place, started_at, state.rows, parameters, precision, model_bytes(state.model))
    if before:
        record = record.model_copy(update={"before": measures(before)})
    if not state.rows[-1].is_finite:
        yield folder.commit(record.model_copy(update=divergence(state.rows[-1])))
        return
    assert state.best is not None
    if stop:
        record = record.model_copy(update=pruning(stop))
    state.model.load_state_dict(state.best_weights, strict=False)
    best = {split: evaluate(state.trained, examples, split, precision=precision) for split in MEASURED}
    if record.outcome.is_comparable:
        folder.save_weights(state.best_weights)
    folder.save_predictions(
        {
            (split, moment): (evaluation.predicted, evaluation.confidence)
            for moment, evaluations in (("before", before), ("best", best))
            for split, evaluation in evaluations.items()
        }
    )
    yield folder.commit(record.model_copy(update=best_update(state.best, best)), keep_state=keep_state)


def saved_state(trial: Trial, place: Workplace, kind: str) -> dict[str, Any] | None:
    """The training state a trial goes on from: its own, or that of the longest shorter trial like it."""
    results = Results(place.results)
    if (own := results.trial(trial.id).load_checkpoint(kind)) is not None:
        return own
    for other in shorter(trial, place.known_epochs):
        folder = results.trial(other.id)
        record = folder.record()
        if record and can_go_on(record) and record.precision == place.precision(trial.settings):
            state = folder.load_checkpoint(kind)
            if state is not None:
                return state
    return None


def stop_due(trial: Trial, rows: Sequence[EpochRow], place: Workplace, orders: Orders) -> Stop | None:
    """Why a trial is to end with the epochs it has; None where it is to train on, or ends here anyway."""
    epoch = rows[-1].epoch if rows else 0
    if not 0 < epoch < trial.settings.epochs or not rows[-1].is_finite:
        return None
    if place.max_seconds is not None:
        seconds = sum(row.seconds for row in rows if row.epoch > 0)
        if seconds > place.max_seconds:
            had = f"{MAX_SECONDS}: {seconds:.3g} s of {place.max_seconds:g} s used at epoch {epoch}"
            return Stop(epoch, MAX_SECONDS, had)
    return orders.stop(trial.id, epoch)


def keeps_state(place: Workplace, stop: Stop | None) -> bool:
    """Whether the training state outlives the trial's end: more time may be given to one that has had its time."""
    return place.keep_state or (stop is not None and stop.rule == MAX_SECONDS)


def pruning(stop: Stop) -> dict[str, object]:
    """What a record says of a trial that was stopped before its last epoch."""
    return {"status": Status.PRUNED, "error": stop.reason, "stopped_by": stop.rule}


def starting_model(trial: Trial, place: Workplace) -> nn.Module:
    """The trial's model as it starts: its parent's weights, pretrained ones, or random ones."""
    settings = trial.settings
    model = initial_model(settings, len(place.dataset(settings).classes), place.choices.device)
    _load_start(model, settings, trial.parent_id, place)
    return model


def _load_start(model: nn.Module, settings: Settings, parent_id: str | None, place: Workplace) -> None:
    """Put in the weights a trial of these settings starts from. A trial's file holds only what its training changed."""
    if parent_id is not None:
        folder = Results(place.results).trial(parent_id)
        weights, parent = folder.load_weights(), folder.record()
        assert parent is not None  # load_weights has read it
        if len(weights) < len(model.state_dict()):
            _load_start(model, parent.settings, parent.parent_id, place)
        model.load_state_dict(weights, strict=False)
    elif settings.weights != "none":
        from cnnsearch.training.models.weights import load_into, read_state

        classes = len(place.dataset(settings).classes)
        file = place.weights[settings.model, settings.weights].file
        reset_head(model, classes, settings.seed)
        load_into(model, read_state(file), classes, str(file))


def arrange(model: nn.Module, trial: Trial, place: Workplace, pixels: Pixels) -> tuple[TrainingState, Examples]:
    """Freeze what does not train, and take what frozen layers give from the features all trials share."""
    settings = trial.settings
    if settings.fine_tune == "full":
        return TrainingState.start(model, settings), pixels
    from cnnsearch.training.models.cut import cut_for, freeze

    frozen = freeze(model, settings.fine_tune, len(place.dataset(settings).classes))
    halves = cut_for(settings, frozen)
    precision = place.precision(settings)
    if halves is None or bytes_needed(halves.prefix, pixels, precision) > place.features_bytes:
        return TrainingState.start(model, settings, model, frozen.train_mode, frozen.trained), pixels
    start = trial.parent_id or trial.weights or f"seed {settings.seed}"
    dataset = place.dataset(settings)
    model_is = (settings.model, model_version(settings.model), settings.width)
    facts = (*model_is, start, halves.name, dataset.fingerprint, settings.image_size)
    key = f"{facts} {place.preprocessing(settings)} {precision} {place.choices} {torch.__version__}"
    make = functools.partial(compute, halves.prefix, pixels, precision)
    values = shared(key, make, len(pixels.labels), pixels.device)
    features = Features(values, pixels.labels, pixels.rows)
    return TrainingState.start(model, settings, halves.suffix, frozen.train_mode, frozen.trained), features


def new_record(
    trial: Trial,
    place: Workplace,
    started_at: datetime,
    rows: Sequence[EpochRow] = (),
    parameters: int | None = None,
    precision: ResolvedPrecision | None = None,
    model_bytes: int | None = None,
) -> Record:
    """What every record says, however the trial ended.

    Args:
        rows: all epochs so far.
        parameters: number of those that train.
        precision: what it was computed in.
        model_bytes: of all the model's weights.
    """
    trained = [row for row in rows if row.epoch > 0]
    seconds = sum(row.seconds for row in trained)
    images = len(place.dataset(trial.settings).indices["train"]) * len(trained)
    return Record.of(
        trial,
        Status.DONE,
        parameters=parameters,
        model_bytes=model_bytes,
        epochs_done=len(trained),
        seconds=seconds if trained else None,
        images_per_second=images / seconds if seconds else None,
        peak_memory_bytes=peak_memory_bytes(place.choices.device),
        precision=precision,
        device=place.choices.device,
        threads=place.choices.threads,
        host=socket.gethostname(),
        started_at=started_at,
    )


def model_bytes(model: nn.Module) -> int:
    """Size of all of a model's weights, trained or not, and of the statistics that belong to them."""
    return sum(value.nbytes for value in model.state_dict().values())


def measures(evaluations: dict[str, Evaluation]) -> Measures:
    """Validation and test as a record has them."""
    val, test = evaluations["val"], evaluations["test"]
    return Measures(val_loss=val.loss, val_accuracy=val.accuracy, test_loss=test.loss, test_accuracy=test.accuracy)


def best_update(row: EpochRow, evaluations: dict[str, Evaluation]) -> dict[str, object]:
    """What a record says of the best epoch."""
    return {
        "best_epoch": row.epoch,
        "train_loss": row.train_loss,
        "train_accuracy": row.train_accuracy,
        "best": measures(evaluations),
    }


def divergence(row: EpochRow) -> dict[str, object]:
    """What a record says of a trial whose loss was no longer a number in this epoch."""
    return {"status": Status.DIVERGED, "error": f"the loss was no longer a number in epoch {row.epoch}"}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on the host or on a GPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


_NO_MEMORY = (
    "can't allocate memory",
    "alloc_cpu.cpp",
    "could not create a primitive",  # what oneDNN says for its status out_of_memory
    "could not create a memory",
    "CUDA out of memory",
    "CUDA error: out of memory",  # a context or a library, where PyTorch's allocator was not asked
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def explain(error: BaseException) -> str:
    """An exception in one line: its kind, its message, and the last frame of this package it passed through."""
    ours = str(Path(__file__).parents[1])
    frames = traceback.extract_tb(error.__traceback__)
    frame = next((frame for frame in reversed(frames) if frame.filename.startswith(ours)), None)
    where = f" ({Path(frame.filename).name}, line {frame.lineno}, in {frame.name})" if frame else ""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message[:300]}{where}"
