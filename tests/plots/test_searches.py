"""Figures of a search: what they draw, at 20 trials and at 2,000, and when there is nothing to draw."""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cnnsearch import plots
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.evidence.regions import contour_axes, region
from cnnsearch.evidence.searches import Attempt, Searched
from cnnsearch.evidence.shown import MOST_LINES, MOST_POINTS, selection
from cnnsearch.plots import marks, parallel, style
from cnnsearch.plots.contour import smoothed
from tests.report import factory, searched

FIGURES = (
    plots.optimisation_history, plots.parallel_coordinates, plots.importance_bars, plots.slices, plots.contour,
    plots.pareto_front, plots.rungs, plots.trials_by_budget,
)  # fmt: skip


@functools.cache
def search(name: str) -> Searched:
    tables = {
        "small": lambda: searched.searched(20),
        "middling": lambda: searched.searched(120),
        "large": lambda: searched.searched(2000, stop_early=searched.ASHA, epochs=9, test_per_class=5),
        "asha": lambda: searched.searched(150, "random", stop_early=searched.ASHA),
        "two": lambda: searched.searched(120, "nsga2", objectives=["val_accuracy", "seconds"]),
        "three": lambda: searched.searched(60, "nsga2", objectives=["val_accuracy", "seconds", "bytes"]),
        "loss": lambda: searched.searched(40, objectives=["val_loss"]),
    }[name]()
    (found,) = Evidence(tables).searches
    return found


def drawn(figure: Figure | None) -> Figure:
    assert figure is not None
    return figure


def points(figure: Figure | None, kind: str) -> list[tuple[float, float]]:
    """Places of the marks, or corners of the lines, of one kind."""
    found = drawn(figure).findobj(lambda artist: isinstance(artist, Line2D) and artist.get_gid() == kind)
    return [(float(x), float(y)) for line in found for x, y in np.asarray(line.get_xydata())]  # type: ignore[attr-defined]


def lines(figure: Figure | None, kind: str) -> int:
    return len(drawn(figure).findobj(lambda artist: isinstance(artist, Line2D) and artist.get_gid() == kind))


def texts(figure: Figure | None) -> list[str]:
    return [text.get_text() for text in drawn(figure).findobj(mpl.text.Text) if text.get_visible() and text.get_text()]


