"""Everything before the first trial: find the data, plan what is left, estimate it. Nothing is started."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from cnnsearch import data as images
from cnnsearch.data.dataset import Dataset, Form
from cnnsearch.earlier import with_earlier
from cnnsearch.execution.machine.estimate import Calibration, Cost, Lengths, Sizes, representatives
from cnnsearch.execution.machine.hardware import Hardware, Layout, detect, lay_out, lay_out_serially
from cnnsearch.execution.machine.placement import Cluster, describe, lay_out_over, usable
from cnnsearch.execution.machine.timing import calibrate
from cnnsearch.execution.warden import Warden, watching
from cnnsearch.inputs import (
    digests,
    features_limit,
    load_forms,
    named_weights,
    own_code,
    recorded_data,
    refuse_metrics,
    without_misfits,
)
from cnnsearch.planning import retention
from cnnsearch.planning.plan import Plan, compared, groups, make_plan
from cnnsearch.planning.setting import SettingKey, setting_key, start_key
from cnnsearch.planning.stopping_rules import mean, rule_of
from cnnsearch.planning.trial import Outcome, Status, Trial
from cnnsearch.results.building import Outside, outside
from cnnsearch.results.continuation import saved_epochs
from cnnsearch.results.folder import Results
from cnnsearch.results.place import ResultsPlace, open_results
from cnnsearch.results.record import Record
from cnnsearch.spec.cells import Cell, size
from cnnsearch.spec.confirm import CONFIRM
from cnnsearch.spec.own_code import Snapshot
from cnnsearch.spec.stage import StopEarly
from cnnsearch.spec.sweep import Sweep
from cnnsearch.training.models.checked_code import refuse_faulty
from cnnsearch.training.models.pretrained import Key, Pretrained, find_weights
from cnnsearch.words import printable

KEPT_AT_MOST = 20
"""Trials whose weights may be kept without need until unneeded weights are dropped; more in a large sweep."""
LAST_WORDS = (
    "error: this run ended without a word: it was killed, or Ray took it down.\n"
    "What is finished is kept; the same command goes on."
)
"""Message that the warden prints for a run that can no longer print."""

_LOG = logging.getLogger(__name__)
Tell = Callable[[str, int, int], None]
"""Takes what is being done, how much of it is done, and how much there is; 0 of 0 where that is not known."""


def quiet(what: str, done: int, total: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Prepared:
    """A sweep with its data found, its trials planned and its cost estimated. Nothing has been started."""

    sweep: Sweep
    results: ResultsPlace
    datasets: dict[Form, Dataset]
    weights: dict[Key, Pretrained]
    """Pretrained weights that the sweep names."""
    hardware: Hardware
    layout: Layout
    calibration: Calibration
    outcomes: dict[str, Outcome]
    """Trial id -> outcome of each trial that need not run again."""
    plan: Plan
    costs: dict[str, Cost]
    """Stage -> what is left to do of it."""
    warden: Warden
    """Cleans up after this run, however it ends."""
    suggestions: dict[str, list[Cell]]
    """Study id -> what its searcher has suggested so far."""
    known_epochs: tuple[int, ...] = ()
    """Numbers of epochs for which some trial's training state was kept; longer trials may go on from them."""
    saved_epochs: Mapping[str, int] = field(default_factory=dict)
    """Trial id -> epochs it need not train, since a shorter trial did."""
    repeated: tuple[str, ...] = ()
    """Finished trials that run again because another trial needs their weights, which are gone or damaged."""
    outside: Outside = field(default_factory=Outside)
    """Recorded trials that are not trials of the sweep as it is now."""
    left_out: tuple[str, ...] = ()
    """For each network on the sweep's axes that cannot take the images' size: what it needs."""
    is_untested: bool = False
    """Whether trials ended while the test set was sealed, and have not been tested since."""
    cluster: Cluster | None = None
    """Where trials run; None for this machine."""
    code: tuple[Snapshot, ...] = ()
    """Code of the user's own that the sweep names."""

    @property
    def dataset(self) -> Dataset:
        """The data at the sweep's own image size."""
        return self.datasets[self.sweep.data.image_size, "bilinear"]

    @cached_property
    def sizes(self) -> Sizes:
        """Images in each split; in the first fold where there are folds, whose sizes hardly differ."""
        train, val, test = (len(self.dataset.indices[split]) for split in images.SPLITS)
        return Sizes(train, val, test, len(self.dataset.classes))

    @property
    def is_remote(self) -> bool:
        """Whether results go to a URI."""
        return self.results.remote is not None

    @property
    def is_sealed(self) -> bool:
        """Whether no test image may be looked at."""
        return self.results.here.is_sealed(self.sweep)

    @property
    def precision(self) -> str:
        """What `precision: auto` means for this sweep: what it was begun with, else what the probe found here."""
        chosen = self.results.here.read("choices.json").get(self.layout.device, {})
        return str(chosen.get("precision", self.calibration.precision))

    @property
    def features_bytes(self) -> int:
        """Most bytes that the outputs of frozen layers may take."""
        return features_limit(self.hardware)

    @property
    def places(self) -> str:
        """Describe the machines that trials run on, and how many run at a time, for people."""
        if self.cluster is None:
            return self.layout.describe(self.hardware)
        return describe(self.layout, usable(self.sweep.run, self.cluster.nodes))

    def compared(self, trial: Trial) -> int:
        """Number of settings that the stopping rule compares with each other, including that of this trial."""
        stage = next(planned for planned in self.plan.stages if planned.stage.name == trial.stage)
        found = self._compared.get(compared(self.sweep, trial, start_key(trial, self.plan.trials, {})), 0)
        # Count also those that a searcher has yet to suggest, or that a sample stands in for.
        return found if found and not stage.waiting else max(found, size(stage.stage))

    @cached_property
    def _compared(self) -> Counter[tuple[Any, ...]]:
        known: dict[str, SettingKey] = {}
        trials = self.plan.trials
        settings = {
            (compared(self.sweep, trial, start_key(trial, trials, known)), setting_key(trial, trials, known))
            for trial in trials.values()
        }
        return Counter(among for among, _ in settings)

    @property
    def done(self) -> int:
        """Number of trials in the plan that need not run."""
        return sum(trial_id in self.outcomes for trial_id in self.plan.trials)

    @property
    def remaining(self) -> int:
        """Number of trials still to run."""
        return self.plan.total - self.plan.lost - self.done


