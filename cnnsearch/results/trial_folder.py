"""The folder of one trial: its record, and the files that the record vouches for."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError

from cnnsearch.errors import DiskError, ResultsError
from cnnsearch.planning.trial import Status, Trial
from cnnsearch.storage.checksums import checksum, sealed, sha256, unsealed
from cnnsearch.storage.durable import read_checked, remove_abandoned, sync, write_checked, write_json, write_whole

if TYPE_CHECKING:  # torch takes seconds to import, and reading results does not need it
    from cnnsearch.planning.trial import EpochRow
    from cnnsearch.training.train import Weights
from cnnsearch.results.record import Record

_LOG = logging.getLogger(__name__)


class Damage(StrEnum):
    """What is wrong with a file."""

    MISSING = "missing"
    CHANGED = "changed"
    """Its content is not what was written, or cannot be read."""


@dataclass(frozen=True)
class TrialFolder:
    """The folder of one trial. One process writes at a time."""

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
    def test_file(self) -> Path:
        """Predictions of the test examples, where the test set was sealed when the trial ended."""
        return self.path / "test.safetensors"

    @property
    def epochs_file(self) -> Path:
        return self.path / "epochs.jsonl"

    @property
    def checkpoint_file(self) -> Path:
        return self.path / "checkpoint.pt"

    def make(self) -> None:
        """Make the folder. A link in its place, which would lead out of the results, is replaced, not followed."""
        if self.path.is_symlink():
            self.path.unlink()
        self.path.mkdir(parents=True, exist_ok=True)

    def begin(self, trial: Trial, rows: list[EpochRow]) -> None:
        """Prepare the folder for a first or further attempt, which continues after `rows`.

        The record of an earlier attempt is removed first, since it vouches for files that now change.
        """
        self.make()
        remove_abandoned(self.path)
        self.record_file.unlink(missing_ok=True)
        self.test_file.unlink(missing_ok=True)
        facts = {
            "trial_id": trial.id,
            "stage": trial.stage,
            "parent_id": trial.parent_id,
            "data": trial.data,
            "settings": trial.settings.model_dump(),
        }
        write_json(self.path / "trial.json", facts, synced=False)
        self.write_epochs(rows)

    def write_epochs(self, rows: Sequence[EpochRow]) -> None:
        """Replace the rows written so far."""
        write_whole(self.epochs_file, "".join(_line(row) for row in rows).encode(), synced=False)

    def append_epoch(self, row: EpochRow) -> None:
        """Add one epoch's row. Raises DiskError."""
        try:
            with self.epochs_file.open("a", encoding="utf-8") as file:
                file.write(_line(row))
        except OSError as error:
            raise DiskError(f"{self.epochs_file} cannot be written: {error.strerror}") from None

    def epochs(self) -> list[dict[str, Any]]:
        """The rows written so far, without lines that a crash cut off."""
        rows = []
        with contextlib.suppress(FileNotFoundError):
            for line in self.epochs_file.read_bytes().splitlines():
                with contextlib.suppress(ValueError):
                    rows.append(json.loads(line))
        return rows

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint by this training state (tensors, numbers and strings)."""
        import torch

        content = io.BytesIO()
        torch.save(state, content)
        write_whole(self.checkpoint_file, sealed(content.getbuffer()))

    def load_checkpoint(self, kind: str) -> dict[str, Any] | None:
        """The last checkpoint; None if there is none of this kind (`model` or `head`), or it is damaged."""
        import torch

        try:
            content = unsealed(self.checkpoint_file.read_bytes())
        except FileNotFoundError:
            return None
        except OSError:
            content = None
        if content is None:
            _LOG.warning("%s is damaged: the trial starts again", self.checkpoint_file)
            self.checkpoint_file.unlink(missing_ok=True)
            return None
        state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        return state if state.get("kind") == kind else None

    def save_weights(self, weights: Weights) -> None:
        """Write the best epoch's weights."""
        from safetensors.torch import save

        content = save({name: value.contiguous() for name, value in weights.items()})
        write_whole(self.weights_file, content, synced=False)

    def load_weights(self) -> Weights:
        """The best epoch's weights. Raises ResultsError if they are missing or not what was recorded."""
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
        """Whether the best epoch's weights exist and are what was recorded. Reads all of them."""
        record, name = self.record(), self.weights_file.name
        return record is not None and name in record.files and not self.damage(record, [name])

    def drop_weights(self) -> None:
        """Remove the best epoch's weights, which nothing needs any more; the record keeps their checksum."""
        self.weights_file.unlink(missing_ok=True)

    def save_predictions(
        self, predictions: Mapping[tuple[str, str], tuple[NDArray[Any], NDArray[Any]]], file: Path | None = None
    ) -> None:
        """Write predictions.

        Args:
            predictions: (split, moment) -> predicted class [n] and its probability [n], in the order of the split.
            file: by default `predictions_file`.
        """
        from safetensors.numpy import save

        arrays = {}
        for (split, moment), (predicted, confidence) in predictions.items():
            arrays[f"{split}/{moment}/predicted"] = predicted.astype(np.int32)
            arrays[f"{split}/{moment}/confidence"] = confidence.astype(np.float32)
        write_whole(file or self.predictions_file, save(arrays), synced=False)

    def predictions(self) -> dict[tuple[str, str], tuple[NDArray[np.int32], NDArray[np.float32]]]:
        """What `save_predictions` wrote; empty if there is no file."""
        from safetensors.numpy import load_file

        arrays: dict[str, NDArray[Any]] = {}
        for file in (self.predictions_file, self.test_file):
            if file.exists():
                arrays |= load_file(file)
        moments = sorted({tuple(key.split("/")[:2]) for key in arrays})
        return {
            (split, moment): (arrays[f"{split}/{moment}/predicted"], arrays[f"{split}/{moment}/confidence"])
            for split, moment in moments
        }

    def commit(self, record: Record, *, keep_state: bool = False) -> Record:
        """Make the trial count: sync its files, and write the record, which vouches for them, last.

        Removes the checkpoint unless `keep_state`, with which a longer trial may continue later. Returns the record
        with the checksums of the files and its own.
        """
        kept = (self.epochs_file, self.weights_file, self.predictions_file, self.test_file)
        files = [file for file in kept if file.exists()]
        for file in files:
            sync(file)
        record = record.model_copy(update={"files": {file.name: sha256(file) for file in files}})
        plain = record.model_dump(mode="json")
        record = record.model_copy(update={"checksum": checksum(plain)})
        write_checked(self.record_file, plain)
        if not keep_state:
            self.checkpoint_file.unlink(missing_ok=True)
        return record

    def commit_failure(self, trial: Trial, error: str) -> Record:
        """Record that a trial failed, for a worker that no longer can."""
        self.make()
        return self.commit(Record.of(trial, Status.FAILED, error=error))

    def record(self) -> Record | None:
        """The record; None if there is none, or it is damaged, or the folder is a link.

        Raises ResultsError if it is whole but this version does not understand it.
        """
        plain = None if self.path.is_symlink() else read_checked(self.record_file)
        if plain is None:
            return None
        try:
            record = Record.model_validate(plain)
        except ValidationError as error:
            problem = error.errors()[0]
            raise ResultsError(
                f"{self.record_file} is whole but this version of cnnsearch cannot read it: "
                f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
            ) from None
        return record if record.trial_id == self.path.name else None

    def damage(self, record: Record, names: Iterable[str] | None = None) -> dict[str, Damage]:
        """File name -> what is wrong with it, of the files that the record vouches for; empty if all are as recorded.

        Args:
            record: of this trial.
            names: files to look at; all by default.
        """
        looked_at = set(record.files if names is None else names)
        found = {}
        for name in sorted(looked_at & record.files.keys()):
            try:
                if sha256(self.path / name) != record.files[name]:
                    found[name] = Damage.CHANGED
            except FileNotFoundError:
                found[name] = Damage.MISSING
            except OSError:
                found[name] = Damage.CHANGED
        return found

    def has_damaged_checkpoint(self) -> bool:
        """Whether there is a checkpoint, and it is damaged."""
        try:
            return unsealed(self.checkpoint_file.read_bytes()) is None
        except FileNotFoundError:
            return False
        except OSError:
            return True


def _line(row: EpochRow) -> str:
    """A row as a line of JSON. A loss that is not a number becomes null: JSON has no such numbers."""
    values = {key: value if value is None or math.isfinite(value) else None for key, value in vars(row).items()}
    return json.dumps(values) + "\n"
