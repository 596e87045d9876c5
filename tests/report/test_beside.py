"""Two processes that draw: the page is the same, and one of them is enough."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from benchmarks.report_load import write_results
from cnnsearch import plots, report
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.execution.machine import hardware
from cnnsearch.prepare import prepared
from cnnsearch.report import beside
from cnnsearch.report.beside import Beside
from cnnsearch.report.pictures import Drawing, Picture, draw_all
from cnnsearch.report.sketches import Sketches
from cnnsearch.results.tables import Tables, load
from cnnsearch.session import execute
from cnnsearch.spec.sweep import Sweep
from tests.short import WHOLE


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    folder = tmp_path_factory.mktemp("results") / "report"
    write_results(folder, 4, 2)
    load(folder)
    return load(folder)


@pytest.fixture
def on_two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Beside, "start", WHOLE[Beside, "start"])
    monkeypatch.setattr(beside, "detect", lambda: replace(hardware.detect(), cores=2))


def drawn_there(second: Beside) -> list[Path]:
    assert second._place is not None
    return [*second._place.glob("*.json")]


@pytest.mark.usefixtures("on_two_cores")
def test_two_processes_give_the_page_that_one_gives(tables, tmp_path):
    report.write(tables, tmp_path / "one")
    with Beside() as second:
        second.begin(tables)
        deadline = time.monotonic() + 120
        while not drawn_there(second) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert drawn_there(second)
        (tmp_path / "two").mkdir()
        report.write(tables, tmp_path / "two", beside=second)
        process = second._process
        assert process is not None
        assert process.wait(60) == 0  # no figure is left
    names = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len([name for name in names if name.suffix == ".png"]) > 4
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


@pytest.mark.usefixtures("figures_left_blank")
class TestDraw:
    @pytest.fixture
    def second(self, tables, tmp_path, monkeypatch):
        """Two figures are drawn there; by whom is what `answer` is told."""
        with Beside() as second:
            monkeypatch.setattr(second, "begin", lambda tables: None)
            second._asked, second._place = dict(tables.checksums), tmp_path
            yield second

    @pytest.fixture
    def drawings(self, tables) -> list[Drawing]:
        return Sketches.of(Evidence(tables)).all

    def answer(self, tables: Tables, place: Path, checksums: Any = None, owner: int | None = None) -> None:
        asked = {"folder": str(tables.folder), "place": str(place), "checksums": checksums or dict(tables.checksums)}
        beside.answer(asked, os.getppid() if owner is None else owner)

    def facts(self, pictures: dict[Drawing, Picture]) -> list[tuple[str, str, str, str, bytes]]:
        return [(one.name, one.title, one.svg, one.narrow_svg, one.png) for one in pictures.values()]

    def ended(self) -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, "-S", "-c", ""], text=True)
        process.wait()
        return process

    def test_what_is_drawn_there_is_not_drawn_here(self, tables, tmp_path, second, drawings, monkeypatch):
        here = self.facts(draw_all(drawings))
        (tmp_path / "0").touch()  # claimed as by this process
        self.answer(tables, tmp_path)
        (tmp_path / "0").unlink()
        to_svg = Mock(wraps=plots.to_svg)
        monkeypatch.setattr(plots, "to_svg", to_svg)
        second._process = self.ended()
        assert self.facts(second.draw(tables, drawings)) == here
        asked = {call.args[1].removesuffix("-narrow") for call in to_svg.call_args_list}
        assert asked == {drawings[0].name}

    def test_what_it_leaves_is_drawn_here(self, tables, tmp_path, second, drawings):
        for number in (2, 3, len(drawings) - 1):
            (tmp_path / f"{number}").touch()
        (tmp_path / "2.json").write_text("null", encoding="utf-8")  # it could not be drawn there
        second._process = self.ended()
        assert self.facts(second.draw(tables, drawings)) == self.facts(draw_all(drawings))

    def test_it_draws_nothing_of_other_tables_or_for_nobody(self, tables, tmp_path):
        self.answer(tables, tmp_path, checksums={"trials.parquet": "other"})
        self.answer(tables, tmp_path, owner=-1)
        assert not [*tmp_path.iterdir()]

    def test_figures_of_tables_that_have_changed_are_not_taken(self, tables, tmp_path, second, drawings):
        self.answer(tables, tmp_path)
        found = second.draw(replace(tables, checksums={"trials.parquet": "other"}), drawings)
        assert all("figure" in vars(picture) for picture in found.values())  # drawn here
        assert self.facts(found) == self.facts(draw_all(drawings))


@pytest.mark.usefixtures("on_two_cores")
class TestStart:
    def test_it_ends_with_what_it_reads(self):
        with Beside() as second:
            second.start()
            process, place = second._process, second._place
            assert process is not None
            assert process.stdin is not None
            assert place is not None
            process.stdin.close()
            assert process.wait(60) == 0
        assert not place.exists()

    def test_it_is_left_out_on_one_core_and_for_very_many_trials(self, tables, monkeypatch):
        with Beside() as second:
            monkeypatch.setattr(beside, "MOST_TRIALS", 3)
            second.begin(tables)
            assert beside.recorded_trials(str(tables.folder)) == 4
            assert not second.start(4)
            monkeypatch.setattr(beside, "MOST_TRIALS", 4)
            monkeypatch.setattr(beside, "detect", lambda: replace(hardware.detect(), cores=1))
            second.begin(tables)
            assert second._process is None


@pytest.mark.usefixtures("reports_in_words", "on_two_cores")
def test_a_run_has_its_figures_begun_when_its_last_trial_ends(
    small_sweep: Callable[..., Sweep], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_calls = Mock()
    for name in ("start", "begin", "close"):
        monkeypatch.setattr(Beside, name, getattr(all_calls, name))
    all_calls.start.return_value = True
    monkeypatch.setattr(report, "import_all", all_calls.import_all)
    all_calls.refresh.side_effect = report.refresh
    monkeypatch.setattr(report, "refresh", all_calls.refresh)
    few = (
        "stages.grid.space={model: plain, lr: 0.001, batch_size: 16}",
        "stages.dropout.space.dropout.grid=[0.1, 0.5]",
    )
    with prepared(small_sweep(*few), tmp_path) as ready:
        finished = execute(ready, serial=True)
    names = [name for name, _, _ in all_calls.mock_calls]
    assert "import_all" in names
    names = [name for name in names if name != "import_all"]  # in a thread
    begun = names.index("begin")
    assert "start" in names[:begun]
    assert names[begun : begun + 3] == ["begin", "refresh", "begin"]  # as the last trial ends, and to draw
    assert names[-1] == "close"
    ((tables,), _), _ = all_calls.begin.call_args_list
    assert len(tables.trials) == len(finished.tables.trials) == ready.plan.total