@contextlib.contextmanager
def prepared(
    sweep: Sweep,
    out: Path | str,
    *,
    dry_run: bool = False,
    cluster: Cluster | None = None,
    serial: bool = False,
    tell: Tell = quiet,
) -> Iterator[Prepared]:
    """Find the data, plan the trials and estimate their cost.

    The results folder is held for the time of the block, unless this is a dry run.

    Args:
        sweep: what to prepare.
        out: results root, a folder or a URI.
        dry_run: change nothing in the results folder.
        cluster: where trials are to run; None for this machine.
        serial: whether they run in this process, one after another.
        tell: called with what is being done, and how much of how many is done where that is known.

    Raises:
        RequestError: the data, the folder or the machine do not allow what was asked for.
    """
    sweep, left_out = without_misfits(sweep)
    code = own_code(sweep)
    results = open_results(out, sweep.name)
    sweep = with_earlier(sweep, results)
    smallest = cluster.smallest(sweep.run) if cluster else None
    hardware = smallest.given_out if smallest else detect()
    fit: Callable[..., Layout] = functools.partial(lay_out_serially if serial else lay_out, hardware=hardware)
    if cluster:
        fit = functools.partial(lay_out_over, nodes=cluster.nodes)
    layout = fit(sweep.run)
    weights = find_weights(named_weights(sweep))
    reading = functools.partial(tell, "reading the images")
    reading(0, 0)
    checking = functools.partial(tell, "looking for copies among the images")
    datasets = load_forms(sweep, weights, recorded_data(results, sweep), reading, checking)
    refuse_metrics(sweep, len(next(iter(datasets.values())).classes))
    tell("planning", 0, 0)
    dataset = datasets[sweep.data.image_size, "bilinear"]
    chosen = {"split": dataset.split, "jpeg": dataset.jpeg}
    sweep = sweep.model_copy(update={"data": sweep.data.model_copy(update=chosen)})
    folds = dataset.fold_fingerprints
    plan_from = functools.partial(make_plan, sweep, dataset.fingerprint, weights=digests(weights), folds=folds)
    with watching(LAST_WORDS) as warden, results.reading() if dry_run else results.locked() as results:
        if not dry_run:
            for name in results.set_damaged_aside():
                _LOG.warning("%s/%s was damaged: it is kept as %s.damaged", results, name, name)
        suggestions = results.here.suggestions()
        plan_from = functools.partial(plan_from, suggestions=suggestions)

        def recorded() -> tuple[dict[str, Record], dict[str, Outcome], Plan]:
            records = results.here.records()
            ended = final_outcomes(results.here, records)
            plan = plan_from(ended)
            return records, plan.counted(ended, sweep.train.max_seconds), plan

        records, outcomes, plan = recorded()
        if not dry_run:
            # What another sweep in this root has trained may decide parents, and so name trials not known before.
            while results.adopt(
                [trial_id for trial_id in plan.trials if trial_id not in outcomes],
                untested=results.here.is_sealed(sweep),
            ):
                records, outcomes, plan = recorded()
        repeated: list[str] = []
        while lost := parents_without_weights(results, plan, outcomes):
            repeated += lost
            outcomes = {trial_id: outcome for trial_id, outcome in outcomes.items() if trial_id not in lost}
            plan = plan_from(outcomes)
        trials = [trial for trial in representatives(plan) if trial.id not in outcomes]
        if code:
            tell("trying the networks of your own", 0, 0)
            refuse_faulty(trials, plan.trials, weights, len(dataset.classes))
        measure = functools.partial(cluster.time_on, smallest, layout) if cluster and smallest else None
        tell("timing a few steps of each model, once for this machine", 0, 0)
        calibration = calibrate(trials, len(dataset.classes), layout, hardware, measure)
        if layout.device == "cpu":
            layout = fit(sweep.run, host_bytes=calibration.memory_bytes(trials))
        elif trials:
            layout = fit(sweep.run, gpu_bytes=_gpu_bytes(trials, calibration, datasets, hardware))
        kept = [trial_id for trial_id in records if results.has_checkpoint(trial_id)]
        numbers = tuple(sorted({records[trial_id].settings.epochs for trial_id in kept}))
        saved = saved_epochs(trials, records, kept)
        found = (datasets, weights, hardware, layout, calibration, outcomes, plan)
        ready = Prepared(sweep, results, *found, {}, warden, suggestions, numbers, saved, tuple(repeated))
        untested = any(records[trial_id].lacks_test for trial_id in plan.trials if trial_id in records)
        others = outside(records, plan, folds or [dataset.fingerprint])
        ready = replace(ready, left_out=left_out, outside=others, is_untested=untested)
        ready = replace(ready, cluster=cluster, code=code)
        yield replace(ready, costs=stage_costs(ready, trials))