class TestSearched:
    def test_only_stages_with_a_search_or_stopped_trials_are_shown(self):
        assert Evidence(factory.part1()).searches == []
        assert [one.stage for one in Evidence(factory.with_trouble()).searches] == ["grid"]
        assert search("small").stage == "search"

    def test_axes_without_part_in_a_trial_are_left_out(self):
        for one in search("middling").attempts:
            assert ("momentum" in one.values) == (one.values["optimizer"] == "sgd")
            assert ("dropout" in one.values) == (one.model == "residual")

    def test_a_constant_that_only_some_trials_have_is_no_axis(self, monkeypatch):
        monkeypatch.setitem(searched.SPACE, "width", {"choice": [0.25], "when": {"model": ["plain"]}})
        (found,) = Evidence(searched.searched(20)).searches
        assert "dropout" in [axis.name for axis in found.axes]
        assert "width" not in [axis.name for axis in found.axes]

    def test_positions_follow_the_scale_that_was_searched(self):
        axis = search("small").axis("lr")
        assert [axis.position(value) for value in (1e-5, 1e-3, 0.1)] == pytest.approx([0, 0.5, 1])
        assert axis.value_at(0.25) == pytest.approx(1e-4)
        assert axis.position(1.0) is None
        assert [search("small").axis("batch_size").position(value) for value in (16, 128)] == [0, 1]

    def test_the_running_best_only_gets_better(self):
        for name, sign in (("middling", 1), ("loss", -1)):
            steps = [sign * search(name).score(one) for one in search(name).running_best()]
            assert all(a < b for a, b in itertools.pairwise(steps))
            assert search(name).best is not None
            assert steps[-1] == sign * search(name).score(search(name).best)  # type: ignore[arg-type]

    @pytest.mark.parametrize("name", ["two", "three"])
    def test_no_trial_beats_one_of_the_front_and_every_other_is_beaten(self, name):
        one = search(name)
        signs = [1 if objective.is_larger_better else -1 for objective in one.objectives]

        def gains(attempt: Attempt) -> list[float]:
            return [sign * attempt.scores[o.column] for sign, o in zip(signs, one.objectives, strict=True)]

        def beats(a: Attempt, b: Attempt) -> bool:
            return all(x >= y for x, y in zip(gains(a), gains(b), strict=True)) and gains(a) != gains(b)

        front = {attempt.number for attempt in one.front}
        for attempt in one.scored:
            beaten = any(beats(other, attempt) for other in one.scored)
            earlier = any(gains(other) == gains(attempt) for other in one.scored[: one.scored.index(attempt)])
            assert (attempt.number in front) == (not beaten and not earlier)

    def test_rungs_count_every_stopped_trial_once(self):
        one = search("asha")
        assert [step.first for step in one.rungs()] == [1, 3, 9]
        assert sum(step.stopped for step in one.rungs()) == len(one.pruned)
        reached = [step.reached for step in one.rungs()]
        assert reached == sorted(reached, reverse=True)
        assert reached[0] == len(one.attempts) - len(one.lost)

    def test_many_different_ends_become_spans(self):
        (one,) = Evidence(searched.searched(60, stop_early=searched.PATIENCE, epochs=40)).searches
        assert len({attempt.epochs for attempt in one.pruned}) > 10
        assert len(one.rungs()) <= 10
        assert sum(step.stopped for step in one.rungs()) == len(one.pruned)
        assert one.stopped == []  # they got no better: their scores count

    def test_where_most_were_stopped_trials_are_compared_at_the_last_epoch_all_reached(self):
        one = search("asha")
        assert one.common_epoch == 1
        assert len(one.comparable) == len(one.attempts) - len(one.lost)
        for attempt, score in one.comparable:
            epochs, values = one.recorded.curve(attempt.trial_id, "val_accuracy")
            assert score == values[epochs == 1][0]
        assert search("middling").common_epoch is None

    def test_epochs_come_from_the_table_where_it_has_them(self):
        tables = searched.searched(10)
        tables.trials["epochs_done"] = 7
        (one,) = Evidence(tables).searches
        assert {attempt.epochs for attempt in one.attempts} == {7}


class TestHistory:
    def test_every_trial_is_at_its_place(self):
        one = search("asha")
        figure = plots.optimisation_history(one)
        finished = {(float(a.number), one.score(a)) for a in one.scored}
        stopped = {(float(a.number), a.scores["val_accuracy"]) for a in one.stopped}
        assert set(points(figure, "finished")) == finished
        assert set(points(figure, "stopped")) == stopped
        assert [x for x, _ in points(figure, "lost")] == [a.number for a in one.lost]
        assert one.best is not None
        assert points(figure, "best") == [(one.best.number, one.score(one.best))]

    def test_of_two_thousand_trials_the_best_and_an_even_selection_are_there(self):
        one = search("large")
        figure = plots.optimisation_history(one)
        for kind, some in (("finished", one.scored), ("stopped", one.stopped), ("lost", one.lost)):
            numbers = [x for x, _ in points(figure, kind)]
            assert len(numbers) == min(len(some), MOST_POINTS)
            assert min(numbers) < 200
            assert max(numbers) > 1800
            assert {*numbers} <= {float(attempt.number) for attempt in some}
        assert len(plots.to_svg(drawn(figure), "x")) < 300_000

    def test_the_title_says_when_the_best_came(self):
        one = search("middling")
        assert one.best is not None
        title = style.title_of(drawn(plots.optimisation_history(one)))
        assert title.startswith(f"The best came as trial {one.best.number} of 120")

    def test_several_models_keep_their_colours(self):
        figure = drawn(plots.optimisation_history(search("middling")))
        shown = figure.findobj(lambda artist: isinstance(artist, Line2D) and artist.get_gid() == "finished")
        assert {line.get_color() for line in shown if isinstance(line, Line2D)} == {
            style.THEME["m-blue"],
            style.THEME["m-vermillion"],
        }


