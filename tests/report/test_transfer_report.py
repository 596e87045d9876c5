"""The report of a sweep over what is fine-tuned: its words, its table and its figures."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import pytest

from cnnsearch import plots, report
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.plots.dots import settings_title
from cnnsearch.report import figures, rows
from cnnsearch.report.claims import Finding
from cnnsearch.report.findings import answer, findings, summary
from cnnsearch.report.pictures import drawn
from cnnsearch.report.words import trained_layers
from cnnsearch.spec.axis_words import describe
from tests.report import factory


@functools.cache
def part2() -> Evidence:
    return Evidence(factory.part2())


@functools.cache
def seeded(*abilities: float) -> Evidence:
    """With three seeds."""
    return Evidence(factory.part2(abilities or (0.3, 0.8), seeds=(0, 1, 2)))


def test_a_way_to_fine_tune_is_said_with_its_axis() -> None:
    assert describe("fine_tune", "head") == "fine-tuning: head"
    assert dict(summary(part2()))["best"] == "fine-tuning: last-2-convs"
    assert settings_title(part2()) == (
        "fine-tuning: last-2-convs is best by validation; comparing settings takes 3 seeds of each"
    )
    assert settings_title(seeded()) == "fine-tuning: last-2-convs is better than the other setting"


@pytest.mark.parametrize(
    ("fine_tune", "words"),
    [
        ("head", "the last layer alone"),
        ("last-1-convs", "the last convolution as well as the last layer"),
        ("last-2-convs", "the last two convolutions as well as the last layer"),
        ("last-12-convs", "the last 12 convolutions as well as the last layer"),
        ("full", "all layers"),
        ("something-new", "something-new"),
    ],
)
def test_what_trains_in_words(fine_tune: str, words: str) -> None:
    assert trained_layers(fine_tune) == words


def of_axis(evidence: Evidence) -> Finding:
    (finding,) = [f for f in findings(evidence) if f.anchor == "heatmaps"]
    return finding


def test_the_finding_says_what_helps_and_what_it_costs() -> None:
    finding = of_axis(seeded())
    assert finding.verdict == "clear"
    assert finding.sentence.startswith(
        "Training the last two convolutions as well as the last layer is better than the last layer alone: it is ahead "
        "by "
    )
    assert finding.sentence.endswith("It trains 4,723,722 parameters instead of 5,130 and takes 16 s instead of 0.4 s.")
    assert "best resnet18" not in " ".join(f.sentence for f in findings(seeded()))


def test_one_seed_does_not_say_what_helps_but_what_it_costs() -> None:
    finding = of_axis(part2())
    assert finding.verdict == "cannot tell"
    assert finding.sentence.startswith(
        "Whether training the last two convolutions as well as the last layer or the last layer alone is better "
        "is not clear from one seed: the networks with "
    )
    assert finding.sentence.endswith("It trains 4,723,722 parameters instead of 5,130 and takes 16 s instead of 0.4 s.")


def test_the_finding_when_the_last_layer_alone_is_ahead_or_nothing_is() -> None:
    sentence = of_axis(seeded(0.8, 0.3)).sentence
    assert sentence.startswith("Training the last layer alone is better than the last two convolutions")
    assert "It trains 5,130 parameters instead of 4,723,722" in sentence
    assert "There is no clear difference between " in of_axis(seeded(0.5, 0.5)).sentence


def test_the_answer_says_it_in_words() -> None:
    assert answer(part2()).sentence.startswith(
        "Best by validation is training the last two convolutions as well as the last layer: it gets "
    )


def test_the_table_has_what_trains_from_which_weights_and_how_long() -> None:
    table = rows.trials(part2())
    titles = [column.title for column in table.columns]
    assert titles[:3] == ["weights", "fine-tune", "trainable parameters"]
    cells = [dict(zip(titles, [cell.text for cell in row.cells], strict=True)) for row in table.rows]
    assert [(c["weights"], c["fine-tune"], c["trainable parameters"], c["time"]) for c in cells] == [
        ("resnet18.pth", "head", "5,130", "0.4 s"),
        ("resnet18.pth", "last-2-convs", "4,723,722", "16 s"),
    ]


def test_from_scratch_the_table_says_nothing_of_fine_tuning() -> None:
    tables = factory.two_classes_grid()
    trials = tables.trials.assign(fine_tune="full", weights="none")
    titles = [column.title for column in rows.trials(Evidence(replace(tables, trials=trials))).columns]
    assert "fine-tune" not in titles
    assert "weights" not in titles
    assert "trainable parameters" in titles


@pytest.mark.usefixtures("figures_left_blank")
def test_both_cases_have_curves_and_a_confusion_matrix(tmp_path: Path) -> None:
    loss = plots.learning_curves(part2(), "loss")
    assert loss is not None
    assert {axes.get_title(loc="left") for axes in loss.axes} == {"fine-tuning: head", "fine-tuning: last-2-convs"}
    (other,) = figures.other_confusions(part2())
    picture = drawn(other)
    assert picture is not None
    assert picture.title == "Fine-tuning: head"
    page = report.write(part2().tables, tmp_path).read_text(encoding="utf-8")
    assert "<details open>" in page
