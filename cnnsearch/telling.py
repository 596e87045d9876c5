"""Makes the objects that `--json` prints, of what the run, the report and the evidence have found already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from cnnsearch import told
from cnnsearch.evidence.comparisons import Comparison, Score as Measured
from cnnsearch.evidence.configurations import Configuration, axis_values, is_missing
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.evidence.statements import Key
from cnnsearch.plan_text import memory_bytes, total_seconds
from cnnsearch.planning.plan import Plan, StagePlan
from cnnsearch.planning.trial import Outcome, Trial
from cnnsearch.prepare import Prepared, is_at_most
from cnnsearch.report.comparison import ComparisonPage
from cnnsearch.report.findings import answer, findings
from cnnsearch.results.folder import Results
from cnnsearch.results.place import ResultsPlace
from cnnsearch.session import Finished
from cnnsearch.spec.arguments import ARGS, GROUPS
from cnnsearch.spec.metric import DEFAULT, METRICS
from cnnsearch.spec.settings import Settings
from cnnsearch.unsealing import Unsealed


def of_run(ready: Prepared, finished: Finished, exit_code: int, go_on: str) -> told.Run:
    """What a run came to; `go_on` is the command that goes on with what it left."""
    evidence = finished.evidence or Evidence(finished.tables)
    found = _results(evidence, ready.results, finished.report_place)
    is_left = bool(finished.left_for_later)
    known = {trial.id for trial in found["trials"]}
    left = [_left(trial) for id_, trial in finished.plan.trials.items() if id_ not in known]
    return told.Run(
        **{**found, "trials": [*found["trials"], *left]},
        exit_code=exit_code,
        left_for_later=finished.left_for_later,
        left_because=None if not is_left else "time" if finished.time_is_up else "trials",
        seconds=round(finished.seconds, 1),
        go_on=go_on if found["counts"].left else None,
    )


def of_plan(ready: Prepared) -> told.Plan:
    """The plan and its estimate."""
    costs = ready.costs
    stages = {
        planned.stage.name: told.PlannedStage(
            planned=planned.total,
            planned_are=_exactly(planned),
            search=planned.stage.search.method,
            to_run=costs[planned.stage.name].trials,
            seconds=round(costs[planned.stage.name].seconds, 1),
            seconds_are="at most" if is_at_most(ready, planned.stage.name) else "expected",
        )
        for planned in ready.plan.stages
    }
    return told.Plan(
        sweep=ready.sweep.name,
        results=str(ready.results),
        planned=ready.plan.total,
        planned_are=_exactly(ready.plan),
        done=ready.done,
        outside=sum(ready.outside.of_stages.values()) + ready.outside.on_other_data,
        left_out=list(ready.left_out),
        seconds=round(total_seconds(ready), 1),
        memory_bytes=memory_bytes(ready),
        disk_bytes=sum(cost.disk_bytes for cost in costs.values()),
        trials_at_once=ready.layout.trials_at_once,
        threads=ready.layout.threads,
        precision=ready.precision,
        stages=stages,
        trials=[_planned(trial, ready.outcomes.get(trial_id)) for trial_id, trial in ready.plan.trials.items()],
    )


def of_unsealing(found: Unsealed) -> told.Unsealed:
    """What unsealing a test set came to."""
    tables = found.evidence.tables
    return told.Unsealed(**_results(found.evidence, Results(tables.folder), str(found.report)), tested=found.tested)


def of_report(evidence: Evidence, place: ResultsPlace, report: str) -> told.Report:
    """What one results folder shows, with its report, a path or URI."""
    return told.Report(**_results(evidence, place, report))


def of_comparison(
    page: ComparisonPage, evidence: Sequence[Evidence], places: Sequence[ResultsPlace], report: str
) -> told.Comparison:
    """What several results folders show beside each other, with the report that compares them."""
    return told.Comparison(
        report=report,
        answer=told.Answer(sentence=page.answer.sentence, verdict=page.answer.verdict),
        findings=[told.ComparisonClaim(sentence=one.sentence, verdict=one.verdict) for one in page.findings],
        sweeps=[
            told.Results(**_results(one, place, _own_report(place)))
            for one, place in zip(evidence, places, strict=True)
        ],
    )


def _own_report(place: ResultsPlace) -> str | None:
    return f"{place}/report.html" if (place.here.path / "report.html").is_file() else None


def _results(evidence: Evidence, place: ResultsPlace, report: str | None) -> dict[str, Any]:
    """The fields of `told.Results`."""
    tables, best, said = evidence.tables, evidence.best, answer(evidence)
    trials = [_ended(row) for row in tables.trials.to_dict("records")]
    planned = max(tables.planned, len(trials))
    statuses = [trial.status for trial in trials]
    return {
        "sweep": tables.sweep.name,
        "results": str(place),
        "report": report,
        "planned": planned,
        "counts": _counts({status: statuses.count(status) for status in statuses}, planned),
        "outside": tables.outside,
        "test_is_sealed": tables.is_sealed,
        "judged_on": evidence.judged,
        "metric": evidence.metric.name,
        "answer": told.Answer(sentence=said.sentence, verdict=said.verdict),
        "best": _best(evidence, best, place) if best is not None else None,
        "not_told_apart": [told.Setting(**setting_of(evidence, c)) for c in evidence.near_best],
        "findings": [
            told.Claim(kind=one.kind, sentence=one.sentence, verdict=one.verdict) for one in findings(evidence)
        ],
        "comparisons": [_difference(evidence, key, found) for key, found in evidence.statements.items()],
        "trials": trials,
    }


def _counts(known: Mapping[str, int], planned: int) -> told.Counts:
    return told.Counts(**known, left=planned - sum(known.values()))


def setting_of(evidence: Evidence, setting: Configuration) -> dict[str, Any]:
    """The fields of `told.Setting`."""
    scores = {split: evidence.score(setting, split) for split in evidence.measured}
    return {
        "name": evidence.label(setting),
        "stage": setting.stage,
        "values": dict(setting.values),
        "trials": list(setting.trial_ids),
        "seeds": list(setting.seeds),
        "validation": score_of(scores["val"]),
        "test": score_of(scores.get("test")),
    }


def _best(evidence: Evidence, best: Configuration, place: ResultsPlace) -> told.Best:
    trial = evidence.best_trial or ""  # there is one, as there is a best setting
    name = place.here.trial(trial).weights_file.name
    weights = f"{place}/trials/{trial}/{name}" if place.has_weights(trial) else None
    return told.Best(**setting_of(evidence, best), weights_of=trial, weights=weights)


def score_of(score: Measured | None) -> told.Score | None:
    """A score with its interval; null where it was not measured."""
    if score is None:
        return None
    covers: Literal["seeds and images", "images"] = "seeds and images" if score.covers_seeds else "images"
    return told.Score(
        value=score.value, low=score.low, high=score.high, images=score.n, seeds=score.seeds, covers=covers
    )


def _difference(evidence: Evidence, key: Key, found: Comparison) -> told.Difference:
    kind, *rest = key
    fields: dict[str, Any] = {"kind": kind, "stage": None, "axis": None, "model": None}
    if kind == "model":
        fields |= dict(zip(("stage", "a", "b"), rest, strict=True))
    elif kind == "axis":
        fields |= dict(zip(("stage", "axis", "a", "b", "model"), rest, strict=True))
        fields["model"] = fields["model"] or None
    elif kind == "change":
        fields |= {"a": rest[0], "b": None}
    else:
        fields |= {"kind": "settings", "a": rest[0], "b": rest[1]}
    return told.Difference(
        **fields,
        difference=found.difference.value,
        low=found.difference.low,
        high=found.difference.high,
        verdict=evidence.verdict(key),
        repeats=found.basis,
        pairs=found.pairs,
        seeds=found.seeds,
    )


_SETTINGS = tuple(name for name in Settings.model_fields if name not in GROUPS)
_WHOLE = {name for name, field in Settings.model_fields.items() if field.annotation is int}


def _ended(row: Mapping[Any, Any]) -> told.Trial:
    """A trial of the table; a null in a column of numbers makes its whole numbers floats."""
    known = {str(name): None if is_missing(value) else value for name, value in row.items()}
    whole = {*_WHOLE, "epochs_done", "best_epoch"}
    known = {name: int(value) if name in whole and value is not None else value for name, value in known.items()}
    return told.Trial(
        id=known["trial_id"],
        status=known["status"],
        settings={
            **{name: known[name] for name in _SETTINGS if known.get(name) is not None},
            **{axis: value for axis, value in axis_values(row).items() if axis.startswith(ARGS)},
        },
        parent=known["parent_id"],
        validation_accuracy=known["val_accuracy"],
        validation_score=known.get(METRICS[known.get("metric") or DEFAULT].measure),
        **{
            name: known.get(name)
            for name in ("stage", "error", "epochs_done", "best_epoch", "test_accuracy", "seconds")
        },
    )


def _left(trial: Trial) -> told.Trial:
    return _planned(trial, None)


def _planned(trial: Trial, outcome: Outcome | None) -> told.Trial:
    known = {}
    if outcome:
        known = {"validation_accuracy": outcome.val_accuracy, "seconds": outcome.seconds}
        known["validation_score"] = outcome.measured(METRICS[trial.settings.metric].measure)
    return told.Trial(
        id=trial.id,
        stage=trial.stage,
        status=outcome.status.value if outcome else "left",
        settings=trial.settings.flat(),
        parent=trial.parent_id,
        **known,
    )


def _exactly(plan: StagePlan | Plan) -> Literal["exact", "at most"]:
    return "at most" if plan.is_at_most else "exact"
