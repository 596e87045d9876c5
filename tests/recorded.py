"""What two runs of the same work must have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cnnsearch.results.folder import Results

VARYING = {"seconds", "images_per_second", "peak_memory_bytes", "host", "started_at", "checksum"}


def numbers(path: Path) -> dict[str, Any]:
    """Everything recorded that does not depend on time and place; trial id -> values and checksums of contents."""
    results = Results(path)
    return {
        trial_id: (
            record.model_dump(exclude={*VARYING, "files"}),
            record.files.get("best.safetensors"),
            record.files.get("predictions.safetensors"),
            [{k: v for k, v in row.items() if k != "seconds"} for row in results.trial(trial_id).epochs()],
        )
        for trial_id, record in results.records().items()
    }
