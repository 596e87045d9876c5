"""Opens a sealed test set: every trial that ended is tested once, from the weights it kept, and the report made again.

A record is replaced at once, so an interrupted command loses nothing and the same command goes on.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cnnsearch.describe import write_pictures
from cnnsearch.errors import RequestError
from cnnsearch.execution.context import SharedContext
from cnnsearch.execution.record import answers, with_test
from cnnsearch.execution.saved import evaluate_saved
from cnnsearch.inputs import digests, recorded_context
from cnnsearch.planning.plan import make_plan
from cnnsearch.planning.trial import Trial
from cnnsearch.results.folder import UNSEALED, Results
from cnnsearch.results.kept_code import name_code, refuse_unnamed
from cnnsearch.results.record import Record
from cnnsearch.results.tables import load
from cnnsearch.spec.load import from_yaml
from cnnsearch.spec.sweep import Sweep

if TYPE_CHECKING:
    from cnnsearch.evidence.evidence import Evidence


class Unsealed(NamedTuple):
    """What unsealing a test set came to."""

    tested: int
    """Trials that were tested now."""
    report: Path
    answer: list[tuple[str, str]]
    """The report's answer, in a few labelled lines."""
    evidence: Evidence
    """What the report was made from."""


def unseal(
    folder: Path,
    data: str | None = None,
    listen: Callable[[int, int], None] = lambda k, n: None,
    code: Sequence[str | Path] = (),
) -> Unsealed:
    """Test every trial that ended in a sweep with a sealed test set, then make its tables and report again.

    Args:
        folder: results of the sweep.
        data: where its images are now; None: where they were.
        listen: called with the number of trials tested and the number of trials to test.
        code: files of the user's own code that may run: those of the trials' networks, as they were.

    Raises RequestError where nothing is sealed, or where images or weights are not those of the sweep.
    """
    results = Results(folder)
    results.refuse_links()
    sweep = from_yaml(results.sweep_text(), str(results.sweep_file))
    if data is not None:
        sweep = sweep.with_values({"data.source": data})
    name_code(code)
    with results.locked():
        records = results.records()
        if not results.is_sealed(sweep) and not any(record.lacks_test for record in records.values()):
            raise RequestError(f"{folder}: its test set is not sealed, there is nothing to open")
        context = recorded_context(results, sweep)
        trials = _trials(results, sweep, context, records)
        if not results.read(UNSEALED):
            results.write(UNSEALED, {"at": datetime.now(UTC).isoformat(timespec="microseconds")})
        for done, trial in enumerate(trials):
            listen(done, len(trials))
            _test(trial, records[trial.id], context)
        listen(len(trials), len(trials))
        from cnnsearch import report

        dataset = context.datasets[sweep.data.image_size, "bilinear"]
        made = report.refresh(load(folder), functools.partial(write_pictures, results, dataset))
        return Unsealed(len(trials), made.path, made.summary, made.evidence)


def _trials(results: Results, sweep: Sweep, context: SharedContext, records: dict[str, Record]) -> list[Trial]:
    """The trials to test. Raises RequestError, before anything was looked at, where one cannot be."""
    outcomes = {id_: record.outcome for id_, record in records.items()}
    dataset = context.datasets[sweep.data.image_size, "bilinear"]
    plan = make_plan(
        sweep,
        dataset.fingerprint,
        outcomes,
        digests(dict(context.weights)),
        results.suggestions(),
        folds=dataset.fold_fingerprints,
    )
    # Trials of an earlier, wider sweep are not in its plan any more, and no table shows them.
    waiting = [trial for id_, trial in plan.trials.items() if id_ in records and records[id_].lacks_test]
    for trial in waiting:
        refuse_unnamed(results.path, trial.id, trial.settings)
        if damage := results.trial(trial.id).damage(records[trial.id]):
            told = ", ".join(f"{name} is {what}" for name, what in damage.items())
            raise RequestError(f"trial {trial.id}: {told}; the same sweep, still sealed, trains it again")
    return waiting


def _test(trial: Trial, record: Record, context: SharedContext) -> None:
    folder = Results(context.results).trial(trial.id)
    before, best = evaluate_saved(trial, context, "test")
    folder.save_predictions(answers(before, best), folder.test_file)
    folder.save_probabilities({"test": best["test"].probabilities}, folder.test_probabilities_file)
    measures = {"before": (record.before, before), "best": (record.best, best)}
    tested = {moment: known and with_test(known, found) for moment, (known, found) in measures.items()}
    folder.commit(record.model_copy(update=tested), keep_state=True)
