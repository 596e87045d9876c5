"""Write the generated pages: `python docs/make_reference.py`. A test fails if they are out of date."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cnnsearch import told
from cnnsearch.asking import EXAMPLES
from cnnsearch.cli import app
from cnnsearch.spec.confirm import Confirm
from cnnsearch.spec.data import AutoSplit, DataSpec, FillSplit, FoldsSplit, StratifiedSplit
from cnnsearch.spec.schema import FILE, schema_text
from cnnsearch.spec.settings import TrainSpec
from cnnsearch.spec.stage import Search, Stage, StartFrom, StopEarly
from cnnsearch.spec.sweep import EvidenceSpec, RunSpec, Sweep

ROOT = Path(__file__).parents[1]

RULES: tuple[type[BaseModel], ...] = get_args(get_args(StopEarly)[0])

PARTS: list[tuple[str, type[BaseModel]]] = [
    ("A sweep", Sweep),
    ("`data:`", DataSpec),
    ("`data.split:` with `method: auto`, which is the default", AutoSplit),
    ("`data.split:` with `method: fill`", FillSplit),
    ("`data.split:` with `method: stratified`", StratifiedSplit),
    ("`data.split:` with `method: folds`", FoldsSplit),
    ("`train:`, and the axes of a space", TrainSpec),
    ("A stage", Stage),
    ("`start_from:` of a stage", StartFrom),
    ("`search:` of a stage", Search),
    *((f"`stop_early:` of a stage with `method: {rule.model_fields['method'].default}`", rule) for rule in RULES),
    ("`confirm:`", Confirm),
    ("`evidence:`", EvidenceSpec),
    ("`run:`", RunSpec),
]

INTRODUCTION = """\
# Sweep files

A sweep is a YAML file such as `sweeps/part1.yaml`. Only `name` and `stages` are required. The tables on this page are
generated from the code by `docs/make_reference.py`.

**Spaces.** A stage has a `space`: axes and their values. Every key of `train`, and `image_size`, can be an axis. The
values are a constant or one of `{grid: [...]}`, `{choice: [...]}`, `{uniform: [low, high]}`,
`{loguniform: [low, high]}`, `{int: [low, high]}`. All but `grid` need `search:` with `trials: N`. The first axis varies
slowest.

An axis may have a condition on earlier axes with listed values. Where the condition does not hold, the axis has its
value from `train:`. Examples: `dropout: {grid: [0, 0.2], when: {model: plain}}`,
`fine_tune: {grid: [head, full], when: {weights: [imagenet]}}`.

Networks on an axis that cannot take the images' size are left out, and the plan names them with what they need; a sweep
whose only network cannot is refused.

**Changes.** `profiles` names sets of changes; their keys are dotted. `--set` takes the same keys with YAML values.
Stages go by name: `--set stages.grid.space.lr=0.01`.

**Metric.** `metric:` of a sweep is `accuracy` unless it says otherwise: `loss`, `balanced_accuracy` (mean recall over
classes), `macro_f1`, `auroc` and `average_precision` (each class against the rest, mean over classes), `top5_accuracy`,
`brier`, or `ece` (expected calibration error, 15 bins of equal width). It decides on validation images which epoch of a
trial is its best and which setting is the best. Searchers look for it, rules stop by it, a later stage starts from the
best by it, and weights of the best by it are kept, unless the stage says otherwise. All these metrics of the best epoch
are in `trials.parquet`, as `val_macro_f1` or `test_auroc`; that of the sweep is in `epochs.parquet` too, for every
epoch. They equal those of scikit-learn. Trials whose weights are kept also keep the probability of every class, in
`probabilities.safetensors`; where the metric is computed from those, all trials do. Another metric makes other trials,
because it may choose another epoch; those of before keep their ids.

**Searchers.** With `search: {method: tpe, trials: 40}` a searcher suggests the trials:

- `tpe` is a good first choice and handles any space.
- `gp` is for few, costly trials. A suggestion takes a second or more.
- `cmaes` is for ranges. It leaves listed axes to TPE.
- `qmc` covers the space evenly and does not use outcomes.
- `nsga2` takes several `objectives` and looks for the best trade-offs between them.

Suggestion k is made from the outcomes of suggestions 0 to k − `at_once`. So the same sweep suggests the same trials,
however many run at a time. A small `at_once` learns more from each trial; a large one keeps more cores busy.
Suggestions are recorded before they run. The same command continues from them, and a larger `trials` adds more. Any
other change to what decides the suggestions begins a new search. A trial that diverges counts as the worst so far. A
stage that starts from another stage searches each group separately, with `trials` suggestions for each.

**Beginning with what is known.** With `search: {..., prior: [results/earlier]}` a search begins with the best settings
of earlier sweeps that are in its space: a tenth of its trials, from several sweeps in turn. They are trained like any
other suggestion, so a sweep of other images can mislead a search for that long and no longer. With a rule that stops
trials by comparing them it is one setting, because several good ones would stop each other. Model and fine-tuning
mode have to agree; images, sizes and epochs may differ. `first: [{lr: 0.01, batch_size: 32}]` names settings by hand.
What a search began with is recorded in its own results: it goes on when the earlier ones are gone.

