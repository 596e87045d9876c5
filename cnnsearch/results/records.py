"""The only writer of a results folder: where everything stands in it, and how it gets there whole.

    results/<sweep>/
      sweep.yaml, provenance.json, choices.json, data.json, pictures.json
      studies/<study_id>.jsonl    what a searcher suggested, a line each, before it runs
      trials/<trial_id>/
        trial.json                what it is
        epochs.jsonl              a line an epoch, as they happen
        checkpoint.pt             training state; gone when the trial has ended
        best.safetensors          weights of the best epoch
        predictions.safetensors   class and confidence of every validation and test example
        record.json               written last: it makes the trial count

Every file but epochs.jsonl and a study's appears whole or not at all. A record carries its own checksum and those of
the files beside it; the folder's JSON files carry theirs, and a study's lines each its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cnnsearch.errors import DiskError, ResultsError
from cnnsearch.planning.plan import Study
from cnnsearch.planning.trial import Trial
from cnnsearch.results.study_file import StudyFile
from cnnsearch.results.trial_folder import SCHEMA_VERSION, Damage, Measures, Record, TrialFolder
from cnnsearch.spec.cells import Cell
from cnnsearch.storage.checksums import is_whole
from cnnsearch.storage.durable import remove_abandoned, write_checked, write_whole

__all__ = ["SCHEMA_VERSION", "Damage", "Measures", "Record", "Results", "TrialFolder"]


@dataclass(frozen=True)
class Results:
    """The folder of one sweep."""

    path: Path

    def __str__(self) -> str:
        """For people."""
        return str(self.path)

    @cached_property
    def trials_path(self) -> Path:
        return self.path / "trials"

    @property
    def sweep_file(self) -> Path:
        return self.path / "sweep.yaml"

    @property
    def lock_file(self) -> Path:
        return self.path / ".lock"

    def trial(self, trial_id: str) -> TrialFolder:
        """The folder of a trial, which may not exist yet."""
        return TrialFolder(self.trials_path / trial_id)

    def study(self, study_id: str) -> StudyFile:
        """The suggestions of a study, of which there may be none yet."""
        return StudyFile(self.path / "studies" / f"{study_id}.jsonl")

    def record_suggestions(self, study: Study, suggestions: Sequence[Cell]) -> None:
        """Write the next suggestions of a study, durably. Raises DiskError."""
        about = {"stage": study.stage.name, "group": list(study.group), "method": study.stage.search.method}
        self.study(study.id).append(len(study.suggestions), suggestions, about)

    def suggestions(self) -> dict[str, list[Cell]]:
        """Study id -> its suggestions so far. Those of studies that no stage has any more are kept, and do no harm."""
        files = sorted((self.path / "studies").glob("*.jsonl"))
        return {file.stem: self.study(file.stem).read() for file in files}

    def records(self) -> dict[str, Record]:
        """Trial id -> record, of every trial that ended. A damaged record counts as none."""
        found = {}
        if self.trials_path.is_dir():
            for entry in sorted(os.scandir(self.trials_path), key=lambda entry: entry.name):
                record = TrialFolder(Path(entry.path)).record()
                if record is not None:
                    found[record.trial_id] = record
        return found

    def damaged(self, records: Mapping[str, Record], *, checkpoints: bool = False) -> dict[str, dict[str, Damage]]:
        """Trial id -> file name -> what is wrong with it, of records and of what the tables are made from.

        A trial whose record, epochs or predictions are damaged counts as not done. Weights are large, and checked
        where they are used.

        Args:
            records: what `records` found.
            checkpoints: look at those too. Only while no trial of this folder runs.
        """
        found = {}
        if self.trials_path.is_dir():
            for entry in sorted(os.scandir(self.trials_path), key=lambda entry: entry.name):
                if not entry.is_dir(follow_symlinks=False):
                    continue  # nothing of ours
                folder, record = TrialFolder(Path(entry.path)), records.get(entry.name)
                if record is not None:
                    names = folder.damage(record, (folder.epochs_file.name, folder.predictions_file.name))
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
        """Give the folder's damaged JSON files another name, so that a run can write them again; their names.

        Of a study, what is whole is kept in place.

        The choices a sweep was begun with are taken from its history instead, where that has them.
        """
        aside = []
        for name in ("data.json", "pictures.json", "provenance.json", "choices.json"):
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

    def adopt(self, trial_ids: list[str]) -> list[str]:
        """Take finished trials over from other sweeps under the same results root; which ones were.

        Files are linked where the file system can, else copied.
        """
        siblings = [path for path in sorted(self.path.parent.glob("*/trials")) if path != self.trials_path]
        taken = []
        for trial_id in trial_ids:
            for sibling in siblings:
                source = TrialFolder(sibling / trial_id)
                record = source.record()
                if record is None or not record.status.is_final:
                    continue
                # Weights that nothing needed there are not kept; where they are needed here, the trial runs again.
                damage = source.damage(record)
                if not damage or damage == {source.weights_file.name: Damage.MISSING}:
                    _take_over(source, self.trial(trial_id), record)
                    taken.append(trial_id)
                    break
        return taken

    def has_weights(self, trial_id: str) -> bool:
        """See `TrialFolder.has_weights`."""
        return self.trial(trial_id).has_weights()

    def has_checkpoint(self, trial_id: str) -> bool:
        """Whether training state of a trial is kept."""
        return self.trial(trial_id).checkpoint_file.exists()

    def drop_weights(self, trial_ids: Iterable[str]) -> None:
        """See `TrialFolder.drop_weights`."""
        for trial_id in trial_ids:
            self.trial(trial_id).drop_weights()

    def commit_failure(self, trial: Trial, error: str) -> Record:
        """See `TrialFolder.commit_failure`."""
        return self.trial(trial.id).commit_failure(trial, error)

    def pull(self) -> None:
        """Have here what workers wrote elsewhere: nothing of this folder, but of a `Mirror`. Raises DiskError."""

    def publish(self) -> None:
        """Have elsewhere what was written here: see `pull`. Raises DiskError."""

    @contextlib.contextmanager
    def reading(self) -> Iterator[Results]:
        """The folder for looking only, without holding it."""
        yield self

    @contextlib.contextmanager
    def locked(self) -> Iterator[Results]:
        """Hold the folder, which is yielded. Raises ResultsError where another process does, or it cannot be written.

        The lock is the kernel's, so that it ends with its holder however that ends.
        """
        try:
            self.trials_path.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.lock_file, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise ResultsError(f"{self} cannot be written: {error.strerror}. Choose another with --out") from None
        try:
            try:
                _take(lock)
            except OSError:
                raise ResultsError(
                    f"{self} is in use by {_owner(lock)}; wait for it, or choose another with --out"
                ) from None
            try:
                os.ftruncate(lock, 0)
                os.pwrite(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
            except OSError as error:
                raise DiskError(f"{self.path} cannot be written: {error.strerror}") from None
            for folder in (self.path, self.path / "plots", self.path / "studies"):
                remove_abandoned(folder)
            try:
                yield self
            finally:
                with contextlib.suppress(OSError):
                    os.ftruncate(lock, 0)
        finally:
            os.close(lock)

    def held_since(self) -> float | None:
        """When the process that holds the folder took it, in seconds since the epoch; None where none holds it.

        Only reads. What a killed process left in the lock's file does not count: the kernel is asked.
        """
        try:
            with self.lock_file.open("rb") as lock:
                since = os.fstat(lock.fileno())
                if since.st_size == 0:  # who held it has let it go
                    return None
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return since.st_mtime
        except OSError:
            return None
        return None

    def write(self, name: str, value: str | dict[str, Any]) -> None:
        """Write one of the folder's own files: text as it is, an object as JSON that carries its checksum."""
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


def _take(lock: int) -> None:
    """Lock for this process alone. Raises BlockingIOError where another holds it, and not just looks (`held_since`)."""
    tries = 5
    for left in reversed(range(tries)):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if not left:
                raise
            time.sleep(0.02)


def _owner(lock: int) -> str:
    """Who holds a lock, as it says in its file; the holder writes that just after it has it."""
    deadline = time.monotonic() + 2
    while not (name := os.pread(lock, 1000, 0).decode(errors="replace").strip()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return name or "another process"


def _take_over(source: TrialFolder, target: TrialFolder, record: Record) -> None:
    target.make()
    for name in [*record.files, source.record_file.name]:
        with contextlib.suppress(FileNotFoundError):
            (target.path / name).unlink(missing_ok=True)
            try:
                os.link(source.path / name, target.path / name)
            except OSError:
                shutil.copy2(source.path / name, target.path / name)
