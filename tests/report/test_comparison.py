"""Several sweeps side by side: the statistics across them, the sentences, the files and the command."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import fisher_exact as reference_fisher
from typer.testing import CliRunner

from cnnsearch import cli, plots, report, stats
from cnnsearch.errors import RequestError
from cnnsearch.evidence.comparisons import Score
from cnnsearch.evidence.contrasts import contrasts, entries, newcombe, same_test_images
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.evidence.part import Part
from cnnsearch.plots import parts as drawn
from cnnsearch.report import comparison, cost
from cnnsearch.report.comparison import ComparisonPage
from cnnsearch.report.words import points
from cnnsearch.results.parquet import SCHEMAS
from cnnsearch.results.tables import Tables
from cnnsearch.spec.load import to_yaml
from cnnsearch.stats import fisher_exact
from tests.report import factory
from tests.report.test_report import PAGE, SVG, Page


@functools.cache
def grid() -> Tables:
    """Two cells of part 1, on the images of part 2."""
    return factory.make(factory.grid_plans()[-2:], [factory.GRID])


@functools.cache
def part2() -> Tables:
    return factory.part2()


def seeded_grid(seeds: int) -> Tables:
    """The same two cells with several seeds."""
    return factory.make(factory.grid_plans(range(seeds))[-2 * seeds :], [factory.GRID])


@functools.cache
def page(variant: str = "ordinary") -> ComparisonPage:
    return comparison.assemble(VARIANTS[variant](), Path("results/comparison"))


def words(of: ComparisonPage) -> str:
    return " ".join([of.answer.sentence, *of.warnings, *(finding.sentence for finding in of.findings)])


VARIANTS: dict[str, Callable[[], list[Tables]]] = {
    "ordinary": lambda: [grid(), part2()],
    "seeds": lambda: [seeded_grid(3), factory.part2(seeds=(0, 1, 2))],
    "seeds alike": lambda: [seeded_grid(3), factory.part2((0.3, 1.02), seeds=(0, 1, 2))],
    "seeds, other images": lambda: [seeded_grid(3), factory.part2(seeds=(0, 1, 2), test_per_class=60)],
    "alike": lambda: [grid(), factory.part2((0.3, 1.0))],
    "other images": lambda: [grid(), factory.part2(test_per_class=60)],
    "other data": lambda: [grid(), replace(part2(), data={**part2().data, "fingerprint": "ffff"})],
    "other classes": lambda: [grid(), factory.part2(classes=("cat", "dog"), test_per_class=60)],
    "one unfinished": lambda: [part2(), factory.all_failed()],
    "none finished": lambda: [factory.all_failed(), replace(factory.all_failed(), folder=Path("results/b"))],
    "three": lambda: [grid(), part2(), factory.part2((0.0, 0.1), name="part3", folder=Path("results/part3"))],
    "guessing": lambda: [factory.part2((-9, -9)), factory.part2((-9, -10), name="b", folder=Path("results/b"))],
    "nasty": lambda: [
        factory.make(factory.grid_plans()[-2:], [factory.GRID], classes=factory.NASTY, name="</style><b>|x"),
        replace(part2(), sweep=part2().sweep.model_copy(update={"title": "<script>alert(1)</script>"})),
    ],
}


class TestStatistics:
    def test_newcombe_is_that_of_his_paper(self) -> None:
        """56 of 70 against 48 of 80: Newcombe 1998, Table II, column (a), method 10."""
        a, b = (Score(k / n, *stats.wilson(k, n), n) for k, n in ((56, 70), (48, 80)))
        assert newcombe(a, b) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)

    @pytest.mark.parametrize(
        "table", [(3, 4, 1, 4), (56, 70, 48, 80), (0, 5, 5, 5), (0, 9, 0, 7), (791, 1000, 703, 990)]
    )
    def test_fisher_is_scipys(self, table: tuple[int, int, int, int]) -> None:
        right_a, n_a, right_b, n_b = table
        expected = reference_fisher([[right_a, n_a - right_a], [right_b, n_b - right_b]]).pvalue
        assert fisher_exact(*table) == pytest.approx(expected, rel=1e-6)

    def test_on_the_same_images_it_is_mcnemars(self) -> None:
        ranked = entries([Part("a", Evidence(grid())), Part("b", Evidence(part2()))])
        (contrast,) = contrasts(ranked)
        right = [entry.part.evidence.correct(entry.best) for entry in ranked]
        assert right[0] is not None
        assert right[1] is not None
        assert contrast.is_paired
        assert contrast.comparison.p_value == stats.sign_flip_exact(right[0] - right[1])
        assert contrast.comparison.difference == stats.paired_difference(right[0], right[1])
        assert contrast.comparison.difference.value == pytest.approx(ranked[0].score.value - ranked[1].score.value)

    def test_mcnemars_alone_says_nothing_of_the_settings(self) -> None:
        (contrast,) = contrasts(entries([Part("a", Evidence(grid())), Part("b", Evidence(part2()))]))
        assert contrast.comparison.p_value < 0.01
        assert (contrast.comparison.basis, contrast.verdict) == ("networks", "cannot tell")

    @pytest.mark.parametrize(("sides", "basis"), [((3, 3), "seeds"), ((3, 2), "networks"), ((1, 5), "networks")])
    def test_settings_take_three_seeds_of_both(self, sides: tuple[int, int], basis: str) -> None:
        both = [Part("a", Evidence(seeded_grid(sides[0]))), Part("b", Evidence(factory.part2(seeds=range(sides[1]))))]
        (contrast,) = contrasts(entries(both))
        assert contrast.comparison.basis == basis
        assert contrast.verdict == ("clear" if basis == "seeds" else "cannot tell")

    def test_with_several_seeds_each_image_counts_once(self) -> None:
        ranked = entries([Part("a", Evidence(grid())), Part("b", Evidence(factory.part2(seeds=(0, 1))))])
        (contrast,) = contrasts(ranked)
        assert contrast.comparison.difference.value == pytest.approx(ranked[0].score.value - ranked[1].score.value)
        assert 0 <= contrast.p_value <= 1
        both = entries(
            [Part(n, Evidence(factory.part2(a, seeds=(0, 1)))) for n, a in (("a", (0.3, 0.8)), ("b", (0.3, 0.81)))]
        )
        assert contrasts(both)[0].comparison.seeds == 2
        assert contrasts(both)[0].verdict == "cannot tell"

    def test_images_are_the_same_by_name_and_class(self) -> None:
        one = Part("a", Evidence(part2()))
        frame = part2().predictions
        label = np.where(frame["example"] == "test/000/00000.png", "Bag", frame["label"])
        other = Part("b", Evidence(replace(part2(), predictions=frame.assign(label=label))))
        assert same_test_images(one, Part("c", Evidence(grid())))
        assert not same_test_images(one, other)
        assert not same_test_images(one, Part("d", Evidence(replace(part2(), predictions=frame[:0]))))

    def test_seconds_are_those_of_the_whole_way(self) -> None:
        part = Part("part1", Evidence(factory.part1(test_per_class=20)))
        child = next(s for s in part.evidence.configurations if s.parent)
        assert part.seconds(child) == 19.0
        assert part.seconds(part.evidence.by_key[child.parent or ""]) == 9.5
        assert cost.total_seconds(part) == 16 * 9.5


class TestSentences:
    @pytest.mark.parametrize(
        ("variant", "start", "verdict"),
        [
            (
                "ordinary",
                "{a} is not clearly better than {b} with one seed: the best setting of {a} by validation (",
                "cannot tell",
            ),
            ("seeds", "Best is {a}: its best setting by validation (", "clear"),
        ],
    )
    def test_the_answer_has_both_numbers_and_their_difference(self, variant: str, start: str, verdict: str) -> None:
        one, other = VARIANTS[variant]()
        ranked = entries([Part("part1", Evidence(one)), Part("part2", Evidence(other))])
        (contrast,) = contrasts(ranked)
        answer = page(variant).answer
        assert answer.sentence.startswith(start.format(a=ranked[0].part.name, b=ranked[1].part.name))
        assert answer.verdict == verdict
        assert ranked[0].score.text in answer.sentence
        assert ranked[1].score.text in answer.sentence
        assert points(contrast.comparison.difference) in answer.sentence
        assert page(variant).warnings == []

    def test_what_networks_show_is_said_of_networks(self) -> None:
        first = page().findings[0]
        assert first.verdict == "cannot tell"
        assert "with one seed: the networks of part1 are ahead by" in first.sentence
        assert first.sentence.endswith(" on the same 1,000 test images.")
        assert "fewer than 3 seeds" in page().seeds_note

    def test_what_seeds_show_is_said_of_settings(self) -> None:
        first = page("seeds").findings[0]
        assert first.verdict == "clear"
        assert first.sentence.startswith("The best setting of part1 is more accurate than that of part2 by ")
        assert "on the same 1,000 test images over 3 seeds each (p = 0.0" in first.sentence
        assert page("seeds").seeds_note == ""

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_accuracies_and_differences_carry_their_interval(self, variant: str) -> None:
        text = words(page(variant))
        assert re.findall(r"\d\.\d %(?! \(\d+\.\d–\d+\.\d\))", text) == []
        assert re.findall(r"\d points(?! \(−?\d+\.\d+ to −?\d+\.\d+\))", text) == []

    def test_time_and_what_is_reached_in_it(self) -> None:
        told = [finding.sentence for finding in page().findings if finding.anchor == "time"]
        assert told[0].startswith(
            "The best network of part1 took 10 s to train, that of part2 16 s, 1.7 times as long."
        )
        assert "part1 19 s for 2 trials and part2 16 s for 2 trials" in told[0]
        assert "part2 (fine-tuning head) with " in told[1]
        assert [finding.verdict for finding in page().findings if finding.anchor == "time"] == ["suggestive"] * 2

    def test_what_cannot_be_told_apart_is_said_to_be_so(self) -> None:
        for variant, since in (("alike", " with one seed"), ("seeds alike", "")):
            assert re.match(rf"part. is not clearly better than part.{since}: the best ", page(variant).answer.sentence)
            assert page(variant).answer.verdict == "cannot tell"

    def test_other_images_are_not_compared_one_by_one(self) -> None:
        assert "not comparable image by image" in " ".join(page("other images").warnings)
        assert "on different test images" in page("other images").findings[0].sentence
        assert page("other images").answer.verdict == page("other images").findings[0].verdict == "cannot tell"
        assert "independent samples" in dict(page("other images").notes)["Tests"]

    def test_on_other_images_seeds_make_it_suggestive_at_most(self) -> None:
        (contrast,) = contrasts(
            entries([Part(str(i), Evidence(t)) for i, t in enumerate(VARIANTS["seeds, other images"]())])
        )
        assert contrast.p_value < 0.05
        assert page("seeds, other images").answer.verdict == "suggestive"
        assert "may be more accurate" in page("seeds, other images").findings[0].sentence

    def test_other_data_is_warned_of(self) -> None:
        (warning,) = page("other data").warnings
        assert "part1 9c2f64d1a0b35e77 and part2 ffff" in warning
        assert "are taken to be the same" in warning
        assert "tell different classes apart" in page("other classes").warnings[0]

    def test_a_sweep_without_finished_trials_is_left_out(self) -> None:
        assert page("one unfinished").answer.sentence.startswith(
            "Nothing to compare: only part2 has a finished setting"
        )
        assert page("one unfinished").warnings == ["part1 has no finished trial: it is left out."]
        assert [row.cells[1].text for row in page("one unfinished").table.rows][1] == "no finished trial"
        assert page("none finished").answer.sentence == "No answer: no trial of these sweeps finished."
        assert page("none finished").pictures == []

    def test_sweeps_of_one_name_are_told_by_their_folders(self) -> None:
        assert page("none finished").title == "part1 (part1) and part1 (b) compared"

    def test_chance_is_no_winner(self) -> None:
        assert page("guessing").answer.sentence.startswith("No sweep’s best setting can be said to work")
        assert page("guessing").answer.verdict == "cannot tell"

    def test_three_sweeps(self) -> None:
        assert len([finding for finding in page("three").findings if finding.anchor == "best"]) == 2
        assert "Holm’s correction covers all pairs" in dict(page("three").notes)["Tests"]


class TestFiles:
    @pytest.mark.parametrize("variant", ["nasty", "none finished", "three"])
    def test_page_is_whole_and_escaped(self, tmp_path: Path, monkeypatch, variant: str) -> None:
        monkeypatch.chdir(tmp_path)
        path = report.write_comparison(VARIANTS[variant](), tmp_path)
        text = path.read_text(encoding="utf-8")
        html = Page(text)
        assert path == tmp_path / "report.html"
        assert html.open == []
        assert html.names() <= PAGE | SVG
        assert "alert" not in "".join(html.script)
        ids = html.attributes("id")
        assert len(ids) == len(set(ids))
        targets = [link[1:] for link in html.attributes("href")] + html.attributes("aria-labelledby")
        assert set(targets) <= set(ids)
        markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
        assert "<script>" not in markdown
        linked = set(re.findall(r"\]\(plots/([^)]+)\)", markdown))
        assert linked == {file.name for file in (tmp_path / "plots").iterdir()}

    def test_pictures_of_others_are_kept_and_those_of_an_earlier_comparison_are_not(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plots = tmp_path / "plots"
        plots.mkdir()
        (plots / "mine.png").write_bytes(b"mine")
        monkeypatch.setattr(comparison, "assemble", lambda tables, out: page())
        report.write_comparison([], tmp_path)
        assert {file.name for file in plots.iterdir()} == {"mine.png", "best-settings.png", "accuracy-by-time.png"}
        monkeypatch.setattr(comparison, "assemble", lambda tables, out: replace(page(), time=None))
        report.write_comparison([], tmp_path)
        assert {file.name for file in plots.iterdir()} == {"mine.png", "best-settings.png"}

    def test_numbers_of_the_table(self) -> None:
        table = page().table
        titles = [column.title for column in table.columns]
        row = dict(zip(titles, [cell.text for cell in table.rows[1].cells], strict=True))
        assert row["best setting"] == "fine-tuning: last-2-convs"
        assert (row["trainable parameters"], row["training time"], row["all trials"]) == ("4,723,722", "16 s", "16 s")
        assert sum(r.is_best for r in table.rows) == 1

    def test_a_sweeps_report_is_never_overwritten(self, tmp_path: Path) -> None:
        (tmp_path / "sweep.yaml").write_text("name: mine")
        with pytest.raises(RequestError, match="holds the results of a sweep"):
            report.write_comparison([grid(), part2()], tmp_path)

    def test_a_folder_given_twice_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(RequestError, match="given twice"):
            report.write_comparison([grid(), grid()], tmp_path / "out")
        assert not (tmp_path / "out").exists()


class TestFigures:
    def test_best_settings_say_their_intervals(self) -> None:
        figure = drawn.best_settings([Part("part2", Evidence(part2()))], "title")
        assert figure is not None
        shown = {text.get_text() for axes in figure.axes for text in axes.texts}
        evidence = Evidence(part2())
        assert {score.text for s in evidence.configurations if (score := evidence.score(s))} <= shown
        assert {"part2", "fine-tuning: head"} <= shown

    def test_time_is_on_a_log_axis_with_a_dot_a_setting(self) -> None:
        figure = drawn.accuracy_by_time([Part("part1", Evidence(grid())), Part("part2", Evidence(part2()))], "title")
        assert figure is not None
        (axes,) = figure.axes
        assert axes.get_xscale() == "log"
        dots = [line for line in axes.lines if line.get_marker() in ("o", "D")]
        assert sorted(np.concatenate([line.get_xdata() for line in dots])) == [0.4, 9.5, 9.5, 16.0]
        assert sum(line.get_marker() == "D" for line in dots) == 2

    def test_without_times_there_is_no_figure(self) -> None:
        trials = part2().trials.assign(seconds=math.nan)
        assert drawn.accuracy_by_time([Part("a", Evidence(replace(part2(), trials=trials)))], "title") is None
        assert plots.to_png(drawn.best_settings([Part("a", Evidence(part2()))], "t")).startswith(b"\x89PNG")  # type: ignore[arg-type]


def saved(tables: Tables, folder: Path) -> Path:
    """The folder of results that reads as these tables."""
    folder.mkdir(parents=True)
    (folder / "sweep.yaml").write_text(to_yaml(tables.sweep))
    (folder / "data.json").write_text(json.dumps(tables.data))
    (folder / "provenance.json").write_text(json.dumps(tables.provenance))
    for name, schema in SCHEMAS.items():
        table = pa.Table.from_pandas(getattr(tables, name), schema=schema, preserve_index=False)
        pq.write_table(table, folder / f"{name}.parquet")
    return folder


class TestCommand:
    def test_compares_beside_the_folders_and_links_to_their_reports(self, tmp_path: Path, monkeypatch) -> None:
        first, second = saved(grid(), tmp_path / "results/part1"), saved(part2(), tmp_path / "results/part 2")
        (second / "report.html").write_text("its report")
        monkeypatch.chdir(tmp_path)
        done = CliRunner().invoke(cli.app, ["report", "results/part1", "results/part 2"])
        assert done.exit_code == 0, done.output
        assert done.stdout.strip() == "results/comparison/report.html"
        html = Page((tmp_path / "results/comparison/report.html").read_text(encoding="utf-8"))
        assert [link for link in html.attributes("href") if not link.startswith("#")] == ["../part%202/report.html"]
        assert "part1 and part2 compared" in html.words()

        again = CliRunner().invoke(cli.app, ["report", str(first), "results/part1"])
        assert again.exit_code == 2
        assert "given twice" in again.stderr
        into = CliRunner().invoke(cli.app, ["report", str(first), str(second), "--out", str(first)])
        assert into.exit_code == 2
        assert "holds the results of a sweep" in into.stderr

    def test_where_it_goes(self, tmp_path: Path, monkeypatch) -> None:
        monkeypatch.chdir(tmp_path)
        assert comparison.beside([Path("results/a"), Path("results/b")]) == Path("results/comparison")
        assert comparison.beside([Path("x/a"), Path("y/b")]) == Path("comparison")
        assert comparison.beside([Path("/far/a"), Path("/far/away/b")]) == Path("/far/comparison")
