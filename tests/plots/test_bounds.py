"""However much there is to show, a figure stays of a size that can be drawn and looked at."""

from __future__ import annotations

import functools
import importlib
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cnnsearch import plots
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.evidence.mistakes import counts
from cnnsearch.evidence.shown import MOST_CLASSES, MOST_MAPS
from cnnsearch.plots import style
from cnnsearch.report import figures
from cnnsearch.results.tables import Tables
from cnnsearch.spec.model_names import IMAGE_SIZES, OWN, TORCHVISION
from tests.plots.test_plots import texts
from tests.plots.test_searches import search
from tests.report import factory
from tests.report.world import Plan, make

MOST_INCHES = 30.0
MODELS = [*OWN, *(name for name in TORCHVISION if not name.startswith("vit") and name not in IMAGE_SIZES)]
FIGURES = ("all_settings", "heatmaps", "learning_curves", "before_after", "confusion_matrix", "images_per_class")


def classes() -> Tables:
    """A network for 400 classes."""
    names = [f"class {index:03}" for index in range(400)]
    return make(factory.grid_plans()[-1:], [factory.GRID], classes=names, val_per_class=1, test_per_class=3)


def models() -> Tables:
    """Every model there is, at six settings each."""
    rates, batches = [1e-4, 1e-3, 1e-2], [8, 16]
    space = {"model": {"grid": MODELS}, "lr": {"grid": rates}, "batch_size": {"grid": batches}}
    plans = [
        Plan("grid", {"model": model, "lr": lr, "batch_size": batch}, ability=0.5 + 0.01 * index)
        for index, model in enumerate(MODELS)
        for lr in rates
        for batch in batches
    ]
    return make(plans, [{"name": "grid", "space": space}], epochs=2, test_per_class=5)


def parents() -> Tables:
    """A stage that goes on from each of sixty settings of another."""
    rates = [float(f"{10 ** -(1 + index / 20):.4g}") for index in range(60)]
    grid = {"name": "grid", "space": {"model": "plain", "lr": {"grid": rates}}}
    dropout = {
        "name": "dropout",
        "start_from": {"stage": "grid", "best": "val_accuracy", "per": "lr"},
        "space": {"dropout": {"grid": [0.1]}},
    }
    plans = [Plan("grid", {"model": "plain", "lr": lr, "dropout": 0.0}, ability=0.5) for lr in rates]

    def children(rows: list[dict[str, Any]], plans: Any) -> list[Plan]:
        return [
            replace(one, stage="dropout", values={**one.values, "dropout": 0.1}, parent=one.trial_id) for one in plans
        ]

    return make(plans, [grid, dropout], children=children, epochs=2, test_per_class=5)


def sparse() -> Tables:
    """Twenty settings of as many models, no two in one column."""
    names = MODELS[:20]
    plans = [
        Plan("grid", {"model": model, "lr": float(f"{1e-4 * 1.3**index:.4g}")}, ability=0.5)
        for index, model in enumerate(names)
    ]
    space = {"model": {"grid": names}, "lr": {"grid": [plan.values["lr"] for plan in plans]}}
    return make(plans, [{"name": "grid", "space": space}], epochs=2, test_per_class=5)


@functools.cache
def evidence_of(made: Callable[[], Tables]) -> Evidence:
    return Evidence(made())


@pytest.mark.parametrize("made", [classes, models, parents, sparse], ids=lambda made: made.__name__)
@pytest.mark.parametrize("name", FIGURES)
def test_no_figure_grows_with_the_data(made: Callable[[], Tables], name: str) -> None:
    figure = getattr(plots, name)(evidence_of(made))
    if figure is None:
        assert (name, made) in [("heatmaps", classes), *(("before_after", one) for one in (classes, models, sparse))]
        return
    assert max(figure.get_size_inches()) <= MOST_INCHES


def test_of_very_many_classes_those_with_most_mistakes_are_shown() -> None:
    evidence = evidence_of(classes)
    assert evidence.best is not None
    matrix = counts(evidence, evidence.best)
    assert matrix is not None
    np.fill_diagonal(matrix, 0)
    mistakes = dict(zip(evidence.classes, (matrix.sum(axis=0) + matrix.sum(axis=1)).tolist(), strict=True))
    shown = {text for text in texts(plots.confusion_matrix(evidence)) if text in mistakes}
    assert len(shown) == MOST_CLASSES
    assert min(mistakes[name] for name in shown) >= max(mistakes[name] for name in mistakes.keys() - shown)
    picture = figures.best_confusion(evidence)
    assert picture is not None
    assert f"Shown are the {MOST_CLASSES} of 400 classes with the most mistakes" in picture.caption


def test_of_very_many_models_the_best_have_a_map() -> None:
    figure = plots.heatmaps(evidence_of(models))
    assert figure is not None
    best: dict[str, float] = {}
    for configuration in evidence_of(models).configurations:
        best[configuration.model] = max(best.get(configuration.model, 0.0), configuration.worth)
    shown = [axes.get_title(loc="left") for axes in figure.axes]
    assert len(shown) == MOST_MAPS
    assert min(best[model] for model in shown) >= max(best[model] for model in best.keys() - set(shown))
    picture = figures.heatmaps(evidence_of(models))
    assert picture is not None
    assert f"Shown are the {MOST_MAPS} of {len(MODELS)} models" in picture.caption


def test_a_contour_of_very_many_listed_values_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    found = search("middling")
    contour: Any = importlib.import_module("cnnsearch.plots.contour")
    batches = found.axis("batch_size")
    listed = replace(batches, listed=(*batches.listed, *range(1000, 1500)))
    monkeypatch.setattr(contour, "contour_axes", lambda search: (search.axis("lr"), listed))
    figure = plots.contour(found)
    assert figure is not None
    assert max(figure.get_size_inches()) <= MOST_INCHES


@pytest.mark.parametrize(("width", "height"), [(500.0, 2.0), (2.0, 500.0), (80.0, 80.0)])
def test_a_png_has_a_bounded_number_of_pixels(width: float, height: float) -> None:
    figure = style.new_figure(width, height)
    style.axes_at(figure, 0.2, 0.2, width - 0.4, height - 0.4)
    across, down = struct.unpack(">II", plots.to_png(figure)[16:24])
    assert max(across, down) <= style.MOST_SIDE + 1
    assert across * down <= 1.01 * style.MOST_PIXELS
