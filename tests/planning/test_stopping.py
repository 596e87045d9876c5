from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from cnnsearch.errors import SpecError
from cnnsearch.planning.queue import Queue
from cnnsearch.planning.stopping import Stopper, curve_of
from cnnsearch.planning.stopping_rules import AshaRule, HyperbandRule, mean, rule_of
from cnnsearch.spec.stage import Asha, Hyperband, Median, Patience, StopEarly
from cnnsearch.spec.sweep import Sweep

EPOCHS = 27
VALUES = st.floats(0, 1, allow_subnormal=False)
CURVES = st.lists(st.lists(VALUES, min_size=EPOCHS, max_size=EPOCHS), min_size=1, max_size=12)


def run(stopper: Stopper, name: str, curve: list[float], until: int | None = None) -> int:
    """Train a trial by its curve; the epochs it had, whether stopped or cut off after `until`."""
    for epoch, value in enumerate(curve[:until], start=1):
        if stopper.hear(name, epoch, value, len(curve)):
            return epoch
    return len(curve[:until])


def placed(rule: StopEarly, trials: int) -> Stopper:
    stopper = Stopper(rule)
    for trial in range(trials):
        stopper.place(str(trial), {})
    return stopper


def all_run(rule: StopEarly, curves: list[list[float]]) -> tuple[Stopper, list[int]]:
    stopper = placed(rule, len(curves))
    return stopper, [run(stopper, str(trial), curve) for trial, curve in enumerate(curves)]


def expected_epochs(settings: StopEarly, epochs: int, trials: int, **options: Any) -> float:
    return mean(rule_of(settings).endings(epochs, trials, **options))


def test_rungs_lie_a_factor_apart_and_below_the_last_epoch() -> None:
    assert AshaRule(Asha()).rungs(100) == [1, 3, 9, 27, 81]
    assert AshaRule(Asha(min_epochs=4, reduction_factor=2)).rungs(33) == [4, 8, 16, 32]
    assert AshaRule(Asha()).rungs(27) == [1, 3, 9]
    assert [epoch for epoch in range(1, 101) if rule_of(Asha()).is_due(epoch, 100)] == [1, 3, 9, 27, 81]
    assert [epoch for epoch in range(1, 6) if rule_of(Median(min_epochs=3)).is_due(epoch, 5)] == [3, 4]


def test_asha_lets_the_best_third_go_on() -> None:
    stopper = placed(Asha(), 5)
    for trial, value in enumerate([0.5, 0.6, 0.4, 0.58]):
        stopper.hear(str(trial), 1, value, 9)
    # Of 0.5, 0.6, 0.4 the upper third begins at 0.533.
    assert [trial in stopper.stops for trial in "0123"] == [False, False, True, False]
    assert stopper.stops["2"].reason == "asha: 3rd of 3 at epoch 1"
    assert stopper.stops["2"].epoch == 1


def test_loss_is_better_where_it_is_lower() -> None:
    stopper = placed(Asha(metric="val_loss"), 2)
    assert stopper.hear("0", 1, 2.0, 9) is None
    assert stopper.hear("1", 1, 2.5, 9) is not None
    assert curve_of(Asha(metric="val_loss"), [{"epoch": 0, "val_loss": 9.0}, {"epoch": 1, "val_loss": None}]) == {}


@given(CURVES, st.integers(2, 4))
def test_what_is_best_at_a_rung_goes_on(curves: list[list[float]], factor: int) -> None:
    rule = Asha(reduction_factor=factor)
    stopper, ended = all_run(rule, curves)
    for rung in AshaRule(rule).rungs(EPOCHS):
        there = {name: curve[rung] for name, curve in stopper.curves.values.items() if rung in curve}
        best = max(there.values(), default=None)
        assert all(ended[int(name)] > rung for name, value in there.items() if value == best)
    assert EPOCHS in ended
    assert all(epochs == EPOCHS or epochs in AshaRule(rule).rungs(EPOCHS) for epochs in ended)


@given(CURVES, st.randoms(use_true_random=False))
def test_rungs_are_rebuilt_from_what_is_known_in_any_order(curves: list[list[float]], rng: random.Random) -> None:
    """A run that is cut off before its last trial stops that trial where one that was not cut off does."""
    whole, ended = all_run(Asha(), curves)
    known = list(range(len(curves) - 1))
    rng.shuffle(known)
    again = Stopper(Asha())
    for trial in known:
        again.place(str(trial), whole.curves.values[str(trial)])
    last = str(len(curves) - 1)
    cut = rng.randrange(ended[-1])
    again.place(last, {epoch: curves[-1][epoch - 1] for epoch in range(1, cut + 1)})
    assert not again.resume(last, EPOCHS)
    assert run(again, last, curves[-1]) == ended[-1]  # which comes past its first epochs again
    assert again.curves.values == whole.curves.values


