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


class Shared(Part):
    """`cnnsearch share` wrote the trials of a sweep for another tool."""

    kind: Literal["shared"] = "shared"
    exit_code: Literal[0] = 0
    sweep: Text = Field(description="name of the sweep")
    results: Text = Field(description="folder or URI of its results")
    to: Text = Field(description="where they were written, as --to named it")
    report: Text = Field(description="URI of the report to which what was written leads")
    trials: int = Field(description="trials that have ended or are being trained")
    running: int = Field(description="of these, trials that are being trained: the same command again adds the rest")
    added: int = Field(description="trials that were not there before")
    updated: int = Field(description="trials that were there, and of which something new was written")
    same: int = Field(description="trials of which nothing was new")
    epochs: int = Field(description="epochs that were written now")
