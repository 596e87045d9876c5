"""What a results folder says about its run right now. Read-only; of trials only what has changed is read."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cnnsearch.errors import CnnsearchError, RequestError
from cnnsearch.planning.plan import Plan, make_plan
from cnnsearch.planning.stopping_rules import rule_of
from cnnsearch.planning.trial import Status
from cnnsearch.results.folder import OWN, Results
from cnnsearch.results.folds import fold_fingerprints, folds_of
from cnnsearch.results.parquet import NOTE
from cnnsearch.results.record import Record
from cnnsearch.results.trial_folder import TrialFolder
from cnnsearch.spec.load import from_yaml
from cnnsearch.spec.settings import Settings
from cnnsearch.spec.sweep import Sweep
from cnnsearch.words import LISTED, printable

LEAST_SECONDS = 1.0
"""Least seconds between two looks at a folder."""
SHARE = 20
"""Least time between two looks, in multiples of the time that a look takes."""
_SETTLED_SECONDS = 2.0
"""Age up to which a folder may change again without getting a new time, since file systems count time in ticks."""


@dataclass(frozen=True)
class Begun:
    """A trial that was begun and has not ended."""

    trial_id: str
    stage: str
    settings: Settings
    epochs: tuple[dict[str, Any], ...]
    """Rows of epochs.jsonl so far, including the row of epoch 0, before training."""
    begun_at: float
    """When this attempt began, in Unix time."""
    changed_at: float
    is_compared: bool = False
    """Whether it has reached an epoch after which it may be stopped, and may be waiting for that decision."""

    @property
    def epoch(self) -> int:
        """The last recorded epoch; 0 where there is none."""
        return max((int(row["epoch"]) for row in self.epochs), default=0)


@dataclass(frozen=True)
class Look:
    """A results folder at one moment."""

    folder: Path
    sweep: Sweep | None
    """None where its file does not exist yet, or cannot be read."""
    is_held: bool
    """Whether a run holds the folder."""
    holder: str
    """That run, in words."""
    seconds_left: float | None
    """Seconds that it has left, as it said last; None where it has not."""
    running: tuple[Begun, ...]
    """Trials begun by the run that holds the folder, and not ended."""
    left: tuple[Begun, ...]
    """Trials begun by an earlier run, and not ended."""
    counts: Mapping[Status, int]
    """Status -> number of trials that ended with it."""
    planned: int | None
    """Number of trials in the sweep; None if the records do not tell."""
    stages: tuple[tuple[str, int, int], ...]
    """(name, trials that ended, all trials) of each stage."""
    best: Record | None
    """The record with the highest validation accuracy so far."""
    best_shown: str
    """Its score on validation in words, an accuracy with its interval; empty where there is none."""
    changed_at: float | None
    """When anything was last written, in Unix time."""
    notes: tuple[str, ...]
    """What is missing or cannot be read, in words."""
    version: str
    """Digest of what a report is made from; empty while there is nothing to report on."""

    @property
    def name(self) -> str:
        """The name of the sweep, or of the folder where that is not known."""
        return self.sweep.name if self.sweep else self.folder.resolve().name

    @property
    def ended(self) -> int:
        """Number of trials that ended, whatever their status."""
        return sum(self.counts.values())


@dataclass
class _Seen:
    """What was read from one trial's folder."""

    changed_ns: int
    is_settled: bool
    record: Record | None = None
    begun: Begun | None = None
    note: str = ""
    epochs_key: tuple[int, int] | None = None


