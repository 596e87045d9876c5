from __future__ import annotations

import json
import math
import random
import statistics
import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import given, settings, strategies as st

from cnnsearch.planning.search import Ending, Searcher, Told, known
from cnnsearch.spec.cells import Cell, cell_of, draw
from cnnsearch.spec.stage import Search
from cnnsearch.spec.values import Values


def space(**axes: object) -> dict[str, Values]:
    return {axis: Values.model_validate(values) for axis, values in axes.items()}


EVERY_KIND = space(
    model={"choice": ["plain", "residual"]},
    lr={"loguniform": [1e-5, 1.0]},
    dropout={"uniform": [0.0, 0.9], "when": {"model": "plain"}},
    batch_size={"int": [4, 64]},
    optimizer={"grid": ["adam", "sgd"]},
    momentum={"choice": [0.5, 0.9], "when": {"optimizer": "sgd"}},
    width=0.5,
)
METHODS = ["tpe", "gp", "cmaes", "qmc", "nsga2"]


def search(method: str, trials: int = 20, at_once: int = 4, seed: int = 0) -> Search:
    several = {"objectives": ["val_accuracy", "seconds"]} if method == "nsga2" else {}
    window = {} if method == "qmc" else {"at_once": at_once}
    return Search.model_validate({"method": method, "trials": trials, "seed": seed, **window, **several})


def quality(cell: Cell) -> float:
    """Best, at 1, with a residual net, lr 0.01 and batches of 16."""
    penalty = 0.2 * (cell["model"] == "plain") + abs(cell["batch_size"] - 16) / 200
    return float(1 - abs(math.log10(cell["lr"]) + 2) / 5 - penalty)


def outcome(method: str, cell: Cell, index: int) -> Told:
    """Of one trial; now and then one goes wrong."""
    values = (quality(cell), float(cell["batch_size"]))[: 2 if method == "nsga2" else 1]
    ending = {5: Ending.DIVERGED, 9: Ending.PRUNED, 12: Ending.FAILED}.get(index, Ending.COMPLETE)
    return Told(ending, values if ending in (Ending.COMPLETE, Ending.PRUNED) else ())


Run = tuple[list[Cell], list[Told]]


def run(how: Search, axes: dict[str, Values] = EVERY_KIND, group: tuple[str, ...] = ()) -> Run:
    searcher = Searcher(axes, how, group)
    suggestions: list[Cell] = []
    told: list[Told] = []
    for index in range(how.trials or 0):
        suggestions.append(searcher.suggest(told))
        told.append(outcome(how.method, cell_of(axes, suggestions[-1]), index))
    return suggestions, told


@pytest.fixture(scope="module")
def runs() -> dict[str, Run]:
    """Some suggestions of each searcher: enough for each to look at outcomes."""
    return {method: run(length(method)) for method in METHODS}


def length(method: str) -> Search:
    if method == "gp":  # it models from ten outcomes on, which takes its time
        return search(method, trials=12, at_once=1)
    return search(method, trials=45 if method == "nsga2" else 20)


@pytest.mark.parametrize("method", METHODS)
def test_suggestions_are_cells_of_the_space(method: str, runs: dict[str, Run]) -> None:
    suggestions, _ = runs[method]
    assert json.loads(json.dumps(suggestions)) == suggestions
    for cell in (cell_of(EVERY_KIND, suggestion) for suggestion in suggestions):
        assert 1e-5 <= cell["lr"] <= 1.0
        assert cell["batch_size"] in range(4, 65)
        assert cell["width"] == 0.5
        assert ("dropout" in cell) == (cell["model"] == "plain")
        assert ("momentum" in cell) == (cell["optimizer"] == "sgd")
    assert {suggestion["model"] for suggestion in suggestions} == {"plain", "residual"}
    assert len({suggestion["lr"] for suggestion in suggestions}) > 10


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("recorded", [1, 11])
def test_a_study_recalled_from_records_goes_on_the_same(method: str, recorded: int, runs: dict[str, Run]) -> None:
    suggestions, told = runs[method]
    again = Searcher(EVERY_KIND, length(method).model_copy(update={"trials": 500}))
    for suggestion in suggestions[:recorded]:
        again.recall(suggestion, told)
    assert [again.suggest(told) for _ in suggestions[recorded:]] == suggestions[recorded:]


