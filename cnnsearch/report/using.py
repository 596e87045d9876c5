"""How to use the best network: where its weights are, and what loads them."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from cnnsearch.evidence.evidence import Evidence
from cnnsearch.results.folder import Results


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
    several = len(best.trial_ids) > 1
    return Using(
        weights=str(weights),
        note=f"The best of the {len(best.trial_ids)} seeds of this setting by validation." if several else "",
        command=f"cnnsearch predict {shlex.quote(folder)} IMAGE...",
        lines=f"import cnnsearch\n\nmodel = cnnsearch.load_model({folder!r})",
    )
