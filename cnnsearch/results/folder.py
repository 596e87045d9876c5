"""The results folder of a sweep, which only this package writes: what is in it, and how it gets there whole.

    results/<sweep>/
      sweep.yaml, provenance.json, choices.json, data.json, pictures.json, unsealed.json
      decisions/<n>.jsonl         what stopping rules decided, and on what, each written before anybody acts on it
      studies/<study_id>.jsonl    a searcher's suggestions, one per line, each written before it runs
      trials/<trial_id>/
        trial.json                what it is
        epochs.jsonl              one line per epoch, as they happen
        checkpoint.pt             training state; removed when the trial has ended
        best.safetensors          weights of the best epoch
        predictions.safetensors   class and confidence of every validation and test example
        test.safetensors          those of the test examples, where they were sealed at first
        record.json               written last: it makes the trial count

Every file but epochs.jsonl and a study's appears whole or not at all. A record carries its own checksum and those of
the files beside it; the folder's JSON files carry theirs, and each line of a study its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from cnnsearch.errors import ResultsError
from cnnsearch.planning.decisions import Note
from cnnsearch.planning.study import Study
from cnnsearch.planning.trial import Trial
from cnnsearch.results import lock
from cnnsearch.results.decisions import DecisionsFolder
from cnnsearch.results.record import Record
from cnnsearch.results.study_file import StudyFile
from cnnsearch.results.trial_folder import Damage, TrialFolder
from cnnsearch.spec.cells import Cell
from cnnsearch.spec.sweep import Sweep
from cnnsearch.storage.checksums import is_whole
from cnnsearch.storage.durable import remove_abandoned, write_checked, write_whole

UNSEALED = "unsealed.json"
"""File that says when the test set was unsealed."""


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

    def records(self) -> dict[str, Record]:
        """Trial id -> record of each trial that ended, without damaged records."""
        found = {}
        if self.trials_path.is_dir():
            for entry in sorted(os.scandir(self.trials_path), key=lambda entry: entry.name):
                record = TrialFolder(Path(entry.path)).record()
                if record is not None:
                    found[record.trial_id] = record
        return found

    def damaged(self, records: Mapping[str, Record], *, checkpoints: bool = False) -> dict[str, dict[str, Damage]]:
        """Trial id -> file name -> what is wrong with it, of records and of the files that tables are made from.

        A trial whose record, epochs or predictions are damaged counts as not done. Weights are large, and are checked
        where they are used.

        Args:
            records: what `records` returned.
            checkpoints: whether to look at checkpoints too; only while no trial of this folder runs.
        """
        found = {}
        if self.trials_path.is_dir():
            for entry in sorted(os.scandir(self.trials_path), key=lambda entry: entry.name):
                if not entry.is_dir(follow_symlinks=False):
                    continue  # not a trial's folder
                folder, record = TrialFolder(Path(entry.path)), records.get(entry.name)
                if record is not None:
                    names = folder.damage(
                        record, (folder.epochs_file.name, folder.predictions_file.name, folder.test_file.name)
                    )
                else:
                    names = {}
                    if folder.record_file.exists():
                        names[folder.record_file.name] = Damage.CHANGED
                    if checkpoints and folder.has_damaged_checkpoint():
                        names[folder.checkpoint_file.name] = Damage.CHANGED
                if names:
                    found[entry.name] = names
        return found

    def set_damaged_aside(self) -> list[str]:
        aside = []
        for name in ("data.json", "pictures.json", "provenance.json", "choices.json", UNSEALED):
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
        siblings = [path for path in sorted(self.path.parent.glob("*/trials")) if path != self.trials_path]
        taken = []
        for trial_id in trial_ids:
            for sibling in siblings:
                source = TrialFolder(sibling / trial_id)
                record = source.record()
                if record is None or not record.status.is_final or (record.lacks_test and not untested):
                    continue
                # The other sweep drops weights that it does not need; where they are needed here, the trial runs again.
                damage = source.damage(record)
                if not damage or damage == {source.weights_file.name: Damage.MISSING}:
                    _take_over(source, self.trial(trial_id), record)
                    taken.append(trial_id)
                    break
        return taken

    def has_weights(self, trial_id: str) -> bool:
        return self.trial(trial_id).has_weights()

    def has_checkpoint(self, trial_id: str) -> bool:
        return self.trial(trial_id).checkpoint_file.exists()

    def drop_weights(self, trial_ids: Iterable[str]) -> None:
        for trial_id in trial_ids:
            self.trial(trial_id).drop_weights()

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
        with lock.held(self.lock_file, name or str(self), self.trials_path):
            for folder in (self.path, self.path / "plots", self.path / "studies"):
                remove_abandoned(folder)
            yield self

    def held_since(self) -> float | None:
        """See `lock.held_since`."""
        return lock.held_since(self.lock_file)

    def write(self, name: str, value: str | dict[str, Any]) -> None:
        if isinstance(value, str):
            write_whole(self.path / name, value.encode())
        else:
            write_checked(self.path / name, value)

    def read(self, name: str) -> dict[str, Any]:
        """The object in one of the folder's own JSON files; {} where there is none.

        Raises ResultsError where it is damaged. Files of older versions carry no checksum, and are taken as they are.
        """
        try:
            stored = json.loads((self.path / name).read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            raise self._damaged(name, str(error)) from None
        if not isinstance(stored, dict):
            raise self._damaged(name, "it holds no object")
        if "checksum" in stored and not is_whole(stored):
            raise self._damaged(name, "it does not have its checksum")
        return {key: value for key, value in stored.items() if key != "checksum"}

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