class TestParallel:
    def test_each_axis_is_named_and_logarithms_are_said(self):
        shown = [" ".join(text.split()) for text in texts(plots.parallel_coordinates(search("middling")))]
        for name in ("learning rate log scale", "model", "momentum", "validation accuracy"):
            assert name in shown
        assert shown.count("not used") == 2

    def test_the_best_are_on_top_and_the_rest_are_bounded(self):
        figure = plots.parallel_coordinates(search("middling"))
        best = parallel.highlighted(search("middling"))
        assert lines(figure, "highlighted") == len(best)
        assert lines(figure, "other") == len(search("middling").scored) - len(best)
        many = Evidence(searched.searched(400, epochs=2, test_per_class=5)).searches[0]
        figure = plots.parallel_coordinates(many)
        assert lines(figure, "highlighted") == 20
        assert lines(figure, "other") <= MOST_LINES

    def test_a_line_ends_at_its_score(self):
        one = search("small")
        scores = [one.score(attempt) for attempt in one.scored]
        ends = sorted(y for x, y in points(plots.parallel_coordinates(one), "other") if x == len(one.axes))
        assert ends[0] == 0
        assert max(y for x, y in points(plots.parallel_coordinates(one), "highlighted") if x == len(one.axes)) == 1
        assert len(ends) == len(scores) - len(parallel.highlighted(one))


class TestImportances:
    def test_bars_have_their_numbers_and_the_random_column(self):
        one = search("middling")
        assert one.importances is not None
        shown = texts(plots.importance_bars(one))
        share = one.importances.shares["lr"]
        assert f"{100 * share.value:.0f} % ({100 * share.low:.0f}–{100 * share.high:.0f})" in shown
        assert "random numbers" in shown
        assert one.importances.ranked[0] == "lr"
        assert not one.importances.stands_out("batch_size")

    def test_too_few_trials_have_none(self):
        assert plots.importance_bars(search("small")) is None
        assert plots.contour(search("small")) is None

    def test_seeds_of_a_setting_are_one_point(self):
        tables = searched.searched(30)
        twice = tables.trials.copy()
        twice["trial_id"] += "x"
        twice["seed"] = 1
        both = replace(tables, trials=pd.concat([tables.trials, twice], ignore_index=True))
        (one,), (other,) = Evidence(tables).searches, Evidence(both).searches
        assert one.importances == other.importances


class TestSlices:
    def test_a_panel_an_axis_with_every_trial_in_which_it_has_a_part(self):
        one = search("middling")
        figure = drawn(plots.slices(one))
        panels = {axes.get_xlabel().removesuffix(", log scale"): axes for axes in figure.axes}
        assert len(panels) == len(one.axes)
        with_dropout = [a for a in one.scored if "dropout" in a.values]
        shown = [line for line in panels["dropout"].lines if line.get_gid() == "finished"]
        assert sum(len(np.asarray(line.get_xdata())) for line in shown) == len(with_dropout)
        assert f"{len(with_dropout)} of {len(one.scored)} trials" in texts(figure)

    def test_very_many_are_thinned_and_the_best_kept(self):
        one = search("large")
        kept = selection(one, one.stopped)
        assert len(kept) == MOST_POINTS
        assert [a.number for a in kept] == sorted({a.number for a in kept})
        many = Evidence(searched.searched(700, epochs=2, test_per_class=5)).searches[0]
        assert {a.number for a in many.ranked()[:50]} <= {a.number for a in selection(many, many.scored)}

    def test_a_region_holds_the_known_best(self):
        one = search("middling")
        low, high = (float(word) for word in region(one, one.axis("lr")).split()[2::2])
        assert low < 0.0015 < high * 1.3
        assert region(one, one.axis("model")) == "residual"

    def test_ticks_stay_in_range(self):
        for axis in search("small").axes:
            found = marks.ticks(axis)
            assert 2 <= len(found) <= 8
            assert all(0 <= position <= 1 for position, _ in found)