def _gpu_bytes(trials: list[Trial], calibration: Calibration, datasets: dict[Form, Dataset], hardware: Hardware) -> int:
    """GPU memory of the largest trial, with its images: a process keeps them in every form it has met."""
    pixels = sum(3 * size**2 * len(dataset.labels) for (size, _), dataset in datasets.items())
    images = max(len(dataset.labels) for dataset in datasets.values())
    limit = features_limit(hardware)
    return pixels + max(calibration.device_bytes(trial.settings, images, limit) for trial in trials)


def final_outcomes(results: Results, records: Mapping[str, Record]) -> dict[str, Outcome]:
    """Outcomes of recorded trials that running again could not change, and of those that were stopped early.

    A trial with damaged files counts as not done.
    """
    damaged = results.damaged(records, checkpoints=True)
    for trial_id, files in damaged.items():
        told = ", ".join(f"{name} is {what}" for name, what in files.items())
        _LOG.warning("trial %s: %s; it counts as not done", printable(trial_id), told)
    return {
        trial_id: record.outcome
        for trial_id, record in records.items()
        if record.status is not Status.FAILED and trial_id not in damaged
    }


def parents_without_weights(results: ResultsPlace, plan: Plan, outcomes: dict[str, Outcome]) -> list[str]:
    """List finished trials that a trial to run starts from, and whose weights are gone or damaged."""
    started = {trial.parent_id for trial in plan.trials.values() if trial.parent_id and trial.id not in outcomes}
    studies = (study for stage in plan.stages for study in stage.studies)
    started |= {parent for study in studies if not study.is_complete for parent in study.parents}
    lost: dict[str, None] = {}
    checked: set[str] = set()
    while started:
        trial_id = started.pop()
        checked.add(trial_id)
        if not results.has_weights(trial_id):
            lost[trial_id] = None
        # A fine-tuned trial keeps the weights its training changed; the rest is in its parent's.
        trial = plan.trials.get(trial_id)
        if trial and trial.parent_id and trial.settings.fine_tune != "full":
            started |= {trial.parent_id} - checked
    return sorted(lost)