**Stopping early.** With `stop_early: {method: asha}` (or `hyperband`, `median`, `patience`) trials are stopped before
their last epoch and recorded as pruned. With several seeds, all but `patience` judge a setting by the mean of its
seeds, and stop all of them or none. A setting is also stopped if one of its seeds diverges.

`train.max_seconds` limits the training time of each trial. With `run.keep: state` and a constant `lr_schedule`, a sweep
with more epochs trains only the additional ones.

**Confirming.** The best of many scores is best partly by luck. With `confirm: {seeds: 5}`, or `--confirm`, the
contenders are trained again when all other trials have ended: the settings that validation does not tell from the best
one, 2 to 5 of them. They get seeds that no trial of the sweep has used, the next ones above the largest. A setting of a
stage that starts from another is trained again from the start, together with what it starts from. These trials are a
stage of their own, `confirm`. Which setting each of them repeats is in the column `confirms` of `trials.parquet`. A
folder that has results already gets the stage added; `--confirm 0` leaves it out.

With `--until-clear 2h` contenders get more seeds in rounds: 3, 4, 5, 7, 10, 14, 20, 28, 40 and 56 of them. After each
round the contenders are compared on the validation images, with other seeds and other images in mind. One that is worse
than another gets no more seeds. It ends when one is left, when all that are left are shown to be within `margin` of the
best, or when another round would take longer than two hours from the first comparison on. However often one looks, the
best is named wrongly in at most 5 % of sweeps. The same command goes on later. Rounds are recorded in `studies/`.

**Sealing the test set.** With `evidence: {test: sealed}`, or `--set evidence.test=sealed`, no trial is evaluated on the
test images. Settings are compared on the validation images, and every trial keeps its weights. When all is decided,
`cnnsearch unseal RESULTS` tests every trial from them, once, and makes tables and report again, with the numbers that
an open sweep would have. Trials that a later command adds are tested as they end, and the report counts their settings.
Results have to be in a folder.

**Training.** The learning rate is a function of the step. Training losses are the quantity that is minimized, with
smoothed labels, class weights, and focal or binary cross-entropy where these are asked for; validation and test losses
are plain cross-entropy. Augmentation, erasing, mixup and cutmix depend on the seed, the epoch and the image, so trials
with the same seed see the same images, whatever their batch size. They change training images only. With them, frozen
layers see new images in every epoch and are computed again. With both mixup and cutmix, each image gets one of them. An
average of the weights (`ema`) changes no step of training: it is what is evaluated, kept, tested and exported.
Optimizers have PyTorch's defaults but for the settings in the table; adam, adamw and sgd are the fastest here.
"""


COMMANDS_INTRODUCTION = """\
# The command line

With the environment active (`. .venv/bin/activate`); else write `.venv/bin/cnnsearch`. `cnnsearch COMMAND --help` says
the same, and `cnnsearch --install-completion` has bash, zsh or fish complete commands and options.
[commands.md](commands.md) says which command does which job. The lists below are generated from the code by
`docs/make_reference.py`.

## Exit codes

| code | |
|---|---|
| 0 | all is well. Of a sweep: every planned trial is done, was stopped by a rule, or is left for later as asked |
| 1 | it ran, but trials failed or diverged, images could not be read, or what was asked for is not so |
| 2 | the request was wrong: one message, nothing was started |
| 130 | interrupted by Ctrl-C or SIGTERM; what is done is kept |
| N | a sweep with `--exit-code-when-left N` left trials for later |

Where a command has `--json`, standard output is one object at every exit code; [json.md](json.md) has the details.
"""


def command_line_page() -> str:
    """docs/command-line.md."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return COMMANDS_INTRODUCTION + "".join(_command(name, command) for name, command in commands.items())


def _command(name: str, command: Any) -> str:
    """One command: what it does, how it is called, each argument and option, an example."""
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option" and one.name != "help"]
    words = [one.metavar if one.required else f"[{one.metavar.strip('[]')}]" for one in arguments]
    rows = [(one.metavar, one.help) for one in arguments]
    rows += [(_option(one), re.sub(r"(?<!\S)--[a-z-]+", r"`\g<0>`", one.help)) for one in options]
    # A bare | would end the cell.
    cells = "".join(f"| `{word.replace('|', chr(92) + '|')}` | {said} |\n" for word, said in rows)
    usage = " ".join(["cnnsearch", name, *words, *(["[OPTIONS]"] if options else [])])
    shown = f"    cnnsearch {name} {EXAMPLES[name]}"
    return f"\n## `{name}`\n\n{command.help}\n\n`{usage}`\n\n| | |\n|---|---|\n{cells}\nFor example:\n\n{shown}\n"


def _option(option: Any) -> str:
    flag = max(option.opts, key=len)
    return f"{flag} {option.metavar}" if option.metavar and not option.is_flag else flag


def reference() -> str:
    """docs/sweeps.md."""
    return INTRODUCTION + "".join(f"\n## {title}\n\n{table(part)}" for title, part in PARTS)


