"""Figures fit the page and the phone, no text is too small to read, and none lies on another."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from matplotlib.figure import Figure

from cnnsearch import plots
from cnnsearch.evidence.axes import map_axes
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.evidence.part import Part
from cnnsearch.plots import parts, style
from cnnsearch.report import figures
from cnnsearch.report.pictures import drawn
from cnnsearch.results.tables import Tables
from cnnsearch.spec.axis_words import words
from tests.plots.layout import LEAST_PIXELS, PAGE_PIXELS, PHONE_PIXELS, overlaps, smallest_pixels, width_pixels
from tests.plots.test_searches import search
from tests.report import factory

WORLDS: dict[str, Callable[[], Tables]] = {
    "part1": factory.part1,
    "confirmed": factory.confirmed,
    "nasty": factory.nasty,
    "optimizers": factory.optimizers,
    "lr_only": factory.lr_only,
    "two_classes": factory.two_classes,
}
OF_TABLES = ("all_settings", "heatmaps", "before_after", "images_per_class")
OF_SEARCHES = ("optimisation_history", "rungs", "trials_by_budget")


@functools.cache
def evidence_of(name: str) -> Evidence:
    return Evidence(WORLDS[name]())


def check(figure: Figure | None, pixels: float) -> None:
    if figure is None:
        return
    assert width_pixels(figure) <= pixels
    assert smallest_pixels(figure) >= LEAST_PIXELS
    assert not overlaps(figure)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", [*OF_TABLES, "learning_curves", "confusion_matrix"])
def test_a_figure_fits_the_page(world: str, name: str) -> None:
    check(getattr(plots, name)(evidence_of(world)), PAGE_PIXELS)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", OF_TABLES)
def test_a_narrow_figure_fits_a_phone(world: str, name: str) -> None:
    check(getattr(plots, name)(evidence_of(world), narrow=True), PHONE_PIXELS)


@pytest.mark.parametrize("found", ["small", "asha"])
@pytest.mark.parametrize("name", [*OF_SEARCHES, "slices", "parallel_coordinates", "contour", "importance_bars"])
def test_a_figure_of_a_search_fits_the_page(found: str, name: str) -> None:
    check(getattr(plots, name)(search(found)), PAGE_PIXELS)


@pytest.mark.parametrize("found", ["small", "asha"])
@pytest.mark.parametrize("name", OF_SEARCHES)
def test_a_narrow_figure_of_a_search_fits_a_phone(found: str, name: str) -> None:
    check(getattr(plots, name)(search(found), narrow=True), PHONE_PIXELS)


@pytest.mark.parametrize("narrow", [False, True])
def test_the_best_settings_of_several_sweeps_fit(narrow: bool) -> None:
    both = [Part(name, evidence_of(name)) for name in ("part1", "optimizers")]
    check(parts.best_settings(both, "title", narrow=narrow), PHONE_PIXELS if narrow else PAGE_PIXELS)


def test_a_report_holds_the_phone_figures_of_what_a_phone_has_no_room_for() -> None:
    evidence = evidence_of("part1")
    for drawing in (figures.all_settings(evidence), figures.before_after(evidence, "dropout")):
        picture = drawn(drawing)
        assert picture is not None
        assert drawing.narrow is not None
        narrow = drawing.narrow()
        assert narrow is not None
        assert width_pixels(narrow) <= PHONE_PIXELS < width_pixels(picture.figure)
        assert picture.narrow_svg.startswith("<svg ")
        assert f'id="{picture.name}-narrow-' in picture.narrow_svg or 'id="' not in picture.narrow_svg


@pytest.mark.parametrize("compact", [False, True])
def test_the_names_of_a_hundred_classes_can_be_read(compact: bool) -> None:
    figure = plots.confusion_matrix(factory.hundred_classes(), compact=compact)
    assert figure is not None
    assert smallest_pixels(figure) >= LEAST_PIXELS
    assert not overlaps(figure)


def test_equal_counts_have_equal_bars_in_every_panel() -> None:
    evidence = evidence_of("part1")
    figure = plots.images_per_class(evidence)
    assert figure is not None
    assert len({axes.get_xlim() for axes in figure.axes}) == 1
    widths = {axes.patches[0].get_width() for axes in figure.axes}  # type: ignore[attr-defined]
    assert widths == {evidence.class_counts(split)[0] for split in ("train", "val", "test")}


@pytest.mark.parametrize("counts", [(2, 5), (5, 2), (3, 3)])
def test_learning_rates_are_always_the_rows(counts: tuple[int, int]) -> None:
    rates, batches = [10.0**-k for k in range(1, counts[0] + 1)], [2**k for k in range(3, 3 + counts[1])]
    plans = [
        factory.Plan("grid", {"model": "plain", "lr": lr, "batch_size": batch}, 0.5)
        for batch in batches
        for lr in rates
    ]
    space = {"model": "plain", "batch_size": {"grid": batches}, "lr": {"grid": rates}}
    made = factory.make(plans, [{"name": "grid", "space": space}], epochs=2, test_per_class=5)
    assert map_axes(Evidence(made), "grid") == (["lr", "batch_size"], [])


class TestChance:
    def test_far_from_the_scores_it_is_an_arrow_at_the_edge(self) -> None:
        evidence = evidence_of("part1")
        figure = plots.all_settings(evidence)
        assert figure is not None
        (axes,) = figure.axes
        low = min(score.low for c in evidence.configurations if (score := evidence.score(c)) is not None)
        assert evidence.chance < axes.get_xlim()[0] <= low
        assert low - axes.get_xlim()[0] < 0.05
        (mark,) = [text for text in axes.texts if text.get_gid() == "chance"]
        assert mark.get_text() == "← chance 10 %"
        assert not any(len(set(line.get_xdata())) == 1 and len(line.get_xdata()) == 2 for line in axes.lines)  # type: ignore[arg-type]

    def test_near_to_the_scores_it_is_a_line(self) -> None:
        figure = plots.all_settings(factory.at_chance())
        assert figure is not None
        (axes,) = figure.axes
        (mark,) = [text for text in axes.texts if text.get_gid() == "chance"]
        assert mark.get_text().startswith("chance ")
        assert axes.get_xlim()[0] <= mark.xy[0] <= axes.get_xlim()[1]  # type: ignore[attr-defined]


def test_axes_of_a_search_stand_in_one_order() -> None:
    found = search("middling")
    order = [axis.name for axis in found.by_importance]
    assert order != [axis.name for axis in found.axes], "importance changes nothing here, so this would show nothing"
    slices, parallel, bars = plots.slices(found), plots.parallel_coordinates(found), plots.importance_bars(found)
    assert slices is not None
    assert parallel is not None
    assert bars is not None

    def places(names: list[str], among: list[str]) -> list[int]:
        return [next(i for i, text in enumerate(among) if text.startswith(name)) for name in names]

    full = [words(name).full for name in order]
    sliced = [axes.get_xlabel() for axes in slices.axes]
    drawn = [" ".join(text.get_text().split()) for axes in parallel.axes for text in axes.texts]
    listed = [text.get_text() for axes in bars.axes for text in axes.texts]
    for texts in (sliced, drawn, listed):
        shown = [name for name in full if any(text.startswith(name) for text in texts)]
        assert len(shown) >= 3
        assert places(shown, texts) == sorted(places(shown, texts))


@pytest.mark.parametrize(("low", "high"), [(0.57, 0.79), (0.0, 1.0), (0.971, 0.978)])
def test_ticks_in_percent_are_where_they_say(low: float, high: float) -> None:
    figure = style.new_figure(4, 2)
    axes = figure.subplots()
    axes.set_xlim(low, high)
    style.percent_axis(axes, "x")
    figure.draw_without_rendering()
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert len(labels) >= 3
    assert len(set(labels)) == len(labels)
    assert [float(label.removesuffix(" %")) / 100 for label in labels] == pytest.approx(list(axes.get_xticks()))


@pytest.mark.parametrize("epochs", [10, 100])
def test_ticks_of_neighbouring_panels_are_apart(epochs: int) -> None:
    """Else the last of one and the first of the next, "10" and "0", read as one number."""
    figure = plots.learning_curves(factory.make(factory.grid_plans(), [factory.GRID], epochs=epochs))
    assert figure is not None
    figure.canvas.draw()
    lower = [axes for axes in figure.axes if axes.get_position().y0 == figure.axes[-1].get_position().y0]
    labels = [
        [
            label.get_window_extent()
            for at, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
            if axes.get_xlim()[0] <= at <= axes.get_xlim()[1]
        ]
        for axes in lower
    ]
    assert len(labels) == 4
    for left, right in pairwise(labels):
        assert (right[0].x0 - left[-1].x1) / figure.dpi > 0.1  # inches


@pytest.mark.parametrize("turn", [0.3, 2.0])
def test_a_caption_explains_a_triangle_where_one_is_drawn(turn: float) -> None:
    plans = [replace(plan, turn=turn) for plan in factory.grid_plans()]
    loss, accuracy = figures.learning_curves(Evidence(factory.make(plans, [factory.GRID])), "grid")
    assert ("triangle" in loss.caption) == (turn < 1)
    assert "triangle" not in accuracy.caption


def test_the_caption_of_all_settings_says_which_dots_are_hollow() -> None:
    confirmed = figures.all_settings(Evidence(factory.confirmed())).caption
    assert "Hollow: not among those that were trained again on fresh seeds, or of these clearly worse than" in confirmed
    repeated = figures.all_settings(Evidence(factory.part1(seeds=(0, 1, 2)))).caption
    assert "Hollow: clearly worse than another over seeds and test images, corrected for all pairs." in repeated
    assert "Hollow" not in figures.all_settings(Evidence(factory.part1())).caption
