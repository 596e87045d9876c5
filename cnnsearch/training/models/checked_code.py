"""Has a process try the networks of the user's own that a sweep will train; without torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cnnsearch.planning.trial import Trial
from cnnsearch.spec.own_code import Snapshot, trusted
from cnnsearch.spec.settings import Settings
from cnnsearch.training.models.other_process import ask
from cnnsearch.training.models.pretrained import Key, Pretrained


def as_plain(digests: Iterable[str]) -> list[dict[str, Any]]:
    """Snapshots that are trusted here as a message to another process, which is to trust them too."""
    found = [trusted(digest) for digest in dict.fromkeys(digests) if digest]
    return [{"file": one.file, "files": dict(one.files)} for one in found if one is not None]


def as_snapshots(plain: Iterable[Mapping[str, Any]]) -> list[Snapshot]:
    """The inverse of `as_plain`."""
    return [Snapshot(one["file"], one["files"]) for one in plain]


def refuse_faulty(
    trials: Iterable[Trial], parents: Mapping[str, Trial], weights: Mapping[Key, Pretrained], classes: int
) -> None:
    """Try the networks of the user's own among those of trials, once for every value that may change them.

    Args:
        trials: those to run.
        parents: id -> trial, for those that others start from.
        weights: pretrained weights that the sweep names.
        classes: number of classes.

    Raises:
        RequestError: what is wrong with one of them, and where.
        RunError: the process that tries them ended without an answer.
    """
    tried = _different(trials)
    if not tried:
        return
    cases = []
    for trial in tried:
        parent = parents.get(trial.parent_id or "")
        pretrained = None if trial.parent_id else weights.get((trial.settings.model, trial.settings.weights))
        cases.append(
            {
                "settings": trial.settings.model_dump(),
                "parent": parent.settings.model_dump() if parent else None,
                "weights": str(pretrained.file) if pretrained else None,
            }
        )
    request = {"code": as_plain(trial.settings.code for trial in tried), "classes": classes, "cases": cases}
    answer(request)


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Have a process answer a request: see `code_check.main`. Raises RequestError, RunError."""
    files = ", ".join(one["file"] for one in request["code"])
    return ask("cnnsearch.training.models.code_check", request, f"trying the networks of {files} failed")


def _different(trials: Iterable[Trial]) -> list[Trial]:
    """Trials of which each has a value, of what changes its network, that none before it has."""
    seen: set[tuple[Any, ...]] = set()
    found = []
    for trial in trials:
        if not trial.settings.code:
            continue
        new = set(_values(trial.settings)) - seen
        if new:
            found.append(trial)
            seen |= new
    return found


def _values(settings: Settings) -> Iterable[tuple[Any, ...]]:
    plain = settings.flat()
    args = [axis for axis in plain if axis.startswith("model_args.")]
    for axis in ("fine_tune", "width", "image_size", "weights", *args):
        yield settings.code, settings.model, axis, plain[axis]
    yield settings.code, settings.model, "dropout", plain["dropout"] > 0
