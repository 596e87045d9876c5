"""What the plan says of what is recorded already, and of the limits of this run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cnnsearch import run
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.plan_text import Limits, ended_text, plan_text
from cnnsearch.planning.trial import Status
from cnnsearch.prepare import prepared
from cnnsearch.report.page import _outside
from cnnsearch.results.tables import load
from cnnsearch.spec.sweep import Sweep
from tests.asking import ask
from tests.conftest import SMALL

Make = Callable[..., Sweep]

WIDE = "stages=[{name: grid, space: {model: plain, lr: {grid: [0.001, 0.003, 0.01]}}}]"
NARROW = WIDE.replace("[0.001, 0.003, 0.01]", "[0.001]")
SEARCH = (
    "stages=[{name: search, search: {method: tpe, trials: 2}, space: {model: plain, lr: {loguniform: [0.001, 0.1]}}}]"
)
WIDER_SEARCH = SEARCH.replace("model: plain,", "model: plain, dropout: {uniform: [0, 0.5]},")


def planned(sweep: Sweep, out: Path, limits: Limits | None = None) -> str:
    with prepared(sweep, out, dry_run=True) as ready:
        return plan_text(ready, limits) if limits else plan_text(ready)


def test_a_narrower_grid_says_what_it_leaves_out(tmp_path: Path, small_sweep: Make) -> None:
    folder = tmp_path / "part1"
    run(small_sweep(WIDE), tmp_path, serial=True)
    assert "outside" not in planned(small_sweep(WIDE), tmp_path)
    text = planned(small_sweep(NARROW), tmp_path)
    assert f"note: 2 recorded trials are outside of this sweep; cnnsearch report {folder} --all shows them too" in text
    assert "1 trials (1 already done), nothing to run" in text
    tables = run(small_sweep(NARROW), tmp_path, serial=True)
    assert (len(tables.trials), tables.outside) == (1, 2)
    (warning,) = _outside(Evidence(tables))
    assert warning == (
        f"2 recorded trials are outside of the sweep as it is now and not shown; cnnsearch report {folder} --all "
        "shows them too."
    )
    assert _outside(Evidence(load(folder, everything=True))) == []


@pytest.mark.parametrize("stages", [WIDE, SEARCH])
def test_a_network_that_cannot_take_the_size_does_not_take_the_sweep_with_it(
    tmp_path: Path, small_sweep: Make, stages: str
) -> None:
    listed = "grid" if stages == WIDE else "choice"
    asked = small_sweep(stages.replace("model: plain", f"model: {{{listed}: [plain, alexnet, vgg16]}}"))
    text = planned(asked, tmp_path)
    assert "left out: image_size 8 with model alexnet: it must be at least 63\n" in text
    assert "left out: image_size 8 with model vgg16: it must be at least 32\n" in text
    tables = run(asked, tmp_path, serial=True)
    assert set(tables.trials["model"]) == {"plain"}
    assert set(tables.trials["status"]) == {"done"}


def test_all_trials_can_be_shown(tmp_path: Path, small_sweep: Make) -> None:
    before = run(small_sweep(WIDE), tmp_path, serial=True)
    run(small_sweep(NARROW), tmp_path, serial=True)
    folder = tmp_path / "part1"
    narrow, whole = load(folder), load(folder, everything=True)
    assert (len(narrow.trials), narrow.planned, len(narrow.predictions)) == (1, 1, len(before.predictions) // 3)
    assert (len(whole.trials), whole.planned, whole.outside) == (3, 3, 0)
    columns = ["trial_id", "lr", "val_accuracy", "test_accuracy"]
    wanted, found = (t.trials[columns].sort_values("lr").to_numpy().tolist() for t in (before, whole))
    assert found == wanted
    assert len(whole.predictions) == len(before.predictions)
    assert whole.epochs.groupby("trial_id").size().to_dict() == before.epochs.groupby("trial_id").size().to_dict()
    # They are only shown: what is stored is the sweep as it is now.
    assert len(load(folder).trials) == 1


@pytest.mark.usefixtures("figures_left_blank")
def test_the_command_shows_all(tmp_path: Path, small_sweep: Make) -> None:
    run(small_sweep(WIDE), tmp_path, serial=True)
    run(small_sweep(NARROW), tmp_path, serial=True)
    report = tmp_path / "part1" / "report.md"
    plain = ask(tmp_path / "part1", "--json", command="report").told
    assert (plain["planned"], plain["outside"]) == (1, 2)
    assert "--all shows them too" in report.read_text(encoding="utf-8")
    whole = ask(tmp_path / "part1", "--all", "--json", command="report").told
    assert (whole["planned"], whole["outside"], whole["counts"]["done"]) == (3, 0, 3)
    assert "--all shows them too" not in report.read_text(encoding="utf-8")
    assert {trial["settings"]["lr"] for trial in whole["trials"]} == {0.001, 0.003, 0.01}


def test_trials_on_other_images_are_never_shown_beside_these(tmp_path: Path, small_sweep: Make) -> None:
    run(small_sweep(WIDE), tmp_path, serial=True)
    other = small_sweep(NARROW, "data.split={method: fill, train_per_class: 6, val_per_class: 3}")
    text = planned(other, tmp_path)
    assert "note: 3 recorded trials were trained on other images, or on another split of them, and will not be" in text
    assert "outside of this sweep" not in text
    told = ask(
        "part1",
        *[part for one in (*SMALL, NARROW) for part in ("--set", one)],
        "--set",
        "data.split={method: fill, train_per_class: 6, val_per_class: 3}",
        "--dry-run",
        "--json",
        "--out",
        tmp_path,
    ).told
    assert told["outside"] == 3
    tables = run(other, tmp_path, serial=True)
    assert (tables.outside, tables.on_other_data) == (3, 3)
    (warning,) = _outside(Evidence(tables))
    assert warning.startswith("3 recorded trials were trained on other images, or on another split of them, and cannot")
    whole = load(tmp_path / "part1", everything=True)
    assert len(whole.trials) == 1
    assert "3 recorded trials are left out: what they were trained on is not" in whole.left_out[0]


def test_trials_that_a_waiting_stage_may_have_again_are_not_called_outside(tmp_path: Path, small_sweep: Make) -> None:
    later = "{name: more, start_from: {stage: grid}, space: {dropout: {grid: [0.1, 0.2]}}}]"
    run(small_sweep(f"{NARROW[:-1]}, {later}"), tmp_path, serial=True)
    with prepared(small_sweep(f"{WIDE[:-1]}, {later}"), tmp_path, dry_run=True) as ready:
        assert ready.outside.of_stages == {}
        assert ready.plan.waiting == 2
    with prepared(small_sweep(NARROW), tmp_path, dry_run=True) as ready:
        assert ready.outside.of_stages == {"more": 2}


def test_another_space_is_a_new_search(tmp_path: Path, small_sweep: Make) -> None:
    run(small_sweep(SEARCH), tmp_path, serial=True)
    words = "a new search: 2 recorded trials of this stage belong to one with another space, seed or settings, and do"
    assert "a new search" not in planned(small_sweep(SEARCH), tmp_path)
    assert "a new search" not in planned(small_sweep(SEARCH.replace("trials: 2", "trials: 3")), tmp_path)
    text = planned(small_sweep(WIDER_SEARCH), tmp_path)
    assert words in text
    assert "2 trials (0 already done)" in text
    assert len(run(small_sweep(WIDER_SEARCH), tmp_path, serial=True).trials) == 2
    assert "a new search" not in planned(small_sweep(WIDER_SEARCH), tmp_path)
    assert "2 recorded trials are outside of this sweep" in planned(small_sweep(WIDER_SEARCH), tmp_path)


@pytest.mark.usefixtures("figures_left_blank")
@pytest.mark.parametrize(
    ("before", "after", "planned_now", "in_all"),
    [
        ([SEARCH], [WIDER_SEARCH], 2, 4),
        ([WIDE, "confirm={seeds: 3, contenders: 2}"], [WIDE], 3, 9),
        ([WIDE], [NARROW.replace("name: grid", "name: other")], 1, 3),
    ],
)
def test_all_can_be_shown_whatever_has_changed(
    tmp_path: Path, small_sweep: Make, before: list[str], after: list[str], planned_now: int, in_all: int
) -> None:
    """Another search, no more confirming, another stage: the recorded trials are shown beside the present ones."""
    run(small_sweep(*before), tmp_path, serial=True)
    run(small_sweep(*after), tmp_path, serial=True)
    plain = ask(tmp_path / "part1", "--json", command="report")
    assert (plain.returncode, plain.told["planned"], plain.told["outside"]) == (0, planned_now, in_all - planned_now)
    whole = ask(tmp_path / "part1", "--all", "--json", command="report")
    assert (whole.returncode, whole.told["planned"], whole.told["counts"]["done"]) == (0, in_all, in_all), whole.stderr
    assert whole.told["best"] is not None


def test_limits_are_in_the_plan_while_there_is_something_to_run(tmp_path: Path, small_sweep: Make) -> None:
    sweep = small_sweep(NARROW)
    text = planned(sweep, tmp_path, Limits(1800, 1))
    assert text.splitlines()[-1].split(maxsplit=1) == [
        "limits",
        "this time begins at most 1 trial and ends after 30 min; the same command goes on with the rest",
    ]
    assert "limits" not in planned(sweep, tmp_path)
    assert Limits(trials=5).text.startswith("this time begins at most 5 trials; ")
    assert Limits(seconds=60).text.startswith("this time ends after 1 min; ")
    run(sweep, tmp_path, serial=True)
    assert "limits" not in planned(sweep, tmp_path, Limits(1800, 1))


def test_the_command_says_its_limits(tmp_path: Path) -> None:
    settings = [part for value in [*SMALL, NARROW] for part in ("--set", value)]
    done = ask("part1", *settings, "--dry-run", "--out", tmp_path, "--max-time", "2h", "--max-trials", "4")
    assert "limits  this time begins at most 4 trials and ends after 2 h; " in done.stdout


def test_done_is_said_of_trials_that_are_done() -> None:
    """One number with one name: trials that a rule stopped have ended, and are not done."""
    assert ended_text({Status.DONE: 9}, 16) == "9 of 16 trials done"
    assert ended_text({}, 16) == "0 of 16 trials done"
    counts = {Status.PRUNED: 76, Status.DONE: 28, Status.FAILED: 0}
    assert ended_text(counts, 180) == "104 of 180 trials ended (28 done, 76 pruned)"


def test_a_run_that_was_cut_short_tells_the_same_numbers_twice(tmp_path: Path) -> None:
    grid = (
        "stages=[{name: grid, space: {model: plain, optimizer: sgd, "
        "lr: {grid: [100, 0.01, 0.001, 0.003]}, batch_size: 8}}]"
    )
    settings = [part for value in [*SMALL, grid, "train.epochs=4"] for part in ("--set", value)]
    arguments = ["part1", *settings, "--serial", "--out", tmp_path]
    done = ask(*arguments, "--max-trials", "3", "--json")
    counts = done.told["counts"]
    assert (counts["done"], counts["diverged"], counts["left"]) == (2, 1, 1)
    assert "3 trials begun, as asked: 3 of 4 trials ended (2 done, 1 diverged)" in done.stderr
    assert "2 of 4 trials done in" in done.stderr
    again = ask(*arguments, "--dry-run")
    assert "4 trials (3 already ended: 2 done, 1 diverged)" in again.stdout
