"""How to use the best network: where its weights are, and what loads them."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from cnnsearch.evidence.evidence import Evidence
from cnnsearch.results.folder import Results
from cnnsearch.results.kept_code import kept_file


@dataclass(frozen=True)
class Using:
    """The section on the use of the best network."""

    weights: str
    """The path of its weights."""
    note: str
    """Which network that is, where the best setting was trained with several seeds; else empty."""
    command: str
    """Classifies images in a shell."""
    lines: str
    """Python that loads it."""


def using(evidence: Evidence) -> Using | None:
    """Say how to use the best network; None without one."""
    best, trial = evidence.best, evidence.best_trial
    if best is None or trial is None:
        return None
    folder, weights = str(evidence.tables.folder), Results(evidence.tables.folder).trial(trial).weights_file
    digest = _code_of(evidence, trial)
    kept = kept_file(evidence.tables.folder, digest) if digest else None
    named, code = (f" --code {shlex.quote(str(kept))}", f", code=[{str(kept)!r}]") if kept else ("", "")
    several = len(best.trial_ids) > 1
    return Using(
        weights=str(weights),
        note=f"The best of the {len(best.trial_ids)} {evidence.unit}s of this setting by validation."
        if several
        else "",
        command=f"cnnsearch predict {shlex.quote(folder)} IMAGE...{named}",
        lines=f"import cnnsearch\n\nmodel = cnnsearch.load_model({folder!r}{code})",
    )


def _code_of(evidence: Evidence, trial: str) -> str:
    """The digest of the code of a trial's network; empty where it is one that there is anyway."""
    trials = evidence.tables.trials
    if "code" not in trials:
        return ""
    (digest,) = trials.loc[trials["trial_id"] == trial, "code"]
    return str(digest) if isinstance(digest, str) else ""
