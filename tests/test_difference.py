"""`cnnsearch diff`: two results folders held against each other, in words of any width and for programs."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnsearch import told
from cnnsearch.difference import difference_of
from cnnsearch.difference_text import difference_text
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.results.folder import Results
from cnnsearch.results.tables import Tables
from tests.asking import Answer, ask
from tests.evidence.test_counterparts import grid
from tests.report import factory
from tests.report.watch.test_watch import state_of
from tests.test_telling import SETTINGS, valid

STAGES = "stages=[{name: grid, space: {model: plain, lr: {grid: [0.001, 0.01]}}}]"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of two settings with three seeds each."""
    out = tmp_path_factory.mktemp("diff")
    arguments = [*SETTINGS, "--set", STAGES, "--seeds", "0,1,2", "--serial", "--out", out]
    assert ask("part1", *arguments).returncode == 0
    return out / "part1"


def answering(trained: Path, place: Path, share: float) -> Path:
    """A copy of the results whose networks answer this share of the test images correctly."""
    results = Results(shutil.copytree(trained, place))
    labels = np.array(results.read("data.json")["examples"]["test"]["labels"])
    right = np.arange(len(labels)) < share * len(labels)
    for record in results.records().values():
        folder = results.trial(record.trial_id)
        found = folder.predictions()
        answers = np.where(right, labels, (labels + 1) % 10).astype(np.int32)
        folder.save_predictions({**found, ("test", "best"): (answers, found["test", "best"][1])})
        assert record.best is not None
        best = record.best.model_copy(update={"test_accuracy": float(right.mean())})
        folder.commit(record.model_copy(update={"best": best}))
    return place


def diff(a: object, b: object, *more: object) -> Answer:
    return ask(a, b, *more, command="diff")


def of(a: Tables, b: Tables) -> told.Diff:
    return difference_of(Evidence(a), Evidence(b), "results/a", "results/b")


