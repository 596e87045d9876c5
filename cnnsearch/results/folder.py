"""The results folder of a sweep, which only this package writes: what is in it, and how it gets there whole.

    results/<sweep>/
      sweep.yaml, provenance.json, choices.json, data.json, pictures.json, training.json, unsealed.json
      progress.json               only while a run is active: the time it has left
      decisions/<n>.jsonl         what stopping rules decided, and on what, each written before anybody acts on it
      studies/<study_id>.jsonl    a searcher's suggestions, one per line, each written before it runs
      code/<digest>/              source of the user's own networks, which never runs from here by itself
      trials/<trial_id>/
        trial.json                what it is
        epochs.jsonl              one line per epoch, as they happen
        checkpoint.pt             training state; removed when the trial has ended
        best.safetensors          weights of the best epoch
        predictions.safetensors   class and confidence of every validation and test example
        probabilities.safetensors probability of every class of every such example, where the weights are kept
        test-probabilities.safetensors  those of the test examples, where they were sealed at first
        test.safetensors          those of the test examples, where they were sealed at first
        record.json               written last: it makes the trial count

Every file but epochs.jsonl and a study's appears whole or not at all. A record carries its own checksum and those of
the files beside it; the folder's JSON files carry theirs, and each line of a study its own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from cnnsearch.errors import DiskError, ResultsError
from cnnsearch.planning.decisions import Note
from cnnsearch.planning.study import Study
from cnnsearch.planning.trial import Trial
from cnnsearch.results import lock
from cnnsearch.results.decisions import DecisionsFolder
from cnnsearch.results.record import Record
from cnnsearch.results.shapes import SHAPES, ProgressNote, problem
from cnnsearch.results.study_file import StudyFile
from cnnsearch.results.trial_folder import Damage, TrialFolder
from cnnsearch.spec.cells import Cell
from cnnsearch.spec.document import MAX_BYTES
from cnnsearch.spec.sweep import Sweep
from cnnsearch.storage.checksums import is_whole
from cnnsearch.storage.durable import read_checked, remove_abandoned, write_checked, write_whole
from cnnsearch.storage.reading import read_bytes, read_json
from cnnsearch.words import LISTED, printable

OWN = (".lock", "trials", "studies", "decisions", "plots", "code")
"""What a run opens or fills in place. All its other files it replaces, links among them."""

UNSEALED = "unsealed.json"
"""File that says when the test set was unsealed."""

PROGRESS = "progress.json"
"""File in which a run notes, now and then, the time that it has left; it is gone when the run has ended."""


@dataclass(frozen=True)
class Results:
    """The folder of one sweep. It is also a `ResultsPlace`, whose methods are documented there."""

    path: Path
    remote: None = field(default=None, init=False)

    def __str__(self) -> str:
        return str(self.path)

    @property
    def here(self) -> Results:
        return self

    @cached_property
    def trials_path(self) -> Path:
        return self.path / "trials"

    @property
    def sweep_file(self) -> Path:
        return self.path / "sweep.yaml"

    def is_sealed(self, sweep: Sweep) -> bool:
        """Whether the test set of this sweep is sealed, and nobody has unsealed it."""
        return sweep.evidence.test == "sealed" and not self.read(UNSEALED)

    @property
    def lock_file(self) -> Path:
        return self.path / ".lock"

    def trial(self, trial_id: str) -> TrialFolder:
        """The folder of a trial, which may not exist yet."""
        return TrialFolder(self.trials_path / trial_id)

    def study(self, study_id: str) -> StudyFile:
        """The suggestions of a study, of which there may be none yet."""
        return StudyFile(self.path / "studies" / f"{study_id}.jsonl")

    @property
    def decisions(self) -> DecisionsFolder:
        """What stopping rules have decided."""
        return DecisionsFolder(self.path / "decisions")

    def record_decisions(self, notes: Sequence[Note]) -> Path:
        return self.decisions.append(notes)

    def record_suggestions(self, study: Study, suggestions: Sequence[Cell]) -> None:
        about = {"stage": study.stage.name, "group": list(study.group), "method": study.stage.search.method}
        self.study(study.id).append(len(study.suggestions), suggestions, about)

    def suggestions(self) -> dict[str, list[Cell]]:
        """Study id -> its suggestions so far, including studies that no stage uses any more."""
        files = sorted((self.path / "studies").glob("*.jsonl"))
        return {file.stem: self.study(file.stem).read() for file in files}

    def refuse_links(self) -> None:
        """Raise ResultsError where a link takes the place of one of the folder's own files or folders."""
        for name in OWN:
            if (self.path / name).is_symlink():
                raise ResultsError(
                    f"{self.path / name} is a link, and what it leads to is neither read nor written; "
                    "put what it should be in its place"
                )

    def records(self, unreadable: dict[str, str] | None = None) -> dict[str, Record]:
        """Trial id -> record of each trial that ended, without damaged records.

        Args:
            unreadable: takes in trial id -> why its record, which is whole, cannot be read by this version.

        Raises ResultsError for such a record where `unreadable` is not given.
        """
        found = {}
        for folder in self._trial_folders():
            try:
                record = folder.record()
            except ResultsError as error:
                if unreadable is None:
                    raise
                unreadable[folder.path.name] = str(error)
                continue
            if record is not None:
                found[record.trial_id] = record
        return found

    def _trial_folders(self) -> list[TrialFolder]:
        """The folders of trials, by name; none where a link takes their place."""
        if not self.trials_path.is_dir() or self.trials_path.is_symlink():
            return []
        with os.scandir(self.trials_path) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        return [self.trial(name) for name in names]

    def damaged(self, records: Mapping[str, Record], *, checkpoints: bool = False) -> dict[str, dict[str, Damage]]:
        """Trial id -> file name -> what is wrong with it, of records and of the files that tables are made from.

        A trial whose record, epochs or predictions are damaged counts as not done. Weights are large, and are checked
        where they are used.

        Args:
            records: what `records` returned.
            checkpoints: whether to look at checkpoints too; only while no trial of this folder runs.
        """
        found = {}
        for folder in self._trial_folders():
            record = records.get(folder.path.name)
            if record is not None:
                names = folder.damage(
                    record, (folder.epochs_file.name, folder.predictions_file.name, folder.test_file.name)
                )
            else:
                names = {}
                if os.path.lexists(folder.record_file):
                    names[folder.record_file.name] = Damage.CHANGED
                if checkpoints and folder.has_damaged_checkpoint():
                    names[folder.checkpoint_file.name] = Damage.CHANGED
            if names:
                found[folder.path.name] = names
        return found

    def set_damaged_aside(self) -> list[str]:
        aside = []
        for name in SHAPES:
            try:
                self.read(name)
            except ResultsError:
                (self.path / name).replace(self.path / f"{name}.damaged")
                aside.append(name)
        if "choices.json" in aside and (choices := self.read("provenance.json").get("choices")):
            self.write("choices.json", choices)
        for file in sorted((self.path / "studies").glob("*.jsonl")):
            if StudyFile(file).repair():
                aside.append(f"studies/{file.name}")
        return aside

    def adopt(self, trial_ids: list[str], *, untested: bool = False) -> list[str]:
        """See `ResultsPlace.adopt`. Files are linked if the file system can do that, else copied."""
        siblings = [
            path
            for path in sorted(self.path.parent.glob("*/trials"))
            if path != self.trials_path and not path.is_symlink()
        ]
        taken = []
        for trial_id in trial_ids:
            for sibling in siblings:
                source = TrialFolder(sibling / trial_id)
                record = source.record()
                if record is None or not record.status.is_final or (record.lacks_test and not untested):
                    continue
                # The other sweep drops weights that it does not need; where they are needed here, the trial runs again.
                damage = source.damage(record)
                dropped = {file.name for file in source.droppable(record.settings.metric)}
                if all(name in dropped and what is Damage.MISSING for name, what in damage.items()):
                    _take_over(source, self.trial(trial_id), record)
                    taken.append(trial_id)
                    break
        return taken

    def has_weights(self, trial_id: str) -> bool:
        return self.trial(trial_id).has_weights()

    def has_checkpoint(self, trial_id: str) -> bool:
        return self.trial(trial_id).checkpoint_file.exists()

    def drop_weights(self, trial_ids: Iterable[str], metric: str) -> None:
        for trial_id in trial_ids:
            self.trial(trial_id).drop_weights(metric)

    def commit_failure(self, trial: Trial, error: str) -> Record:
        return self.trial(trial.id).commit_failure(trial, error)

    def pull(self) -> None:
        """Nothing to do: workers write into this folder."""

    def publish(self) -> None:
        """Nothing to do: results are kept in this folder."""

    @contextlib.contextmanager
    def reading(self) -> Iterator[Results]:
        yield self

    @contextlib.contextmanager
    def locked(self, name: str = "") -> Iterator[Results]:
        """See `ResultsPlace.locked`. `name` is what messages call the place, by default its path."""
        self.refuse_links()
        with lock.held(self.lock_file, name or str(self), self.trials_path):
            for folder in (self.path, self.path / "plots", self.path / "studies"):
                remove_abandoned(folder)
            yield self

    def held_since(self) -> float | None:
        """See `lock.held_since`."""
        return lock.held_since(self.lock_file)

    def note_progress(self, seconds_left: float | None) -> None:
        """Note the time that a run has left, for others; None at its end. What cannot be written is left out."""
        with contextlib.suppress(DiskError, OSError):
            if seconds_left is None:
                (self.path / PROGRESS).unlink(missing_ok=True)
            else:
                write_checked(self.path / PROGRESS, {"seconds_left": round(seconds_left, 1)}, synced=False)

    def seconds_left(self) -> float | None:
        """The time that the run which holds this folder has noted last; None where none does, or it has not yet."""
        since, stored = self.held_since(), read_checked(self.path / PROGRESS)
        if since is None or stored is None or problem(ProgressNote, stored):
            return None
        with contextlib.suppress(OSError):  # a note from before was left by a run that was killed
            if (self.path / PROGRESS).stat().st_mtime >= since:
                return float(stored["seconds_left"])
        return None

    def holder(self) -> str:
        """The process that holds this folder, in words; empty where none does."""
        return lock.holder(self.lock_file) if self.held_since() is not None else ""

    def write(self, name: str, value: str | dict[str, Any]) -> None:
        if isinstance(value, str):
            write_whole(self.path / name, value.encode())
        else:
            write_checked(self.path / name, value)

    def sweep_text(self) -> str:
        """What sweep.yaml says. Raises ResultsError where there is none, or it cannot be read."""
        try:
            return read_bytes(self.sweep_file, MAX_BYTES).decode()
        except FileNotFoundError:
            raise ResultsError(self.no_sweep()) from None
        except OSError as error:
            raise ResultsError(f"{self.sweep_file} cannot be read: {error.strerror or error}") from None
        except UnicodeDecodeError:
            raise ResultsError(f"{self.sweep_file} is not text in UTF-8") from None

    def no_sweep(self) -> str:
        """What an error says where there is no sweep.yaml. A folder that holds results is easily given for them."""
        inside = sorted(printable(file.parent.name) for file in self.path.glob("*/sweep.yaml"))
        more = ", …" if len(inside) > LISTED else ""
        hint = f"; give one of those in it: {', '.join(inside[:LISTED])}{more}" if inside else ""
        return f"{self.path} is not the results of a sweep: it has no sweep.yaml{hint}"

    def read(self, name: str) -> dict[str, Any]:
        """The object in one of the folder's own JSON files, of the shape that `SHAPES` says; {} where there is none.

        Raises ResultsError where it is damaged. Files of older versions carry no checksum, and need not match one.
        """
        try:
            stored = read_json(self.path / name)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise self._damaged(name, getattr(error, "strerror", None) or str(error)) from None
        if not isinstance(stored, dict):
            raise self._damaged(name, "it holds no object")
        if "checksum" in stored and not is_whole(stored):
            raise self._damaged(name, "it does not have its checksum")
        facts = {key: value for key, value in stored.items() if key != "checksum"}
        if reason := problem(SHAPES[name], facts):
            raise self._damaged(name, reason)
        return facts

    def _damaged(self, name: str, reason: str) -> ResultsError:
        return ResultsError(f"{self.path / name} is damaged ({reason}); run the sweep again, which puts it right")


def _take_over(source: TrialFolder, target: TrialFolder, record: Record) -> None:
    target.make()
    for name in [*record.files, source.record_file.name]:
        with contextlib.suppress(FileNotFoundError):
            (target.path / name).unlink(missing_ok=True)
            try:
                os.link(source.path / name, target.path / name)
            except OSError:
                shutil.copy2(source.path / name, target.path / name)
