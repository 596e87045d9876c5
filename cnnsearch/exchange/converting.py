"""Makes a sweep file of a search space of another tool. What has no match is said at its place, in a comment."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cnnsearch.exchange.spaces import Lost, Param, Space
from cnnsearch.spec.explain import ALIASES, did_you_mean
from cnnsearch.spec.metric import METRICS
from cnnsearch.spec.schema import first_line
from cnnsearch.spec.settings import AXES, Recipe, Settings, axis_problem
from cnnsearch.words import printable

TRIALS = 30
"""Trials of a search where nothing is said of their number."""
_LIKENESS = 0.75
"""Least likeness, from 0 to 1, at which a name is taken for a misspelt setting of ours. It is high, since most names
are of settings that only the other program has: units is not weights."""
MOST_LISTED = 50
"""Most values of a stepped range that are listed one by one."""
_ALIASES = {
    **ALIASES,
    **dict.fromkeys(("lr", "base_lr", "init_lr", "learn_rate"), "lr"),
    **dict.fromkeys(("n_epoch", "num_epoch", "epoch"), "epochs"),
    **dict.fromkeys(("opt", "optimiser"), "optimizer"),
    **dict.fromkeys(("l2", "weightdecay"), "weight_decay"),
    **dict.fromkeys(("model_name", "architecture_name"), "model"),
    **dict.fromkeys(("random_seed", "random_state"), "seed"),
    **dict.fromkeys(("resolution", "input_size"), "image_size"),
    **dict.fromkeys(("clip_grad", "gradient_clip", "gradient_clip_val"), "grad_clip"),
    "batch_sizes": "batch_size", "cutmix_alpha": "cutmix", "dropout_rate": "dropout", "ema_decay": "ema",
    "label_smooth": "label_smoothing", "mixup_alpha": "mixup", "width_mult": "width",
}  # fmt: skip
"""What other tools' programs call a setting -> its name here."""
_METRICS = {
    "acc": "accuracy", "accuracy": "accuracy", "top1": "accuracy", "loss": "loss", "f1": "macro_f1",
    "f1_score": "macro_f1", "macro_f1": "macro_f1", "auc": "auroc", "auroc": "auroc", "roc_auc": "auroc",
    "balanced_accuracy": "balanced_accuracy", "top5_accuracy": "top5_accuracy", "ece": "ece", "brier": "brier",
    "average_precision": "average_precision",
}  # fmt: skip


@dataclass(frozen=True)
class Converted:
    """A sweep file made of another tool's search space."""

    text: str
    axes: tuple[str, ...]
    """What it varies."""
    lost: tuple[Lost, ...]
    """All that has no match, in the order of the file."""


def convert(space: Space, source: str) -> Converted:
    """Make a sweep file; `source` is the name of the file that it was."""
    general = list(space.lost)
    method = space.method or "random"
    if method == "grid" and any(one.kind not in ("constant", "listed") and not _stepped(one) for one in space.params):
        method = "random"
        general.append(Lost("method: grid", "a range cannot be run as a whole; settings are drawn at random"))
    metric, of_metric = _metric(space)
    found = _axes(space, method)
    if not any(len(param.args) > 1 for param in found.axes.values()) and method != "grid":
        method = "random"  # a searcher needs something to search
    search, of_search = _search(space, method, bool(found.axes))
    rule, of_rule = _rule(space, found.constants)
    general += [*of_metric, *of_rule]
    stem = source.rpartition(".")[0] or source
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", space.name or stem).strip("-_")[:40] or "sweep"
    lines = [
        first_line(),
        f"# Made of {printable(source)}, of {space.tool}. What has no match here stands in comments.",
        *(f"# no match: {printable(one.what)}: {printable(one.why)}" for one in general),
        "",
        f"name: {name}",
    ]
    if space.question:
        lines.append(f"question: {json.dumps(printable(space.question), ensure_ascii=False)}")
    lines += ["", "data:", "  source: fashion-mini  # the images are not said there: name yours, or give --data"]
    if metric:
        lines += ["", f"metric: {metric}"]
    if found.constants:
        lines += ["", "train:", *(f"  {axis}: {_written(value)}" for axis, value in found.constants.items())]
    lines += ["", "stages:", "  - name: search"]
    if search:
        lines += [f"    search: {search}", *(f"    # {printable(one.what)}: {one.why}" for one in of_search)]
    if rule:
        lines.append(f"    stop_early: {rule}")
    lines += ["    space:" if found.axes else "    space: {}", *found.lines, ""]
    return Converted("\n".join(lines), tuple(found.axes), (*general, *of_search, *found.lost))