def test_a_copy_differs_in_nothing(trained: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(trained, tmp_path / "copy")
    before = state_of(trained), state_of(copy)
    answer = diff(trained, copy, "--json", "--fail-on-regression")
    found = valid(answer)
    assert (state_of(trained), state_of(copy)) == before
    assert (found["kind"], found["exit_code"], found["is_regression"]) == ("diff", 0, False)
    assert (found["settings"], found["versions"], found["only_a"], found["only_b"]) == ([], [], [], [])
    assert found["images"]["are_same"]
    assert [(one["split"], one["a"], one["b"], one["both"]) for one in found["images"]["splits"]] == [
        ("train", 60, 60, None), ("validation", 40, 40, 40), ("test", 1600, 1600, 1600)
    ]  # fmt: skip
    assert [one["name"] for one in found["both"]] == ["lr 0.001", "lr 0.01"]
    assert all(one["held"]["same_answers"] and one["held"]["seeds"] == 3 for one in found["both"])
    assert "No difference: both are right on the same images." in answer.stderr
    assert answer.stderr.count("the same\n") == 2
    assert "the same images, split in the same way" in answer.stderr


def test_a_regression_fails_only_where_that_was_asked_for(trained: Path, tmp_path: Path) -> None:
    good, bad = (answering(trained, tmp_path / name, share) for name, share in (("good", 0.9), ("bad", 0.6)))
    assert diff(good, bad).returncode == 0
    answer = diff(good, bad, "--fail-on-regression", "--json")
    found = valid(answer)
    assert (answer.returncode, found["is_regression"]) == (1, True)
    held = [one["held"] for one in found["both"]]
    assert [round(one["difference"], 6) for one in held] == [-0.3, -0.3]
    assert all(one["is_regression"] and one["paired_by"] == "seeds and images" for one in held)
    assert "clear: B worse" in answer.stderr
    assert "B is clearly worse in lr 0.001 and lr 0.01." in answer.stderr
    other_way = diff(bad, good, "--fail-on-regression")
    assert other_way.returncode == 0
    assert "B is clearly better in lr 0.001 and lr 0.01, and nowhere clearly worse." in other_way.stdout


def test_what_differs_between_sweeps_is_listed(trained: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    stages = STAGES.replace("0.01]", "0.1]").replace("}]", "}, {name: more, space: {model: residual}}]")
    values = [*SETTINGS, "--set", stages, "--set", "data.split.val_per_class=5", "--serial", "--out", other]
    assert ask("part1", *values).returncode == 0
    results = Results(other / "part1")
    provenance = results.read("provenance.json")
    provenance["runs"][0]["versions"]["torch"] = "1.0"
    results.write("provenance.json", provenance)
    answer = diff(trained, other / "part1", "--json")
    found = valid(answer)
    changes = {one["name"]: (one["a"], one["b"]) for one in found["settings"]}
    assert changes == {
        "data.split.val_per_class": ("4", "5"),
        "seeds": ("[0, 1, 2]", "[]"),
        "stages.grid.space.lr.grid": ("[0.001, 0.01]", "[0.001, 0.1]"),
        "stages.more": (None, "a stage of its own"),
    }
    assert [one["name"] for one in found["versions"]] == ["torch"]
    assert not found["images"]["are_same"]
    assert not found["images"]["judged_are_same"]
    validation = found["images"]["splits"][1]
    assert (validation["a"], validation["b"], validation["both"]) == (40, 50, 40)
    assert [one["name"] for one in found["both"]] == ["grid: plain, lr 0.001"]
    assert found["both"][0]["held"]["verdict"] == "cannot tell"
    assert [one["name"] for one in found["only_a"]] == ["grid: plain, lr 0.01"]
    assert [one["name"] for one in found["only_b"]] == ["grid: plain, lr 0.1", "more: residual, lr 0.001"]
    assert "only seeds count, and nothing is compared image by image" in " ".join(answer.stderr.split())


@pytest.mark.parametrize("width", [60, 100, 200])
def test_it_is_readable_at_any_width(width: int) -> None:
    one = of(factory.part1((0, 1, 2)), factory.part1((1, 2, 3)))
    text = difference_text(one, width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    flat = re.sub(r"\s+", " ", text)
    for both in one.both:
        assert both.held is not None
        for value in (both.a.test, both.b.test):
            assert value is not None
            assert f"{100 * value.value:.1f} % ({100 * value.low:.1f}–{100 * value.high:.1f})" in text
        if width != 100:  # there a name goes on below its row
            assert both.name in flat
    assert "all 12 together" in text
    has_columns = any(line.split() == ["setting", "A", "B", "B", "−", "A,", "points"] for line in lines)
    assert has_columns == (width > 60)


def test_a_row_has_its_columns_below_their_heads() -> None:
    lines = difference_text(of(grid(), grid(loss=0.5)), 200).splitlines()
    head = next(line for line in lines if line.lstrip().startswith("setting  "))
    rows = lines[lines.index(head) + 1 : lines.index(head) + 9]
    for row in rows:
        for name in ("A", "B", "B − A, points"):
            at = head.index(f"  {name}  ") + 2 if name != "B − A, points" else head.index(name)
            assert row[at - 1] == " "
            assert row[at] != " "


def test_what_it_says_of_all_settings_together() -> None:
    one = of(grid((0,)), grid((0,), loss=0.5))
    assert one.is_regression
    text = " ".join(difference_text(one, 100).split())
    assert "B is clearly worse in all settings together." in text
    assert "8 settings of 8 cannot be told apart, whatever the networks show: that takes 3 seeds in both." in text


def test_with_few_settings_nothing_is_said_of_them_together() -> None:
    few = [replace(t, trials=t.trials[t.trials["model"] == "plain"].head(2)) for t in (grid((0,)), grid((0,)))]
    one = of(*few)
    assert one.overall is None
    assert "With fewer than 4 settings in both, nothing is said of them together." in one.notes


def test_folders_without_a_common_setting() -> None:
    text = difference_text(of(grid(), factory.part2()), 100)
    assert "no setting is finished in both" in text
    assert text.splitlines()[-1] == "Nothing can be compared."


def test_wrong_requests(trained: Path, tmp_path: Path) -> None:
    refusals: list[tuple[Any, Any, str]] = [
        (trained, trained, "is given twice: diff compares two different results folders"),
        (trained, tmp_path / "none", f"there is no folder {tmp_path / 'none'}"),
        (tmp_path, trained, f"{tmp_path} is not the results of a sweep"),
        (trained, "s3://bucket/part1", "s3://bucket/part1: diff compares folders; copy the results to one first"),
    ]
    for a, b, told_ in refusals:
        answer = diff(a, b)
        assert (answer.returncode, answer.stdout) == (2, "")
        assert told_ in answer.stderr


def test_a_run_that_was_killed_has_noted_no_versions(trained: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(trained, tmp_path / "copy"))
    (copy / "provenance.json").unlink()
    found = valid(diff(trained, copy, "--json"))
    assert found["versions"] == []
    assert "B: no run has come to its end, so its versions and its machine are not recorded." in found["notes"]


def test_damaged_trials_are_named(trained: Path, tmp_path: Path) -> None:
    copy = Results(shutil.copytree(trained, tmp_path / "copy"))
    victim = next(iter(copy.records()))
    copy.trial(victim).record_file.write_text("{}")
    answer = diff(trained, copy.path)
    assert answer.returncode == 0
    assert "B: 1 trial damaged and left out." in answer.stdout
