"""The stage that comes after all others: it trains the best settings again on fresh seeds."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from cnnsearch.spec.part import Float, Int, Part, SpecProblemError
from cnnsearch.spec.stage import Stage

CONFIRM = Stage(name="confirm", space={})
"""What the plan, the views and the tables take for the stage's definition. It varies nothing: it repeats settings."""
SEEDS = 5
"""Fresh seeds where nothing else is asked for."""
LEAST_SEEDS = 3
"""Fewer seeds say nothing about a setting, only about the networks that were trained."""
MOST_SEEDS = 1000


def _points(raw: Any) -> Any:
    """Take `0.5 points` too."""
    try:
        return float(raw.removesuffix("points").strip()) if isinstance(raw, str) else raw
    except ValueError:
        return raw


class Confirm(Part):
    """Train the contenders, the settings that may be best, again on seeds that chose nothing."""

    seeds: Int = Field(SEEDS, description=f"fresh seeds for each contender ({LEAST_SEEDS} to {MOST_SEEDS:,})")
    contenders: Literal["auto"] | Int = Field(
        "auto",
        description="settings that are trained again: a number from 2, or auto for 2 to 5, as many as their validation "
        "images do not tell from the best",
    )

    margin: Annotated[Float, BeforeValidator(_points)] = Field(
        0.5,
        gt=0,
        le=100,
        description="with --until-clear: settings whose accuracies are shown to differ by less, in percentage points, "
        "are about as good as each other",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_yaml(cls, raw: Any) -> Any:
        """Take `confirm: true` and `confirm: 7` too."""
        if isinstance(raw, bool):
            return {}
        return {"seeds": raw} if isinstance(raw, int) else raw

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not LEAST_SEEDS <= self.seeds <= MOST_SEEDS:
            allowed = f"{LEAST_SEEDS} to {MOST_SEEDS:,}; a statement about settings needs {LEAST_SEEDS} seeds"
            raise SpecProblemError(("seeds",), f"given {self.seeds}; allowed: {allowed}")
        if self.contenders != "auto" and not 2 <= self.contenders <= MOST_SEEDS:
            allowed = f"auto, or a whole number from 2 to {MOST_SEEDS:,}"
            raise SpecProblemError(("contenders",), f"given {self.contenders}; allowed: {allowed}")
        return self
