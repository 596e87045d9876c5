"""The parts of what `--json` prints that are about other tools: editors, and where trials go to or come from."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from cnnsearch.told_parts import Part, Text


class SweepSchema(Part):
    """`cnnsearch schema` told the JSON Schema of sweep files."""

    kind: Literal["schema"] = "schema"
    exit_code: Literal[0] = 0
    line: Text = Field(description="the comment that names it at the beginning of a sweep file")
    file: Text = Field(description="the file of the schema: the one in the package, or the one that was written")
    sweep_schema: dict[str, Any] = Field(description="the JSON Schema, draft 7")
