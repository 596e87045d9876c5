"""Write what can be generated of the documents: `python docs/make_reference.py`. A test fails where it was not run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cnnsearch.cli import app
from cnnsearch.spec.settings import DataSpec, FillSplit, StratifiedSplit, TrainSpec
from cnnsearch.spec.stage import Asha, Hyperband, Median, Patience, Search, Stage, StartFrom
from cnnsearch.spec.sweep import RunSpec, Sweep

ROOT = Path(__file__).parents[1]

PARTS: list[tuple[str, type[BaseModel]]] = [
    ("A sweep", Sweep),
    ("`data:`", DataSpec),
    ("`data.split:` with `method: fill`", FillSplit),
    ("`data.split:` with `method: stratified`", StratifiedSplit),
    ("`train:`, and the axes of a space", TrainSpec),
    ("A stage", Stage),
    ("`start_from:` of a stage", StartFrom),
    ("`search:` of a stage", Search),
    ("`stop_early:` of a stage with `method: asha`", Asha),
    ("`stop_early:` with `method: hyperband`", Hyperband),
    ("`stop_early:` with `method: median`", Median),
    ("`stop_early:` with `method: patience`", Patience),
    ("`run:`", RunSpec),
]

INTRODUCTION = """\
# Sweep files

A sweep is a YAML file like `sweeps/part1.yaml`; everything but `name` and `stages` has a default. This page is
generated from the code by `docs/make_reference.py`.

A stage's `space` gives each axis a constant or one of `{grid: [...]}`, `{choice: [...]}`, `{uniform: [low, high]}`,
`{loguniform: [low, high]}`, `{int: [low, high]}`; all but `grid` need a `search:` with `trials: N`. Any key of `train`,
and `image_size`, is an axis. The first axis varies slowest. `profiles` names sets of changes, by dotted keys.

An axis may vary on a condition, by the values of listed axes that stand before it; where it does not hold, `train:`
does: `dropout: {grid: [0, 0.2], when: {model: plain}}`, `fine_tune: {grid: [head, full], when: {weights: [imagenet]}}`.

`search: {method: tpe, trials: 40}` lets a searcher choose: `tpe` (a good first choice, for any space), `gp` (for few,
costly trials; a suggestion takes a second or more), `cmaes` (for ranges; listed axes are left to TPE), `qmc` (spreads
evenly, looks at no outcome), `nsga2` (several `objectives`: the best trade-offs between them). Suggestion k is made
from the outcomes of all suggestions but the last `at_once` before it, so the same sweep suggests the same trials
however many run at a time; fewer at once learn more from each, more keep more cores busy. Suggestions are recorded
before they run. The same command goes on from them, a larger `trials` adds to them, and any other change to what
decides them begins a new search. What diverges counts as the worst so far. A stage that starts from another searches
for each group by itself, `trials` times.

The learning rate is a function of the step. Training losses are what is minimised, smoothed labels and class weights
included; validation and test losses are plain. Augmentation is drawn by seed, epoch and image, so trials of one seed
see the same images whatever their batch size; validation and test images stay as they are. With it, frozen layers see
other images in every epoch and are computed anew.

A stage may have `stop_early: {method: asha}`, or `hyperband`, `median` or `patience`: trials are then stopped before
their last epoch and recorded as pruned. `train.max_seconds` bounds each trial's training time; with `run.keep: state`,
a sweep with more epochs trains only those that are new, where `lr_schedule` is constant.

`--set` takes the same dotted keys with YAML values, stages by name: `--set stages.grid.space.lr=0.01`.
"""


def help_text() -> str:
    """The options of the sweep command as a table."""
    group = typer.main.get_command(app)
    command = group.commands["sweep"]  # type: ignore[attr-defined]
    lines = ["| option | |", "|---|---|"]
    for parameter in command.params:
        if parameter.param_type_name == "option" and parameter.name != "help":
            flag = max(parameter.opts, key=len)
            metavar = f" {parameter.metavar}" if parameter.metavar and not parameter.is_flag else ""
            metavar = metavar.replace("|", r"\|")  # it would end the cell
            lines.append(f"| `{flag}{metavar}` | {parameter.help} |")
    return "\n".join(lines)


def reference() -> str:
    """docs/sweeps.md."""
    return INTRODUCTION + "".join(f"\n## {title}\n\n{table(part)}" for title, part in PARTS)


def table(part: type[BaseModel]) -> str:
    """The keys of one part."""
    rows = [f"| `{name}` | {default(field)} | {description(field)} |\n" for name, field in part.model_fields.items()]
    return "| key | default | |\n|---|---|---|\n" + "".join(rows)


def default(field: FieldInfo) -> str:
    """A default as YAML would have it, or that there is none."""
    if field.is_required():
        return "required"
    value = field.get_default()
    if isinstance(value, BaseModel) or value in (None, (), ""):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def description(field: FieldInfo) -> str:
    """What a key means and what it may be."""
    said = field.description or "see below"
    choices = [str(choice) for choice in get_args(field.annotation) if isinstance(choice, str)]
    limits = [limit(rule) for rule in field.metadata]
    allowed = ", ".join([*choices, *(text for text in limits if text)])
    return f"{said} ({allowed})" if allowed else said


def limit(rule: Any) -> str:
    """A bound in words."""
    for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
        if hasattr(rule, name):
            return f"{sign} {getattr(rule, name):,}"
    return ""


def readme_with_help(text: str) -> str:
    """README.md with its options table made anew."""
    marks = "<!-- begin help -->\n", "<!-- end help -->"
    return re.sub(f"{marks[0]}.*?{marks[1]}", lambda _: f"{marks[0]}{help_text()}\n{marks[1]}", text, flags=re.DOTALL)


def main() -> None:
    """Write both."""
    readme = ROOT / "README.md"
    readme.write_text(readme_with_help(readme.read_text(encoding="utf-8")), encoding="utf-8")
    (ROOT / "docs" / "sweeps.md").write_text(reference(), encoding="utf-8")


if __name__ == "__main__":
    main()
