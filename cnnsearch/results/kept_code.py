"""The source of the user's own networks, kept with the results of their trials: `code/<digest>/` in the folder.

It is kept to be looked at, and to be named: it runs only after the user has given its file, or an equal one, with
`--code`. A folder of results may come from a stranger.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from cnnsearch.errors import RequestError, ResultsError
from cnnsearch.results.place import ResultsPlace
from cnnsearch.spec.own_code import MOST_FILES, Snapshot, read_code, trust, trusted
from cnnsearch.spec.settings import Settings

FOLDER = "code"


def keep(results: ResultsPlace, snapshots: Iterable[Snapshot]) -> None:
    """Write snapshots into the results, unless they are there. Raises DiskError, and ResultsError for a link."""
    for snapshot in snapshots:
        if kept_file(results.here.path, snapshot.digest) is not None:
            continue
        for name, source in snapshot.files.items():
            place = results.here.path / FOLDER / snapshot.digest / name
            for folder in list(place.parents)[: len(Path(name).parts) + 1]:
                if folder.is_symlink():
                    raise ResultsError(f"{folder} is a link, and nothing is written through it; remove it")
            place.parent.mkdir(parents=True, exist_ok=True)
            results.write(f"{FOLDER}/{snapshot.digest}/{name}", source)


def kept_file(folder: Path, digest: str) -> Path | None:
    """The kept file with the code of this digest; None where it is missing or was changed. It is read, and not run."""
    place = folder / FOLDER / digest
    if not re.fullmatch(r"[0-9a-f]{16}", digest) or (folder / FOLDER).is_symlink() or place.is_symlink():
        return None
    entries = list(itertools.islice(place.rglob("*"), 2 * MOST_FILES + 1))
    if len(entries) > 2 * MOST_FILES or any(path.is_symlink() for path in entries):
        return None
    for file in sorted(path for path in entries if path.parent == place and path.suffix == ".py"):
        with contextlib.suppress(RequestError):
            if read_code(file).digest == digest:
                return file
    return None


def how_to_name(folder: Path, settings: Settings) -> str:
    """What to add to a command that uses the network of a trial: ` --code FILE`; empty for other models."""
    file = kept_file(folder, settings.code) if settings.code else None
    return f" --code {shlex.quote(str(file))}" if file else ""


def name_code(files: Iterable[str | Path]) -> list[Snapshot]:
    """Let the code of these files run: the user has named them. Raises RequestError where one cannot be read."""
    found = [read_code(file) for file in files]
    trust(found)
    return found


def refuse_unnamed(folder: Path, trial_id: str, settings: Settings, given: Iterable[Snapshot] = ()) -> None:
    """Refuse to use a network whose code the user has not named.

    Args:
        folder: of the results.
        trial_id: of the trial that trained it.
        settings: of that trial.
        given: the code that was named for it.

    Raises RequestError also for code that was named, and that is not the trial's.
    """
    others = [one for one in given if one.digest != settings.code]
    if not settings.code:
        if others:
            raise RequestError(f"--code {others[0].file}: trial {trial_id} uses no code of your own; leave it out")
        return
    if trusted(settings.code) is not None and not others:
        return
    file = kept_file(folder, settings.code)
    kept = f"{folder / FOLDER / settings.code} does not hold it as it was"
    if file is not None:
        kept = f"A copy of its code is kept. Look at it; if you trust it, name it:\n  --code {shlex.quote(str(file))}"
    if others:
        raise RequestError(
            f"--code {others[0].file}: this is not the code that trial {trial_id} was trained with, or it has changed "
            f"since.\n{kept}"
        )
    raise RequestError(
        f"trial {trial_id} is of {settings.model}, a network of somebody's own code, which runs only if you name it.\n"
        f"{kept}\nIn a notebook: code=[{str(file or 'FILE.py')!r}]"
    )
