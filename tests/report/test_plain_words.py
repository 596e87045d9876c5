"""The report is written in words that a supervisor would use."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

import pytest

from cnnsearch import plots
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.plots import style
from cnnsearch.report import figures
from cnnsearch.report.findings import answer, findings, summary
from cnnsearch.report.method import method, seeds_note
from cnnsearch.results.tables import Tables
from cnnsearch.words import labelled
from tests.report import factory

ODD = re.compile(
    r"told apart|cannot be told|can be told|told from|most sure, and wrong|nothing clear|there yet|as it stands"
    r"|going on\b|no arm|bettered|does not clearly turn|loss turn",
    re.IGNORECASE,
)
WORLDS: dict[str, Callable[[], Tables]] = {
    "part1": factory.part1,
    "seeds": lambda: factory.part1(seeds=range(3)),
    "at_chance": factory.at_chance,
    "optimizers": factory.optimizers,
    "lr_only": factory.lr_only,
}


@functools.cache
def evidence_of(world: str) -> Evidence:
    return Evidence(WORLDS[world]())


@pytest.mark.parametrize("world", WORLDS)
def test_sentences_titles_and_captions(world: str) -> None:
    evidence = evidence_of(world)
    said = [answer(evidence).sentence, *(finding.sentence for finding in findings(evidence)), seeds_note(evidence)]
    said += [f"{heading}: {text}" for heading, text in method(evidence).notes]
    for draw in (plots.all_settings, plots.heatmaps, plots.learning_curves, plots.before_after):
        figure = draw(evidence)
        said += [style.title_of(figure)] if figure is not None else []
    picture = figures.all_settings(evidence)
    said += [picture.caption] if picture is not None else []
    assert [text for text in said if ODD.search(text)] == []


def test_the_answer_in_the_terminal() -> None:
    lines = labelled(summary(evidence_of("part1")))
    assert not ODD.search(lines)
    assert "not compared" in lines
