"""Figures: what they draw for ordinary and for awkward tables, their titles, and their SVG and PNG."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from cnnsearch import plots
from cnnsearch.evidence.configurations import best_of, matched
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.evidence.families import families
from cnnsearch.evidence.mistakes import counts, most_confused
from cnnsearch.evidence.statements import of_change
from cnnsearch.plots import continued, style
from cnnsearch.plots.dots import settings_title
from cnnsearch.plots.heatmaps import text_on_heat
from tests.report import factory

ALL = ("all_settings", "heatmaps", "learning_curves", "before_after", "confusion_matrix", "images_per_class")


@functools.cache
def part1() -> Evidence:
    return Evidence(factory.part1())


@functools.cache
def seeds() -> Evidence:
    return Evidence(factory.part1(seeds=(0, 1, 2)))


def drawn(figure: Figure | None) -> Figure:
    assert figure is not None
    return figure


def texts(figure: Figure | None) -> list[str]:
    """All visible text of a figure, in no order."""
    assert figure is not None
    found = [text.get_text() for text in figure.findobj(mpl.text.Text) if text.get_visible()]
    return [text for text in found if text]


class TestFigures:
    def test_all_settings_shows_each_with_its_interval(self):
        shown = texts(plots.all_settings(part1().tables))
        for configuration in part1().configurations:
            score = part1().score(configuration)
            assert score is not None
            assert f"{100 * score.value:.1f} % ({100 * score.low:.1f}–{100 * score.high:.1f})" in shown
        assert "← chance 10 %" in shown

    @pytest.mark.parametrize("make", [factory.part1, lambda: factory.part1(seeds=range(5))])
    def test_hollow_are_only_the_settings_that_are_told_apart(self, make):
        evidence = Evidence(make())
        (axes,) = drawn(plots.all_settings(evidence)).axes
        dots = [line for line in axes.lines if line.get_marker() in ("o", "D")]
        assert len(dots) == 16
        hollow = sum(line.get_markerfacecolor() == style.THEME["paper"] for line in dots)
        assert hollow == len(evidence.told_apart)

    def test_of_many_settings_the_best_forty_are_shown_and_it_says_so(self):
        evidence = Evidence(factory.many(100))
        shown = texts(plots.all_settings(evidence))
        assert "best 40 of 100 settings by validation accuracy" in shown
        assert sum(bool(re.fullmatch(r"\d+\.\d % \(.*\)", text)) for text in shown) == 40

    def test_heatmap_cells_hold_the_table(self):
        shown = texts(plots.heatmaps(part1()))
        grid = part1().tables.trials.query("stage == 'grid'")
        for accuracy in grid["test_accuracy"]:
            assert f"{100 * accuracy:.1f} %" in shown
        assert {"plain", "residual", "lr 0.001", "batch 32"} <= set(shown)

    def test_one_axis_is_drawn_as_dots_and_none_not_at_all(self):
        shown = texts(plots.heatmaps(factory.lr_only()))
        assert {"1e-5", "0.0001", "0.001", "0.01", "learning rate"} <= set(shown)
        assert plots.heatmaps(factory.one_trial()) is None

    def test_random_values_are_a_scale(self):
        rng = np.random.default_rng(0)
        rates = [float(10 ** rng.uniform(-5, -2)) for _ in range(30)]
        plans = [factory.Plan("r", {"model": "plain", "lr": lr}, 0.5) for lr in rates]
        space = {"model": "plain", "lr": {"grid": rates}}
        figure = drawn(plots.heatmaps(factory.make(plans, [{"name": "r", "space": space}])))
        assert figure.axes[0].get_xscale() == "log"

    @pytest.mark.parametrize("metric", ["loss", "accuracy"])
    def test_curves_have_a_row_a_model_and_a_column_a_cell(self, metric):
        figure = drawn(plots.learning_curves(part1(), metric))
        assert len(figure.axes) == 8
        rows = {round(axes.get_position().y0, 4) for axes in figure.axes}
        assert len(rows) == 2
        for axes in figure.axes:
            assert axes.get_ylim() == figure.axes[0].get_ylim()
            assert axes.get_xlim() == figure.axes[0].get_xlim()
            train, val = [line for line in axes.lines if len(line.get_xdata()) > 1]  # type: ignore[arg-type]
            assert train.get_linestyle() == "-"
            assert val.get_linestyle() == "--"

    def test_curves_mark_the_recorded_best_epoch(self):
        figure = drawn(plots.learning_curves(part1(), "accuracy", stage="dropout"))
        best = set(part1().tables.trials.query("stage == 'dropout'")["best_epoch"])
        marked = {line.get_xdata()[0] for axes in figure.axes for line in axes.lines if line.get_marker() == "o"}  # type: ignore[index]
        assert marked == best

    def test_many_cells_show_the_best_twelve(self):
        figure = drawn(plots.learning_curves(factory.many(60)))
        assert len(figure.axes) == 12

    def test_seeds_are_thin_lines(self):
        figure = drawn(plots.learning_curves(seeds()))
        lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) > 1]  # type: ignore[arg-type]
        assert len(lines) == 6
        assert all(line.get_linewidth() < 1 for line in lines)

    def test_a_loss_that_explodes_flattens_no_other_panel_and_says_how_high_it_goes(self):
        tables = factory.part1()
        losses = tables.epochs["val_loss"].where(tables.epochs["trial_id"] != part1().stage("grid")[0].key, 400.0)
        figure = drawn(plots.learning_curves(replace(tables, epochs=tables.epochs.assign(val_loss=losses))))
        usual = drawn(plots.learning_curves(part1()))
        assert figure.axes[1].get_ylim()[1] <= usual.axes[1].get_ylim()[1]
        said = [text.get_text() for axes in figure.axes for text in axes.texts if text.get_gid() == "peak"]
        assert said == ["↑ up to 400"]
        assert not any(text.get_gid() == "peak" for axes in usual.axes for text in axes.texts)

    def test_before_and_after_are_both_drawn_for_both_splits(self):
        shown = texts(plots.before_after(part1()))
        assert {"validation", "test", "dropout 0.01", "dropout 0.5"} <= set(shown)
        for configuration in part1().stage("dropout"):
            for split in ("val", "test"):
                score = part1().score(configuration, split)
                assert score is not None
                assert f"{100 * score.value:.1f} % ({100 * score.low:.1f}–{100 * score.high:.1f})" in shown
        assert plots.before_after(factory.lr_only()) is None

    @pytest.mark.parametrize(("make", "numbers"), [("two_classes", True), ("part1", True), ("hundred_classes", False)])
    def test_confusion_matrix_counts_every_test_example(self, make, numbers):
        evidence = Evidence(getattr(factory, make)())
        assert evidence.best is not None
        matrix = counts(evidence, evidence.best)
        assert matrix is not None
        assert matrix.sum() == evidence.size("test")
        assert np.trace(matrix) == round(evidence.best.scores["test_accuracy"] * matrix.sum())
        shown = texts(plots.confusion_matrix(evidence))
        assert (str(matrix[0, 0]) in shown) == numbers
        assert sum(name in shown for name in evidence.classes) == len(evidence.classes)

    def test_rows_are_true_classes_and_columns_predicted_ones(self):
        evidence = part1()
        assert evidence.best is not None
        frame = evidence.tables.predictions
        frame = frame[
            (frame["trial_id"] == evidence.best.key) & (frame["split"] == "test") & (frame["moment"] == "best")
        ]
        expected = pd.crosstab(frame["label"], frame["predicted"])
        expected = expected.reindex(index=evidence.classes, columns=evidence.classes, fill_value=0)
        matrix = counts(evidence, evidence.best)
        assert matrix is not None
        assert (matrix == expected.to_numpy()).all()
        assert (matrix != matrix.T).any()

    def test_most_confused_are_shares_of_the_true_class(self):
        evidence = part1()
        assert evidence.best is not None
        matrix = counts(evidence, evidence.best)
        assert matrix is not None
        np.fill_diagonal(matrix, 0)
        first = most_confused(evidence, evidence.best)[0]
        assert first.times == matrix.max()
        assert matrix[evidence.classes.index(first.label), evidence.classes.index(first.predicted)] == first.times

    def test_images_are_counted(self):
        shown = texts(plots.images_per_class(part1()))
        assert {"training", "validation", "test", "50", "20", "100", *factory.FASHION} <= set(shown)
        many = plots.images_per_class(factory.hundred_classes())
        assert sum(text.startswith("class ") for text in texts(many)) == 40


class TestTitles:
    """They say what the data shows, and ask where it shows nothing."""

    def test_an_answer(self):
        figure = drawn(plots.heatmaps(part1()))
        pairs = matched(part1().stage("grid"), "model", "residual", "plain")
        gap = np.mean([100 * (a.scores["test_accuracy"] - b.scores["test_accuracy"]) for a, b in pairs])
        assert style.title_of(figure) == (
            f"residual is better than plain, by {gap:.1f} points on average over 4 settings"
        )

    def test_a_question(self):
        figure = drawn(plots.heatmaps(factory.at_chance()))
        assert style.title_of(figure) == "How does test accuracy change with the learning rate and the batch size?"

    def test_what_is_suggestive_is_not_said_to_be_so(self, monkeypatch):
        evidence = Evidence(factory.part1())
        monkeypatch.setattr(Evidence, "verdict", lambda self, key: "suggestive")
        assert style.title_of(drawn(plots.heatmaps(evidence))).startswith("residual may be better than plain, by ")
        monkeypatch.setattr(Evidence, "verdict", lambda self, key: "cannot tell")
        assert style.title_of(drawn(plots.heatmaps(evidence))).startswith("How does test accuracy change")

    def test_one_axis(self):
        once, thrice = (drawn(plots.heatmaps(factory.lr_only(seeds))) for seeds in ((0,), (0, 1, 2)))
        assert style.title_of(once) == "How does test accuracy change with the learning rate?"
        assert style.title_of(thrice) == "learning rate 0.001 is better than all 3 other values"

    def test_settings(self):
        name = "residual, lr 0.001, batch 32, dropout 0.1"
        assert settings_title(part1()) == f"{name} is best by validation; comparing settings takes 3 seeds of each"
        five = Evidence(factory.part1(seeds=range(5)))
        assert settings_title(five) == f"1 of 15 other settings may be as good as {name}"
        disagree = Evidence(factory.validation_and_test_disagree(seeds=(0, 1, 2)))
        assert settings_title(disagree) == "batch 16 is best by validation, but not on the test images"
        rates = Evidence(factory.lr_only(seeds=(0, 1, 2)))
        assert settings_title(rates) == "lr 0.001 is better than all 3 other settings"

    def test_of_confirmed_settings_contenders_are_counted(self):
        title = settings_title(Evidence(factory.confirmed()))
        assert re.fullmatch(r"residual, lr 0\.001, batch 32, dropout 0\.1 is better than both other \w+", title)

    def test_chance(self):
        figure = drawn(plots.all_settings(factory.at_chance()))
        assert style.title_of(figure) == "No setting is clearly better than chance"

    def test_before_and_after_claims_only_what_is_significant(self):
        title = continued.before_after_title(part1(), "dropout")
        claims = title.split("; ")
        assert len(claims) == 2
        for group, claim in zip(families(part1(), "dropout"), claims, strict=True):
            best = best_of(group)
            assert best is not None
            assert ("no clear gain" not in claim) == (part1().verdict(of_change(best)) == "clear")

    def test_before_and_after_names_the_harm_where_there_is_no_gain(self):
        def children(rows, plans):
            return factory.dropout_plans(plans[-1:], gains=(0.0, 0.0, -0.5, -1.5))

        tables = factory.make(factory.grid_plans()[-1:], [factory.GRID, factory.DROPOUT], children=children)
        lost = tables.trials.iloc[-1]
        points = 100 * (lost["test_accuracy_before"] - lost["test_accuracy"])
        expected = f"residual has no clear gain and loses {points:.1f} points with dropout 0.5"
        assert continued.before_after_title(Evidence(tables), "dropout") == expected


class TestStyle:
    @pytest.mark.parametrize("name", ALL)
    def test_svg_has_only_theme_colours_own_ids_and_no_references(self, name):
        svg = plots.to_svg(getattr(plots, name)(part1()), "here")
        assert svg.startswith("<svg ")
        assert not re.search(r"#[0-9a-f]{6}\b", svg)
        assert set(re.findall(r"var\(--([a-z-]+)\)", svg)) <= set(style.THEMES)
        assert "http" not in svg
        assert all(name.startswith("here-") for name in re.findall(r'(?:id="|href="#|url\(#)([^")]+)', svg))
        ids = re.findall(r' id="([^"]+)"', svg)
        assert len(ids) == len(set(ids))
        assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg)) <= set(ids)

    @pytest.mark.parametrize("name", ALL)
    def test_the_same_tables_give_the_same_bytes(self, name):
        one, other = (drawn(getattr(plots, name)(part1())) for _ in range(2))
        png = plots.to_png(other, dpi=50)  # of the other, the box around it is known from the SVG
        assert plots.to_svg(one, "a") == plots.to_svg(other, "a")
        assert plots.to_png(one, dpi=50) == png

    def test_a_title_is_in_the_png_and_not_in_the_svg(self):
        figure = drawn(plots.heatmaps(part1()))
        assert style.title_of(figure) not in plots.to_svg(figure, "x")
        tall = plots.to_png(figure)
        figure.texts[-1].set_visible(False)
        assert plots.to_png(figure) != tall

    def test_a_notebook_shows_it(self):
        figure: Any = plots.heatmaps(factory.part1())
        assert figure._repr_png_().startswith(b"\x89PNG")

    def test_numbers_in_labels_are_not_rounded(self):
        svg = plots.to_svg(drawn(plots.all_settings(part1())), "x")
        assert "lr 0.0001 · batch 16 · no dropout" in svg

    def test_nasty_names_are_text(self):
        svg = plots.to_svg(drawn(plots.confusion_matrix(factory.nasty())), "x")
        tags: list[str] = []

        class Parser(HTMLParser):
            def handle_starttag(self, tag, attrs):
                tags.append(tag)

        Parser().feed(svg)
        assert set(tags) <= {"svg", "g", "path", "defs", "use", "text", "clippath", "rect"}
        assert "$math^2$" in svg

    def test_models_keep_their_colours(self):
        assert style.colour_of("plain", ["plain"]) == style.colour_of("plain", ["residual", "other", "plain"])
        names = ["a", "plain", "b", "residual", "c", "resnet18"]
        assert len({style.colour_of(name, names) for name in names}) == 6
        assert style.colour_of("twelfth", [*map(str, range(11)), "twelfth"]) in style.THEME.values()

    def test_theme_colours_are_told_apart_by_their_code(self):
        assert len({light for light, _ in style.THEMES.values()}) == len(style.THEMES)

    @pytest.mark.parametrize("theme", [0, 1])
    def test_text_is_readable(self, theme):
        """WCAG contrast: 4.5 for text, 3 for the bold text in the strongest and weakest heat cells and for models."""
        colours = {name: rgb(pair[theme]) for name, pair in style.THEMES.items()}
        for name in ("ink", "muted", "accent"):
            assert contrast(colours[name], colours["paper"]) >= 4.5
        for strength in np.linspace(0.05, 0.95, 40):
            cell = strength * colours["heat"] + (1 - strength) * colours["paper"]
            ink = "ink" if style.THEME["ink"] == text_on_heat(strength) else "on-heat"
            assert contrast(colours[ink], cell) >= 3.3
        for name in ("m-blue", "m-vermillion", "m-green"):
            assert contrast(colours[name], colours["paper"]) >= 3

    def test_drawing_leaves_matplotlib_as_it_was(self):
        before = dict(mpl.rcParams)
        plots.to_png(drawn(plots.heatmaps(part1())))
        assert dict(mpl.rcParams) == before


def rgb(code: str) -> np.ndarray:
    return np.array([int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def contrast(one: np.ndarray, other: np.ndarray) -> float:
    def luminance(colour: np.ndarray) -> float:
        linear = np.where(colour <= 0.03928, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_neither_torch_nor_ray_nor_pyplot_is_imported():
    code = (
        "import sys, cnnsearch.plots, cnnsearch.report; print({'torch', 'ray', 'matplotlib.pyplot'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
