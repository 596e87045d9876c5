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
from matplotlib.figure import Figure

from cnnsearch import plots
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.evidence.mistakes import counts
from cnnsearch.evidence.part import Part
from cnnsearch.evidence.shown import MOST_CLASSES, MOST_MAPS, MOST_POINTS
from cnnsearch.plots import parts as plots_of_parts, style
from cnnsearch.report import figures
from cnnsearch.report.search import drawings
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


def marks_in(figure: Figure | None, kind: str | None = None) -> int:
    """How many points the lines of a figure have, of one kind or of all."""
    assert figure is not None
    lines = [line for axes in figure.axes for line in axes.lines if kind in (None, line.get_gid())]
    return sum(len(np.asarray(line.get_xdata())) for line in lines)


def test_the_history_of_very_many_trials_is_bounded_and_ends_at_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    found = search("large")
    assert len(found.scored) + len(found.stopped) + len(found.lost) == 2000
    figure = plots.optimisation_history(found)
    assert marks_in(figure, "stopped") == MOST_POINTS
    assert marks_in(figure, "lost") == len(found.lost)
    monkeypatch.setattr("cnnsearch.plots.history.MOST_POINTS", 7)
    assert marks_in(plots.optimisation_history(found), "lost") == 7
    (caption,) = [one.caption for one in drawings(found) if one.name.endswith("-history")]
    assert f"Of more than {MOST_POINTS} trials the best are drawn" in caption
    assert "are drawn, and" not in drawings(search("small"))[0].caption


def test_a_front_of_very_many_trials_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    found = search("two")
    assert marks_in(plots.pareto_front(found), "front") == len(found.front) > 2
    monkeypatch.setattr("cnnsearch.plots.pareto.MOST_POINTS", 2)
    assert marks_in(plots.pareto_front(found), "front") == 2


def shown_texts(figure: Figure) -> list[str]:
    """The texts of a figure as they are when it is drawn."""
    plots.to_svg(figure, "drawn")
    return texts(figure)


def rates(count: int) -> Tables:
    """One model at very many learning rates."""
    grid = [float(f"{1e-5 * 10 ** (index / count * 4):.6g}") for index in range(count)]
    plans = [Plan("rates", {"model": "plain", "lr": lr, "batch_size": 16}, ability=0.5) for lr in grid]
    space = {"model": "plain", "lr": {"grid": grid}, "batch_size": 16}
    return make(plans, [{"name": "rates", "space": space}], epochs=1, val_per_class=2, test_per_class=2)


@pytest.mark.parametrize("count", [30, 600])
def test_dots_along_an_axis_are_bounded_and_the_best_among_them(count: int) -> None:
    evidence = Evidence(rates(count))
    figure, drawing = plots.heatmaps(evidence), figures.heatmaps(evidence)
    assert figure is not None
    assert drawing is not None
    assert marks_in(figure) == min(count, MOST_POINTS)
    assert ("Of more than 500 settings the best are drawn" in drawing.caption) == (count > MOST_POINTS)
    assert {"1e-5", "0.0001", "0.01"} <= set(shown_texts(figure))
    assert not any("mathdefault" in text for text in shown_texts(figure))
    (line,) = figure.axes[0].lines
    best = sorted(evidence.configurations, key=lambda one: (-one.worth, one.order))[:50]
    assert {one.values["lr"] for one in best} <= set(np.asarray(line.get_xdata()).tolist())


def test_settings_over_time_are_bounded_and_the_best_of_each_sweep_among_them(monkeypatch: pytest.MonkeyPatch) -> None:
    sweeps = [Part("one", evidence_of(factory.part1)), Part("two", evidence_of(factory.part2))]
    all_of_them = sum(len(part.evidence.configurations) for part in sweeps)
    whole = plots_of_parts.accuracy_by_time(sweeps, "title")
    assert marks_in(whole) == all_of_them + 2 * len(sweeps)  # the best have an interval
    monkeypatch.setattr(plots_of_parts, "MOST_POINTS", 6)
    few = plots_of_parts.accuracy_by_time(sweeps, "title")
    assert all_of_them > 7 + 2 >= (marks_in(few) - 2 * len(sweeps)) >= 5


def test_portions_of_a_map_are_the_map(monkeypatch: pytest.MonkeyPatch) -> None:
    contour: Any = importlib.import_module("cnnsearch.plots.contour")
    rng = np.random.default_rng(0)
    x, y, z = rng.random((3, 90))
    at_x, at_y = rng.random((2, 7, 5))
    whole = contour.smoothed(x, y, z, at_x, at_y, (0.1, 0.2))
    monkeypatch.setattr(contour, "_TOGETHER", 100)
    for one, other in zip(whole, contour.smoothed(x, y, z, at_x, at_y, (0.1, 0.2)), strict=True):
        assert one.shape == (7, 5)
        assert np.array_equal(one, other)