JSON_INTRODUCTION = """\
# JSON for scripts

With `--json`, the commands `sweep` (also with `--dry-run`), `report`, `unseal`, `status`, `predict`, `explain`,
`reproduce`, `diff`, `check`, `share`, `convert` and `schema` print one JSON object, on one line, on standard output and
nothing else there, whatever their exit code. The plan, progress and messages go to standard error.

    cnnsearch sweep part1 --profile quick --json > answer.json

`kind` says which of the objects below it is, `exit_code` what the command ends with:

| exit code | `kind` | |
|---|---|---|
| 0 | `error` and `stopped` excepted, any | all is well; a run may have left trials |
| 1 | `predictions` | some images could not be read; the object has the rest |
| 1 | `diff` | with `--fail-on-regression`: B is worse beyond what the evidence allows |
| 1 | `reproduction` | the training now is different from the recorded one |
| 1 | `run` | trials failed or diverged; the object has the rest |
| 1 | `error` | the run was ended by something outside of its trials, such as a full disk |
| 2 | `error` | the request was wrong, nothing was started |
| 130 | `stopped` | Ctrl-C or SIGTERM: how much is done, and the command that goes on |
| N | `run` | `--exit-code-when-left N`: trials are left for later by `--max-time` or `--max-trials` |

A process that is killed prints nothing. Accuracies are numbers from 0 to 1. Verdicts are those of the report:
[evidence.md](evidence.md) says what they mean. Which setting is best is decided by
the sweep's `metric` on validation images alone, which is accuracy unless the sweep says otherwise.

    cnnsearch sweep part1 --json --max-time 1h --exit-code-when-left 3 > answer.json
    python -c 'import json; print(json.load(open("answer.json"))["best"]["test"]["value"])'

The JSON Schema is in [json.schema.json](json.schema.json); `cnnsearch.told.schema()` returns that of the installed
version. Keys are only ever added, so leave those that you do not know. The tables below are generated from the code by
`docs/make_reference.py`.
"""
_JSON_TYPES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}


def json_page() -> str:
    """docs/json.md."""
    definitions = told.schema()["$defs"]
    kinds = [kind.__name__ for kind in told.KINDS]
    order = [*kinds, *sorted(definitions.keys() - set(kinds))]
    return JSON_INTRODUCTION + "".join(_json_table(name, definitions[name]) for name in order)


def _json_table(name: str, definition: dict[str, Any]) -> str:
    fields = definition["properties"]
    kind = fields.get("kind", {}).get("const")
    title = f"`{kind}`" if kind else name
    rows = [
        f"| `{key}` | {_json_type(field)} | {field.get('description', '')} |\n".replace(" |  |", " | |")
        for key, field in fields.items()
    ]
    return f"\n## {title}\n\n{definition['description']}\n\n| key | | |\n|---|---|---|\n{''.join(rows)}"


def _json_type(field: dict[str, Any]) -> str:
    """The type of a field in words."""
    if "const" in field:
        return f"`{json.dumps(field['const'])}`"
    if "enum" in field:
        return " or ".join(f"`{json.dumps(one)}`" for one in field["enum"])
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_json_type(one) for one in field["anyOf"]))
    if field["type"] == "array":
        return f"list of {_json_type(field['items'])}"
    if field["type"] == "object":
        inner = field["additionalProperties"]
        return "object" if inner is True else f"object of {_json_type(inner)}"
    return _JSON_TYPES.get(field["type"], field["type"])


def json_schema() -> str:
    """docs/json.schema.json."""
    return json.dumps(told.schema(), indent=1, ensure_ascii=False) + "\n"


def table(part: type[BaseModel]) -> str:
    """The keys of one part as a table."""
    rows = [f"| `{name}` | {default(field)} | {description(field)} |\n" for name, field in part.model_fields.items()]
    return "| key | default | |\n|---|---|---|\n" + "".join(rows)


def default(field: FieldInfo) -> str:
    """A default as written in YAML; empty if there is none."""
    if field.is_required():
        return "required"
    value = field.get_default()
    if isinstance(value, BaseModel) or value in (None, (), ""):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def description(field: FieldInfo) -> str:
    """What a key means and which values it may have."""
    said = field.description or "see below"
    choices = [str(choice) for choice in get_args(field.annotation) if isinstance(choice, str)]
    limits = [limit(rule) for rule in field.metadata]
    allowed = ", ".join([*(choices if len(choices) > 1 else []), *(text for text in limits if text)])
    return f"{said} ({allowed})" if allowed else said


def limit(rule: Any) -> str:
    """A bound in words."""
    for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
        if hasattr(rule, name):
            return f"{sign} {getattr(rule, name):,}"
    return ""


PAGES = {
    "command-line.md": command_line_page,
    "sweeps.md": reference,
    "json.md": json_page,
    "json.schema.json": json_schema,
}
"""Generated file in docs/ -> what makes its text."""


def main() -> None:
    """Write the generated pages, and the JSON Schemas of answers and of sweep files."""
    for name, made in PAGES.items():
        (ROOT / "docs" / name).write_text(made(), encoding="utf-8")
    FILE.write_text(schema_text(), encoding="utf-8")


if __name__ == "__main__":
    main()
