"""The values of one axis of a search space."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Literal

from pydantic import Field, model_serializer, model_validator

from cnnsearch.spec.part import Part

NUMERIC_KINDS = ("uniform", "loguniform", "int")
LISTED_KINDS = ("grid", "choice")


class Values(Part):
    """The values of one axis: a constant, listed values (`grid`, `choice`) or a range."""

    kind: Literal["constant", "grid", "choice", "uniform", "loguniform", "int"]
    args: tuple[Any, ...]
    when: dict[str, tuple[Any, ...]] = Field(
        {}, description="earlier axis -> its values for which this axis varies; for others the value of `train:` holds"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_yaml(cls, raw: Any) -> Any:
        if isinstance(raw, Values):
            return {"kind": raw.kind, "args": raw.args, "when": raw.when}
        if isinstance(raw, list):
            raise ValueError(f"a list needs a kind: {{grid: {raw}}}")
        if not isinstance(raw, dict):
            return {"kind": "constant", "args": (raw,)}
        raw = dict(raw)
        when = _conditions(raw.pop("when")) if "when" in raw else {}
        kinds = (*LISTED_KINDS, *NUMERIC_KINDS)
        if len(raw) != 1 or next(iter(raw)) not in kinds:
            raise ValueError(f"given {raw!r}; allowed: a constant, or one of {', '.join(kinds)} with a list")
        kind, args = next(iter(raw.items()))
        if not isinstance(args, list) or not args:
            raise ValueError(f"{kind} needs a list of values, given {args!r}")
        if kind in LISTED_KINDS:
            if (twice := repeated(args)) is not None:
                raise ValueError(f"{kind} has {twice!r} twice")
        else:
            numbers = [value for value in args if isinstance(value, int | float) and not isinstance(value, bool)]
            if len(args) != 2 or len(numbers) != 2 or not args[0] < args[1]:
                raise ValueError(f"{kind} needs [low, high] with low < high, given {args!r}")
            if kind == "loguniform" and args[0] <= 0:
                raise ValueError(f"loguniform needs low > 0, given {args!r}")
            if kind == "int" and not all(isinstance(value, int) for value in args):
                raise ValueError(f"int needs whole numbers, given {args!r}")
        return {"kind": kind, "args": tuple(args), "when": when}

    @model_serializer
    def _to_yaml(self) -> Any:
        if self.kind == "constant":
            return self.args[0]
        conditions = {axis: list(values) for axis, values in self.when.items()}
        return {self.kind: list(self.args)} | ({"when": conditions} if conditions else {})

    @property
    def varies(self) -> bool:
        """Whether trials of one stage can differ in it."""
        return len(self.args) > 1 or bool(self.when)

    def __contains__(self, value: Any) -> bool:
        """Whether the axis may take a value."""
        if self.kind not in NUMERIC_KINDS:
            return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in self.args)
        is_number = isinstance(value, int if self.kind == "int" else int | float) and not isinstance(value, bool)
        return is_number and bool(self.args[0] <= value <= self.args[1])

    def applies(self, cell: Mapping[str, Any]) -> bool:
        """Whether the axis varies, given a cell's values of the axes before it."""
        return all(cell.get(axis) in values for axis, values in self.when.items())


def _conditions(raw: Any) -> dict[str, tuple[Any, ...]]:
    """Parse `{model: plain}` or `{model: [plain, residual]}`."""
    if not isinstance(raw, dict) or not raw:
        raise ValueError(f"when needs axes with their values, such as {{model: plain}}, given {raw!r}")
    return {axis: tuple(values) if isinstance(values, list) else (values,) for axis, values in raw.items()}


def repeated(values: list[Any]) -> Any:
    """Return the first value that occurs twice; None if there is none, or if a value is unhashable and so cannot be on
    an axis.
    """
    seen = set()
    for value in values:
        if not isinstance(value, Hashable):
            return None
        if value in seen:
            return value
        seen.add(value)
    return None
