"""Adding seeds to contenders until the best is told from the rest, and the errors that this makes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from benchmarks.until_clear import saved, winners_of_equal_pairs
from cnnsearch.planning.confirm import Confirmation, Contender, first_round
from cnnsearch.planning.queue import Queue
from cnnsearch.planning.rounds import ERROR, LOOKS, Bounds, judge, next_round, share
from cnnsearch.planning.trial import Outcome, Status, Trial
from cnnsearch.results.folder import Results
from cnnsearch.spec.cells import Cell
from cnnsearch.spec.load import load_sweep
from tests.asking import ask
from tests.planning.test_confirm import DATA, GRID, SETTINGS, by_lr

SWEEP = load_sweep("part1", values=[GRID, "confirm={seeds: 3, contenders: 4}"])


def of_width(width: float) -> Mapping[tuple[int, int], Bounds]:
    """Three contenders 2 points apart, with intervals of this half-width."""
    scores = {0: 0.80, 1: 0.78, 2: 0.76}
    return {(a, b): (d := scores[a] - scores[b], d - width, d + width) for a in scores for b in scores}


@pytest.mark.parametrize(
    ("width", "margin", "left", "why"),
    [
        (0.05, 0.005, [0, 1, 2], ""),  # nothing can be told
        (0.03, 0.005, [0, 1], ""),  # the last is worse than the first
        (0.01, 0.005, [0], "clear"),
        (0.05, 0.10, [0, 1, 2], "within margin"),
        (0.03, 0.06, [0, 1], "within margin"),
    ],
)
def test_who_is_worse_is_dropped_until_one_is_left_or_all_are_alike(
    width: float, margin: float, left: list[int], why: str
) -> None:
    bounds = of_width(width)
    assert judge([0, 1, 2], 3, margin, lambda a, b, level: bounds[a, b]) == (left, why)


def test_errors_add_up_to_five_percent_over_looks_and_pairs() -> None:
    levels: list[float] = []

    def bounds(a: int, b: int, level: float) -> Bounds:
        levels.append(level)
        return 0.0, -1.0, 1.0

    judge([0, 1, 3], 4, 0.005, bounds)  # one of four has been dropped: its pairs keep their share
    assert len(levels) == 3
    assert levels == [1 - share(6)] * 3
    assert len(LOOKS) * 6 * share(6) == pytest.approx(ERROR)


class Rounds:
    """A queue's `choose`, for contenders whose difference in lr counts, and whose intervals shrink with their seeds."""

    def __init__(self, width: float = 1.05, most: int = 100) -> None:
        self.width, self.most, self.made = width, most, 0

    def __call__(self, found: Confirmation, outcomes: Mapping[str, Outcome]) -> list[Cell]:
        if found.is_open:
            return [first_round(found, outcomes, 100, 4)]
        made = next_round(found, outcomes, 3, 0.005, self.compare)
        self.made += 1
        return [made] if made is not None and self.made <= self.most else []

    def compare(self, a: Contender, b: Contender, seeds: int, level: float) -> Bounds:
        assert len(a.again) >= seeds
        difference = a.again[0].settings.lr - b.again[0].settings.lr
        return difference, difference - self.width / seeds, difference + self.width / seeds


def run(rounds: Rounds, outcomes: Mapping[str, Outcome], suggestions: dict[str, list[Cell]], most: int | None) -> Queue:
    queue = Queue(SWEEP, DATA, dict(outcomes), choose=rounds, suggestions=suggestions, max_trials=most)
    while (job := queue.take()) is not None:
        for trial in job.trials:
            queue.finish(trial, by_lr(trial))
    return queue


def test_only_those_the_answer_depends_on_get_more_seeds() -> None:
    suggestions: dict[str, list[Cell]] = {}
    queue = run(Rounds(), {}, suggestions, None)
    (rounds,) = suggestions.values()
    assert rounds == [
        {"contenders": [3, 2, 1, 0]},
        {"contenders": [3, 2, 1, 0], "seeds": 4},  # 0.3 apart is less than 1.05 / 3
        {"contenders": [3, 2, 1], "seeds": 5},
        {"contenders": [3, 2, 1], "seeds": 7},  # 0.2 apart is less than 1.05 / 5
        {"contenders": [3, 2], "seeds": 10},
        {"contenders": [3, 2], "seeds": 14},
        {"contenders": [3], "seeds": 14, "ended": "clear"},
    ]
    assert [len(one.again) for one in queue.plan.contenders] == [14, 14, 7, 4]
    assert (queue.is_exhausted, queue.plan.total, len(queue.outcomes)) == (True, 4 + 39, 4 + 39)