@dataclass
class _Found:
    """What the parameters of a space became."""

    axes: dict[str, Param] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    """Of the stage's space, with comments."""
    lost: list[Lost] = field(default_factory=list)


def _axes(space: Space, method: str) -> _Found:
    found = _Found()
    for param in space.params:
        axis = axis_of(param.name)
        problem = _problem(param, axis, found)
        if axis is None or problem:
            reason = problem or _no_axis(param.name)
            found.lost.append(Lost(_short(param), reason))
            found.lines.append(f"      # no match: {_short(param)}: {reason}")
            continue
        values, notes = _values(param, axis, method)
        for note in notes:
            found.lost.append(Lost(_short(param), note))
            found.lines.append(f"      # {_short(param)}: {printable(note)}")
        if values is None:
            continue
        if param.kind == "constant" and axis in Recipe.model_fields:
            found.constants[axis] = values
            continue
        found.axes[axis] = param
        found.lines.append(f"      {axis}: {_written(values)}")
    return found


def axis_of(name: str) -> str | None:
    """What a setting of another program is called here; None where nothing is known of it."""
    for word in (name, re.split(r"[./]", name)[-1]):
        plain = re.sub(r"[\s-]+", "_", word.strip().lower())
        for one in (plain, _ALIASES.get(plain, ""), _ALIASES.get(plain.replace("_", ""), "")):
            if one in AXES:
                return one
    return None


def _no_axis(name: str) -> str:
    plain = re.split(r"[./]", name)[-1]
    hint = did_you_mean(plain, AXES, cutoff=_LIKENESS)
    return f"it is no setting of trials here.{hint} A network of your own may take it, as model_args.NAME with --code"


def _problem(param: Param, axis: str | None, found: _Found) -> str:
    if axis is not None and (axis in found.axes or axis in found.constants):
        return f"{axis} is there already"
    for parent, values in param.when.items():
        of = found.axes.get(axis_of(parent) or "")
        if of is None or of.kind != "listed" or not {*map(str, values)} <= {*map(str, of.args)}:
            return f"it holds under a condition on {printable(parent)}, which is no axis with listed values before it"
    return ""


def _short(param: Param) -> str:
    args = ", ".join(str(value) for value in list(param.args)[:8]) + (", ..." if len(param.args) > 8 else "")
    text = f"{param.name}: {args}" if param.kind in ("constant", "listed") else f"{param.name}: {param.kind} {args}"
    return printable(text)[:120]


def _stepped(param: Param) -> list[Any]:
    """The values of a range with steps, or of a small range of whole numbers, where they can be listed."""
    low, high = (param.args[0], param.args[1]) if len(param.args) > 1 else (0, 0)
    step = param.step or (1.0 if param.kind == "int" else 0.0)
    if param.kind not in ("int", "uniform") or step <= 0 or (high - low) / step >= MOST_LISTED:
        return []
    count = int((high - low) / step + 1e-9) + 1
    found = [round(low + index * step, 12) for index in range(count)]
    return [int(value) for value in found] if all(float(value).is_integer() for value in found) else found


def _values(param: Param, axis: str, method: str) -> tuple[Any, list[str]]:
    """The values of an axis as a sweep file has them, None where none is left; and what was lost of them."""
    notes: list[str] = []
    listed = "grid" if method == "grid" else "choice"
    values: list[Any] = list(param.args)
    kind = param.kind
    if (
        kind in ("int", "uniform")
        and (param.step or method == "grid" or axis == "image_size")
        and (all_ := _stepped(param))
    ):
        kind, values = "listed", all_
    elif param.step:
        notes.append(f"values at steps of {param.step:g} become any in the range")
    if kind in ("constant", "listed"):
        known = [_value(value, axis) for value in values]
        kept = [one for index, one in enumerate(known) if one not in known[:index] and not axis_problem(axis, one)]
        if wrong := [one for one in known if axis_problem(axis, one)]:
            notes.append(f"no match: {', '.join(map(str, wrong[:8]))}: {_reason(axis, wrong[0])}")
        if not kept:
            return None, notes
        if kind == "constant":
            return kept[0], notes
        return {listed: kept, **_when(param)}, notes
    if method == "grid":
        return None, [*notes, "no match: a range cannot be enumerated"]
    return _range(param, kind, axis, notes)


