"""The process through which workers on machines without the results folder read and write trials.

It runs on the machine that has the folder. Records, checkpoints and weights are exchanged by trial and file name;
images and pretrained weights are read in pieces. See `spool` for the workers' end.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cnnsearch.errors import DiskError, RequestError, RunError
from cnnsearch.execution.context import SharedContext
from cnnsearch.results.folder import Results
from cnnsearch.results.parcel import Parcel
from cnnsearch.results.trial_folder import TrialFolder
from cnnsearch.storage.durable import temporary_file, write_whole

PIECE_BYTES = 16 * 1024**2
"""Size of the pieces in which files are read: what both ends hold in memory at a time."""


@dataclass
class Depot:
    """The `spool.TrialStore` of a results folder, on a machine that has the folder."""

    results: Path
    """The sweep's results folder."""
    files: frozenset[Path] = frozenset()
    """The image packs and pretrained weights that may be read beside the trials."""
    _holders: dict[str, str] = field(default_factory=dict)
    """Trial id -> the worker to which it was last handed over."""

    def hand_over(self, trial_id: str, holder: str, names: Iterable[str]) -> dict[str, bytes]:
        """See TrialStore."""
        self._holders[trial_id] = holder
        return self.fetch(trial_id, names)

    def fetch(self, trial_id: str, names: Iterable[str]) -> dict[str, bytes]:
        """See TrialStore."""
        folder, found = self._folder(trial_id), {}
        for name in names:
            if (content := _read(folder.path / _plain(name))) is not None:
                found[name] = content
        return found

    def keep(self, holder: str, parcels: Iterable[Parcel]) -> None:
        """See TrialStore."""
        for parcel in parcels:
            # A depot that Ray has restarted knows no holders; the first worker to send a trial becomes its holder.
            if self._holders.setdefault(parcel.trial_id, holder) != holder:
                raise RunError(f"trial {parcel.trial_id} was given to another worker")
            self._keep(parcel)

    def _keep(self, parcel: Parcel) -> None:
        folder = self._folder(parcel.trial_id)
        try:
            folder.make()
            for name, content in parcel.changes():
                path = folder.path / _plain(name)
                if content is None:
                    path.unlink(missing_ok=True)
                else:
                    write_whole(path, content)
        except OSError as error:
            raise DiskError(f"{folder.path} cannot be written: {error.strerror or error}") from None

    def read(self, file: Path, start: int) -> bytes:
        """See TrialStore. Raises RunError also for a file that may not be read."""
        if file not in self.files:
            raise RunError(f"{file} is no file of this sweep")
        try:
            with file.open("rb") as opened:
                opened.seek(start)
                return opened.read(PIECE_BYTES)
        except OSError as error:
            raise RunError(f"{file} cannot be read: {error.strerror}") from None

    def sees(self, mark: Path, content: bytes) -> bool:
        """Whether a file here has this content, because this machine wrote it or shares a disk with one that did."""
        return _read(mark) == content

    def _folder(self, trial_id: str) -> TrialFolder:
        return Results(self.results).trial(_plain(trial_id))


class DepotClient:
    """Starts a `Depot` in a process of this machine, and reaches it through Ray from any machine."""

    def __init__(self, context: SharedContext) -> None:
        """Start the depot. Raises RequestError if it does not see the results folder because Ray runs elsewhere."""
        packs = [dataset.images_path for dataset in context.datasets.values()]
        notes = [pack.with_suffix(".json") for pack in packs]
        files = frozenset([*packs, *notes, *(found.file for found in context.weights.values())])
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        start = ray.remote(Depot).options(
            num_cpus=0, scheduling_strategy=here, max_concurrency=8, max_restarts=-1, max_task_retries=-1
        )
        self._mark = temporary_file(context.results)
        self._content = secrets.token_bytes(32)
        self._mark.write_bytes(self._content)
        self._actor = start.remote(context.results, files)
        if not self._ask("sees", self._mark, self._content):
            self.close()
            raise RequestError(
                f"Ray's processes on this machine do not see {context.results}: run the command where they do"
            )

    def is_here(self) -> bool:
        """Whether the calling process sees the results folder itself, and so needs no depot."""
        try:
            return self._mark.read_bytes() == self._content
        except OSError:
            return False

    def hand_over(self, trial_id: str, holder: str, names: Iterable[str]) -> dict[str, bytes]:
        """See TrialStore."""
        found: dict[str, bytes] = self._ask("hand_over", trial_id, holder, list(names))
        return found

    def fetch(self, trial_id: str, names: Iterable[str]) -> dict[str, bytes]:
        """See TrialStore."""
        found: dict[str, bytes] = self._ask("fetch", trial_id, list(names))
        return found

    def keep(self, holder: str, parcels: Iterable[Parcel]) -> None:
        """See TrialStore."""
        self._ask("keep", holder, list(parcels))

    def read(self, file: Path, start: int) -> bytes:
        """See TrialStore."""
        piece: bytes = self._ask("read", file, start)
        return piece

    def close(self) -> None:
        """Remove the file by which processes find out whether they see the results folder."""
        self._mark.unlink(missing_ok=True)

    def _ask(self, method: str, *arguments: Any) -> Any:
        try:
            return ray.get(getattr(self._actor, method).remote(*arguments))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None


def _plain(name: str) -> str:
    """Return the name, if it stays inside its folder. Raises RunError if it does not."""
    if not name or name in (".", "..") or "/" in name or "\0" in name:
        raise RunError(f"{name!r} is no name of a file of a trial")
    return name


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
