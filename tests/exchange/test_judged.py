"""What may be said of trials without predictions of single images: it rests on seeds, and is right as often as said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from cnnsearch.evidence.crossed import Answered
from cnnsearch.exchange.foreign import settings_of
from cnnsearch.exchange.judged import Judged, _between_all, judged
from cnnsearch.exchange.sources import foreign_trials
from tests.exchange.made import said, table


def test_an_axis_is_told_over_matched_settings(tmp_path: Path) -> None:
    answer, findings, _ = said(table(), tmp_path)
    assert findings[0].verdict == "clear"
    assert findings[0].sentence.startswith("model residual is better than plain: it is ahead by 10.")
    assert findings[0].sentence.endswith("on average over 6 matched settings.")
    assert "clear" not in [one.verdict for one in findings[1:]]
    assert answer.sentence.startswith("The best setting by val_accuracy is lr ")
    assert "model residual" in answer.sentence
    assert "the mean of 3 seeds" in answer.sentence


def test_with_one_seed_axes_may_be_told_and_settings_may_not(tmp_path: Path) -> None:
    answer, findings, (stage,) = said(table(seeds=1), tmp_path)
    assert findings[0].sentence.startswith("model residual is better than plain")
    assert answer.verdict == "cannot tell"
    assert answer.sentence.endswith(
        "Each setting was run once, which is too little to say whether another of the 12 is better."
    )
    assert "With one seed of each setting nothing can be said of single settings: that takes 3 of each." in [
        one.sentence for one in findings
    ]
    assert stage.worse == frozenset()
    assert stage.interval(stage.best) is None


def test_with_few_settings_it_says_what_it_takes(tmp_path: Path) -> None:
    frame = pd.DataFrame({"lr": [0.1, 0.2, 0.3], "accuracy": [0.5, 0.6, 0.7]})
    _, findings, _ = said(frame, tmp_path)
    assert {one.verdict for one in findings} == {"cannot tell"}
    assert "4 pairs of settings that differ in nothing else, or 20 settings" in findings[-1].sentence


def test_settings_that_are_worse_are_told_apart(tmp_path: Path) -> None:
    answer, _, (stage,) = said(table(seeds=5, noise=0.002), tmp_path)
    worse = [one for one in stage.settings if one.index in stage.worse]
    assert {one.values["model"] for one in worse} == {"plain"}
    assert len(worse) == 6
    assert answer.sentence.endswith("but 5 of 11 other settings may be as good.")


def test_of_less_is_better_the_least_is_best(tmp_path: Path) -> None:
    frame = table().rename(columns={"val_accuracy": "val_loss"})
    answer, findings, (stage,) = said(frame, tmp_path)
    assert stage.best.values["model"] == "plain"
    assert findings[0].sentence.startswith("model plain is better than residual: it is ahead by 0.1")
    assert "%" not in answer.sentence


def test_the_test_score_judges_what_validation_chose(tmp_path: Path) -> None:
    frame = table()
    frame["test_accuracy"] = 1 - frame["val_accuracy"]
    answer, findings, (stage,) = said(frame, tmp_path)
    assert stage.best.values["model"] == "residual"
    assert findings[0].sentence.startswith("model plain is better than residual")
    assert "but another setting is better by test_accuracy" in answer.sentence


def test_a_setting_with_fewer_seeds_ranks_behind(tmp_path: Path) -> None:
    frame = table()
    lucky = frame.index[0]
    frame.loc[lucky, "val_accuracy"] = 0.99
    frame = frame.drop([lucky + 1, lucky + 2])
    _, findings, (stage,) = said(frame, tmp_path)
    assert stage.best.seeds == 3
    assert "1 setting has fewer seeds than others, and ranks behind them." in [one.sentence for one in findings]


def test_in_a_search_what_matters_stands_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rates, units = 10 ** rng.uniform(-4, -1, 80), rng.integers(8, 128, 80)
    score = 0.7 - 0.05 * (np.log10(rates) + 2.5) ** 2 + 0.005 * rng.normal(size=80)
    _, findings, (stage,) = said(pd.DataFrame({"lr": rates, "units": units, "accuracy": score}), tmp_path)
    assert findings[0].sentence.startswith("lr matters: alone it explains ")
    assert findings[0].verdict == "clear"
    assert "Whether units matters is not clear." in [one.sentence for one in findings]
    assert stage.statements == []


def test_stages_are_never_compared(tmp_path: Path) -> None:
    first, second = table(), table(effect=-0.1, draw=1)
    frame = pd.concat([first.assign(phase="a"), second.assign(phase="b")])
    answer, findings, stages = said(frame, tmp_path)
    assert [one.stage for one in stages] == ["a", "b"]
    assert answer.sentence.startswith("In a, the best setting")
    assert [one.sentence[:22] for one in findings if one.verdict == "clear"] == [
        "In a: model residual i",
        "In b: model plain is b",
    ]


def test_pairs_of_settings_agree_with_welch() -> None:
    rng = np.random.default_rng(0)
    scores = [rng.normal(size=3), rng.normal(size=5), rng.normal(1, 3, size=4)]
    value, p_values = _between_all([Answered.of(one[:, None]) for one in scores])
    for i, j in ((0, 1), (0, 2), (1, 2)):
        wanted = scipy_stats.ttest_ind(scores[i], scores[j], equal_var=False)
        assert value[i, j] == pytest.approx(scores[i].mean() - scores[j].mean())
        assert p_values[i, j] == pytest.approx(wanted.pvalue)


@pytest.mark.parametrize("seeds", [1, 3, 5])
def test_equal_settings_are_seldom_called_different(tmp_path: Path, seeds: int) -> None:
    """At most 5 % of reports say so; of 150, 13 would be beyond chance."""
    wrong = 0
    for draw in range(150):
        stage = _judged(table(seeds, effect=0.0, draw=draw), tmp_path)
        wrong += bool(stage.worse) or any(one.verdict == "clear" for one in stage.statements)
    assert wrong <= 13


@pytest.mark.parametrize("seeds", [3, 5])
def test_an_interval_holds_the_truth_as_often_as_it_says(tmp_path: Path, seeds: int) -> None:
    """That of the best setting too, which luck has chosen among twelve equal ones."""
    held = best = 0
    for draw in range(150):
        stage = _judged(table(seeds, effect=0.0, draw=draw), tmp_path)
        interval, of_best = stage.interval(stage.settings[0]), stage.interval(stage.best)
        assert interval is not None
        assert of_best is not None
        held += interval.low <= 0.6 <= interval.high
        best += of_best.low <= 0.6 <= of_best.high
    assert held >= 0.9 * 150
    assert best >= 0.9 * 150


def _judged(frame: pd.DataFrame, tmp_path: Path) -> Judged:
    file = tmp_path / "trials.csv"
    frame.to_csv(file, index=False)
    foreign = foreign_trials(str(file), {})
    (stage,) = judged(foreign, settings_of(foreign))
    return stage
