"""A prepared sweep in words and as JSON: its trials, what they cost, where they run."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cnnsearch.checking import Checked
from cnnsearch.data.splits import in_words
from cnnsearch.execution.machine.estimate import representatives, workload_key
from cnnsearch.execution.machine.hardware import DRIVER_BYTES
from cnnsearch.planning.plan import Plan, StagePlan
from cnnsearch.planning.stopping_rules import rule_of
from cnnsearch.planning.trial import Status
from cnnsearch.prepare import Prepared, is_at_most
from cnnsearch.spec.axis_words import describe
from cnnsearch.spec.cells import size as stage_size
from cnnsearch.spec.confirm import CONFIRM
from cnnsearch.spec.metric import DEFAULT, METRICS
from cnnsearch.spec.stage import Stage
from cnnsearch.spec.sweep import Sweep
from cnnsearch.spec.values import Values
from cnnsearch.words import counted, duration, listed, printable, size

CLASSES_NAMED = 10
"""Classes up to which all of them are named in the plan."""


@dataclass(frozen=True)
class Limits:
    """What a run is held to this time; the rest is left for later."""

    seconds: float | None = None
    trials: int | None = None

    @property
    def text(self) -> str:
        """In words; empty without limits."""
        parts = [] if self.trials is None else [f"begins at most {counted(self.trials, 'trial')}"]
        parts += [f"ends after {duration(self.seconds)}"] if self.seconds is not None else []
        return f"this time {listed(parts)}; the same command goes on with the rest" if parts else ""


NO_LIMITS = Limits()


def ended_text(counts: Mapping[Any, int], planned: int) -> str:
    """Say how many trials have ended: `9 of 16 trials done`, or `9 of 16 trials ended (7 done, 2 pruned)`."""
    known = {str(status): count for status, count in counts.items() if count}
    if known.keys() <= {"done"}:
        return f"{sum(known.values())} of {planned} trials done"
    return f"{sum(known.values())} of {planned} trials ended ({_each(known)})"


def _each(counts: Mapping[str, int]) -> str:
    order = [status.value for status in Status]
    return ", ".join(f"{counts[status]} {status}" for status in order if counts.get(status))


def plan_text(ready: Prepared, limits: Limits = NO_LIMITS) -> str:
    """Describe the plan and its estimate, with one line for each subject."""
    sweep, dataset, sizes = ready.sweep, ready.dataset, ready.sizes
    in_fold, side = " in a fold" if dataset.folds else "", sweep.data.image_size
    is_scaled = dataset.jpeg == "scaled"
    rows = [
        (
            "data",
            f"{dataset.source}: {len(dataset.classes)} classes, {sizes.train:,} train / {sizes.val:,} "
            f"validation{in_fold} / {sizes.test:,} test, resized to {side}×{side}",
        ),
        ("", _classes_text(dataset.classes)),
        ("", f"split: {in_words(dataset.split, dataset.parts)}"),
        *([("", "JPEG files are decoded at a fraction of their size; data.jpeg=exact decodes all of it")] * is_scaled),
        *(("", f"note: {warning}") for warning in dataset.warnings),
    ]
    look = f"cnnsearch check {shlex.quote(sweep.data.source)}"
    if found := Checked(dataset).summary():
        rows.append(("", f"note: {found}; {look} lists them"))
    if dataset.looks is None:
        rows.append(("", f"note: nobody has looked for copies among so many images; {look} does, in some minutes"))
    rows += [("", f"note: {found.file} is read {found.note}") for found in ready.weights.values() if found.note]
    if sweep.metric != DEFAULT:
        rows.append(("metric", f"{METRICS[sweep.metric].words} on validation chooses epochs and settings"))
    if ready.is_sealed:
        rows.append(("", f"test set sealed: no test image is looked at until cnnsearch unseal {ready.results}"))
    if ready.repeated:
        many = f"{len(ready.repeated)} finished trial{'s' * (len(ready.repeated) > 1)}"
        rows.append(("", f"note: {many} run again: others start from weights of theirs that are gone or damaged"))
    rows += [("", f"left out: {problem}") for problem in ready.left_out]
    for planned in ready.plan.stages:
        stage = planned.stage
        axes = _space_text(stage) if stage is not CONFIRM else _confirmed_text(ready, planned)
        if len(sweep.replicates) > 1 and stage is not CONFIRM:
            axes += f" × {_replicates(sweep)}"
        if stage.start_from:
            each = f" of each {', '.join(stage.start_from.per)}" if stage.start_from.per else ""
            axes += f"{', ' * bool(axes)}from the best{each}"
        cost = ready.costs[stage.name]
        about = "at most" if is_at_most(ready, stage.name) else "about"
        when = f"{about} {duration(cost.seconds)}" if cost.trials else "already done"
        rows.append((stage.name, f"{_up_to(planned)}{planned.total} trials   {axes}   {when}"))
        notes = [
            *first_notes(planned.stage),
            *search_notes(ready, planned),
            *stopping_notes(ready, planned),
            *frozen_notes(ready, stage.name),
            *batch_notes(ready, stage.name),
        ]
        rows += [("", note) for note in notes]
    if ready.outside.on_other_data:
        many = counted(ready.outside.on_other_data, "recorded trial was", "recorded trials were")
        note = "trained on other images, or on another split of them, and will not be in the report"
        rows.append(("", f"note: {many} {note}; with another --out both have one"))
    if ready.outside.of_stages:
        many = counted(sum(ready.outside.of_stages.values()), "recorded trial is", "recorded trials are")
        rows.append(("", f"note: {many} outside of this sweep; cnnsearch report {ready.results} --all shows them too"))
    rows.append(("on", f"{ready.places}, {ready.precision}"))
    rows.append(("total", _total_text(ready)))
    if ready.remaining and limits.text:
        rows.append(("limits", limits.text))
    width = max(len(label) for label, _ in rows)
    title = f"{sweep.name} · {sweep.title}" if sweep.title else sweep.name
    return "\n".join([title, *(f"{label:<{width}}  {text}" for label, text in rows)])


def _replicates(sweep: Sweep) -> str:
    """Word how often each setting is trained: `seeds 3`, `folds 5`, `folds 5 × repeats 2`."""
    if sweep.folds is None:
        return f"seeds {len(sweep.seeds)}"
    return f"folds {sweep.folds.k}" + (f" × repeats {sweep.folds.repeats}" if sweep.folds.repeats > 1 else "")


def _classes_text(classes: Sequence[str]) -> str:
    """Name the classes, or the first of many: `classes: airplane, bird, cat, deer, dog and 95 more`."""
    shown = classes if len(classes) <= CLASSES_NAMED else classes[: CLASSES_NAMED // 2]
    names = [printable(name if len(name) <= 40 else f"{name[:39]}…") for name in shown]
    others = [f"{len(classes) - len(shown):,} more"] if len(shown) < len(classes) else []
    return f"classes: {listed([*names, *others])}"


def _up_to(plan: StagePlan | Plan) -> str:
    return "up to " if plan.is_at_most else ""


def _confirmed_text(ready: Prepared, planned: StagePlan) -> str:
    """Word what is trained again, as in `the best 2 to 5 settings again × fresh seeds 5, with what they start from`."""
    confirm, found = ready.sweep.confirm, planned.confirmation
    assert confirm is not None
    if found and found.contenders:
        several = f"the best {len(found.contenders)}"
    else:
        several = "the best 2 to 5" if confirm.contenders == "auto" else f"the best {confirm.contenders}"
    starts = ", with what they start from" if any(stage.start_from for stage in ready.sweep.stages) else ""
    return f"{several} settings again × fresh seeds {confirm.seeds}{starts}"


def first_notes(stage: Stage) -> list[str]:
    """Say with which settings a search begins."""
    search = stage.search
    cells = [", ".join(describe(axis, value) for axis, value in cell.items()) for cell in search.first]
    whence = f", the best of {listed([printable(one) for one in search.prior])}" if search.prior else ""
    return [f"begins with {counted(len(cells), 'setting')}{whence}: {'; '.join(cells)}"] if cells else []


def search_notes(ready: Prepared, planned: StagePlan) -> list[str]:
    """Say that what is recorded of a stage is of another search, from which this one learns nothing."""
    others = ready.outside.of_stages.get(planned.stage.name, 0)
    if not others or not planned.studies or any(study.suggestions for study in planned.studies):
        return []
    many = counted(others, "recorded trial")
    return [f"a new search: {many} of this stage belong to one with another space, seed or settings, and do not count"]


def stopping_notes(ready: Prepared, planned: StagePlan) -> list[str]:
    """Say when trials of a stage end early, and how many epochs that leaves."""
    stage = planned.stage
    rule, epochs = stage.stop_early, ready.sweep.train.epochs
    if rule is None:
        return []
    known = next(iter(planned.trials), None)
    compared = ready.compared(known) if known else stage_size(stage)
    seeds, each = len(ready.sweep.replicates), "folds" if ready.sweep.folds else "seeds"
    together = f"; the {each} of a setting are stopped together" if seeds > 1 and rule_of(rule).compares else ""
    return [f"{rule.method}: {rule_of(rule).forecast(epochs, compared, stage.search.guided_from)}{together}"]


def _space_text(stage: Stage) -> str:
    """Word a stage's space, as in `lr 3 × batch_size 2` or `tpe over lr, dropout; 8 suggested at a time`."""
    search = stage.search
    if search.method == "grid":
        return " × ".join(_axis_text(axis, values) for axis, values in stage.space.items() if values.varies)
    if search.method == "random":
        return f"random draws of {', '.join(stage.space)}"
    aims = f" for {' and '.join(search.aims)}" if search.objectives else ""
    text = f"{search.method} over {', '.join(axis for axis, values in stage.space.items() if values.varies)}{aims}"
    return text if search.method == "qmc" else f"{text}; {search.window} suggested at a time"