def _range(param: Param, kind: str, axis: str, notes: list[str]) -> tuple[Any, list[str]]:
    annotation = Settings.model_fields[axis].annotation
    low, high = param.args
    if annotation is int:
        if kind in ("logint", "loguniform"):
            notes.append("a logarithmic scale becomes an even one, as whole numbers have it here")
        kind, low, high = "int", round(low), round(high)
        if axis == "image_size":
            return None, [*notes, "no match: images are resized beforehand, to every size: give a list"]
    elif annotation is not float:
        return None, [*notes, f"no match: {axis} takes words, not a range"]
    elif kind == "logint":
        kind = "loguniform"
        notes.append("whole numbers become fractions too")
    for end in (low, high):
        if axis_problem(axis, end):
            return None, [*notes, f"no match: a range to {end:g}: {_reason(axis, end)}"]
    if low >= high:
        return (low, notes) if low == high else (None, [*notes, f"no match: {low:g} is not below {high:g}"])
    return {kind: [low, high], **_when(param)}, notes


def _reason(axis: str, value: Any) -> str:
    found = str(axis_problem(axis, value))
    return found.removeprefix("Value error, ").replace("Input should", "it should")


def _when(param: Param) -> dict[str, Any]:
    when = {}
    for parent, values in param.when.items():
        axis = axis_of(parent) or ""
        when[axis] = [_value(value, axis) for value in values]
    return {"when": when} if when else {}


def _value(value: Any, axis: str) -> Any:
    """A value as it is written here: words in small letters, whole numbers where these are wanted."""
    annotation = Settings.model_fields[axis].annotation
    if isinstance(value, str) and annotation in (int, float):
        try:
            value = float(value)
        except ValueError:
            return value
    if annotation is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and axis != "weights":
        lower = value.lower()
        return lower if axis_problem(axis, lower) is None or axis_problem(axis, value) else value
    return value


def _metric(space: Space) -> tuple[str, list[Lost]]:
    if not space.metric:
        return "", []
    plain = re.split(r"[./]", space.metric.lower())[-1].replace(" ", "_")
    plain = re.sub(r"^(val|valid|validation|test|eval|best)_", "", plain)
    name = _METRICS.get(plain)
    if name is None:
        return "", [Lost(f"metric: {space.metric}", f"accuracy decides; there are {', '.join(METRICS)}")]
    if space.goal and (space.goal == "more") != METRICS[name].is_larger_better:
        return name, [Lost(f"the metric's goal, {space.goal}", f"of {name} it is always the other way")]
    return ("" if name == "accuracy" else name), []


def _search(space: Space, method: str, has_axes: bool) -> tuple[str, list[Lost]]:
    if method == "grid" or not has_axes:
        return "", []
    if space.trials:
        return f"{{method: {method}, trials: {space.trials}}}", []
    return f"{{method: {method}, trials: {TRIALS}}}", [Lost("trials", f"their number is not said there: {TRIALS}")]


def _rule(space: Space, constants: Mapping[str, Any]) -> tuple[str, list[Lost]]:
    if not space.rule:
        return "", []
    epochs = constants.get("epochs", Recipe.model_fields["epochs"].default)
    settings = {key: max(1 if key == "min_epochs" else 2, value) for key, value in space.rule_settings.items()}
    found = []
    if settings.get("min_epochs", 1) >= epochs:
        found.append(Lost(f"min_epochs: {settings['min_epochs']}", f"trials have {epochs} epochs"))
        del settings["min_epochs"]
    inner = "".join(f", {key}: {value}" for key, value in settings.items())
    return f"{{method: {space.rule}{inner}}}", found


def _written(value: Any) -> str:
    """A value in YAML, in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_written(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_written, value)) + "]"
    if isinstance(value, float):
        text = repr(value)
        return text if "e" not in text or "." in text else text.replace("e", ".0e")
    return json.dumps(value, ensure_ascii=False)
