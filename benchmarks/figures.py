"""The arithmetic of a comparison: medians, ratios, shares, extrapolation, and the gate. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.rivals.task import Outcome

OURS = "cnnsearch"
ACCURACY_BAND = 0.25
"""How far a rival's mean validation accuracy may lie from the median of all rivals': the same work learns alike."""
LOSS_ALLOWED = 0.15
"""Share of a ratio that may be lost before the gate fails."""


@dataclass(frozen=True)
class Run:
    """One run of one rival."""

    seconds: float
    """Of the whole process; extrapolated where only a sample of the work was done."""
    peak_bytes: int
    failure: str | None = None
    accuracy: float | None = None
    """Mean over trials of the best validation accuracy."""
    trial_seconds: float | None = None
    """Sum over trials."""
    sampled: bool = False
    """Whether `seconds` is extrapolated."""
    trials_wall: float | None = None
    """Seconds from the start of the first trial to the end of the last; of this project only."""
    foretold: tuple[float, int] | None = None
    """Seconds and bytes that the plan said; of this project only."""


def check_outcomes(outcomes: Sequence[Outcome], trials: int, epochs: Sequence[int]) -> str | None:
    """What is wrong with an answer; None where it is what was asked for.

    Args:
        trials: how many were to be trained.
        epochs: of each trial, by its place in the task.
    """
    if sorted(outcome.trial for outcome in outcomes) != list(range(trials)):
        return f"{len(outcomes)} of {trials} trials"
    for outcome in outcomes:
        if len(outcome.val) != epochs[outcome.trial]:
            return f"trial {outcome.trial} has {len(outcome.val)} of {epochs[outcome.trial]} epochs"
        if not all(0 <= accuracy <= 1 for accuracy in [*outcome.val, outcome.test]):
            return f"trial {outcome.trial} has an accuracy that is none"
    return None


def mean_accuracy(outcomes: Sequence[Outcome]) -> float:
    """Mean over trials of the best validation accuracy."""
    return statistics.fmean(max(outcome.val) for outcome in outcomes)


def extrapolated(
    wall: float, work: float, outcomes: Sequence[Outcome], *, slots: int, trials: float, epochs: float
) -> float:
    """Seconds all the work would have taken, from a sample of it.

    What does not grow with the work is taken as it was, what each trial takes beside its epochs (`slots` at a time)
    is multiplied with the trials, and the epochs with trials and epochs.

    Args:
        wall: seconds of the process.
        work: seconds of it that grow with the number of trials.
        outcomes: the sample's.
        slots: trials at once.
        trials: how many times as many trials there are as were run.
        epochs: how many times as many epochs a trial has.
    """
    in_epochs = sum(sum(outcome.epoch_seconds) for outcome in outcomes) / slots
    beside = max(work - in_epochs, 0.0)
    return (wall - work) + trials * (beside + epochs * in_epochs)


def reject_implausible(runs: Mapping[str, Sequence[Run]]) -> dict[str, list[Run]]:
    """The runs; one whose accuracy is far from the others' did other work, and failed. Samples are not compared."""
    whole = [run.accuracy for some in runs.values() for run in some if run.accuracy is not None and not run.sampled]
    middle = statistics.median(whole) if whole else 0.0

    def judged(run: Run) -> Run:
        if run.accuracy is None or run.sampled or abs(run.accuracy - middle) <= ACCURACY_BAND:
            return run
        why = f"mean validation accuracy {run.accuracy:.2f}, the others' {middle:.2f}"
        return Run(run.seconds, run.peak_bytes, why)

    return {rival: [judged(run) for run in some] for rival, some in runs.items()}


def summarise(
    runs: Mapping[str, Sequence[Run]], *, flop: float | None, rate: float, slots: int
) -> dict[str, dict[str, Any]]:
    """A row a rival; one of whose runs failed has no numbers, only the reason.

    Args:
        runs: rival -> its runs.
        flop: operations of the work; None where they do not matter.
        rate: operations a second of a matrix product here.
        slots: trials at once, for the efficiency: trial seconds of S over `slots` times the wall-clock.
    """
    rows: dict[str, dict[str, Any]] = {}
    for rival, some in runs.items():
        failures = [run.failure for run in some if run.failure]
        if failures or not some:
            rows[rival] = {"failed": failures[0] if failures else "did not run"}
            continue
        seconds = [run.seconds for run in some]
        accuracies = [run.accuracy for run in some if run.accuracy is not None]
        rows[rival] = {
            "seconds": [round(value, 3) for value in seconds],
            "median_seconds": statistics.median(seconds),
            "sampled": some[0].sampled,
            "peak_bytes": max(run.peak_bytes for run in some),
            "accuracy": statistics.fmean(accuracies) if accuracies else None,
        }
        if flop is not None:
            rows[rival]["share_of_limit"] = flop / rate / statistics.median(seconds)
        if foretold := [run.foretold for run in some if run.foretold]:
            rows[rival]["foretold_seconds"], rows[rival]["foretold_bytes"] = foretold[0]
        if walls := [run.trials_wall for run in some if run.trials_wall]:
            rows[rival]["trials_wall_seconds"] = statistics.median(walls)
    ours = rows.get(OURS, {}).get("median_seconds")
    best = [run.trial_seconds for run in runs.get("loop", ()) if run.trial_seconds and not run.failure]
    for row in rows.values():
        if "failed" in row:
            continue
        if ours:
            row["ratio"] = row["median_seconds"] / ours
        if best:
            row["efficiency"] = statistics.median(best) / (slots * row["median_seconds"])
        if best and "trials_wall_seconds" in row:
            row["efficiency_while_trials_run"] = statistics.median(best) / (slots * row["trials_wall_seconds"])
    return rows


def ratios(figures: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    """(workload, rival) -> times as long as this project took, of all rivals but itself."""
    return {
        (workload, rival): row["ratio"]
        for workload, measured in figures["workloads"].items()
        for rival, row in measured["rows"].items()
        if "ratio" in row and rival != OURS
    }


def gate(
    reference: Mapping[str, Any], measured: Mapping[str, Any], allowed: float = LOSS_ALLOWED
) -> tuple[list[str], list[str]]:
    """Compare ratios with the reference's, never seconds: (a line for each, those of them that fail).

    A ratio that the reference has and the measurement lacks fails, too, where its workload was measured.
    """
    before, now = ratios(reference), ratios(measured)
    lines, failed = [], []
    for key, was in sorted(before.items()):
        workload, rival = key
        if workload not in measured["workloads"]:
            continue
        if key not in now:
            line = f"{workload}, {rival}: {was:.2f}× before, not measured now"
            failed.append(line)
        else:
            change = now[key] / was - 1
            line = f"{workload}, {rival}: {was:.2f}× before, {now[key]:.2f}× now ({change:+.0%})"
            if change < -allowed:
                failed.append(line)
        lines.append(line)
    return lines, failed
