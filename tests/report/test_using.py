"""The report says how to use the best network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cnnsearch.evidence.evidence import Evidence
from cnnsearch.report.using import using
from cnnsearch.results.folder import Results
from tests.report import factory


def test_it_names_the_weights_of_the_best_network_and_what_loads_them(tmp_path: Path) -> None:
    folder = tmp_path / "my results"
    evidence = Evidence(replace(factory.part1(), folder=folder))
    found = using(evidence)
    assert found is not None
    assert evidence.best is not None
    assert found.weights == str(Results(folder).trial(evidence.best.key).weights_file)
    assert found.command == f"cnnsearch predict '{folder}' IMAGE..."
    assert f"cnnsearch.load_model('{folder}')" in found.lines
    assert not found.note
    compile(found.lines, "lines", "exec")


def test_of_several_seeds_it_is_the_best_by_validation() -> None:
    evidence = Evidence(factory.part1(seeds=(0, 1, 2)))
    found = using(evidence)
    assert found is not None
    assert evidence.best is not None
    trials = evidence.tables.trials.set_index("trial_id").loc[list(evidence.best.trial_ids)]
    assert f"/{trials['val_accuracy'].idxmax()}/" in found.weights
    assert "the 3 seeds" in found.note


def test_without_a_finished_trial_there_is_nothing_to_use() -> None:
    assert using(Evidence(factory.all_failed())) is None
