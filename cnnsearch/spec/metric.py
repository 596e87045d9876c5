"""The metrics by which networks may be judged: their names, what they need, and which way is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cnnsearch.words import accuracy, percent

MetricName = Literal[
    "accuracy",
    "loss",
    "balanced_accuracy",
    "macro_f1",
    "auroc",
    "average_precision",
    "top5_accuracy",
    "brier",
    "ece",
]
"""What `metric:` of a sweep may be."""

Measure = Literal[
    "val_accuracy",
    "val_loss",
    "val_balanced_accuracy",
    "val_macro_f1",
    "val_auroc",
    "val_average_precision",
    "val_top5_accuracy",
    "val_brier",
    "val_ece",
]
"""The columns of tables that hold them for validation, by which trials are chosen, stopped and searched."""

TOP = 5
"""Classes among which `top5_accuracy` looks for the label."""


@dataclass(frozen=True)
class Metric:
    """What is to be known of a metric; how it is computed is in `cnnsearch.scores`."""

    name: MetricName
    words: str
    """Inside a sentence."""
    is_larger_better: bool = True
    is_share: bool = True
    """Whether people read it in percent."""
    needs_probabilities: bool = False
    """Whether it takes the probability of every class; others take the predicted class and its probability."""
    by_class: bool = False
    """Whether it is made of numbers of single classes, so that examples are resampled class by class."""

    @property
    def measure(self) -> Measure:
        """Its column for validation."""
        return f"val_{self.name}"  # type: ignore[return-value]  # a test holds the two lists against each other

    def shown(self, value: float, images: int = 0) -> str:
        """Word a value for validation: "71.5 %", "macro F1 71.5 %". The accuracy on some images gets its interval."""
        if self.name == DEFAULT:
            return accuracy(value, images) if images else percent(value)
        return f"{self.words} {self.text(value)}"

    def text(self, value: float) -> str:
        """A value as people read it: in percent, or as a number."""
        return percent(value) if self.is_share else f"{value:.3f}"

    @property
    def sign(self) -> int:
        """1 where more is better, else -1."""
        return 1 if self.is_larger_better else -1


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "accuracy"),
        Metric("loss", "loss", is_larger_better=False, is_share=False, needs_probabilities=True),
        Metric("balanced_accuracy", "balanced accuracy", by_class=True),
        Metric("macro_f1", "macro F1", by_class=True),
        Metric("auroc", "AUROC", needs_probabilities=True, by_class=True),
        Metric("average_precision", "average precision", needs_probabilities=True, by_class=True),
        Metric("top5_accuracy", f"top-{TOP} accuracy", needs_probabilities=True),
        Metric("brier", "Brier score", is_larger_better=False, is_share=False, needs_probabilities=True),
        Metric("ece", "calibration error", is_larger_better=False),
    )
}
"""Name -> metric."""

DEFAULT: MetricName = "accuracy"

ADDED = tuple(name for name in METRICS if name not in ("accuracy", "loss"))
"""The metrics that are computed from all predictions of a split, after its evaluation."""

MEASURES: dict[str, Metric] = {metric.measure: metric for metric in METRICS.values()}
"""Column -> the metric that it holds for validation."""


def problem(metric: str, classes: int) -> str | None:
    """Say why a metric makes no sense with this number of classes; None where it does."""
    if metric == "top5_accuracy" and classes <= TOP:
        return f"{metric} needs more than {TOP} classes; the data has {classes}"
    return None