def _axis_text(axis: str, values: Values) -> str:
    """Word an axis with its number of values, as in `lr 3` or `dropout 2 (plain only)`."""
    only = " and ".join(" or ".join(map(str, wanted)) for wanted in values.when.values())
    return f"{axis} {len(values.args)}" + (f" ({only} only)" if only else "")


def frozen_notes(ready: Prepared, stage: str) -> list[str]:
    """Say that a stage's frozen layers are computed once, or why they are not."""
    images = ready.sizes.train + ready.sizes.val + ready.sizes.test
    notes: dict[str, None] = {}
    for trial in representatives(ready.plan):
        timed = ready.calibration.workloads.get(workload_key(trial.settings), {})
        if trial.stage != stage or trial.settings.fine_tune == "full" or not timed:
            continue
        needed, what = timed["features_image_bytes"] * images, f"{trial.settings.model} {trial.settings.fine_tune}"
        if trial.settings.changes_images:
            notes[f"{what}: images change before its frozen layers, so every epoch computes all layers"] = None
        elif needed == 0:
            notes[f"{what}: its first layer trains, so every epoch computes all layers"] = None
        elif needed > ready.features_bytes:
            notes[f"{what}: outputs of frozen layers ({size(needed)}) are too large to keep"] = None
        else:
            notes[f"{what}: frozen layers computed once, {size(needed)}"] = None
    return list(notes)