@pytest.mark.parametrize("method", METHODS)
def test_what_is_recorded_stands_whatever_would_be_suggested_now(method: str, runs: dict[str, Run]) -> None:
    """As after a change of Optuna: others' suggestions are gone on from."""
    _, told = runs[method]
    others = [draw_suggestion(index) for index in range(11)]
    one, other = (Searcher(EVERY_KIND, length(method)) for _ in range(2))
    for suggestion in others:
        one.recall(suggestion, told)
        other.recall(dict(reversed(suggestion.items())), told)
    assert one.suggest(told) == other.suggest(told) not in others


def draw_suggestion(index: int) -> Cell:
    unconditional = {axis: values.model_copy(update={"when": {}}) for axis, values in EVERY_KIND.items()}
    cell = draw(unconditional, Search(method="random", trials=1, seed=7), index)
    del cell["width"]
    return cell


@pytest.mark.parametrize("method", ["tpe", "cmaes", "nsga2"])
def test_a_suggestion_knows_exactly_the_outcomes_that_are_due(method: str) -> None:
    how = search(method, trials=45, at_once=4)
    assert [known(how, index) for index in (0, 3, 4, 10)] == [0, 0, 1, 7]
    suggestions, told = run(how)
    # What is not due yet makes no difference, though it is there already ...
    early = Searcher(EVERY_KIND, how)
    assert [early.suggest(told) for _ in suggestions] == suggestions
    # ... and what is due does.
    worse = [Told(Ending.COMPLETE, tuple(-value for value in one.values)) if one.values else one for one in told]
    other = Searcher(EVERY_KIND, how)
    changed = [other.suggest(worse) for _ in suggestions]
    assert changed[:4] == suggestions[:4]
    assert changed != suggestions


def test_seed_and_group_make_other_suggestions() -> None:
    few = search("tpe", trials=2)
    first, _ = run(few)
    assert run(few)[0] == first
    assert run(search("tpe", trials=2, seed=1))[0] != first
    assert run(few, group=("plain",))[0] != first


def best_of(choose: Callable[[int], list[Cell]]) -> list[float]:
    return [max(map(quality, choose(seed))) for seed in range(5)]


@pytest.mark.parametrize("method", ["tpe", "cmaes"])
def test_searchers_find_better_settings_than_random_draws(method: str) -> None:
    how = {"trials": 40, "at_once": 4}

    def suggested(seed: int) -> list[Cell]:
        return [cell_of(EVERY_KIND, one) for one in run(search(method, seed=seed, **how))[0]]

    def drawn(seed: int) -> list[Cell]:
        return [draw(EVERY_KIND, Search(method="random", trials=1, seed=seed), index) for index in range(40)]

    found, by_chance = best_of(suggested), best_of(drawn)
    assert statistics.fmean(found) > statistics.fmean(by_chance)
    late = [quality(cell) for seed in range(5) for cell in suggested(seed)[20:]]
    assert statistics.fmean(late) > 0.15 + statistics.fmean(quality(cell) for s in range(5) for cell in drawn(s))


def test_a_gaussian_process_closes_in_on_the_best() -> None:
    axes = space(lr={"loguniform": [1e-5, 1.0]}, model="residual", batch_size=16)
    suggestions, _ = run(search("gp", trials=14, at_once=1), axes)
    cells = [cell_of(axes, one) for one in suggestions]
    assert max(map(quality, cells[11:])) > 0.95


