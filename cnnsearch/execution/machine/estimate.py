"""Estimate what a sweep costs, from training steps that were timed on a machine. Without torch."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cnnsearch.execution.machine.hardware import Layout
from cnnsearch.planning.plan import Plan, StagePlan
from cnnsearch.planning.stopping_rules import mean
from cnnsearch.planning.trial import Trial
from cnnsearch.spec.cells import SIZE_POWERS, cells, typical_cells
from cnnsearch.spec.confirm import CONFIRM
from cnnsearch.spec.settings import Settings

IMPORT_SECONDS = 1.1
"""Seconds to import torch on the machine where the next six were measured; on others they are nearly proportional."""
START_SECONDS = 2.0
"""Seconds from the command to the first training step, without Ray."""
RAY_SECONDS = 4.0
"""Seconds that starting and ending Ray adds."""
REPORT_SECONDS = 3.0
"""Seconds for tables, plots and report of a small sweep."""
REPORTED_TRIAL_SECONDS = 0.0036
"""Seconds that each trial of a sweep adds to that: 40 s for 10,000 trials."""
TRIAL_SECONDS = 0.03
"""Seconds that a trial takes beside its steps: handing it out, loading, writing records."""
HEAD_SECONDS = 0.012
"""The same for a trial whose head is trained together with others' heads."""
TRIAL_BYTES = 60_000
"""Disk space of a trial's records, without its weights."""
DRAWN_JOBS = 5000
"""Jobs to draw in total, over all draws, to estimate the time of jobs that may end early."""
CHECKPOINT_WEIGHTS = 4
"""Size of a checkpoint as a multiple of the weights: the model, two moments of the optimizer, and the best epoch."""


Lengths = Mapping[float, float]
"""Seconds that a trial may take -> probability."""


@dataclass(frozen=True)
class Sizes:
    """Images in each split."""

    train: int
    val: int
    test: int
    classes: int = 0

    @property
    def probabilities_bytes(self) -> int:
        """Size of a trial's probabilities of all classes: float32, for every validation and test image."""
        return 4 * self.classes * (self.val + self.test)


@dataclass(frozen=True)
class Cost:
    """What trials are expected to cost."""

    trials: int
    seconds: float
    """Wall-clock time, with as many trials at once as the layout says."""
    memory_bytes: int
    disk_bytes: int


