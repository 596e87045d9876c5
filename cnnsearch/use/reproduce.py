"""Trains a recorded trial again, alone and in a folder of its own, and compares the two trainings.

The results that it is recorded in are only read. The new folder appears when all is done, or not at all.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cnnsearch import told
from cnnsearch.errors import DataError, DiskError, RequestError
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.execution.context import Choices, SharedContext
from cnnsearch.inputs import context_again
from cnnsearch.planning.labels import setting, told_axes
from cnnsearch.planning.stopping import Orders, Stop
from cnnsearch.planning.trial import EpochRow, Status, Trial
from cnnsearch.results.folder import Results
from cnnsearch.results.kept_code import name_code, refuse_unnamed
from cnnsearch.results.record import Record
from cnnsearch.results.tables import Tables, load
from cnnsearch.results.trial_folder import TrialFolder
from cnnsearch.spec.settings import ResolvedPrecision
from cnnsearch.storage.durable import temporary_folder, write_whole
from cnnsearch.storage.paths import typed_path
from cnnsearch.use import sameness
from cnnsearch.use.choose import BEST, ended_trial, results_in
from cnnsearch.use.conditions import differing
from cnnsearch.words import printable

ANSWER = "reproduction.json"
"""File of the new folder that says what came of it."""
ID_SHOWN = 8
"""Characters of an id in the name of the default folder."""

Listen = Callable[[Trial, EpochRow, Mapping[str, float | None]], None]
"""Called with a trial, each of its epochs as it is trained, and what was recorded of that epoch."""


@dataclass(frozen=True)
class Original:
    """A recorded trial that can be trained again."""

    results: Results
    tables: Tables
    record: Record
    lineage: tuple[tuple[Record, bool], ...]
    """The trials it starts from, the first one first; and whether each has to be trained again, too."""
    is_best: bool
    """Whether it was chosen as the best, not named."""
    out: Path
    """Folder of the new training: not there, or empty."""

    @property
    def name(self) -> str:
        """Its setting in words."""
        return setting(self.record.settings, [*told_axes(self.tables.sweep), "seed"])


def original(folder: str, asked: str, out: str | None = None, code: Sequence[str | Path] = ()) -> Original:
    """Find a trial and all that it takes to train it again. Nothing is written.

    Args:
        folder: results of one sweep.
        asked: id of the trial, or the beginning of it; or `best`.
        out: folder of the new training; None: one beside the results.
        code: files of the user's own code that may run: those of the trial's network, as they were.

    Raises RequestError where there is no such trial, or nothing to compare with, and where `out` is not empty.
    """
    results = results_in(folder, "reproduce looks at")
    tables = load(results.path, store=False)
    record = ended_trial(results, tables, asked)
    if record.status is Status.FAILED:
        raise RequestError(
            f"trial {record.trial_id} failed, so there is no result to reproduce: {record.error}\n"
            f"cnnsearch explain {shlex.quote(folder)} {record.trial_id} says more; the command of its sweep tries it "
            "again"
        )
    _refuse_damage(results, record)
    refuse_unnamed(results.path, record.trial_id, record.settings, name_code(code))
    lineage = tuple(_lineage(results, record))
    return Original(results, tables, record, lineage, asked == BEST, checked_out(out, results, record))


def checked_out(out: str | None, results: Results, record: Record) -> Path:
    """The folder of the new training. Raises RequestError where there is something in it, or it is in the results."""
    if out is None:
        here = results.path.resolve()
        folder = here.parent / f"{here.name}-reproduced-{record.trial_id[:ID_SHOWN]}"
    else:
        folder = typed_path(out)
    shown = printable(str(folder))
    if folder.resolve().is_relative_to(results.path.resolve()):
        raise RequestError(f"--out {shown} is in {results.path}, which is only read: give a folder elsewhere")
    is_free = not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir()))
    if not is_free:
        raise RequestError(f"--out {shown} exists already: give a folder that is new or empty")
    return folder


def _refuse_damage(results: Results, record: Record) -> None:
    place = results.trial(record.trial_id)
    compared = (place.epochs_file.name, place.predictions_file.name, place.test_file.name)
    for name, what in place.damage(record, compared).items():
        raise RequestError(
            f"trial {record.trial_id}: {name} is {what}, so there is nothing to compare with; the command of its sweep "
            "trains it again"
        )


def _lineage(results: Results, record: Record) -> Iterator[tuple[Record, bool]]:
    """Yield the trials whose weights it takes to begin a trial, the first one first; and whether they are gone."""
    found: list[tuple[Record, bool]] = []
    seen: set[str] = set()
    while record.parent_id is not None:
        if record.trial_id in seen:
            raise RequestError(f"{results.path}: trial {record.trial_id} is recorded to start from itself")
        seen.add(record.trial_id)
        parent = results.trial(record.parent_id).record()
        if parent is None:
            raise RequestError(
                f"trial {record.trial_id} starts from trial {record.parent_id}, which has no record in {results.path}; "
                "the command of its sweep trains it again"
            )
        is_gone = not results.has_weights(parent.trial_id)
        found.append((parent, is_gone))
        if not is_gone and parent.settings.fine_tune == "full":
            break  # it kept all of its weights
        record = parent
    yield from reversed(found)


def reproduce(
    one: Original,
    data: str | None = None,
    listen: Listen = lambda trial, row, recorded: None,
    started: Callable[[], None] = lambda: None,
) -> told.Reproduction:
    """Train a trial again and compare.

    Args:
        one: the trial.
        data: where the images of its sweep are now; None: where they were.
        listen: see `Listen`.
        started: called when the images are read and training begins.

    Raises:
        RequestError: images or weights are missing, or not those that the trial was trained on.
        DiskError: the folder cannot be written.
        OutOfMemoryError: the trial needs more memory than there is.
    """
    try:
        one.out.absolute().parent.mkdir(parents=True, exist_ok=True)
        draft = temporary_folder(one.out.absolute().parent)
    except OSError as error:
        raise RequestError(f"{printable(str(one.out))} cannot be made: {error.strerror}") from None
    try:
        sweep = one.tables.sweep if data is None else one.tables.sweep.with_values({"data.source": data})
        chain = [record for record, _ in one.lineage]
        try:
            context = context_again(one.results, sweep, [one.record, *chain], draft)
        except DataError as error:
            raise RequestError(f"{error}\n--data says where the images of {one.results} are now") from None
        started()
        answer = _train_and_compare(one, context, listen)
        write_whole(draft / ANSWER, (json.dumps(answer.model_dump(), indent=2) + "\n").encode())
        draft.chmod(0o755)
        draft.rename(one.out)
        return answer
    except OSError as error:
        raise DiskError(f"{one.out} cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _train_and_compare(one: Original, context: SharedContext, listen: Listen) -> told.Reproduction:
    place = Results(context.results)
    ids: dict[str, str] = {}
    starts: list[told.Start] = []
    for record, is_gone in one.lineage:
        if not is_gone:
            _copy(one.results.trial(record.trial_id), place.trial(record.trial_id))
            starts.append(told.Start(id=record.trial_id, how="kept weights", verdict=None))
            continue
        found = _trained(one, record, context, ids, listen)
        if found.record.outcome.is_comparable:
            starts.append(told.Start(id=record.trial_id, how="trained again", verdict=_compared(one, found).verdict))
        else:
            raise RequestError(
                f"trial {one.record.trial_id} starts from trial {record.trial_id}, whose weights are not kept. Trained "
                f"again, that {sameness.ENDED[found.record.status]}: {found.record.error}"
            )
    now = _trained(one, one.record, context, ids, listen)
    compared, then = _compared(one, now), one.record
    return told.Reproduction(
        exit_code=1 if compared.verdict == "different" else 0,
        sweep=one.tables.sweep.name,
        results=str(one.results),
        trial=then.trial_id,
        name=one.name,
        is_best=one.is_best,
        folder=str(one.out),
        verdict=compared.verdict,
        reason=compared.reason,
        status=then.status.value,
        status_now=now.record.status.value,
        epochs=min(then.epochs_done, now.record.epochs_done),
        epochs_planned=then.settings.epochs,
        validation_accuracy=compared.accuracy,
        validation_loss=compared.loss,
        answers=compared.answers,
        conditions=differing(then, now.record, one.tables.provenance.get("runs") or []),
        starts_from=starts,
        seconds=now.record.seconds or 0.0,
        seconds_then=then.seconds,
    )


def _copy(source: TrialFolder, target: TrialFolder) -> None:
    """Copy what it takes to start from a trial."""
    target.make()
    for name in (source.weights_file.name, source.record_file.name):
        shutil.copy2(source.path / name, target.path / name)


@dataclass(frozen=True)
class _Trained:
    """A recorded trial, its training now, and what both shared."""

    then: Record
    record: Record
    """Of the training now."""
    context: SharedContext


def _trained(one: Original, then: Record, context: SharedContext, ids: dict[str, str], listen: Listen) -> _Trained:
    """Train a recorded trial again, up to the epoch after which it ended.

    `ids` takes in its id then -> its id now. They differ where this version computes the same settings otherwise.
    """
    from cnnsearch.execution.jobs import run_job
    from cnnsearch.planning.job import Job
    from cnnsearch.training.compute.device import lent_process

    settings = then.settings
    pretrained = context.weights.get((settings.model, settings.weights)) if then.parent_id is None else None
    parent = ids.get(then.parent_id, then.parent_id) if then.parent_id else None
    trial = Trial(then.stage, settings, then.data, parent, pretrained.identity if pretrained else None)
    ids[then.trial_id] = trial.id
    orders = Orders()
    if then.status is Status.PRUNED:
        orders.stops[trial.id] = Stop(then.epochs_done, then.stopped_by or "", then.error or "")
    precision: ResolvedPrecision = "bf16" if then.precision == "bf16" else "fp32"
    chosen = Choices(context.choices.device, then.threads or context.choices.threads, precision)
    context = replace(context, choices=chosen)
    recorded = {row["epoch"]: row for row in one.results.trial(then.trial_id).epochs()}
    with lent_process():
        for events in run_job(Job((trial,)), context, orders):
            for _, event in events:
                if isinstance(event, EpochRow):
                    listen(trial, event, recorded.get(event.epoch, {}))
                else:
                    record = event
    return _Trained(then, record, context)


def _compared(one: Original, found: _Trained) -> sameness.Comparison:
    sides = (
        _training(one.results, found.then),
        _training(Results(found.context.results), found.record),
    )
    dataset, evidence = found.context.dataset(found.then), Evidence(one.tables)
    return sameness.compare(
        *sides,
        labels=lambda split: dataset.labels[dataset.indices[split]],
        seeds_allow=lambda split: sameness.allowed_by_seeds(evidence, found.then.trial_id, split),
    )


def _training(results: Results, record: Record) -> sameness.Training:
    place = results.trial(record.trial_id)
    return sameness.Training(record, place.epochs(), place.predictions())