@pytest.mark.parametrize("most", [2, 6, 16, 17, 21, 30, 42])
def test_a_run_that_goes_on_makes_the_same_rounds(most: int) -> None:
    undisturbed: dict[str, list[Cell]] = {}
    whole = run(Rounds(), {}, undisturbed, None)
    suggestions: dict[str, list[Cell]] = {}
    first = run(Rounds(), {}, suggestions, most)
    second = run(Rounds(), first.outcomes, suggestions, None)
    assert suggestions == undisturbed
    assert (second.outcomes, second.plan) == (whole.outcomes, whole.plan)


def test_when_time_is_up_there_are_no_more_rounds_and_the_next_run_adds_them() -> None:
    suggestions: dict[str, list[Cell]] = {}
    first = run(Rounds(most=2), {}, suggestions, None)
    assert first.is_exhausted
    assert [len(one.again) for one in first.plan.contenders] == [5, 5, 5, 4]
    second = run(Rounds(), first.outcomes, suggestions, None)
    assert [len(one.again) for one in second.plan.contenders] == [14, 14, 7, 4]


def test_who_lost_a_seed_is_left_out_and_named() -> None:
    def score(trial: Trial) -> Outcome:
        is_lost = trial.stage == "confirm" and (trial.settings.lr, trial.settings.seed) == (0.3, 2)
        return Outcome(Status.DIVERGED) if is_lost else by_lr(trial)

    suggestions: dict[str, list[Cell]] = {}
    queue = Queue(SWEEP, DATA, {}, choose=Rounds(width=0.1), suggestions=suggestions)
    while (job := queue.take()) is not None:
        for trial in job.trials:
            queue.finish(trial, score(trial))
    (rounds,) = suggestions.values()
    assert rounds[-1] == {"contenders": [3], "seeds": 3, "lost": [2], "ended": "seeds lost"}


def test_looks_are_not_endless() -> None:
    suggestions: dict[str, list[Cell]] = {}
    queue = run(Rounds(width=100), {}, suggestions, None)
    (rounds,) = suggestions.values()
    assert rounds[-1] == {"contenders": [3, 2, 1, 0], "seeds": LOOKS[-1], "ended": "out of looks"}
    assert {len(one.again) for one in queue.plan.contenders} == {LOOKS[-1]}


@pytest.mark.parametrize("seed_sd", [0.0, 0.055])
def test_few_equal_pairs_end_with_a_winner(seed_sd: float) -> None:
    """The 5 % that are promised, and three standard deviations of 200 draws."""
    assert winners_of_equal_pairs(np.random.default_rng(0), 200, 200, seed_sd) <= 0.05 + 3 * (0.05 * 0.95 / 200) ** 0.5


def test_it_takes_less_than_half_the_trials_of_five_seeds_for_all() -> None:
    found = saved(np.random.default_rng(0), 12, 1000, 0.08)
    assert found.fixed > 0.3
    assert found.adaptive >= found.fixed
    assert found.trials <= 40
    assert found.wrong <= 0.1


def test_a_sweep_records_why_no_seeds_are_added(tmp_path: Path) -> None:
    arguments = ["part1", *SETTINGS, "--set", "confirm={seeds: 3, margin: 100 points}", "--serial", "--out", tmp_path]
    first = ask(*arguments, "--json")
    assert (first.returncode, first.told["planned"]) == (0, 8), first.stderr
    second = ask(*arguments, "--json", "--until-clear", "1h")
    assert (second.returncode, second.told["planned"], second.told["counts"]["done"]) == (0, 8, 8), second.stderr
    (rounds,) = Results(tmp_path / "part1").suggestions().values()
    assert [one.get("ended") for one in rounds] == [None, "within margin"]
    # With a smaller margin there is more to do, as far as there is time.
    arguments = [one.replace("100 points", "0.1") if isinstance(one, str) else one for one in arguments]
    third = ask(*arguments, "--json", "--until-clear", "2s")
    assert third.returncode == 0, third.stderr
    (other,) = [found for found in Results(tmp_path / "part1").suggestions().values() if found != rounds]
    seeds = [one.get("seeds", 3) for one in other]
    assert seeds == sorted(seeds)
    assert third.told["planned"] == third.told["counts"]["done"] == 2 + 2 * seeds[-1]
    again = ask(*arguments, "--json", "--dry-run")
    assert again.told["done"] == third.told["planned"] == again.told["planned"]


def test_until_clear_needs_settings_that_are_confirmed() -> None:
    refused = ask("part1", "--until-clear", "2h", "--dry-run")
    assert refused.returncode == 2
    assert "give --confirm too" in refused.stderr
    assert "--until-clear soon: give a number and s, m, h or d" in ask("part1", "--until-clear", "soon").stderr