def epochs_left(ready: Prepared, trial: Trial, after: int = 0) -> float:
    """Expected number of epochs that a trial still trains once it has reached epoch `after`."""
    return mean(_endings(ready, trial, after))


def _endings(ready: Prepared, trial: Trial, after: int = 0) -> dict[int, float]:
    """Epochs that a trial may still train -> how probable that is."""
    done = max(after, ready.saved_epochs.get(trial.id, 0))
    rule = stopping_rule(ready, trial)
    if rule is None:
        return {trial.settings.epochs - done: 1.0}
    guided_from = ready.sweep.stage(trial.stage).search.guided_from
    return rule_of(rule).endings(trial.settings.epochs, ready.compared(trial), done, guided_from)


def stopping_rule(ready: Prepared, trial: Trial) -> StopEarly | None:
    """Return the rule that may stop a trial; the trial may be a stand-in for one not known yet."""
    known = trial.id in ready.plan.trials
    return ready.plan.rules.get(trial.id) if known else ready.sweep.stage(trial.stage).stop_early


def expected_seconds(ready: Prepared, trial: Trial) -> float:
    """Expected seconds of a trial, from its beginning here to its end."""
    return mean(lengths(ready, trial))


def lengths(ready: Prepared, trial: Trial) -> Lengths:
    """Seconds that a trial may take here -> how probable that is."""
    found: Counter[float] = Counter()
    for epochs, share in _endings(ready, trial).items():
        seconds = ready.calibration.seconds(
            trial.settings,
            ready.sizes,
            starts_from=trial.parent_id is not None,
            epochs=epochs,
            training_limit=ready.sweep.train.max_seconds,
        )
        found[seconds] += share  # type: ignore[assignment]
    return found


def is_at_most(ready: Prepared, stage_name: str) -> bool:
    """Whether the estimate of a stage is an upper bound, because its trials may end early at epochs not known."""
    rule = ready.sweep.stage(stage_name).stop_early
    return rule is not None and not rule_of(rule).is_expected


def stage_costs(ready: Prepared, trials: list[Trial]) -> dict[str, Cost]:
    """Estimate the cost of the trials left in each stage."""
    by_stage: dict[str, list[Trial]] = {planned.stage.name: [] for planned in ready.plan.stages}
    for trial in trials:
        by_stage[trial.stage].append(trial)
    return {
        name: ready.calibration.cost(
            some,
            ready.sizes,
            ready.layout,
            weights_kept(ready, name, some),
            lengths=lambda trial: lengths(ready, trial),
            in_order=ready.sweep.stage(name).search.is_adaptive,
            keep_state=ready.sweep.run.keep == "state",
        )
        for name, some in by_stage.items()
    }


def weights_kept(ready: Prepared, stage_name: str, left: list[Trial]) -> int | None:
    """Most trials of a stage that have weights at the same time; None if all have. `left` are the trials to run."""
    if ready.sweep.keeps_all_weights:
        return None
    planned = next(planned for planned in ready.plan.stages if planned.stage.name == stage_name)
    known = planned.trials or next(iter(ready.plan.stages)).trials or left
    seeds = len({trial.settings.seed for trial in known})
    if ready.sweep.confirm and planned.stage is CONFIRM:
        seeds = ready.sweep.confirm.seeds
    chosen = sum(len(groups(known, per)) for per, _ in retention.choices(ready.sweep, planned.stage))
    return chosen * seeds + KEPT_AT_MOST + len(ready.plan.trials) // 20
