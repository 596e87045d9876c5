"""The parts of what `--json` prints that are about other tools: editors, and where trials go to or come from."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, FiniteFloat

from cnnsearch.told_parts import Answer, Part, Text, Value, Verdict


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


class ForeignSetting(Part):
    """A setting among trials of another tool: those that differ in nothing but their seeds."""

    stage: Text = Field(description="stage that it belongs to; empty where there are none")
    values: dict[str, Value] = Field(description="axis -> value, for every axis; null where it has none")
    trials: list[Text] = Field(description="names of its trials")
    score: FiniteFloat = Field(description="mean over its trials of what settings are compared by")
    low: FiniteFloat | None = Field(description="lower end of the interval over seeds; null with fewer than three")
    high: FiniteFloat | None = Field(description="upper end of the interval")
    is_worse: bool = Field(description="whether it is clearly worse than another one")


class ForeignClaim(Part):
    """One sentence of a report on trials of another tool."""

    sentence: Text = Field(description="the sentence")
    verdict: Verdict = Field(description="how sure one can be of it")


class ForeignReport(Part):
    """`cnnsearch report --from` made a report of trials that another tool ran."""

    kind: Literal["foreign_report"] = "foreign_report"
    exit_code: Literal[0] = 0
    source: Text = Field(description="what was read, as it was given")
    tool: Text = Field(description="whose trials these are")
    report: Text = Field(description="path of report.html")
    trials: int = Field(description="trials that were read")
    counts: dict[str, int] = Field(description="done, failed, pruned, running -> number of trials")
    score: Text = Field(description="column by which settings are chosen")
    judged_by: Text = Field(description="column by which they are compared")
    is_larger_better: bool = Field(description="whether more of it is better")
    seed: Text | None = Field(description="column of the seed; null where there is none")
    stage: Text | None = Field(description="column of the stage; null where there is none")
    axes: list[Text] = Field(description="columns that are settings and vary")
    left_out: list[Text] = Field(description="columns that were not used")
    answer: Answer = Field(description="which setting is best, and how sure that is")
    best: ForeignSetting | None = Field(description="the best setting; null where no trial has a score")
    findings: list[ForeignClaim] = Field(description="what the report says was found")
    settings: int = Field(description="settings of all stages")


class LostPart(Part):
    """Something of another tool's search space that has no match in a sweep file."""

    what: Text = Field(description="as it stands there, in short")
    why: Text = Field(description="why it has none, or what took its place")


class ConvertedSweep(Part):
    """`cnnsearch convert` made a sweep file of a search space of another tool."""

    kind: Literal["converted"] = "converted"
    exit_code: Literal[0] = 0
    source: Text = Field(description="the file that was read")
    tool: Text = Field(description="whose it is")
    out: Text = Field(description="the sweep file that was written")
    axes: list[Text] = Field(description="what the sweep varies")
    lost: list[LostPart] = Field(description="what has no match; it stands in the file's comments, too")