def test_a_trial_cut_off_between_its_last_word_and_the_answer_is_answered() -> None:
    stopper = Stopper(Asha())
    stopper.place("good", {1: 0.9, 2: 0.9, 3: 0.9})
    stopper.place("bad", {1: 0.1})
    stopper.place("passed", {1: 0.1, 2: 0.1})
    stop = stopper.resume("bad", EPOCHS)
    assert stop is not None
    assert stop.epoch == 1
    assert stopper.resume("passed", EPOCHS) is None  # it was let go on before
    assert stopper.hear("bad", 1, 0.1, EPOCHS) == stop


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("metric", ["val_accuracy", "val_loss"])
def test_asha_decides_as_ray_does(factor: int, metric: Any) -> None:
    """Side by side on the same results in the same order, trials at different epochs."""
    from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

    class FakeTrial:
        def __init__(self, name: str) -> None:
            self.trial_id = name

    mode = "max" if metric == "val_accuracy" else "min"
    theirs = AsyncHyperBandScheduler(
        "epoch", metric, mode, max_t=EPOCHS + 1, grace_period=1, reduction_factor=factor, stop_last_trials=False
    )
    ours = placed(Asha(reduction_factor=factor, metric=metric), 40)
    rng = np.random.default_rng(factor)
    trials = {str(trial): FakeTrial(str(trial)) for trial in range(40)}
    at = dict.fromkeys(trials, 0)
    for trial in trials.values():
        theirs.on_trial_add(None, trial)
    stopped = 0
    while at:
        name = str(rng.choice(list(at)))
        at[name] += 1
        value = round(float(rng.random()), 2)
        answer = theirs.on_trial_result(None, trials[name], {"epoch": at[name], metric: value})
        stop = ours.hear(name, at[name], value, EPOCHS + 1)
        assert (stop is not None) == (answer == TrialScheduler.STOP), (name, at[name])
        stopped += stop is not None
        if stop or at[name] == EPOCHS:
            del at[name]
    assert 15 < stopped < 40


def test_hyperband_deals_trials_to_brackets_as_its_paper_does() -> None:
    """Table 1 of arXiv:1603.06560: R = 81, η = 3: 81, 34, 15, 8 and 5 configurations."""
    dealt = HyperbandRule(Hyperband()).brackets(81)
    assert [dealt.count(s) for s in (4, 3, 2, 1, 0)] == [81, 34, 15, 8, 5]


def test_hyperband_compares_within_a_bracket() -> None:
    rule = Hyperband()
    dealt = HyperbandRule(rule).brackets(9)  # rungs 1 and 3
    assert dealt == (2,) * 9 + (1,) * 5 + (0,) * 3
    stopper = placed(rule, len(dealt))
    assert stopper.hear("0", 1, 0.9, 9) is None
    assert stopper.hear("1", 1, 0.1, 9) is not None
    assert stopper.hear("9", 1, 0.1, 9) is None  # its bracket begins at 3
    assert stopper.hear("9", 3, 0.1, 9) is None  # the first there
    assert stopper.hear("10", 3, 0.05, 9) is not None
    assert all(stopper.hear("16", epoch, 0.0, 9) is None for epoch in range(1, 10))  # and this one has no rungs


@given(CURVES)
def test_the_median_rule_by_its_definition(curves: list[list[float]]) -> None:
    """Golovin et al. 2017, section 3.2.2, written out again."""
    _, ended = all_run(Median(), curves)
    done: list[list[float]] = []
    for curve, epochs in zip(curves, ended, strict=True):
        expected = EPOCHS
        for epoch in range(1, EPOCHS):
            averages = [float(np.mean(other[:epoch])) for other in done if len(other) >= epoch]
            # Sums in another order differ in their last bit: too close to call is not called.
            margin = max(curve[:epoch]) - statistics.median(averages) if len(averages) >= 3 else 1.0
            if abs(margin) < 1e-12:
                return
            if margin < 0:
                expected = epoch
                break
        assert epochs == expected
        done.append(curve[:epochs])


