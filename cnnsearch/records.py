"""The only writer of a results folder: where everything stands in it, and how it gets there whole.

    results/<sweep>/
      sweep.yaml, provenance.json, choices.json, data.json, pictures.json
      trials/<trial_id>/
        trial.json                what it is
        epochs.jsonl              a line an epoch, as they happen
        checkpoint.pt             training state; gone when the trial has ended
        best.safetensors          weights of the best epoch
        predictions.safetensors   class and confidence of every validation and test example
        record.json               written last: it makes the trial count

Every file but epochs.jsonl appears whole or not at all. A record carries its own checksum and those of the files
beside it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import io
import json
import os
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError

from cnnsearch.durable import remove_abandoned, sealed, sha256, unsealed, write_json, write_whole
from cnnsearch.errors import DiskError, ResultsError
from cnnsearch.identity import canonical_json
from cnnsearch.plan import Outcome, Status, Trial
from cnnsearch.spec import Settings

if TYPE_CHECKING:  # torch takes seconds to import, and reading results does not need it
    from cnnsearch.train import EpochRow, Weights

SCHEMA_VERSION = 1


class Measures(BaseModel):
    """Loss and accuracy of validation and test at one moment of a trial."""

    model_config = ConfigDict(frozen=True)

    val_loss: float
    val_accuracy: float
    test_loss: float
    test_accuracy: float


class Record(BaseModel):
    """The durable account of one trial that ended. Unknown fields are ignored, so newer folders stay readable."""

    model_config = ConfigDict(frozen=True)

    trial_id: str
    stage: str
    settings: Settings
    data: str
    parent_id: str | None = None
    status: Status
    error: str | None = None
    best_epoch: int | None = None
    train_loss: float | None = None
    train_accuracy: float | None = None
    best: Measures | None = None
    before: Measures | None = None
    """Before any training of this trial; only of trials that start from another."""
    parameters: int | None = None
    """Trainable parameters."""
    epochs_done: int = 0
    seconds: float | None = None
    """Time spent training and evaluating, over all attempts."""
    images_per_second: float | None = None
    """Training images, evaluation time included."""
    peak_memory_bytes: int | None = None
    precision: str | None = None
    device: str | None = None
    threads: int | None = None
    host: str | None = None
    started_at: datetime | None = None
    schema_version: int = SCHEMA_VERSION
    files: dict[str, str] = {}
    """File name -> SHA-256, of the files the record vouches for."""
    checksum: str = Field("", exclude=True)
    """Of the record as it was written, whatever version wrote it."""

    @property
    def outcome(self) -> Outcome:
        """What planning needs of it."""
        best = self.best
        return Outcome(self.status, best.val_accuracy, best.val_loss) if best else Outcome(self.status)


@dataclass(frozen=True)
class TrialFolder:
    """The records of one trial. One process writes at a time."""

    path: Path

    @property
    def record_file(self) -> Path:
        return self.path / "record.json"

    @property
    def weights_file(self) -> Path:
        return self.path / "best.safetensors"

    @property
    def predictions_file(self) -> Path:
        return self.path / "predictions.safetensors"

    @property
    def epochs_file(self) -> Path:
        return self.path / "epochs.jsonl"

    @property
    def checkpoint_file(self) -> Path:
        return self.path / "checkpoint.pt"

    def make(self) -> None:
        """Make the folder. A link in its place, which would lead out of the results, is removed, not followed."""
        if self.path.is_symlink():
            self.path.unlink()
        self.path.mkdir(parents=True, exist_ok=True)

    def begin(self, trial: Trial, rows: list[EpochRow]) -> None:
        """Open the folder for a (new or further) attempt that goes on after `rows`."""
        self.make()
        remove_abandoned(self.path)
        facts = {
            "trial_id": trial.id,
            "stage": trial.stage,
            "parent_id": trial.parent_id,
            "data": trial.data,
            "settings": trial.settings.model_dump(),
        }
        write_json(self.path / "trial.json", facts)
        self.write_epochs(rows)

    def write_epochs(self, rows: Sequence[EpochRow]) -> None:
        """Replace the rows written so far, whoever wrote them."""
        write_whole(self.epochs_file, "".join(_line(row) for row in rows).encode())

    def append_epoch(self, row: EpochRow) -> None:
        """Add one epoch's row. Raises DiskError."""
        try:
            with self.epochs_file.open("a", encoding="utf-8") as file:
                file.write(_line(row))
        except OSError as error:
            raise DiskError(f"{self.epochs_file} cannot be written: {error.strerror}") from None

    def epochs(self) -> list[dict[str, Any]]:
        """The rows written so far; a line cut off by a crash is not one."""
        rows = []
        with contextlib.suppress(FileNotFoundError):
            for line in self.epochs_file.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(json.JSONDecodeError):
                    rows.append(json.loads(line))
        return rows

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint by this training state (tensors, numbers and strings)."""
        import torch

        content = io.BytesIO()
        torch.save(state, content)
        write_whole(self.checkpoint_file, sealed(content.getbuffer()))

    def load_checkpoint(self, kind: str) -> dict[str, Any] | None:
        """The last whole checkpoint; None where there is none of this kind (`model` or `head`), or it is damaged."""
        import torch

        try:
            content = unsealed(self.checkpoint_file.read_bytes())
        except FileNotFoundError:
            return None
        if content is None:
            self.checkpoint_file.unlink(missing_ok=True)
            return None
        state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        return state if state.get("kind") == kind else None

    def save_weights(self, weights: Weights) -> None:
        """Write the best epoch's weights."""
        from safetensors.torch import save

        write_whole(self.weights_file, save({name: value.contiguous() for name, value in weights.items()}))

    def load_weights(self) -> Weights:
        """The best epoch's weights. Raises ResultsError where they are missing or not what was recorded."""
        from safetensors.torch import load_file

        record = self.record()
        try:
            if record is None or record.files.get(self.weights_file.name) != sha256(self.weights_file):
                raise ResultsError(
                    f"{self.weights_file} is not what its record says; remove {self.path} to train again"
                )
            return load_file(self.weights_file)
        except (OSError, SafetensorError) as error:
            raise ResultsError(f"{self.weights_file} cannot be read: {error}") from None

    def has_weights(self) -> bool:
        """Whether the best epoch's weights are there and what was recorded. Reads all of them."""
        record = self.record()
        try:
            return record is not None and record.files.get(self.weights_file.name) == sha256(self.weights_file)
        except OSError:
            return False

    def drop_weights(self) -> None:
        """Remove the best epoch's weights, which nothing needs; the record still says what they were."""
        self.weights_file.unlink(missing_ok=True)

    def save_predictions(self, predictions: Mapping[tuple[str, str], tuple[NDArray[Any], NDArray[Any]]]) -> None:
        """Write (split, moment) -> predicted class [n] and its probability [n], in the split's order."""
        from safetensors.numpy import save

        arrays = {}
        for (split, moment), (predicted, confidence) in predictions.items():
            arrays[f"{split}/{moment}/predicted"] = predicted.astype(np.int32)
            arrays[f"{split}/{moment}/confidence"] = confidence.astype(np.float32)
        write_whole(self.predictions_file, save(arrays))

    def predictions(self) -> dict[tuple[str, str], tuple[NDArray[np.int32], NDArray[np.float32]]]:
        """What `save_predictions` wrote; empty where there is nothing."""
        from safetensors.numpy import load_file

        if not self.predictions_file.exists():
            return {}
        arrays = load_file(self.predictions_file)
        moments = sorted({tuple(key.split("/")[:2]) for key in arrays})
        return {
            (split, moment): (arrays[f"{split}/{moment}/predicted"], arrays[f"{split}/{moment}/confidence"])
            for split, moment in moments
        }

    def commit(self, record: Record) -> Record:
        """Make the trial count: vouch for its files and write the record, last of all."""
        files = [self.epochs_file, self.weights_file, self.predictions_file]
        record = record.model_copy(update={"files": {file.name: sha256(file) for file in files if file.exists()}})
        plain = record.model_dump(mode="json")
        record = record.model_copy(update={"checksum": _checksum(plain)})
        write_json(self.record_file, {"checksum": record.checksum, **plain})
        self.checkpoint_file.unlink(missing_ok=True)
        return record

    def commit_failure(self, trial: Trial, error: str) -> Record:
        """Record that a trial failed, in the place of whoever ran it."""
        self.make()
        return self.commit(
            Record(
                trial_id=trial.id,
                stage=trial.stage,
                settings=trial.settings,
                data=trial.data,
                parent_id=trial.parent_id,
                status=Status.FAILED,
                error=error,
            )
        )

    def record(self) -> Record | None:
        """The record, or None where there is none that is whole. A link is no trial's folder."""
        if self.path.is_symlink():
            return None
        try:
            plain = json.loads(self.record_file.read_bytes())
        except (OSError, ValueError):
            return None
        if not isinstance(plain, dict):
            return None
        checksum = plain.pop("checksum", None)
        if checksum != _checksum(plain):
            return None
        record = Record.model_validate({**plain, "checksum": checksum})
        return record if record.trial_id == self.path.name else None