def test_several_objectives_improve_together() -> None:
    """Trade-offs between quality and batch size: the last generation beats the first."""
    how = search("nsga2", trials=120)
    cells = [cell_of(EVERY_KIND, one) for one in run(how)[0]]

    def mean(chosen: list[Cell]) -> tuple[float, float]:
        return statistics.fmean(map(quality, chosen)), statistics.fmean(cell["batch_size"] for cell in chosen)

    (first_quality, first_size), (last_quality, last_size) = mean(cells[:20]), mean(cells[-20:])
    assert last_quality > first_quality + 0.1
    assert last_size < first_size


@pytest.mark.parametrize("method", METHODS)
def test_a_searcher_survives_that_nothing_works(method: str) -> None:
    searcher = Searcher(EVERY_KIND, search(method, trials=14))
    told = [Told(Ending.FAILED if index % 2 else Ending.DIVERGED) for index in range(14)]
    assert len({str(searcher.suggest(told)) for _ in range(14)}) == 14


def test_what_diverges_is_avoided() -> None:
    """Half of the range diverges, and all else is equally good."""
    axes = space(lr={"uniform": [0.1, 1.0]})
    searcher = Searcher(axes, search("tpe", trials=60, at_once=1))
    told: list[Told] = []
    rates = []
    for index in range(60):
        rates.append(searcher.suggest(told)["lr"])
        told.append(Told(Ending.DIVERGED) if rates[-1] > 0.55 else Told(Ending.COMPLETE, (0.5 + index % 3 / 100,)))
    assert sum(rate > 0.55 for rate in rates[30:]) < 8


def test_the_first_trials_of_sobol_cover_each_axis_evenly() -> None:
    axes = space(lr={"uniform": [0.0001, 1.0]}, dropout={"uniform": [0.0, 0.9]}, model="plain", batch_size=16)
    suggestions, _ = run(search("qmc", trials=33), axes)
    # The first one is drawn; of the next 32 there is one in each of 32 equal parts.
    parts = sorted(int((one["lr"] - 0.0001) / 0.9999 * 32) for one in suggestions[1:])
    assert parts == list(range(32))


def test_no_other_module_imports_optuna_and_most_commands_do_not() -> None:
    code = "import sys, cnnsearch.cli, cnnsearch.session, cnnsearch.planning.suggest; sys.exit('optuna' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 6), st.randoms(use_true_random=False))
def test_the_order_in_which_trials_end_changes_nothing(at_once: int, rng: random.Random) -> None:
    """Suggested one by one as outcomes come in, or all that are allowed at a time: the same."""
    how = search("tpe", trials=18, at_once=at_once)
    whole, told = run(how)
    searcher = Searcher(EVERY_KIND, how)
    ended: set[int] = set()
    suggestions: list[Cell] = []
    while len(suggestions) < 18:
        first_open = next(index for index in range(19) if index not in ended)
        while len(suggestions) < 18 and known(how, len(suggestions)) <= first_open:
            suggestions.append(searcher.suggest(told[:first_open]))
            if rng.random() < 0.3:
                break
        running = [index for index in range(len(suggestions)) if index not in ended]
        if running and rng.random() < 0.8:
            ended.add(rng.choice(running))
    assert suggestions == whole


@pytest.mark.parametrize("method", ["tpe", "gp", "qmc"])
def test_lists_and_objects_can_come_first(method: str) -> None:
    sizes = Values.model_validate({"choice": [[8], [8, 16], {"all": 4}]})
    space = {"model_args.sizes": sizes, "lr": Values.model_validate({"loguniform": [0.001, 1]})}
    first = ({"model_args.sizes": [8, 16], "lr": 1}, {"model_args.sizes": {"all": 4}})
    searcher = Searcher(space, Search.model_validate({"method": method, "trials": 5, "first": first}))
    one, other = (searcher.suggest([]) for _ in first)
    assert (one["model_args.sizes"], one["lr"]) == ([8, 16], 1.0)
    assert type(one["lr"]) is float
    assert other["model_args.sizes"] == {"all": 4}
    assert 0.001 <= other["lr"] <= 1