class TestContour:
    def test_it_shows_the_two_that_matter_most(self):
        one = search("middling")
        assert one.importances is not None
        chosen = contour_axes(one)
        assert chosen is not None
        assert {axis.name for axis in chosen} == set(one.importances.ranked[:2])
        figure = drawn(plots.contour(one))
        shown = points(figure, "finished")
        both = [a for a in one.scored if all(axis.name in a.values for axis in chosen)]
        assert len(shown) == len(both)

    def test_smoothing_is_a_weighted_mean(self):
        x, y, z = np.array([0.2, 0.8]), np.array([0.5, 0.5]), np.array([1.0, 3.0])
        mean, total = smoothed(x, y, z, np.array([0.5, 0.2]), np.array([0.5, 0.5]), (0.1, 0.1))
        assert mean[0] == pytest.approx(2)
        assert mean[1] == pytest.approx(1, abs=1e-6)
        assert total[1] == pytest.approx(1, abs=1e-6)
        assert total[0] == pytest.approx(2 * math.exp(-4.5))


class TestPareto:
    def test_one_objective_has_none(self):
        assert plots.pareto_front(search("middling")) is None

    @pytest.mark.parametrize(("name", "panels"), [("two", 1), ("three", 3)])
    def test_the_front_is_marked_in_each_pair(self, name, panels):
        figure = drawn(plots.pareto_front(search(name)))
        assert len(figure.axes) == panels
        assert len(points(figure, "front")) == panels * len(search(name).front)
        total = len(search(name).scored)
        assert len(points(figure, "finished")) == panels * (total - len(search(name).front))

    def test_axes_are_the_objectives(self):
        (axes,) = drawn(plots.pareto_front(search("two"))).axes
        assert axes.get_ylabel() == "validation accuracy"
        assert axes.get_xlabel().startswith("training time")


class TestBudgets:
    def test_rungs_have_their_counts(self):
        one = search("asha")
        shown = texts(plots.rungs(one))
        for step in one.rungs():
            assert f"{step.reached:,}" in shown
        title = style.title_of(drawn(plots.rungs(one)))
        assert title == f"{len(one.pruned)} of 150 trials were stopped early; {len(one.scored)} trained to the end"

    def test_curves_are_bounded(self):
        figure = drawn(plots.rungs(search("large")))
        assert lines(figure, "curve") <= 150

    def test_without_stopping_there_is_nothing(self):
        assert plots.rungs(search("middling")) is None
        assert plots.trials_by_budget(search("middling")) is None

    def test_bars_add_up(self):
        one = search("asha")
        left, right = drawn(plots.trials_by_budget(one)).axes
        trained = [a for a in one.attempts if a.epochs]
        assert sum(bar.get_height() for bar in left.patches) == len(trained)  # type: ignore[attr-defined]
        assert sum(bar.get_height() for bar in right.patches) == sum(a.epochs for a in trained)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["small", "asha", "three", "loss"])
def test_every_figure_follows_the_theme(name):
    """Every colour is one of the theme's, or the dark page would keep it."""
    for draw in FIGURES:
        figure = draw(search(name))
        if figure is not None:
            svg = plots.to_svg(figure, "x")
            assert "#" not in svg.replace("url(#", "").replace('href="#', "")
            assert style.title_of(figure)


def test_nothing_finished_draws_only_what_there_is():
    tables = searched.searched(30, lost=1.0)
    (one,) = Evidence(tables).searches
    assert one.best is None
    assert [draw(one) for draw in FIGURES] == [None] * len(FIGURES)