def batch_notes(ready: Prepared, stage: str) -> list[str]:
    """Say where the last image of an epoch cannot be a batch by itself."""
    notes: dict[str, None] = {}
    for trial in representatives(ready.plan):
        chosen = trial.settings
        timed = ready.calibration.workloads.get(workload_key(chosen), {})
        if trial.stage == stage and timed.get("needs_company") and ready.sizes.train % chosen.batch_size == 1:
            what = f"{chosen.model} at {chosen.image_size}×{chosen.image_size} with batch_size {chosen.batch_size}"
            notes[f"{what}: the last image joins the batch before it, as one alone cannot be normalised"] = None
    return list(notes)


def _total_text(ready: Prepared) -> str:
    ended = Counter(outcome.status.value for id_, outcome in ready.outcomes.items() if id_ in ready.plan.trials)
    how = f"{ready.done} already done" if ended.keys() <= {"done"} else f"{ready.done} already ended: {_each(ended)}"
    text = f"{_up_to(ready.plan)}{ready.plan.total} trials ({how})"
    if not ready.remaining:
        return text + ", nothing to run"
    open_ended = any(is_at_most(ready, name) for name, cost in ready.costs.items() if cost.trials)
    about = "at most" if open_ended else "about"
    return (
        f"{text}, {about} {duration(total_seconds(ready))}, {size(memory_bytes(ready))} memory, "
        f"{size(sum(cost.disk_bytes for cost in ready.costs.values()))} disk"
    )


def total_seconds(ready: Prepared) -> float:
    """Expected seconds of everything that is left."""
    if not ready.remaining:
        return 0.0
    around = ready.calibration.around_seconds(ready.plan.total, serial=ready.layout.is_serial)
    return around + sum(cost.seconds for cost in ready.costs.values())


def memory_bytes(ready: Prepared) -> int:
    """Expected peak memory of the whole run on this machine."""
    return DRIVER_BYTES + max((cost.memory_bytes for cost in ready.costs.values()), default=0)
