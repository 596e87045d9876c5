"""Trials of other tools, made up: as tables, and judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cnnsearch.exchange.foreign import settings_of
from cnnsearch.exchange.foreign_findings import answer, findings
from cnnsearch.exchange.judged import Judged, judged
from cnnsearch.exchange.sources import foreign_trials
from cnnsearch.report.claims import Answer, Finding

GRID = [(lr, model, size) for lr in (0.0001, 0.001, 0.01) for model in ("plain", "residual") for size in (16, 32)]


def table(seeds: int = 3, *, effect: float = 0.1, noise: float = 0.005, draw: int = 0) -> pd.DataFrame:
    """Twelve settings; `effect` is what the model changes, nothing else changes anything."""
    rng = np.random.default_rng(draw)
    return pd.DataFrame(
        [
            {
                "run": f"run-{number}-{seed}",
                "lr": lr,
                "model": model,
                "batch_size": size,
                "seed": seed,
                "val_accuracy": 0.6 + effect * (model == "residual") + noise * rng.normal(),
                "runtime": float(rng.uniform()),
            }
            for number, (lr, model, size) in enumerate(GRID)
            for seed in range(seeds)
        ]
    )


def said(frame: pd.DataFrame, tmp_path: Path, **roles: Any) -> tuple[Answer, list[Finding], list[Judged]]:
    """What a report on a table says."""
    file = tmp_path / "trials.csv"
    frame.to_csv(file, index=False)
    foreign = foreign_trials(str(file), roles)
    stages = list(judged(foreign, settings_of(foreign)))
    return answer(foreign, stages), findings(foreign, stages), stages
