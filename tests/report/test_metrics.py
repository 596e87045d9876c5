"""Reports of sweeps that go by another metric than accuracy, and of uneven classes, where accuracy misleads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cnnsearch.evidence.evidence import Evidence
from cnnsearch.evidence.statements import champions
from cnnsearch.plots import all_settings, heatmaps
from cnnsearch.report.findings import answer, findings, summary
from cnnsearch.report.markdown import render
from cnnsearch.report.page import assemble
from cnnsearch.report.rows import metrics
from cnnsearch.results.folder import Results
from cnnsearch.results.tables import Tables
from cnnsearch.scores import Predicted, score
from cnnsearch.spec.metric import ADDED, METRICS
from tests.report.factory import FASHION, confirmed, grid_plans, lr_only, make, part1

SIZES = (60, 40, 30, 30, 20, 20, 20, 20, 16, 16)
"""Test images of each class that `uneven` keeps of 100."""


def measured(tables: Tables, metric: str = "accuracy") -> Tables:
    """The same sweep with the metrics that predictions without probabilities give, by one of which it went."""
    trials, predictions = tables.trials.copy(), tables.predictions
    classes = tables.data["classes"]
    for name in [name for name in ADDED if not METRICS[name].needs_probabilities]:
        for split in ("val", "test"):
            trials[f"{split}_{name}"] = np.nan
    for key, rows in predictions[predictions["moment"] == "best"].groupby(["trial_id", "split"]):
        labels, predicted = (rows[column].map(classes.index).to_numpy() for column in ("label", "predicted"))
        found = Predicted(labels, len(classes), predicted, rows["confidence"].to_numpy())
        at = trials["trial_id"] == key[0]
        for name in ("accuracy", *ADDED):
            if not METRICS[name].needs_probabilities:
                trials.loc[at, f"{key[1]}_{name}"] = score(name, found)
    trials["metric"] = metric
    return replace(tables, trials=trials, sweep=tables.sweep.with_values({"metric": metric}))


def uneven(tables: Tables, wrong: float = 0.0) -> Tables:
    """The same with uneven classes; of the smallest six, this share of right answers becomes wrong."""
    sizes = dict(zip(FASHION, SIZES, strict=True))
    frame = tables.predictions.copy()
    place = frame.groupby(["trial_id", "split", "moment", "label"], observed=True).cumcount()
    many = frame["label"].map(sizes).astype(int).where(frame["split"] == "test", 10**6)
    frame = frame[place < many].reset_index(drop=True)
    small = frame["label"].isin(FASHION[4:]) & (frame["label"] == frame["predicted"])
    lost = small & (np.random.default_rng(3).random(len(frame)) < wrong)
    frame.loc[lost, "predicted"] = FASHION[0]
    counts = {**tables.data["counts"], "test": list(SIZES)}
    return replace(tables, predictions=frame, data={**tables.data, "counts": counts})


@pytest.mark.parametrize(("metric", "shown"), [("macro_f1", "macro F1"), ("ece", "calibration error")])
def test_the_report_leads_with_the_metric(metric: str, shown: str) -> None:
    evidence = Evidence(measured(lr_only(seeds=(0, 1, 2)), metric))
    best = evidence.best
    assert best is not None
    sign = METRICS[metric].sign
    trials = evidence.tables.trials.assign(value=lambda frame: sign * frame[f"val_{metric}"])
    means = trials.groupby("lr")["value"].mean()
    assert best.values["lr"] == means.idxmax()

    found = evidence.score(best)
    assert found is not None
    assert found.value == pytest.approx(trials.loc[trials["lr"] == means.idxmax(), f"test_{metric}"].mean())
    assert found.low < found.value < found.high
    assert f"a test {shown} of {found.text} on 1,000 images, the mean of 3 seeds" in answer(evidence).sentence
    assert f"validation {shown} " in dict(summary(evidence))["scores"]
    page = assemble(evidence)
    assert page.facts[1].name == f"Test {shown}"
    assert page.facts[1].value == found.text
    text = render(page)
    assert (
        f"highest validation {shown}" in text or f"lowest mean validation {shown}" in text or "mean validation" in text
    )
    assert "test accuracy of" not in text


def test_less_is_better_where_the_metric_says_so() -> None:
    evidence = Evidence(measured(lr_only(seeds=(0, 1, 2)), "ece"))
    lost = {c.key for c in evidence.told_apart}
    assert lost
    assert evidence.best is not None
    for c in evidence.configurations:
        one, other = evidence.score(c), evidence.score(evidence.best)
        assert one is not None
        assert other is not None
        assert c.key not in lost or one.value > min(
            found.value for d in evidence.configurations if (found := evidence.score(d)) is not None
        )
    for key, comparison in evidence.statements.items():
        if key[0] == "axis" and comparison.seeds:
            a, b = key[3], key[4]
            scores = {c.values["lr"]: found.value for c in evidence.configurations if (found := evidence.score(c))}
            assert comparison.difference.value == pytest.approx(scores[b] - scores[a])


def test_figures_show_the_metric_and_its_best_on_top() -> None:
    evidence = Evidence(measured(lr_only(seeds=(0, 1, 2)), "ece"))
    figure = all_settings(evidence)
    assert figure is not None
    (axes,) = figure.axes
    assert axes.get_xlabel() == "test calibration error, 95 % interval"
    values = {score.text: score.value for c in evidence.configurations if (score := evidence.score(c))}
    shown = sorted((text.get_position()[1], text.get_text()) for text in axes.texts if text.get_text() in values)
    assert len(shown) == 4
    assert [values[text] for _, text in shown] == sorted(values.values())
    assert not any("chance" in text.get_text() for text in axes.texts)
    lines = heatmaps(evidence)
    assert lines is not None
    assert lines.axes[0].get_ylabel() == "test calibration error, 95 % interval"


def test_all_metrics_of_the_best_have_their_intervals_and_the_sweeps_own_is_first() -> None:
    table = metrics(Evidence(measured(part1(seeds=(0, 1, 2)), "balanced_accuracy")))
    assert table is not None
    assert [row.cells[0].text for row in table.rows] == [
        "balanced accuracy", "accuracy", "loss (less is better)", "macro F1", "calibration error (less is better)",
    ]  # fmt: skip
    assert len(table.columns) == 4  # validation and test of the best setting, and test of the best of the other model
    with_intervals = [row for row in table.rows if not row.cells[0].text.startswith("loss")]
    assert all(" (" in cell.text for row in with_intervals for cell in row.cells[1:])


@pytest.mark.parametrize("tables", [part1(), part1(seeds=(0, 1, 2)), confirmed()], ids=["once", "seeds", "confirmed"])
def test_all_metrics_are_those_of_the_best_among_which_the_answer_chose(tables: Tables) -> None:
    """Of every model the best of all stages, or of those that were confirmed: with the numbers of its dot."""
    evidence = Evidence(tables)
    best_of_models = champions(evidence, evidence.contenders)
    assert best_of_models[0] is evidence.best
    shown = metrics(evidence)
    assert shown is not None
    (accuracy,) = [row for row in shown.rows if row.cells[0].text == "accuracy"]
    scores = [score.text for c in best_of_models if (score := evidence.score(c)) is not None]
    assert [cell.text for cell in accuracy.cells[2:]] == scores
    if len(best_of_models) > 1:
        names = [column.title.removesuffix(": test") for column in shown.columns[2:]]
        assert names == [evidence.label(c) for c in best_of_models]


def test_probabilities_that_were_kept_give_intervals_and_others_do_not(tmp_path: Path) -> None:
    tables = replace(make(grid_plans()[6:8], [{"name": "grid", "space": {"model": "plain"}}]), folder=tmp_path)
    tables = measured(tables)
    best = Evidence(tables).best
    assert best is not None
    tables.trials["test_auroc"] = 0.9
    table = metrics(Evidence(tables))
    assert table is not None
    assert {row.cells[0].text: row.cells[2].text for row in table.rows}["AUROC"] == "90.0 %"  # no interval

    evidence, kept = Evidence(tables), {}
    for split in ("val", "test"):
        answers = evidence.answers(best.key, split)
        assert answers is not None
        chances = np.random.default_rng(1).dirichlet(np.ones(10), len(answers.predicted)).astype(np.float32) * 0.1
        chances[np.arange(len(chances)), answers.predicted] += 0.9
        kept[split] = chances
    trial = Results(tmp_path).trial(best.key)
    trial.make()
    trial.save_probabilities(kept)
    table = metrics(Evidence(tables))
    assert table is not None
    shown = {row.cells[0].text: row.cells[2].text for row in table.rows}
    assert " (" in shown["AUROC"]
    assert " (" in shown["Brier score (less is better)"]

    trial.save_probabilities({split: chances[::-1].copy() for split, chances in kept.items()})
    table = metrics(Evidence(tables))  # those of other predictions are not believed
    assert table is not None
    assert "Brier score (less is better)" not in [row.cells[0].text for row in table.rows]


def sentences(tables: Tables) -> list[str]:
    return [finding.sentence for finding in findings(Evidence(tables))]


def test_it_is_said_where_accuracy_misleads() -> None:
    told = [one for one in sentences(measured(uneven(part1(), wrong=0.6))) if "accuracy misleads" in one]
    assert len(told) == 1
    assert "the largest has 22.1 %" in told[0]
    assert "With metric: balanced_accuracy or macro_f1" in told[0]
    for other in (measured(uneven(part1())), measured(part1())):
        assert not any("accuracy misleads" in one for one in sentences(other))


def test_where_the_evidence_cannot_be_had_less_is_said() -> None:
    tables = measured(lr_only(seeds=(0, 1, 2)), "macro_f1")
    trials = tables.trials.assign(val_auroc=tables.trials["val_macro_f1"], metric="auroc")
    without = replace(tables, trials=trials, sweep=tables.sweep.with_values({"metric": "auroc"}))
    evidence = Evidence(without)
    assert evidence.best is not None
    assert evidence.told_apart == []
    assert evidence.statements == {}
    told = answer(evidence)
    assert told.verdict == "cannot tell"
    assert "its test AUROC cannot be told from what is recorded" in told.sentence
    assert assemble(evidence).facts[0].value == evidence.label(evidence.best)
