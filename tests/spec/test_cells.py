from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from cnnsearch.spec.cells import can_suggest, cell_of, cells, draw, grid
from cnnsearch.spec.stage import Search, Stage
from cnnsearch.spec.values import Values

SPACE = {
    "lr": Values.model_validate({"loguniform": [1e-4, 1e-1]}),
    "dropout": Values.model_validate({"uniform": [0.1, 0.5]}),
    "batch_size": Values.model_validate({"int": [4, 6]}),
    "model": Values.model_validate({"choice": ["plain", "residual"]}),
    "width": Values.model_validate(0.5),
}


def test_the_first_axis_varies_slowest() -> None:
    space = {
        "model": Values.model_validate({"grid": ["plain", "residual"]}),
        "lr": Values.model_validate({"grid": [1.0, 2.0]}),
        "epochs": Values.model_validate(7),
    }
    assert grid(space) == [
        {"model": "plain", "lr": 1.0, "epochs": 7},
        {"model": "plain", "lr": 2.0, "epochs": 7},
        {"model": "residual", "lr": 1.0, "epochs": 7},
        {"model": "residual", "lr": 2.0, "epochs": 7},
    ]


@given(st.integers(0, 10_000), st.integers(0, 2**31))
def test_draws_stay_in_their_ranges(index: int, seed: int) -> None:
    cell = draw(SPACE, Search(method="random", trials=1, seed=seed), index)
    assert 1e-4 <= cell["lr"] <= 1e-1
    assert 0.1 <= cell["dropout"] <= 0.5
    assert cell["batch_size"] in (4, 5, 6)
    assert cell["model"] in ("plain", "residual")
    assert cell["width"] == 0.5


def test_more_draws_begin_with_the_same_ones() -> None:
    def stage(trials: int) -> Stage:
        return Stage(name="s", space=SPACE, search=Search(method="random", trials=trials))

    assert cells(stage(20))[:5] == cells(stage(5))
    assert len({str(cell) for cell in cells(stage(20))}) == 20


def test_another_axis_does_not_move_the_draws_of_the_first() -> None:
    search = Search(method="random", trials=1)
    alone = {"lr": SPACE["lr"]}
    assert draw(alone, search, 3)["lr"] == draw(SPACE, search, 3)["lr"]


def test_every_value_of_a_choice_is_drawn() -> None:
    search = Search(method="random", trials=1)
    drawn = {draw(SPACE, search, index)["batch_size"] for index in range(50)}
    assert drawn == {4, 5, 6}


def space(**axes: object) -> dict[str, Values]:
    return {axis: Values.model_validate(values) for axis, values in axes.items()}


CONDITIONAL = space(
    model={"grid": ["plain", "resnet18"]},
    weights={"grid": ["none", "imagenet"], "when": {"model": "resnet18"}},
    fine_tune={"grid": ["head", "full"], "when": {"weights": ["imagenet"]}},
    dropout={"grid": [0.0, 0.5], "when": {"model": ["plain"]}},
)


def test_an_axis_varies_only_where_its_condition_holds() -> None:
    assert grid(CONDITIONAL) == [
        {"model": "plain", "dropout": 0.0},
        {"model": "plain", "dropout": 0.5},
        {"model": "resnet18", "weights": "none"},
        {"model": "resnet18", "weights": "imagenet", "fine_tune": "head"},
        {"model": "resnet18", "weights": "imagenet", "fine_tune": "full"},
    ]


def test_conditions_hold_for_draws_too() -> None:
    listed = grid(CONDITIONAL)
    drawn = [draw(CONDITIONAL, Search(method="random", trials=1), index) for index in range(60)]
    assert all(cell in listed for cell in drawn)
    assert all(cell in drawn for cell in listed)


GOOD = {"lr": 0.01, "dropout": 0.1, "batch_size": 6, "model": "plain"}


@pytest.mark.parametrize("changes", [{}, {"dropout": 0.5}, {"width": "left aside"}, {"lr": 1e-1 + 1e-17}])
def test_what_a_searcher_may_suggest_is_told_from_the_space(changes: dict[str, object]) -> None:
    assert can_suggest(SPACE, GOOD | changes)
    assert cell_of(SPACE, GOOD | changes).keys() == SPACE.keys()


@pytest.mark.parametrize(
    "changes",
    [{"lr": 0.2}, {"lr": "x"}, {"lr": None}, {"lr": [0.01]}, {"batch_size": 4.5}, {"batch_size": True}, {"model": "x"}],
)
def test_what_no_searcher_may_suggest_is_told_from_the_space(changes: dict[str, object]) -> None:
    assert not can_suggest(SPACE, GOOD | changes)
    assert not can_suggest(SPACE, {axis: value for axis, value in GOOD.items() if axis not in changes})
