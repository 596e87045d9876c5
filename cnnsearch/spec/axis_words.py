"""What axes and their values are called where people read them: in the plan, in logs, in reports."""

from __future__ import annotations

from typing import NamedTuple

Value = float | int | str | bool | None


class AxisWords(NamedTuple):
    """The names of an axis."""

    label: str
    """In labels of trials, on the terminal and in logs; "" if the value needs no name."""
    short: str
    """In labels of a report."""
    full: str
    """In a sentence."""
    plural: str


_WORDS = {
    "model": AxisWords("", "model", "model", "models"),
    "optimizer": AxisWords("", "optimizer", "optimizer", "optimizers"),
    "lr": AxisWords("lr", "lr", "learning rate", "learning rates"),
    "batch_size": AxisWords("batch", "batch", "batch size", "batch sizes"),
    "weight_decay": AxisWords("decay", "decay", "weight decay", "weight decays"),
    "fine_tune": AxisWords("fine_tune", "fine-tune", "fine-tuning mode", "fine-tuning modes"),
    "image_size": AxisWords("size", "size", "image size", "image sizes"),
    "weights": AxisWords("weights", "weights", "initial weights", "initial weights"),
    "lr_schedule": AxisWords("", "schedule", "learning-rate schedule", "learning-rate schedules"),
    "warmup_epochs": AxisWords("warm-up", "warm-up", "warm-up", "lengths of warm-up"),
    "label_smoothing": AxisWords("smoothing", "smoothing", "label smoothing", "amounts of label smoothing"),
    "augment": AxisWords("augment", "augment", "augmentation", "augmentations"),
    "class_weights": AxisWords("weights", "class weights", "class weighting", "class weightings"),
    "head_lr_factor": AxisWords(
        "head lr ×", "head lr ×", "factor of the head's learning rate", "factors of the head's learning rate"
    ),
    "grad_clip": AxisWords("clip", "clip", "gradient clipping", "limits of the gradient's norm"),
    "ema": AxisWords("ema", "ema", "averaging of weights", "decays of the weights' average"),
    "erasing": AxisWords("erasing", "erasing", "random erasing", "probabilities of erasing"),
    "mixup": AxisWords("mixup", "mixup", "mixup", "amounts of mixup"),
    "cutmix": AxisWords("cutmix", "cutmix", "cutmix", "amounts of cutmix"),
    "loss": AxisWords("loss", "loss", "loss function", "loss functions"),
    "focal_gamma": AxisWords("gamma", "gamma", "gamma of the focal loss", "gammas of the focal loss"),
    "epochs": AxisWords("epochs", "epochs", "number of epochs", "numbers of epochs"),
}

NONE: dict[str, Value] = {
    "dropout": 0.0, "weight_decay": 0.0, "warmup_epochs": 0.0, "label_smoothing": 0.0, "augment": "none",
    "class_weights": "none", "grad_clip": 0.0, "ema": 0.0, "erasing": 0.0, "mixup": 0.0, "cutmix": 0.0,
}  # fmt: skip
"""Axis -> the value with which it is absent, worded as in "no dropout"."""

# Said without their axis: "residual", not "model residual".
_BARE = {"model", "optimizer", "precision"}


def words(axis: str) -> AxisWords:
    """The names of an axis; one that is not in the table is named after its column."""
    if axis.startswith(("model_args.", "optimizer_args.")):
        name = axis.partition(".")[2]
        return AxisWords(name, name, name, f"values of {name}")
    plain = axis.replace("_", " ")
    return _WORDS.get(axis, AxisWords(axis, plain, plain, f"{plain}s" if not plain.endswith("s") else plain))


def format_value(value: Value) -> str:
    """A hyperparameter's value as people write it: 0.0001, 1e-5, 32, adam."""
    if value is None:
        return "none"
    if isinstance(value, float):
        text = f"{value:.4g}"
        return text.replace("e-0", "e-").replace("e+0", "e")
    return str(value)


def rounded(value: Value) -> Value:
    """Format a value; one with a fraction is rounded to two digits."""
    return float(f"{value:.2g}") if isinstance(value, float) else value


def describe(axis: str, value: Value) -> str:
    """One axis and its value, as in a label: "lr 0.001", "no dropout", "residual", "fine-tuning: head"."""
    if axis in NONE and value in (NONE[axis], None):
        return f"no {words(axis).full}"
    if axis in _BARE and isinstance(value, str):
        return value
    if axis == "fine_tune":
        return f"fine-tuning: {format_value(value)}"
    return f"{words(axis).short} {format_value(value)}"
