"""The files: self-contained, escaped, complete, repeatable, and true to the tables."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from cnnsearch import plots, report
from cnnsearch.errors import RunError
from cnnsearch.evidence import named
from cnnsearch.evidence.configurations import collect
from cnnsearch.evidence.doubts import doubted_wanted
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.evidence.mistakes import examples_wanted
from cnnsearch.plots.style import title_of
from cnnsearch.report import figures, freshness
from cnnsearch.report.html import keep_numbers_whole, keep_words_whole, only_base64
from cnnsearch.report.markdown import code, plain
from cnnsearch.report.rows import by_class
from cnnsearch.results.tables import Tables
from cnnsearch.spec.sweep import Sweep
from tests.report import factory

VARIANTS: dict[str, Callable[[], Tables]] = {
    "part1": lambda: factory.part1(pictures=True),
    "seeds": lambda: factory.part1(seeds=(0, 1)),
    "confirmed": factory.confirmed,
    "nasty": factory.nasty,
    "with_trouble": factory.with_trouble,
    "one_trial": factory.one_trial,
    "all_failed": factory.all_failed,
    "at_chance": factory.at_chance,
    "two_classes": factory.two_classes,
    "lr_only": factory.lr_only,
    "optimizers": factory.optimizers,
    "disagree": factory.validation_and_test_disagree,
    "many": lambda: factory.many(60),
}

PNG = b"\x89PNG"
DRAWN_WHOLE = ("part1", "with_trouble")
"""The other reports have empty files for plots, and few of the confusion matrices that are all alike."""
ON_THE_PAGE = (*DRAWN_WHOLE, "nasty", "one_trial", "all_failed")
"""Reports with figures on their page: drawing them takes longest, and tests of plots look at those of the others."""

VOID = {"meta", "img", "br", "input", "link"}
SVG = {"svg", "g", "path", "defs", "use", "text", "clippath", "rect"}
PAGE = {
    "html", "head", "meta", "title", "style", "body", "main", "header", "section", "h1", "h2", "h3", "p", "a", "dl",
    "div", "dt", "dd", "ol", "ul", "li", "span", "code", "pre", "figure", "figcaption", "b", "bdi", "br", "img",
    "details", "nav", "summary", "table", "thead", "tbody", "tr", "th", "td", "script",
}  # fmt: skip


class Page(HTMLParser):
    """Tags with attributes, text by element, and whether elements are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.style: list[str] = []
        self.script: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        {"style": self.style, "script": self.script}.get(self.open[-1] if self.open else "", self.text).append(data)

    def names(self) -> set[str]:
        return {tag for tag, _ in self.tags}

    def attributes(self, name: str) -> list[str]:
        return [attrs[name] or "" for _, attrs in self.tags if name in attrs]

    def words(self) -> str:
        return " ".join("".join(self.text).split())


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Variant name -> (folder of its report, its page); each is built once."""
    known: dict[str, tuple[Path, Page]] = {}

    def build(name: str) -> tuple[Path, Page]:
        if name not in known:
            out = tmp_path_factory.mktemp(name)
            with pytest.MonkeyPatch.context() as patch:
                if name not in DRAWN_WHOLE:
                    patch.setattr(plots, "to_png", lambda figure: PNG)
                    patch.setattr(figures, "MOST_FOLDED", 2)
                if name not in ON_THE_PAGE:
                    patch.setattr(plots, "to_svg", lambda figure, name: "<svg></svg>")
                path = report.write(VARIANTS[name](), out)
            assert path == out / "report.html"
            known[name] = out, Page(path.read_text(encoding="utf-8"))
        return known[name]

    return build


class TestContents:
    """The reader finds what the report has."""

    @pytest.mark.parametrize("name", ["part1", "all_failed", "many", "confirmed"])
    def test_the_contents_list_has_every_section_and_its_links_lead_there(self, built, name):
        folder, _ = built(name)
        text = (folder / "report.html").read_text(encoding="utf-8")
        headings = re.findall(r'<h2 id="([^"]+)">([^<]+)</h2>', text)
        listed = re.findall(r'<li><a href="#([^"]+)">([^<]+)</a></li>', text)
        assert listed == headings * 2, "once in a row of links, once folded for a phone"
        nav = text.split("<nav")[1].split("</nav>")[0]
        assert nav.index("<details>") > nav.index("<ol>")

    def test_networks_and_the_use_of_the_best_are_in_both_files(self, built):
        folder, page = built("part1")
        for text in (page.words(), (folder / "report.md").read_text(encoding="utf-8")):
            assert "five residual blocks" in text
            assert "cnnsearch predict" in text
            assert "cnnsearch.load_model(" in text
            assert "best.safetensors" in text


class TestSmallScreens:
    """What the page does where a figure or a table does not fit."""

    def test_figures_have_a_narrow_twin_or_are_scrolled(self, built):
        _, page = built("part1")
        images = [attrs for tag, attrs in page.tags if tag == "div" and attrs.get("role") == "img"]
        kinds = [(attrs.get("class") or "").split() for attrs in images]
        assert ["narrow"] in kinds
        assert len([kind for kind in kinds if kind == ["narrow"]]) == len([kind for kind in kinds if "wide" in kind])
        assert ["scroll"] in kinds
        css = "".join(page.style)
        (rule,) = re.findall(r"\n\.scroll \{([^}]*)\}", css)
        assert "no-repeat local" in rule, "no shadow says that there is more to scroll to"
        narrow = css.split("@media screen and (max-width: 46rem)")[1]
        assert ".narrow { display: block; }" in narrow
        assert ".scroll.wide { display: none; }" in narrow

    def test_time_and_status_of_trials_stay_in_view(self, built):
        folder, page = built("part1")
        heads = re.findall(r"<th [^>]*>([^<]*)</th>", trials_table(folder))
        assert heads[-2:] == ["time", "status"]
        assert any("trials" in (attrs.get("class") or "").split() for tag, attrs in page.tags if tag == "table")
        (rule,) = re.findall(r"\.trials tr > :nth-last-child\(-n\+2\) \{([^}]*)\}", "".join(page.style))
        assert "position: sticky" in rule


def trials_table(folder: Path) -> str:
    """The HTML of the table of trials."""
    section = (folder / "report.html").read_text(encoding="utf-8").split('<h2 id="trials">')[1]
    return section.split("<table")[1].split("</table>")[0]


@pytest.mark.parametrize("name", VARIANTS)
class TestEveryReport:
    def test_has_the_recall_of_each_class(self, built, name):
        out, page = built(name)
        assert ("Recall of each class" in page.words()) == (name != "all_failed")
        text = (out / "report.md").read_text(encoding="utf-8")
        assert ("### Recall of each class" in text) == (name != "all_failed")

    def test_is_well_formed_and_made_of_known_elements(self, built, name):
        _, page = built(name)
        assert page.open == []
        assert page.names() <= PAGE | SVG
        assert not any(attr.startswith("on") for _, attrs in page.tags for attr in attrs)

    def test_refers_to_nothing_outside(self, built, name):
        out, page = built(name)
        for link in page.attributes("href"):
            assert link.startswith("#")
        for source in page.attributes("src"):
            assert source.startswith("data:image/png;base64,")
        assert "http" not in (out / "report.html").read_text(encoding="utf-8").replace("http-equiv", "")
        assert "url(" not in "".join(page.style)
        assert "@import" not in "".join(page.style)

    def test_every_link_has_its_target_and_every_id_is_one_elements(self, built, name):
        _, page = built(name)
        ids = page.attributes("id")
        assert len(ids) == len(set(ids))
        targets = [link[1:] for link in page.attributes("href")] + page.attributes("aria-labelledby")
        assert set(targets) <= set(ids)

    def test_only_its_own_script_may_run(self, built, name):
        _, page = built(name)
        (script,) = page.script
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        (policy,) = [attrs["content"] for tag, attrs in page.tags if tag == "meta" and "http-equiv" in attrs]
        assert policy is not None
        assert "default-src 'none'" in policy
        assert f"script-src 'sha256-{digest}'" in policy

    def test_can_be_read_without_eyes(self, built, name):
        _, page = built(name)
        assert page.tags[0][1]["lang"] == "en"
        assert all(attrs.get("alt") for tag, attrs in page.tags if tag == "img")
        levels = [int(tag[1]) for tag, _ in page.tags if tag in ("h1", "h2", "h3")]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
        for index, (tag, _) in enumerate(page.tags):
            if tag == "svg":
                assert page.tags[index - 1][1]["role"] == "img"
                assert page.tags[index - 1][1]["aria-label"]

    def test_sections_come_in_order(self, built, name):
        _, page = built(name)
        order = [
            "found",
            "networks",
            "all-settings",
            "metrics",
            "searches",
            "heatmaps",
            "curves",
            "continued-dropout",
            "errors",
            "labels",
            "use",
            "trials",
            "data",
            "method",
        ]
        present = [attrs["id"] for tag, attrs in page.tags if tag == "h2"]
        assert present == [section for section in order if section in present]
        assert {"found", "trials", "data", "method"} <= set(present)

    def test_markdown_shows_the_plots_that_are_there(self, built, name):
        out, _ = built(name)
        text = (out / "report.md").read_text(encoding="utf-8")
        linked = set(re.findall(r"\]\(plots/([^)]+)\)", text))
        assert linked == {path.name for path in (out / "plots").iterdir()}
        assert all(path.read_bytes().startswith(PNG) for path in (out / "plots").iterdir())

    def test_every_trial_is_in_the_table(self, built, name):
        out, _ = built(name)
        table = trials_table(out)
        assert table.count("<tr") - 1 == len(VARIANTS[name]().trials)
        lines = (out / "report.md").read_text(encoding="utf-8").split("## Trials")[1].split("## Data")[0].splitlines()
        assert sum(line.startswith("|") for line in lines) - 2 == len(VARIANTS[name]().trials)


class TestPart1:
    def test_size_and_sections(self, built):
        out, page = built("part1")
        assert (out / "report.html").stat().st_size < 3_000_000
        assert [attrs["id"] for tag, attrs in page.tags if tag == "h2"] == [
            "found", "networks", "all-settings", "metrics", "heatmaps", "curves", "continued-dropout", "errors",
            "labels", "use", "trials", "data", "method",
        ]  # fmt: skip

    def test_numbers_are_those_of_the_tables(self, built):
        _, page = built("part1")
        evidence = Evidence(VARIANTS["part1"]())
        for configuration in evidence.configurations:
            for split in ("val", "test"):
                score = evidence.score(configuration, split)
                assert score is not None
                assert score.text in page.words()

    def test_the_best_row_is_marked_once(self, built):
        out, _ = built("part1")
        table = trials_table(out)
        (row,) = re.findall(r'<tr class="best">.*', table)
        evidence = Evidence(VARIANTS["part1"]())
        assert evidence.best is not None
        score = evidence.score(evidence.best)
        assert score is not None
        assert score.text in row
        assert "best by validation" in row

    def test_says_how_it_selected(self, built):
        _, page = built("part1")
        assert "test images choose nothing" in page.words()
        assert "optimistic because it chose the setting" in page.words()

    def test_pictures_are_inside(self, built):
        _, page = built("part1")
        tables = VARIANTS["part1"]()
        sources = page.attributes("src")
        wanted = examples_wanted(tables)
        assert len(wanted) == 24
        doubted = [name for name in doubted_wanted(Evidence(tables)) if name in tables.pictures["examples"]]
        assert doubted
        assert len(sources) == 24 + 10 * 5 + len(doubted)
        assert all(f"data:image/png;base64,{tables.pictures['examples'][name]}" in sources for name in wanted)

    @pytest.mark.usefixtures("figures_left_blank")
    def test_works_without_pictures(self, tmp_path):
        tables = factory.two_classes_grid()
        page = Page(report.write(tables, tmp_path).read_text(encoding="utf-8"))
        assert "img" not in page.names()
        assert examples_wanted(tables, limit=3)[0] in page.words()

    def test_the_same_tables_give_the_same_bytes(self, built, tmp_path):
        out, _ = built("with_trouble")
        report.write(VARIANTS["with_trouble"](), tmp_path)
        names = sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())
        assert names == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
        for name in names:
            assert (out / name).read_bytes() == (tmp_path / name).read_bytes(), name

    @pytest.mark.usefixtures("reports_in_words")
    def test_its_facts_are_found_once(self, tmp_path, monkeypatch):
        collected = Mock(side_effect=collect)
        monkeypatch.setattr(named, "collect", collected)
        tables = replace(factory.two_classes_grid(), folder=tmp_path)
        doubted = {"trials": [], "images": 6000, "doubted": [["of/a.png", 0, 1, 0.01]]}
        made = report.refresh(tables, lambda names: {"examples": dict.fromkeys(names, "UE5H")}, lambda asked: doubted)
        collected.assert_called_once()
        page = made.path.read_text(encoding="utf-8")
        assert "of/a.png" in page
        assert "base64,UE5H" in page
        assert made.tables.training == doubted


class TestConfirmed:
    def test_it_says_on_what_the_answer_rests(self, built):
        _, page = built("confirmed")
        words = page.words()
        assert "It was chosen among 3 contenders that were trained again on fresh seeds" in words
        assert "Each contender was trained again with 5 fresh seeds (1, 2, 3, 4 and 5)" in words
        assert "optimistic because it was picked" not in words

    def test_the_rows_of_the_best_are_its_fresh_seeds(self, built):
        out, _ = built("confirmed")
        marked = re.findall(r'<tr class="best">.*', trials_table(out))
        assert len(marked) == 5
        assert all("confirm" in row for row in marked)


class TestRecall:
    def test_each_class_has_its_share_with_an_interval_the_fewest_first(self):
        evidence = Evidence(factory.part1(seeds=(0, 1, 2)))
        best = evidence.best
        assert best is not None
        rows = evidence.tables.predictions
        rows = rows[rows["trial_id"].isin(best.trial_ids) & (rows["split"] == "test") & (rows["moment"] == "best")]
        shares = (rows["label"] == rows["predicted"]).groupby(rows["label"]).mean()
        table = by_class(evidence)
        assert table is not None
        assert {row.cells[0].text: row.cells[2].sort for row in table.rows} == pytest.approx(shares.to_dict())
        values = [row.cells[2].sort or 0.0 for row in table.rows]
        assert values == sorted(values)
        assert all(row.cells[1].text == "100" for row in table.rows)
        assert all(re.fullmatch(r"\d+\.\d % \(\d+\.\d–\d+\.\d\)", row.cells[2].text) for row in table.rows)

    def test_there_is_none_where_nothing_is_recorded(self):
        assert by_class(Evidence(factory.all_failed())) is None


class TestWrong:
    """`examples_wanted`: the test images the best setting is surest and wrong about."""

    def test_they_are_wrong_and_surest_first(self):
        tables = factory.part1()
        best = Evidence(tables).best
        assert best is not None
        rows = tables.predictions.query("trial_id == @best.key and split == 'test' and moment == 'best'")
        rows = rows.set_index("example").loc[examples_wanted(tables, limit=10)]
        assert (rows["label"] != rows["predicted"]).all()
        assert rows["confidence"].is_monotonic_decreasing
        assert len(rows) == 10

    def test_none_where_nothing_finished(self):
        assert examples_wanted(factory.all_failed()) == []


class TestTrouble:
    def test_failures_show_their_reason_as_text(self, built):
        out, page = built("with_trouble")
        assert "failed: OutOfMemoryError: tried to allocate 2.00 GiB <b>now</b>" in page.words()
        assert "diverged: training loss became nan in epoch 2" in page.words()
        assert "5 of 8 done" in page.words()
        assert "1 failed, 1 diverged, 1 pruned" in page.words()
        assert "<b>now" not in (out / "report.md").read_text(encoding="utf-8")

    def test_all_failed_says_so(self, built):
        _, page = built("all_failed")
        assert "No answer: all 8 trials failed." in page.words()
        assert "no space left on device" in page.words()
        assert "svg" in page.names()  # the data is still shown

    def test_chance_says_so(self, built):
        _, page = built("at_chance")
        assert "No setting can be said to work" in page.words()
        assert "None of 8 settings is clearly better than chance (10 %)" in page.words()

    def test_validation_chooses(self, built):
        _, page = built("disagree")
        assert "Best by validation is batch 16" in page.words()

    def test_of_many_settings_it_shows_the_best_and_says_so(self, built):
        _, page = built("many")
        assert "Shown are the 40 best of 60 settings by validation accuracy" in page.words()
        assert "The 12 best of 60 settings by validation accuracy." in page.words()

    @pytest.mark.usefixtures("figures_left_blank")
    def test_only_pictures_of_an_earlier_report_are_removed(self, tmp_path):
        plots, outside = tmp_path / "out" / "plots", tmp_path / "outside.png"
        plots.mkdir(parents=True)
        for file in (plots / "mine.png", plots / "notes.txt", outside):
            file.write_bytes(b"mine")
        report.write(factory.one_trial(), tmp_path / "out")
        names = {file.name for file in plots.glob("*.png")} - {"mine.png"}
        for name in ("old.png", "old-and-changed.png"):
            (plots / name).write_bytes(b"ours")
        noted = [*names, "old.png", "old-and-changed.png", "gone.png", "../../outside.png"]
        (plots / "gone.png").write_bytes(b"ours")
        freshness.note(tmp_path / "out", noted)
        (plots / "gone.png").unlink()
        (plots / "old-and-changed.png").write_bytes(b"mine")
        report.write(factory.one_trial(), tmp_path / "out")
        kept = {"mine.png", "notes.txt", "old-and-changed.png"}
        assert {file.name for file in plots.iterdir()} == names | kept
        assert {file.read_bytes() for file in (outside, *(plots / name for name in kept))} == {b"mine"}
        assert not list(tmp_path.rglob("*.tmp"))

    @pytest.mark.parametrize("way", ["drawn", "inlined", "written"])
    def test_a_figure_that_cannot_be_drawn_does_not_cost_the_report(self, tmp_path, monkeypatch, caplog, way):
        def fails(*arguments: Any, **options: Any) -> Any:
            raise MemoryError

        monkeypatch.setattr(plots, "to_svg", lambda figure, name: "<svg></svg>" if name != "confusion" else fails())
        monkeypatch.setattr(plots, "to_png", lambda figure: PNG)
        if way == "drawn":
            monkeypatch.setattr(plots, "confusion_matrix", fails)
        if way == "written":
            monkeypatch.setattr(plots, "to_svg", lambda figure, name: "<svg></svg>")
            monkeypatch.setattr(plots, "to_png", lambda figure: fails() if "taken for" in title_of(figure) else PNG)
        report.write(factory.one_trial(), tmp_path)
        assert not (tmp_path / "plots" / "confusion.png").exists()
        assert (tmp_path / "plots" / "images.png").exists()
        assert "Images of each class" in (tmp_path / "report.html").read_text()
        assert any("confusion" in line and "MemoryError" in line for line in caplog.messages)

    @pytest.mark.usefixtures("figures_left_blank")
    def test_a_foreign_folder_named_plots_loses_nothing(self, tmp_path):
        report.write(factory.one_trial(), tmp_path / "ours")
        names = {file.name for file in (tmp_path / "ours" / "plots").iterdir()}
        (tmp_path / "paper" / "plots").mkdir(parents=True)
        (tmp_path / "paper" / "plots" / "figure1.png").write_bytes(b"mine")
        report.write(factory.one_trial(), tmp_path / "paper")
        assert {file.name for file in (tmp_path / "paper" / "plots").iterdir()} == names | {"figure1.png"}

    @pytest.mark.usefixtures("figures_left_blank")
    def test_a_folder_that_cannot_be_written_is_one_clear_error(self, tmp_path):
        (tmp_path / "plots").write_text("a file where a folder should be")
        with pytest.raises(RunError, match="cannot be written"):
            report.write(factory.one_trial(), tmp_path)

    @pytest.mark.usefixtures("figures_left_blank")
    @pytest.mark.parametrize("missing", ["provenance", "data", "pictures", "sweep"])
    def test_missing_descriptions_leave_gaps_and_no_errors(self, tmp_path, missing):
        gap: Any = {missing: Sweep.model_construct(name="part1", stages=()) if missing == "sweep" else {}}
        tables = replace(factory.two_classes_grid(), **gap)
        page = Page(report.write(tables, tmp_path).read_text(encoding="utf-8"))
        assert "Best by validation is" in page.words()


class TestNasty:
    def test_names_are_text_everywhere(self, built):
        _, page = built("nasty")
        words = page.words()
        for name in (
            "<script>alert('owned')</script>",
            "</style><img src=x onerror=alert(1)>",
            "{{ jinja }} {% raw %}",
        ):
            assert name in words
        assert len(page.script) == 1
        assert "alert" not in "".join(page.script + page.style)
        assert "x" not in page.attributes("src")

    def test_names_are_text_in_markdown(self, built):
        out, _ = built("nasty")
        text = (out / "report.md").read_text(encoding="utf-8")
        assert "<script>" not in text
        assert "<img" not in text
        assert r"under\_score\*star\*\`tick\`\|pipe" in text
        rows = [line for line in text.splitlines() if line.startswith("| test/")]
        assert rows
        assert all(len(re.findall(r"(?<!\\)\|", row)) == 5 for row in rows)

    def test_file_names_come_from_no_class(self, built):
        out, _ = built("nasty")
        assert all(re.fullmatch(r"[a-z0-9-]+\.png", path.name) for path in (out / "plots").iterdir())

    def test_pictures_that_are_not_base64_do_not_reach_a_url(self):
        assert only_base64(factory.picture(90))
        assert only_base64('x" onerror="alert(1)') == ""
        assert only_base64(None) == ""  # type: ignore[arg-type]


class TestWriting:
    def test_numbers_stay_whole(self):
        text = str(keep_numbers_whole("gets 78.9 % (76.3–81.3), by −2.7 points (−5.0 to −0.4) & more"))
        assert '<span class="n">78.9 % (76.3–81.3)</span>' in text
        assert '<span class="n">−2.7 points (−5.0 to −0.4)</span>' in text
        assert text.endswith("&amp; more")

    @pytest.mark.parametrize(
        "whole", ["batch 16", "lr 1e-5", "weight decay 0.003", "26 of 1,000", "17 to 24", "epoch 3", "−2.0 to 2.2"]
    )
    def test_a_number_stays_with_its_name(self, whole):
        text = str(keep_numbers_whole(f"for {whole}, and more"))
        assert f'<span class="n">{whole.removeprefix("weight ")}</span>' in text

    @pytest.mark.parametrize(
        ("given", "escaped"),
        [
            ("a|b", r"a\|b"),
            ("*x* _y_ `z` [l](u)", r"\*x\* \_y\_ \`z\` \[l\](u)"),
            ("<b> & &amp;", "&lt;b&gt; &amp; &amp;amp;"),
            ("- no list", r"\- no list"),
            ("1. no list", r"1\. no list"),
            ("two\nlines", "two lines"),
            ("a\u202etxt.exe \x1b[2J", r"a\\u202etxt.exe \\x1b\[2J"),
        ],
    )
    def test_markdown_is_escaped(self, given, escaped):
        assert str(plain(given)) == escaped

    def test_a_command_breaks_between_words_only(self):
        text = str(keep_words_whole("cnnsearch sweep --set 'a=<b>'  x"))
        assert "<span>--set</span> <span>&#39;a=&lt;b&gt;&#39;</span>  <span>x</span>" in text

    def test_fences_are_longer_than_what_they_hold(self):
        assert str(code("a ``` b")) == "````\na ``` b\n````"
        assert str(code("x", indent=3)) == "   ```\n   x\n   ```"


def test_what_draws_and_computes_is_imported_only_where_a_report_is_made():
    told = "import sys; from cnnsearch import report; print({'matplotlib', 'scipy', 'sklearn'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_what_only_searches_need_is_not_imported_for_every_report():
    told = "import sys; from cnnsearch.report import page; print({'scipy.stats', 'scipy.optimize'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
