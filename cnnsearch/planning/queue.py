"""Hands out the trials of a sweep as jobs to executors, and takes in how they end."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cnnsearch.planning.confirm import Confirmation
from cnnsearch.planning.decisions import Note, Notes, by_rule, rule_key
from cnnsearch.planning.job import HEADS_AT_ONCE, SHORT_SECONDS, Job, head_key
from cnnsearch.planning.plan import Built, Plan, WeightsDigests, compared, groups, make_plan
from cnnsearch.planning.setting import SettingKey, setting_key, start_key
from cnnsearch.planning.stopping import Stop, Stopper, curve_of
from cnnsearch.planning.study import Study
from cnnsearch.planning.trial import EpochRow, Outcome, Status, Trial
from cnnsearch.spec.cells import Cell
from cnnsearch.spec.sweep import Sweep


@dataclass
class Queue:
    """Hands out the trials that can run now, and learns how they end.

    It plans again whenever a group that a later stage chooses from is complete, or a suggestion can be made.
    """

    sweep: Sweep
    data: str
    outcomes: MutableMapping[str, Outcome]
    """Trial id -> outcome of each trial that need not run; grows as trials end."""
    weights: WeightsDigests = field(default_factory=dict)
    """See `make_plan`."""
    folds: Sequence[str] = ()
    """See `make_plan`."""
    cost: Callable[[Trial], float] = lambda trial: 0.0
    """Returns the expected seconds of a trial. The longest trial goes first, so that no core waits at the end."""
    silence: Callable[[Job], float] = lambda job: 0.0
    """Longest expected time in seconds between two signs of life of a job."""
    slots: int = 1
    """Jobs that may run at once. Heads are spread over them."""
    history: Callable[[str], Iterable[Mapping[str, Any]]] = lambda trial_id: ()
    """Trial id -> rows of the epochs it has already trained, as in `epochs.jsonl`; the stopping rules use them."""
    notes: Iterable[Note] = ()
    """What the stopping rules decided in earlier runs, and on what."""
    record: Callable[[Sequence[Note]], object] = lambda notes: None
    """Writes down, durably, what they decide in this one."""
    max_trials: int | None = None
    """Most trials to hand out; None for all."""
    deadline: float = math.inf
    """Time on the monotonic clock at which executors save the running trials and end."""
    suggestions: dict[str, list[Cell]] = field(default_factory=dict)
    """Study id -> its suggestions so far; grows where `suggest` is given."""
    suggest: Callable[[Study, Mapping[str, Outcome], int], Sequence[Cell]] | None = None
    """Makes and records the next suggestions of a study: (study, outcomes so far, how many) -> suggestions."""
    choose: Callable[[Confirmation, Mapping[str, Outcome]], Sequence[Cell]] | None = None
    """Makes and records the next round of what is trained again: (what is known, outcomes so far) -> the round, if any.
    """
    adopt: Callable[[list[Trial]], Mapping[str, Outcome]] | None = None
    """Finds newly suggested or chosen trials that need not run: trial id -> outcome."""
    running: dict[str, Job] = field(default_factory=dict)
    """Trial id -> the job it runs in."""
    stops: dict[str, Stop] = field(default_factory=dict)
    """Trial id -> order to end it, for trials that are stopped before their last epoch."""
    waits: dict[str, int] = field(default_factory=dict)
    """Trial id -> the epoch after which it is saved and left, because other seeds of its setting have not got as far.
    """

    def __post_init__(self) -> None:
        self._ready: deque[Trial] = deque()
        self._left: dict[str, Trial] = {}
        """Trial id -> trial that was saved and left, and waits."""
        self._free: deque[Trial] = deque()
        """Trials that have waited, and go on or end."""
        self._settings: dict[str, SettingKey] = {}
        """Trial id -> key of its setting."""
        self._recorded: set[str] = set()
        """Ids of the trials that had epochs recorded before this run."""
        self._firsts: dict[tuple[Any, ...], str] = {}
        """Key of a setting, among those compared -> id of its first trial."""
        self._begun: set[str] = set()
        self._notes = by_rule(self.notes)
        self._stoppers: dict[tuple[Any, ...], Stopper] = {}
        self._stopper_of: dict[str, Stopper] = {}
        self._again: deque[Job] = deque()
        self._built: Built = {}
        self._costs: dict[str, float] = {}
        self._replan()

    @property
    def slots_taken(self) -> int:
        """Slots of the jobs that have not ended."""
        return sum(job.slots for job in {job.id: job for job in self.running.values()}.values())

    @property
    def is_exhausted(self) -> bool:
        """Whether nothing can run any more, now or later."""
        return (not self._ready or self.is_at_limit) and not self._free and not self._again and not self.running

    @property
    def is_at_limit(self) -> bool:
        """Whether the limit on the number of trials is reached."""
        return self.max_trials is not None and len(self._begun) >= self.max_trials

    @property
    def is_time_up(self) -> bool:
        """Whether the deadline has passed."""
        return time.monotonic() > self.deadline

    def take(self) -> Job | None:
        """Return the next job; None where none fits the free slots at the moment."""
        job = self._next()
        for trial in job.trials if job else ():
            self._begun.add(trial.id)
            if stopper := self._stopper_of.get(trial.id):
                stopper.resume(trial.id, trial.settings.epochs)
                self._follow(trial, stopper)
        self.commit()
        return job

    def hear(self, trial: Trial, row: EpochRow) -> Stop | None:
        """Take in an epoch of a running trial; return the order to stop the trial early, if there is one.

        Workers wait for the answer after each epoch at which their trial may be stopped. Before they get it, `commit`
        must be called.
        """
        stopper = self._stopper_of.get(trial.id)
        if stopper and row.epoch > 0 and row.is_finite:
            value = getattr(row, stopper.settings.metric)
            if value is not None:  # as where validation has images of one class alone
                stopper.hear(trial.id, row.epoch, value, trial.settings.epochs)
                self._follow(trial, stopper)
        return self.stops.get(trial.id)

    def commit(self) -> None:
        """Write down what was decided since the last time: to be called before anybody acts on it. Raises DiskError."""
        for notes in self._notes.values():
            if any(note.is_decision for note in notes.new):
                self.record(notes.new)
                notes.new.clear()

    def leave(self, trials: Iterable[Trial]) -> None:
        """Take back trials of a job that has ended, which were saved because they wait for others.

        They are handed out again when those others are there, which they may be by now.
        """
        for trial in trials:
            self.running.pop(trial.id, None)
            if trial.id in self.waits:
                self._left[trial.id] = trial
            else:
                self._free.append(trial)

    def _follow(self, trial: Trial, stopper: Stopper) -> None:
        """Do what was decided about a trial and the other seeds of its setting."""
        for member in stopper.together(trial.id):
            if member in stopper.stops:
                self.stops[member] = stopper.stops[member]
            if (epoch := stopper.waits_at(member)) is not None:
                self.waits[member] = epoch
            elif self.waits.pop(member, None) is not None and member in self._left:
                self._free.append(self._left.pop(member))

    def _next(self) -> Job | None:
        free = self.slots - self.slots_taken
        if self._again:
            # Nothing overtakes a job that needs several slots: they would never be free together.
            if self._again[0].slots > free:
                return None
            job = self._again.popleft()
            self.running |= {trial.id: job for trial in job.trials}
            return job
        if free < 1 or (not self._free and (not self._ready or self.is_at_limit)):
            return None
        source = self._free or self._ready
        key = head_key(source[0])
        if key is None:
            job = Job(self._short(source) or (source[0],))
        else:
            job = Job(self._heads([trial for trial in source if head_key(trial) == key]))
        if self.max_trials is not None and not self._free:
            job = replace(job, trials=job.trials[: self.max_trials - len(self._begun)])
        if key is None:  # take from the front only: there may be thousands behind
            for _ in job.trials:
                source.popleft()
        else:
            taken = {trial.id for trial in job.trials}
            rest = [trial for trial in source if trial.id not in taken]
            source.clear()
            source.extend(rest)
        self.running |= {trial.id: job for trial in job.trials}
        return job

    def _heads(self, alike: list[Trial]) -> tuple[Trial, ...]:
        """Choose which of these heads are trained together now.

        Seeds that are judged together come at the same time as far as they can, so that none has to wait for another.
        """
        size = max(1, min(HEADS_AT_ONCE, -(-len(alike) // self.slots)))
        settings = self._by_setting(alike)
        if len(settings) < len(alike):
            alike = settings[0]
            for members in settings[1:]:
                if len(alike) + len(members) > size:
                    break
                alike = alike + members
            size = min(HEADS_AT_ONCE, len(alike))
        # Heads of one seed share their batches.
        return tuple(sorted(alike, key=lambda trial: trial.settings.seed)[:size])

    def _by_setting(self, trials: Iterable[Trial]) -> list[list[Trial]]:
        """Group trials that a rule judges together, in order of appearance; each other trial is a group by itself."""
        found: dict[str, list[Trial]] = {}
        for trial in trials:
            stopper = self._stopper_of.get(trial.id)
            found.setdefault(stopper.together(trial.id)[0] if stopper else trial.id, []).append(trial)
        return list(found.values())

    def _short(self, source: deque[Trial]) -> tuple[Trial, ...]:
        """Take short trials: `SHORT_SECONDS` of them, or a slot's share of those left; none if the next one is long."""
        chosen: list[Trial] = []
        seconds = 0.0
        most = -(-len(source) // (2 * self.slots))
        for trial in source:
            cost = self._cost(trial)
            if not cost > 0 or seconds + cost > SHORT_SECONDS or len(chosen) == most or head_key(trial) is not None:
                break
            chosen.append(trial)
            seconds += cost
        return tuple(chosen)

    def retry(self, job: Job) -> None:
        """Put back a job whose trials did not end, so that it runs again."""
        for trial in job.trials:
            self.running.pop(trial.id, None)
        self._again.append(job)

    def finish(self, trial: Trial, outcome: Outcome) -> None:
        """Take in the outcome of a trial that was handed out."""
        self.running.pop(trial.id, None)
        self.outcomes[trial.id] = outcome
        if stopper := self._stopper_of.get(trial.id):
            _end(stopper, trial.id, outcome)
            self._follow(trial, stopper)
            self.commit()
        is_due = any(study.due(self.outcomes) for study in self._studies.get(trial.id, ()))
        for members in self._choices.get(trial.id, ()):
            members.discard(trial.id)
            is_due |= not members
        if is_due:
            self._replan()

    def _replan(self) -> None:
        self.plan = self._planned()
        while self._suggest() or self._choose():
            before, self.plan = self.plan.trials, self._planned()
            if self.adopt is not None and (found := self.adopt(self._new(before))):
                self.outcomes.update(found)
                self.plan = self._planned()
        self._place()
        taken = self.outcomes.keys() | self.running.keys() | {trial.id for job in self._again for trial in job.trials}
        taken |= self._left.keys() | {trial.id for trial in self._free}
        ready = [trial for trial in self.plan.trials.values() if trial.id not in taken]
        studies = [study for stage in self.plan.stages for study in stage.studies]
        self._studies: dict[str, list[Study]] = {}
        for study in studies:
            for trial in (trial for members in study.trials for trial in members if trial.id not in self.outcomes):
                self._studies.setdefault(trial.id, []).append(study)
        # Suggested trials go first, in their order: the next suggestion waits for the first of those running.
        self._ready = deque(trial for trial in ready if trial.id in self._studies)
        rest = [trial for trial in ready if trial.id not in self._studies]
        self._ready.extend(self._in_order(rest))
        self._choices: dict[str, list[set[str]]] = {}
        by_name = {stage.stage.name: stage for stage in self.plan.stages}
        for stage in self.sweep.stages:
            if stage.start_from is None:
                continue
            for group in groups(by_name[stage.start_from.stage].trials, stage.start_from.per).values():
                members = {trial.id for trial in group if trial.id not in self.outcomes}
                self._await(members)
        if self.sweep.confirm is not None:
            self._await_confirmation()

    def _in_order(self, trials: Iterable[Trial]) -> list[Trial]:
        """Sort trials that can begin, the longest first.

        Seeds that are judged together come next to each other, so that none waits for long, and those of settings that
        have begun come before all others.
        """

        def order(members: list[Trial]) -> tuple[bool, float]:
            stopper = self._stopper_of.get(members[0].id)
            together = stopper.together(members[0].id) if stopper else ()
            has_begun = len(together) > 1 and any(other in self._recorded or other in self._begun for other in together)
            return not has_begun, -max(map(self._cost, members))

        return [trial for members in sorted(self._by_setting(trials), key=order) for trial in members]

    def _place(self) -> None:
        """Add new trials to those that a rule compares, and do what is decided by what is recorded of them."""
        new = [
            trial
            for trial in self.plan.trials.values()
            if trial.id in self.plan.rules and trial.id not in self._stopper_of
        ]
        stoppers: dict[int, Stopper] = {}
        for trial in new:
            rule, trials = self.plan.rules[trial.id], self.plan.trials
            among = compared(self.sweep, trial, start_key(trial, trials, self._settings))
            if among not in self._stoppers:
                key = rule_key(rule)
                self._stoppers[among] = Stopper(rule, self._notes.setdefault(key, Notes(key)))
            stopper = self._stoppers[among]
            first = self._firsts.setdefault((among, setting_key(trial, trials, self._settings)), trial.id)
            curve = curve_of(rule, self.history(trial.id))
            if curve:
                self._recorded.add(trial.id)
            if stopper.rule.compares and trial.id not in self.outcomes:
                curve = {}  # beyond what is noted it is heard again, in the order in which it was heard first
            stopper.place(trial.id, curve, first, trial.settings.epochs)
            self._stopper_of[trial.id] = stoppers[id(stopper)] = stopper
            if outcome := self.outcomes.get(trial.id):
                _end(stopper, trial.id, outcome)
        for stopper in stoppers.values():
            stopper.settle()
        for trial in new:
            self._follow(trial, self._stopper_of[trial.id])
            if trial.id in self.waits:
                self._left[trial.id] = trial
        self.commit()

    def _await(self, members: set[str]) -> None:
        """Plan again when all of these trials have ended."""
        for member in members:
            self._choices.setdefault(member, []).append(members)

    def _await_confirmation(self) -> None:
        """Plan again when all trials so far have ended, and whenever one that contenders start from has."""
        left = {trial_id for trial_id in self.plan.trials if trial_id not in self.outcomes}
        self._await(left)
        for trial_id in {trial_id for contender in self.plan.contenders for trial_id in contender.starts} & left:
            self._await({trial_id})

    def _new(self, before: Mapping[str, Trial]) -> list[Trial]:
        """List the trials without an outcome that were not in the previous plan."""
        known = before.keys() | self.outcomes.keys()
        return [trial for trial_id, trial in self.plan.trials.items() if trial_id not in known]

    def _planned(self) -> Plan:
        return make_plan(self.sweep, self.data, self.outcomes, self.weights, self.suggestions, self._built, self.folds)

    def _suggest(self) -> bool:
        """Make the suggestions that can be made now; say whether there were any."""
        if self.suggest is None:
            return False
        found = False
        for study in [study for stage in self.plan.stages for study in stage.studies]:
            so_far = self.suggestions.setdefault(study.id, [])
            # Two stages that ask the same question share a study, and the other one may have been here first.
            if (due := study.due(self.outcomes)) > len(so_far) - len(study.suggestions):
                so_far += self.suggest(study, self.outcomes, due)
                found = True
        return found

    def _choose(self) -> bool:
        """Choose what is trained again, if it can be chosen now; say whether it was."""
        found = self.plan.confirmation
        if self.choose is None or found is None or not found.is_due(self.outcomes):
            return False
        chosen = self.choose(found, self.outcomes)
        self.suggestions.setdefault(found.study.id, []).extend(chosen)
        return bool(chosen)

    def _cost(self, trial: Trial) -> float:
        if trial.id not in self._costs:
            self._costs[trial.id] = self.cost(trial)
        return self._costs[trial.id]


def _end(stopper: Stopper, trial_id: str, outcome: Outcome) -> None:
    stopped = outcome.status is Status.PRUNED and outcome.stopped_by == stopper.settings.method
    stopper.end(trial_id, diverged=outcome.status is Status.DIVERGED, stopped=stopped)