@dataclass(frozen=True)
class Calibration:
    """The timed workloads of one machine."""

    precision: str
    """What `precision: auto` means on this machine."""
    workloads: Mapping[str, Mapping[str, Any]]
    """`workload_key` -> what `calibrate.measure` returned."""
    import_seconds: float = IMPORT_SECONDS
    """Seconds that importing torch takes on this machine."""

    def around_seconds(self, trials: int, *, serial: bool = False) -> float:
        """Expected seconds of a sweep of this many trials without their training; `serial`: without Ray."""
        ray = 0.0 if serial else RAY_SECONDS
        return self._slowness * (START_SECONDS + ray + REPORT_SECONDS + REPORTED_TRIAL_SECONDS * trials)

    @property
    def _slowness(self) -> float:
        return self.import_seconds / IMPORT_SECONDS

    def seconds(
        self,
        settings: Settings,
        sizes: Sizes,
        *,
        starts_from: bool = False,
        epochs: float | None = None,
        training_limit: float | None = None,
    ) -> float:
        """Expected seconds of one trial; 0 if none like it was timed, because all are done.

        Args:
            settings: of the trial.
            sizes: images.
            starts_from: whether it starts from another, and is measured before training.
            epochs: number that it trains; all by default.
            training_limit: seconds of training after which it ends at the end of its epoch.
        """
        timed = self._timed(settings)
        if timed is None:
            return 0.0
        epoch = self.epoch_seconds(settings, sizes)
        passes = 2 if starts_from else 1
        final = passes * (sizes.val + sizes.test) * timed["eval_image_seconds"]
        overhead = HEAD_SECONDS if settings.fits_in_company and timed["prefix_image_seconds"] else TRIAL_SECONDS
        training = (settings.epochs if epochs is None else epochs) * epoch
        if training_limit is not None:
            training = min(training, training_limit + epoch)
        return float(training + final + self._slowness * overhead)

    def epoch_seconds(self, settings: Settings, sizes: Sizes) -> float:
        """Expected seconds of one epoch; 0 if none like it was timed."""
        timed = self._timed(settings)
        if timed is None:
            return 0.0
        steps = -(-sizes.train // settings.batch_size)
        return float(steps * timed["step_seconds"] + sizes.val * timed["eval_image_seconds"])

    def image_seconds(self, settings: Settings) -> float:
        """Expected seconds of one image through all layers, frozen or not; 0 if no trial like it was timed."""
        timed = self._timed(settings)
        if timed is None:
            return 0.0
        return float(timed["prefix_image_seconds"] + timed["eval_image_seconds"])

    def _timed(self, settings: Settings) -> Mapping[str, Any] | None:
        """Return what was measured for these settings, or for the nearest timed size of their model, scaled.

        A searcher may suggest any size of a range, but only some are timed.
        """
        key = workload_key(settings)
        if key in self.workloads:
            return self.workloads[key]
        sizes, kind = _parts(key)
        of_model = [
            (*_parts(other), timed) for other, timed in self.workloads.items() if other.startswith(f"{kind[0]} ")
        ]
        alike = [found for found in of_model if found[1] == kind] or of_model
        if not alike:
            return None
        near, _, timed = min(alike, key=lambda found: abs(math.log(_work(found[0]) / _work(sizes))))
        image = _work({**sizes, "batch_size": 1}) / _work({**near, "batch_size": 1})
        scaled = {name: timed[name] * image for name in ("eval_image_seconds", "prefix_image_seconds")}
        return {**timed, **scaled, "step_seconds": timed["step_seconds"] * _work(sizes) / _work(near)}

    def memory_bytes(self, trials: Iterable[Trial]) -> int:
        """Measured memory of the largest of some trials; 0 where there are none."""
        return max((int(self.workloads[workload_key(trial.settings)]["memory_bytes"]) for trial in trials), default=0)

    def _shared_bytes(self, trials: Iterable[Trial]) -> int:
        """The part of `memory_bytes` that a machine's processes share: pages of files, mostly of torch's libraries."""
        return min((int(self.workloads[workload_key(t.settings)].get("shared_bytes", 0)) for t in trials), default=0)

    def device_bytes(self, settings: Settings, images: int, features_limit: int) -> int:
        """Memory of one trial on its device: what was measured, plus the outputs of frozen layers for all images.

        Args:
            settings: of a trial that was timed.
            images: number of images of all splits.
            features_limit: most bytes for these outputs; larger ones are not kept.
        """
        timed = self.workloads[workload_key(settings)]
        features = images * timed["features_image_bytes"]
        return int(timed["memory_bytes"] + (features if features <= features_limit else 0))

    def cost(
        self,
        trials: Iterable[Trial],
        sizes: Sizes,
        layout: Layout,
        kept: int | None = None,
        *,
        lengths: Callable[[Trial], Lengths] | None = None,
        in_order: bool = False,
        keep_state: bool = False,
    ) -> Cost:
        """Expected cost of trials that can all run at once.

        Args:
            trials: the trials.
            sizes: images.
            layout: how many run at once.
            kept: number of trials whose weights are kept; all by default.
            lengths: returns how long a trial may take; by default that of all its epochs.
            in_order: whether they start in this order rather than the longest first.
            keep_state: whether the training state of each is kept.
        """
        listed = list(trials)

        def whole(trial: Trial) -> Lengths:
            return {self.seconds(trial.settings, sizes, starts_from=trial.parent_id is not None): 1.0}

        each = [(lengths or whole)(trial) for trial in listed]
        timed = [self.workloads[workload_key(trial.settings)] for trial in listed]
        at_once = min(layout.trials_at_once, len(listed))
        images = sizes.train + sizes.val + sizes.test
        alike: dict[str, list[Settings]] = {}  # trials with the same frozen layers
        for s in (trial.settings for trial in listed):
            alike.setdefault(workload_key(s).replace(f" {s.batch_size} ", " "), []).append(s)
        frozen = 0.0
        for some in alike.values():  # trials that run at once share the work
            seconds = images * self.workloads[workload_key(some[-1])]["prefix_image_seconds"]
            frozen += seconds / min(at_once, len(some))
        return Cost(
            trials=len(listed),
            seconds=_wall_clock(each, layout.trials_at_once, in_order) + frozen,
            memory_bytes=at_once * self.memory_bytes(listed) - max(at_once - 1, 0) * self._shared_bytes(listed),
            disk_bytes=_disk_bytes([w["weights_bytes"] for w in timed], len(timed) if keep_state else at_once, kept)
            + (len(timed) if kept is None else min(kept, len(timed))) * sizes.probabilities_bytes,
        )


def _disk_bytes(weights: list[int], checkpoints_kept: int, kept: int | None) -> int:
    """Peak use of disk: all records, weights kept or not dropped yet, checkpoints of running trials or all trials."""
    largest = sorted(weights, reverse=True)
    checkpoints = CHECKPOINT_WEIGHTS * sum(largest[:checkpoints_kept])
    return len(weights) * TRIAL_BYTES + checkpoints + sum(largest if kept is None else largest[:kept])


def _wall_clock(lengths: list[Lengths], slots: int, in_order: bool) -> float:
    """Expected time until the last of these jobs ends.

    If some may end early, this is the mean of many draws. Mean lengths would not show that the last job to end is
    mostly a long one, during which the other slots are empty.
    """
    if not in_order:
        lengths = sorted(lengths, key=mean, reverse=True)
    if all(len(some) == 1 for some in lengths):
        return _makespan([mean(some) for some in lengths], slots)
    rng, draws = random.Random(0), -(-DRAWN_JOBS // len(lengths))
    columns = [rng.choices(list(some), list(some.values()), k=draws) for some in lengths]
    return sum(_makespan(jobs, slots) for jobs in zip(*columns, strict=True)) / draws


def _makespan(seconds: Iterable[float], slots: int) -> float:
    """Time until the last of these jobs ends when they start in this order, each on the first free of `slots`."""
    free = [0.0] * slots
    for job in seconds:
        heapq.heapreplace(free, free[0] + job)
    return max(free)


def workload_key(settings: Settings) -> str:
    """Return a key that trials share if their training steps take equally long."""
    s = settings
    key = f"{s.model} {s.width:g} {s.image_size} {s.batch_size} {s.optimizer} {s.precision} {s.fine_tune}"
    key += f" {s.network}" if s.code else ""
    key += " unfused" if s.optimizer_args else ""
    if s.has_ordinary_steps:
        return key
    # Other unusual settings take no time of their own, but heads are then not trained together.
    extra = ["mixed"] * bool(s.mixup or s.cutmix) + ["averaged"] * bool(s.ema) + ["erased"] * bool(s.erasing)
    return " ".join([key, s.augment, *extra])


def _parts(key: str) -> tuple[dict[str, float], list[str]]:
    """Split a workload's key into its sizes and its other parts."""
    model, width, image_size, batch_size, *rest = key.split(" ")
    return {"width": float(width), "image_size": float(image_size), "batch_size": float(batch_size)}, [model, *rest]


def _work(sizes: Mapping[str, float]) -> float:
    return math.prod(sizes[axis] ** power for axis, power in SIZE_POWERS.items())


def representatives(plan: Plan) -> list[Trial]:
    """Return the plan's trials and, for estimating, one stand-in for each trial not known yet.

    A trial that starts from another takes over the settings of that one; a stand-in takes over those of the first
    trial that it may start from. Stand-ins for suggestions to come are draws from the search space.
    """
    by_stage: dict[str, list[Trial]] = {}
    trials = list(plan.trials.values())
    for planned in plan.stages:
        stand_ins = _stand_ins(planned, by_stage) if planned.waiting else []
        by_stage[planned.stage.name] = [*planned.trials, *stand_ins]
        trials += stand_ins
    return trials


def _stand_ins(planned: StagePlan, by_stage: dict[str, list[Trial]]) -> list[Trial]:
    stage, start = planned.stage, planned.stage.start_from
    searched = stage.search.is_adaptive
    if stage is CONFIRM:
        chosen = planned.confirmation.contenders if planned.confirmation else ()
        left = [trial for one in chosen for trial in one.again if trial not in planned.trials]
        return left or _confirming(planned.waiting, [trial for some in by_stage.values() for trial in some])
    made = list(planned.typical)
    if start is not None:
        keys: dict[tuple[Any, ...], Trial] = {}
        for parent in by_stage[start.stage]:
            keys.setdefault((parent.settings.seed, *(parent.settings.value(axis) for axis in start.per)), parent)
        known = {(trial.settings.seed, *(trial.settings.value(a) for a in start.per)) for trial in planned.trials}
        space = typical_cells(stage) if searched else cells(stage)
        made = [
            Trial(stage.name, parent.settings.changed(cell), parent.data, parent.id)
            for key, parent in keys.items()
            if searched or key not in known
            for cell in space
        ]
    return _spread(made, planned.waiting) if searched else made[: planned.waiting]


def _confirming(number: int, others: list[Trial]) -> list[Trial]:
    """Stand in for trials that repeat the best of the others with seeds of their own."""
    seed = max((trial.settings.seed for trial in others), default=0) + 1
    return [
        Trial(CONFIRM.name, trial.settings.model_copy(update={"seed": seed + place}), trial.data, trial.parent_id)
        for place, trial in enumerate(_spread(others, number))
    ]


def _spread(trials: list[Trial], number: int) -> list[Trial]:
    """Pick some of these draws, spread evenly over the work of a step; a few picked at random could all be small."""

    def size(trial: Trial) -> tuple[str, float, str]:
        return trial.settings.model, work_of_step(trial.settings), workload_key(trial.settings)

    ordered = sorted(trials, key=size)
    return [ordered[(2 * place + 1) * len(ordered) // (2 * number)] for place in range(number)] if ordered else []


def work_of_step(settings: Settings) -> float:
    return settings.width**2 * settings.image_size**2 * settings.batch_size