@dataclass(frozen=True)
class Results:
    """The folder of one sweep."""

    path: Path

    @cached_property
    def trials_path(self) -> Path:
        return self.path / "trials"

    @property
    def sweep_file(self) -> Path:
        return self.path / "sweep.yaml"

    def trial(self, trial_id: str) -> TrialFolder:
        """The folder of a trial, which may not exist yet."""
        return TrialFolder(self.trials_path / trial_id)

    def records(self) -> dict[str, Record]:
        """Trial id -> record, of every trial that ended. A damaged record counts as none."""
        found = {}
        if self.trials_path.is_dir():
            for entry in sorted(os.scandir(self.trials_path), key=lambda entry: entry.name):
                record = TrialFolder(Path(entry.path)).record()
                if record is not None:
                    found[record.trial_id] = record
        return found

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
                needed = [name for name in record.files if name != source.weights_file.name]
                if all((source.path / name).is_file() for name in needed):
                    _take_over(source, self.trial(trial_id), record)
                    taken.append(trial_id)
                    break
        return taken

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process. Raises ResultsError where another holds it or it cannot be written.

        The lock is the kernel's, so that it ends with its holder however that ends.
        """
        try:
            self.trials_path.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise ResultsError(f"{self.path} cannot be written: {error.strerror}. Choose another with --out") from None
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                owner = os.pread(lock, 1000, 0).decode(errors="replace").strip() or "another process"
                raise ResultsError(
                    f"{self.path} is in use by {owner}; wait for it, or choose another with --out"
                ) from None
            try:
                os.ftruncate(lock, 0)
                os.pwrite(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
            except OSError as error:
                raise DiskError(f"{self.path} cannot be written: {error.strerror}") from None
            for folder in (self.path, self.path / "plots"):
                remove_abandoned(folder)
            yield
        finally:
            os.close(lock)

    def write(self, name: str, value: Any) -> None:
        """Write one of the folder's own files: text as it is, anything else as JSON."""
        if isinstance(value, str):
            write_whole(self.path / name, value.encode())
        else:
            write_json(self.path / name, value)

    def read(self, name: str) -> Any:
        """The JSON in one of the folder's own files; {} where there is none."""
        try:
            return json.loads((self.path / name).read_bytes())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise ResultsError(f"{self.path / name} is damaged ({error}); remove it and run the sweep again") from None


def _take_over(source: TrialFolder, target: TrialFolder, record: Record) -> None:
    target.make()
    for name in [*record.files, source.record_file.name]:
        with contextlib.suppress(FileNotFoundError):
            (target.path / name).unlink(missing_ok=True)
            try:
                os.link(source.path / name, target.path / name)
            except OSError:
                shutil.copy2(source.path / name, target.path / name)


def _checksum(plain: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json(plain).encode()).hexdigest()


def _line(row: EpochRow) -> str:
    """A row as a line of JSON; a loss that is not a number becomes null, which JSON can say."""
    values = {
        key: value if value is None or np.isfinite(value) else None for key, value in dataclasses.asdict(row).items()
    }
    return json.dumps(values) + "\n"
