"""The folder of one trial: its record, and the files that the record vouches for."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import os
import re
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
from cnnsearch.storage.durable import (
    appending,
    read_checked,
    remove_abandoned,
    sync,
    write_checked,
    write_json,
    write_whole,
)
from cnnsearch.storage.reading import parsed, read_bytes, read_json
from cnnsearch.words import printable

if TYPE_CHECKING:  # torch takes seconds to import, and reading results does not need it
    from cnnsearch.planning.trial import EpochRow
    from cnnsearch.training.train import Weights
from cnnsearch.results import probabilities
from cnnsearch.results.arrays import read_arrays
from cnnsearch.results.record import MOST_BYTES, Record
from cnnsearch.results.shapes import Begun, EpochLine, explained, problem, whole_epochs
from cnnsearch.spec.document import shown
from cnnsearch.spec.metric import ADDED, METRICS

_LOG = logging.getLogger(__name__)

MOST_WEIGHTS = 64 * 2**30
"""Most bytes of a file of tensors that is read whole."""


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
    def probabilities_file(self) -> Path:
        return self.path / "probabilities.safetensors"

    @property
    def test_probabilities_file(self) -> Path:
        """Those of the test examples, where they were sealed when the trial ended: a record vouches for the others."""
        return self.path / "test-probabilities.safetensors"

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
        self.probabilities_file.unlink(missing_ok=True)
        self.test_probabilities_file.unlink(missing_ok=True)
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
            with appending(self.epochs_file) as file:
                file.write(_line(row).encode())
        except OSError as error:
            raise DiskError(f"{self.epochs_file} cannot be written: {error.strerror}") from None

    def epochs(self, *, strict: bool = False) -> list[dict[str, Any]]:
        """The rows written so far.

        Lines that hold no row, as after a crash, are left out; if `strict`, they raise ResultsError. So does a file
        that cannot be read.
        """
        rows: list[dict[str, Any]] = []
        try:
            lines = read_bytes(self.epochs_file).splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ResultsError(f"{self.epochs_file} cannot be read: {error.strerror or error}") from None
        if (known := whole_epochs(lines)) is not None:
            return known
        for number, line in enumerate(lines, 1):
            try:
                row, reason = parsed(line), ""
            except ValueError as error:
                row, reason = None, str(error)
            reason = reason or problem(EpochLine, row)
            if not reason:
                rows.append(row)
            elif strict:
                raise ResultsError(f"{self.epochs_file}, line {number}, is no row of an epoch: {reason}")
        return rows

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint by this training state (tensors, numbers and strings)."""
        import torch

        content = io.BytesIO()
        torch.save({"trial_id": self.path.name, **state}, content)
        write_whole(self.checkpoint_file, sealed(content.getbuffer()))

    def load_checkpoint(self, kind: str) -> dict[str, Any] | None:
        """The last checkpoint; None if there is none of this kind (`model` or `head`), or it is damaged.

        Another trial's counts as damaged. Those of older versions do not say whose they are.
        """
        import torch

        if not os.path.lexists(self.checkpoint_file):
            return None
        state, reason = None, "is damaged"
        if (content := self._sealed_checkpoint()) is not None:
            with contextlib.suppress(Exception):  # torch raises a dozen types where a file is not as it wrote it
                state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        if isinstance(state, dict) and (owner := state.pop("trial_id", self.path.name)) != self.path.name:
            state, reason = None, f"is that of trial {printable(str(owner))}"
        if not isinstance(state, dict):
            _LOG.warning("%s %s: the trial starts again", self.checkpoint_file, reason)
            with contextlib.suppress(OSError):
                self.checkpoint_file.unlink(missing_ok=True)
            return None
        return state if state.get("kind") == kind else None

    def _sealed_checkpoint(self) -> memoryview | None:
        """The content of the checkpoint's file; None where it is not what was written."""
        try:
            return unsealed(read_bytes(self.checkpoint_file, MOST_WEIGHTS))
        except (OSError, MemoryError):
            return None

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
            raise ResultsError(f"{self.weights_file} cannot be read: {printable(str(error))}") from None

    def has_weights(self) -> bool:
        """Whether the best epoch's weights exist and are what was recorded. Reads all of them."""
        record, name = self.record(), self.weights_file.name
        return record is not None and name in record.files and not self.damage(record, [name])

    def drop_weights(self, metric: str) -> None:
        """Remove the best epoch's weights, which nothing needs any more; the record keeps their checksum.

        So are the probabilities of all classes, unless settings are compared by them, as some metrics ask for.
        """
        for file in self.droppable(metric):
            file.unlink(missing_ok=True)

    def droppable(self, metric: str) -> tuple[Path, ...]:
        """The files that go when nothing needs the weights of a trial any more, by the metric of its sweep."""
        if METRICS[metric].needs_probabilities:
            return (self.weights_file,)
        return (self.weights_file, self.probabilities_file, self.test_probabilities_file)

    def save_probabilities(self, found: Mapping[str, NDArray[np.float32]], file: Path | None = None) -> None:
        """Write the probability of every class at the best epoch: split -> [n, classes], in the order of the split."""
        probabilities.write(file or self.probabilities_file, found)

    def probabilities(self) -> probabilities.Probabilities:
        """What `save_probabilities` wrote; empty if there is no file. Raises ResultsError for other content."""
        return {**probabilities.read(self.probabilities_file), **probabilities.read(self.test_probabilities_file)}

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
        """What `save_predictions` wrote; empty if there is no file. Raises ResultsError for other content."""
        return {**_answers_in(self.predictions_file), **_answers_in(self.test_file)}

    def commit(self, record: Record, *, keep_state: bool = False) -> Record:
        """Make the trial count: sync its files, and write the record, which vouches for them, last.

        Removes the checkpoint unless `keep_state`, with which a longer trial may continue later. Returns the record
        with the checksums of the files and its own.
        """
        answers = (self.predictions_file, self.test_file, self.probabilities_file, self.test_probabilities_file)
        kept = (self.epochs_file, self.weights_file, *answers)
        files = [file for file in kept if _is_regular(file)]
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
        plain = None if self.path.is_symlink() else read_checked(self.record_file, MOST_BYTES)
        if plain is None:
            return None
        try:
            record = Record.model_validate(plain)
        except ValidationError as error:
            raise ResultsError(
                f"{self.record_file} is whole but this version of cnnsearch cannot read it: {explained(error)}"
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
        return os.path.lexists(self.checkpoint_file) and self._sealed_checkpoint() is None

    def begun(self) -> Begun | None:
        """What the trial is; None if there is no trial.json. Raises ResultsError if that is damaged."""
        file = self.path / "trial.json"
        try:
            return Begun.model_validate(read_json(file, MOST_BYTES))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            reason = explained(error) if isinstance(error, ValidationError) else str(error)
            raise ResultsError(f"{file} is damaged ({reason})") from None


_PREDICTED = re.compile(r"(val|test)/(before|best)/predicted")


def _are_answers(predicted: Any, confidence: Any) -> bool:
    """Whether these are predicted classes and their confidence, which may be NaN, example by example."""
    if not isinstance(predicted, np.ndarray) or not isinstance(confidence, np.ndarray):
        return False
    fit = predicted.ndim == confidence.ndim == 1 and len(predicted) == len(confidence)
    if not fit or predicted.dtype != np.int32 or confidence.dtype != np.float32:
        return False
    outside = (confidence < 0) | (confidence > 1 + 1e-3)
    return bool((predicted >= 0).all() and not outside.any())


def _is_regular(file: Path) -> bool:
    return file.is_file() and not file.is_symlink()


def _answers_in(file: Path) -> dict[tuple[str, str], tuple[NDArray[np.int32], NDArray[np.float32]]]:
    """Read a file of predictions; {} where there is none. Raises ResultsError."""
    arrays = read_arrays(file, MOST_WEIGHTS)
    found: dict[tuple[str, str], tuple[Any, Any]] = {}
    for split, moment in [key.split("/")[:2] for key in arrays if _PREDICTED.fullmatch(key)]:
        predicted, confidence = (arrays.pop(f"{split}/{moment}/{what}", None) for what in ("predicted", "confidence"))
        if not _are_answers(predicted, confidence):
            raise ResultsError(f"{file}: {split}/{moment} holds no answers and their confidence")
        found[split, moment] = (predicted, confidence)
    if arrays:
        raise ResultsError(f"{file} holds {shown(min(arrays))}, which is no prediction")
    return found


def _line(row: EpochRow) -> str:
    """A row as a line of JSON. A loss that is not a number becomes null: JSON has no such numbers.

    Metrics that were not computed are left out.
    """
    values = {key: value if value is None or math.isfinite(value) else None for key, value in vars(row).items()}
    computed = {key: value for key, value in values.items() if value is not None or key not in _ADDED}
    return json.dumps(computed) + "\n"


_ADDED = frozenset(f"val_{name}" for name in ADDED)
