"""What all parts of a spec are made of: immutable, strict objects, and errors that know where a mistake stands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, Strict
from pydantic_core import CoreSchema, core_schema

from cnnsearch.spec.document import KeyPath

Int = Annotated[int, Strict()]
Float = Annotated[float, Strict()]


class Part(BaseModel):
    """Base of every part of a spec: immutable, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SpecProblemError(ValueError):
    """Raised for a value that is well-formed but impossible, with the key path at which it was given."""

    def __init__(self, path: KeyPath, message: str) -> None:
        super().__init__(message)
        self.path = path


class SpecProblemsError(ValueError):
    """Raised for several problems of one part of a spec, so that its author is told all of them at once."""

    def __init__(self, problems: Sequence[SpecProblemError]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = tuple(problems)


def value_message(value: Any, message: str) -> str:
    """Reword pydantic's message in our form: what was given, what is allowed."""
    shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
    return f"given {shown}; " + message.removeprefix("Value error, ").replace("Input should", "it should")


@dataclass(frozen=True)
class Spelled:
    """Accepts only words of this pattern; the error says what is allowed."""

    pattern: str
    allowed: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(core), "pattern": f"^({self.pattern})$"}

    def _check(self, word: str) -> str:
        if not re.fullmatch(self.pattern, word):
            raise ValueError(f"allowed: {self.allowed}")
        return word