def test_patience_looks_at_the_trial_alone() -> None:
    curve = [0.1, 0.3, 0.2, 0.3, 0.305, 0.3, 0.3, 0.3]
    assert run(placed(Patience(patience=3), 1), "0", [*curve, 0.9]) == 8
    stopper = placed(Patience(patience=3, min_change=0.01), 1)
    assert run(stopper, "0", [*curve, 0.9]) == 5
    assert stopper.stops["0"].reason == "patience: no better val accuracy after epoch 2 until epoch 5"
    assert run(placed(Patience(patience=3, min_epochs=7), 1), "0", [0.5] * 9) == 7
    assert run(placed(Patience(patience=3), 1), "0", [0.1 * epoch for epoch in range(9)]) == 9


@pytest.mark.parametrize("trials", [1, 5, 30])
@pytest.mark.parametrize("rule", [Asha(), Asha(reduction_factor=2, min_epochs=2), Hyperband()])
def test_expected_epochs_are_what_trials_in_any_order_have(rule: StopEarly, trials: int) -> None:
    rng = np.random.default_rng(0)
    total = 0
    for _ in range(60):
        # Better trials are better at every epoch.
        curves = [[float(level)] * EPOCHS for level in rng.permutation(trials)]
        total += sum(all_run(rule, curves)[1])
    assert total / (60 * trials) == pytest.approx(expected_epochs(rule, EPOCHS, trials), rel=0.15)


@pytest.mark.parametrize("rule", [Asha(), Asha(reduction_factor=2, min_epochs=2), Hyperband()])
def test_more_of_those_that_a_searcher_suggests_from_outcomes_go_on(rule: StopEarly) -> None:
    trials, guided_from = 40, 8
    rng = np.random.default_rng(0)
    total = 0
    for _ in range(60):
        levels = [rng.random() if place < guided_from else rng.random(2).max() for place in range(trials)]
        total += sum(all_run(rule, [[float(level)] * EPOCHS for level in levels])[1])
    expected = expected_epochs(rule, EPOCHS, trials, guided_from=guided_from)
    assert total / (60 * trials) == pytest.approx(expected, rel=0.15)
    assert expected > 1.04 * expected_epochs(rule, EPOCHS, trials)
    # Those that come before any outcome is known come in any order.
    assert expected_epochs(rule, EPOCHS, trials, guided_from=trials) == expected_epochs(rule, EPOCHS, trials)


def test_expected_epochs_of_one_that_has_come_far() -> None:
    assert expected_epochs(Asha(), EPOCHS, 30, after=9) == EPOCHS - 9
    assert expected_epochs(Asha(), EPOCHS, 30, after=3) < EPOCHS - 3
    assert expected_epochs(Median(), EPOCHS, 30, after=3) == EPOCHS - 3


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ("{method: asha, patience: 3}", "stages.grid.stop_early.patience is not a key"),
        ("{method: patience, reduction_factor: 3}", "stages.grid.stop_early.reduction_factor is not a key"),
        ("{method: halving}", "stages.grid.stop_early.method given 'halving'; allowed: 'asha', 'hyperband'"),
        (
            "{method: asha, min_epochs: 2}",
            "stop_early.min_epochs given 2; allowed: fewer than the 2 epochs",
        ),
        ("{method: asha, reduction_factor: 1}", "stages.grid.stop_early.reduction_factor given 1"),
        ("{method: asha, metric: test_accuracy}", "stages.grid.stop_early.metric given 'test_accuracy'"),
        ("{method: patience}", "patience may stop every trial, and stage dropout starts from finished ones"),
    ],
)
def test_rules_that_cannot_be_are_refused(small_sweep: Callable[..., Sweep], rule: str, complaint: str) -> None:
    with pytest.raises(SpecError) as error:
        small_sweep(f"stages.grid.stop_early={rule}")
    assert complaint in str(error.value)


def test_the_time_of_a_trial_is_no_axis_and_names_no_trial(small_sweep: Callable[..., Sweep]) -> None:
    with pytest.raises(SpecError, match="max_seconds is not a key"):
        small_sweep("stages.grid.space.max_seconds=3")
    assert set(Queue(small_sweep(), "d", {}).plan.trials) == set(
        Queue(small_sweep("train.max_seconds=3"), "d", {}).plan.trials
    )


def test_what_a_later_stage_chooses_from_separately_is_compared_separately(small_sweep: Callable[..., Sweep]) -> None:
    """Else no trial of the weaker model would finish, and the later stage have nothing to start from."""
    queue = Queue(small_sweep("stages.grid.stop_early={method: asha}"), "d", {})
    by_model: dict[str, set[int]] = {}
    for trial in queue.plan.trials.values():
        by_model.setdefault(trial.settings.model, set()).add(id(queue._stopper_of[trial.id]))
    assert [len(stoppers) for stoppers in by_model.values()] == [1, 1]
    assert len(set.union(*by_model.values())) == 2
