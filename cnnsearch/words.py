"""Numbers and trials as people read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cnnsearch.plan import Trial
from cnnsearch.spec import Settings, Sweep
from cnnsearch.stats import wilson

SHORT = {
    "batch_size": "batch",
    "image_size": "size",
    "optimizer": "",
    "model": "",
    "weight_decay": "decay",
    "lr_schedule": "",
    "warmup_epochs": "warm-up",
    "label_smoothing": "smoothing",
    "class_weights": "weights",
}
"""Axis -> what it is called where space is short; "" where the value speaks for itself."""


def duration(seconds: float) -> str:
    """`0.4 s`, `9 s`, `2 min 40 s`, `3 h 5 min`, `2 d 4 h`."""
    if seconds < 1:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, part, part_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit}" + (f" {rest} {part_unit}" if rest else "")
    return f"{whole} s"


def clock(seconds: float) -> str:
    """`1:02`, `2:03:04`."""
    whole = int(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def size(count: float) -> str:
    """Bytes as `340 MB`, `1.1 GB`."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6))} MB"


def listed(items: Sequence[str], conjunction: str = "and") -> str:
    """ "a", "a and b", "a, b and c"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {conjunction} {items[-1]}" if items else ""


def percent(accuracy: float) -> str:
    """`78.9 %`."""
    return f"{100 * accuracy:.1f} %"


def accuracy(fraction: float, n: int) -> str:
    """`78.9 % (76.3–81.3)`: an accuracy over n examples with its 95 % Wilson interval."""
    low, high = wilson(round(fraction * n), n)
    return f"{percent(fraction)} ({100 * low:.1f}–{100 * high:.1f})"


def varied_axes(sweep: Sweep) -> list[str]:
    """The axes that take more than one value, in order of appearance; `seed` where there are several."""
    axes = [axis for stage in sweep.stages for axis, values in stage.space.items() if values.varies]
    axes += ["seed"] if len(sweep.seeds) > 1 else []
    return list(dict.fromkeys(axes))


def setting(settings: Settings, axes: Iterable[str]) -> str:
    """`residual, lr 0.001, batch 16`: the values of some axes. A dropout of zero goes without saying."""
    return ", ".join(" ".join(part) for part in setting_parts(settings, axes))


def told_axes(sweep: Sweep) -> list[str]:
    """The axes by which trials are told apart where nothing else says what the sweep varies."""
    return list(dict.fromkeys(["model", "lr", "batch_size", *varied_axes(sweep)]))


def trial_label(trial: Trial, axes: Iterable[str]) -> str:
    """`grid: residual, lr 0.001, batch 16 [0f3c…]`, the id in full: a trial where it stands alone."""
    return f"{trial.stage}: {setting(trial.settings, axes)} [{trial.id}]"


def job_label(trials: Sequence[Trial], axes: Sequence[str]) -> str:
    """The same of trials that run together: what they have in common, how many they are, the first one's id."""
    first = trials[0]
    if len(trials) == 1:
        return trial_label(first, axes)
    common = [axis for axis in axes if len({getattr(trial.settings, axis) for trial in trials}) == 1]
    shared = f"{text}, " if (text := setting(first.settings, common)) else ""
    return f"{first.stage}: {shared}{len(trials)} trials [{first.id} …]"


_WITHOUT = {"dropout": 0, "weight_decay": 0, "label_smoothing": 0, "warmup_epochs": 0, "augment": "none"}
"""Axis -> its value that says there is none of it, and is not shown."""


def setting_parts(settings: Settings, axes: Iterable[str]) -> Sequence[tuple[str, ...]]:
    """The same as (name, value) pairs, the name left out where the value speaks for itself."""
    parts = []
    for axis in axes:
        value = getattr(settings, axis)
        if value == _WITHOUT.get(axis, ()) or (axis == "momentum" and settings.optimizer != "sgd"):
            continue
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        name = SHORT.get(axis, axis)
        parts.append((name, shown) if name else (shown,))
    return parts