@dataclass
class Folder:
    """A results folder that several threads look at again and again."""

    path: Path
    results: Results = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _look: Look | None = None
    _looked_at: float = 0.0
    _seconds: float = 0.0
    """Seconds that the last look took."""
    _trials: dict[str, _Seen] = field(default_factory=dict)
    _files: dict[str, tuple[tuple[int, int], Any]] = field(default_factory=dict)
    """File name -> ((size, time), what was read from it)."""
    _plan: tuple[str, Plan | None] = ("", None)
    """A digest of what the plan was made from, and the plan."""

    def __post_init__(self) -> None:
        self.results = Results(self.path)

    def check(self) -> bool:
        """Whether a sweep has begun here; else there is no folder, or nothing in it but what a run makes first.

        Raises RequestError if something else is here.
        """
        if self.results.sweep_file.is_file() or self.results.held_since() is not None:
            return True
        if not os.path.lexists(self.path):
            return False
        if not self.path.is_dir():
            raise RequestError(f"{self.path} is no folder")
        if {entry.name for entry in self.path.iterdir()} <= set(OWN):
            return False
        raise RequestError(self.results.no_sweep())

    def beside(self) -> list[str]:
        """Names of the first results of sweeps beside this folder, one of which may have been meant."""
        return sorted(file.parent.name for file in self.path.absolute().parent.glob("*/sweep.yaml"))[:LISTED]

    def look(self) -> Look:
        """The folder as it is, or was a moment ago. Damaged files are not an error: the look's notes name them."""
        with self._lock:
            began = time.monotonic()
            if self._look is None or began - self._looked_at > max(LEAST_SECONDS, SHARE * self._seconds):
                self._look = self._taken()
                self._looked_at = time.monotonic()
                self._seconds = self._looked_at - began
            return self._look

    def _taken(self) -> Look:
        held_since, holder, seconds_left = self.results.held_since(), self.results.holder(), self.results.seconds_left()
        sweep, data, notes = self._described(held_since is not None)
        self._read_trials()
        seen = list(self._trials.values())
        records = {one.record.trial_id: one.record for one in seen if one.record}
        notes += [one.note for one in seen if one.note]
        plan = self._planned(sweep, data, records)
        known = records if plan is None else {id_: records[id_] for id_ in plan.trials if id_ in records}
        if records and not known:  # another version gave the same trials other ids: they cannot be matched with a plan
            known, plan = records, None
        begun = [self._compared(one.begun, sweep, plan) for one in seen if one.begun]
        begun.sort(key=lambda one: (one.begun_at, one.trial_id))
        running = [one for one in begun if held_since is not None and one.begun_at >= held_since]
        times = [one.changed_ns / 1e9 for one in seen] + [one.changed_at for one in begun]
        times += [key[1] / 1e9 for key, _ in self._files.values() if key[1]]
        comparable = [record for record in known.values() if record.best and record.outcome.is_comparable]
        best = max(comparable, key=lambda record: record.worth, default=None)
        return Look(
            folder=self.path,
            sweep=sweep,
            is_held=held_since is not None,
            holder=holder,
            seconds_left=seconds_left,
            running=tuple(running),
            left=tuple(one for one in begun if held_since is None or one.begun_at < held_since),
            counts=Counter(record.status for record in known.values()),
            planned=plan.total if plan else None,
            stages=() if plan is None else _stages(plan, known),
            best=best,
            best_shown=best.shown(_validation_images(data, best)) if best else "",
            changed_at=max(times, default=None),
            notes=tuple(notes),
            version=self._version(records),
        )

    def _described(self, is_held: bool) -> tuple[Sweep | None, dict[str, Any], list[str]]:
        """The sweep, its data, and notes on what is wrong with their files."""
        notes = [] if self.path.is_dir() else [f"There is no folder {self.path} any more."]
        sweep, problem = self._remembered("sweep.yaml", self._read_sweep)
        notes += [f"sweep.yaml cannot be read: {problem}"] if problem else []
        data, problem = self._remembered("data.json", lambda: self.results.read("data.json"))
        if problem:
            notes.append(problem)
        elif not data and not is_held:
            notes.append("data.json is missing: the same sweep writes it again.")
        return sweep, data or {}, notes

    def _read_sweep(self) -> Sweep | None:
        if not os.path.lexists(self.results.sweep_file):
            return None
        return from_yaml(self.results.sweep_text(), str(self.results.sweep_file))

    def _remembered(self, name: str, read: Callable[[], Any]) -> tuple[Any, str]:
        """Return the content of a file and "", or None and why it cannot be read. Reads it only if it changed."""
        key = self._key(name)
        known = self._files.get(name)
        if known is None or known[0] != key or not _is_settled(key[1]):
            try:
                found = read(), ""
            except (CnnsearchError, OSError, ValueError) as error:
                found = None, str(error)
            known = self._files[name] = (key, found)
        return known[1]

    def _key(self, name: str) -> tuple[int, int]:
        """Size and time of one of the folder's own files; zeros where there is none."""
        try:
            found = (self.path / name).stat()
        except OSError:
            return (0, 0)
        return (found.st_size, found.st_mtime_ns)

    def _read_trials(self) -> None:
        try:
            with os.scandir(self.results.trials_path) as entries:
                found = sorted(
                    (entry.name, entry.stat(follow_symlinks=False).st_mtime_ns)
                    for entry in entries
                    if entry.is_dir(follow_symlinks=False)
                )
        except OSError:  # not there yet, or just changing: the next look comes soon
            found = []
        before, self._trials = self._trials, {}
        for name, changed_ns in found:
            seen = before.get(name)
            if seen is None or seen.changed_ns != changed_ns or not seen.is_settled:
                seen = self._read_trial(self.results.trial(name), changed_ns)
            elif seen.begun is not None:
                self._read_epochs(self.results.trial(name), seen)
            self._trials[name] = seen

    def _read_trial(self, folder: TrialFolder, changed_ns: int) -> _Seen:
        seen, name = _Seen(changed_ns, _is_settled(changed_ns)), folder.path.name
        try:
            seen.record = folder.record()
        except CnnsearchError as error:
            seen.note = str(error)
            return seen
        if seen.record is not None:
            return seen
        if os.path.lexists(folder.record_file):
            seen.note = f"The record of trial {printable(name)} is damaged: the same sweep trains it again."
            return seen
        try:
            facts = folder.begun()
            if facts is None:  # its folder has only just been made
                return seen
            begun_at = (folder.path / "trial.json").stat().st_mtime
        except (CnnsearchError, OSError) as error:
            seen.note = f"What trial {printable(name)} is cannot be read: {error}."
            return seen
        seen.begun = Begun(name, facts.stage, facts.settings, (), begun_at, begun_at)
        self._read_epochs(folder, seen)
        return seen

    def _read_epochs(self, folder: TrialFolder, seen: _Seen) -> None:
        assert seen.begun is not None
        try:
            found = folder.epochs_file.stat()
            key = (found.st_size, found.st_mtime_ns)
            if key == seen.epochs_key and _is_settled(key[1]):
                return
            rows = tuple(folder.epochs())
        except (CnnsearchError, OSError):
            return
        seen.epochs_key = key
        changed_at = max(seen.begun.begun_at, found.st_mtime)
        seen.begun = dataclasses.replace(seen.begun, epochs=rows, changed_at=changed_at)

    def _planned(self, sweep: Sweep | None, data: dict[str, Any], records: Mapping[str, Record]) -> Plan | None:
        if sweep is None or "fingerprint" not in data:
            return None
        made_from = f"{self._key('sweep.yaml')} {self._key('data.json')} {_digest(records)} {self._studies()}"
        if self._plan[0] != made_from:
            try:
                weights = {(model, name): digest for model, name, digest in data.get("weights", [])}
                outcomes = {id_: record.outcome for id_, record in records.items()}
                plan = make_plan(
                    sweep,
                    data["fingerprint"],
                    outcomes,
                    weights,
                    self.results.suggestions(),
                    folds=fold_fingerprints(data),
                )
            except (CnnsearchError, OSError, LookupError, ValueError, TypeError):  # the report says what is wrong
                plan = None
            self._plan = (made_from, plan)
        return self._plan[1]

    def _studies(self) -> list[tuple[str, tuple[int, int]]]:
        names = sorted(file.name for file in (self.path / "studies").glob("*.jsonl"))
        return [(name, self._key(f"studies/{name}")) for name in names]

    def _compared(self, begun: Begun, sweep: Sweep | None, plan: Plan | None) -> Begun:
        rule = plan.rules.get(begun.trial_id) if plan and sweep else None
        compared = rule is not None and begun.epoch > 0 and rule_of(rule).is_due(begun.epoch, begun.settings.epochs)
        return dataclasses.replace(begun, is_compared=compared)

    def _version(self, records: Mapping[str, Record]) -> str:
        if not records and not (self.path / NOTE).exists():
            return ""
        names = ("sweep.yaml", "data.json", "pictures.json", "training.json", "provenance.json")
        own = [self._key(name) for name in names]
        tables = None if records else self._key(NOTE)
        return hashlib.sha256(f"{own} {tables} {_digest(records)}".encode()).hexdigest()


def _digest(records: Mapping[str, Record]) -> str:
    return hashlib.sha256("".join(f"{id_} {records[id_].checksum} " for id_ in sorted(records)).encode()).hexdigest()


def _stages(plan: Plan, records: Mapping[str, Record]) -> tuple[tuple[str, int, int], ...]:
    return tuple(
        (planned.stage.name, sum(trial.id in records for trial in planned.trials), planned.total)
        for planned in plan.stages
    )


def _validation_images(data: Mapping[str, Any], record: Record) -> int:
    """Number of images that a trial validated on, with folds those of its own; 0 where that is not recorded."""
    try:
        fold = folds_of(data).get(record.data)
        return sum(data["counts"]["val"]) if fold is None else len(fold.validates)
    except (LookupError, TypeError):
        return 0


def _is_settled(changed_ns: int) -> bool:
    return time.time() - changed_ns / 1e9 > _SETTLED_SECONDS
