"""What is said of a search, and that the numbers are those of the tables."""

from __future__ import annotations

import functools
import re
from dataclasses import replace

import pytest

from cnnsearch.evidence.evidence import Evidence
from cnnsearch.evidence.progress import is_improving, late_gain
from cnnsearch.evidence.regions import edges
from cnnsearch.report.advice import Advice, advice, search_advice
from cnnsearch.report.claims import Finding
from cnnsearch.report.findings import answer, findings, shared
from cnnsearch.spec.load import load_sweep
from tests.report import factory, searched


@functools.cache
def evidence_of(name: str) -> Evidence:
    tables = {
        "small": lambda: searched.searched(20),
        "middling": lambda: searched.searched(120),
        "edge": lambda: searched.searched(60, best_lr=1e-6),
        "asha": lambda: searched.searched(150, "random", stop_early=searched.ASHA),
        "patience": lambda: searched.searched(60, stop_early=searched.PATIENCE, lost=0),
        "two": lambda: searched.searched(60, "nsga2", objectives=["val_accuracy", "seconds"]),
        "three": lambda: searched.searched(60, "nsga2", objectives=["val_accuracy", "seconds", "bytes"]),
    }[name]()
    return Evidence(tables)


def told(name: str, start: str) -> Finding:
    (found,) = [f for f in findings(evidence_of(name)) if f.anchor == "search-search" and start in f.sentence]
    return found


def silent(name: str, words: str) -> bool:
    return not any(words in finding.sentence for finding in findings(evidence_of(name)))


def reordered(evidence: Evidence, *, best_last: bool) -> Evidence:
    """The same trials, suggested so that the best comes last or first."""
    trials = evidence.tables.trials.sort_values("val_accuracy", na_position="first", kind="stable")
    trials = trials if best_last else trials.iloc[::-1]
    return Evidence(replace(evidence.tables, trials=trials.reset_index(drop=True)))


@pytest.mark.parametrize("name", ["small", "middling", "asha", "patience", "two", "three"])
class TestEverySentence:
    def test_accuracies_and_differences_carry_their_interval(self, name):
        for text in [answer(evidence_of(name)).sentence, *(f.sentence for f in findings(evidence_of(name)))]:
            assert re.findall(r"\d\.\d %(?! \(\d+\.\d–\d+\.\d\))", text) == []
            assert re.findall(r"\d points(?! \(−?\d+\.\d to −?\d+\.\d\))", text) == []

    def test_there_are_at_most_seven(self, name):
        assert len(findings(evidence_of(name))) <= 7

    def test_every_command_is_one_the_sweep_takes(self, name):
        """Of the shape of `--set stages.NAME.space.AXIS.KIND=[...]`."""
        for item in search_advice(evidence_of(name)):
            change = r"--set '?stages\.search\.(search\.trials=\d+|space\.\w+\.\w+=\[.+\]')"
            assert re.search(change, item.command or "")


class TestAxes:
    def test_the_axis_that_matters_is_named_with_its_share(self):
        found, (search,) = told("middling", "matters most"), evidence_of("middling").searches
        assert found.verdict == "clear"
        assert search.importances is not None
        share = search.importances.shares["lr"]
        assert found.sentence.startswith(
            f"Learning rate matters most: alone it explains {100 * share.value:.0f} % "
            f"({100 * share.low:.0f}–{100 * share.high:.0f}) of the variance of validation accuracy"
        )
        assert f"fANOVA, {len(search.scored)} settings" in found.sentence

    def test_few_trials_say_nothing(self):
        assert silent("small", "fANOVA")

    def test_early_stopping_names_the_epoch(self):
        assert "at epoch 1 over the space searched" in told("asha", "fANOVA").sentence

    def test_the_best_region_is_told_with_what_was_searched(self):
        found = told("middling", "trials by validation: ")
        assert found.verdict == "suggestive"
        assert re.search(r"learning rate [\d.e-]+ to [\d.e-]+ \(searched: 1e-5 to 0\.1\)", found.sentence)


class TestProgress:
    def test_a_best_at_the_end_is_improving_and_more_trials_are_advised(self):
        evidence = reordered(evidence_of("middling"), best_last=True)
        (search,) = evidence.searches
        gain = late_gain(search)
        assert gain is not None
        assert gain > 0
        (found,) = [f for f in findings(evidence) if "improving" in f.sentence]
        assert f"by {100 * gain:.1f} percentage points" in found.sentence
        assert "trials 81 to 120" in found.sentence
        commands = [item.command for item in advice(evidence)]
        assert "python -m cnnsearch.sweep tune --set stages.search.search.trials=240" in commands

    def test_with_several_seeds_suggestions_are_advised_and_not_trials(self):
        tables = reordered(evidence_of("middling"), best_last=True).tables
        evidence = Evidence(replace(tables, sweep=tables.sweep.model_copy(update={"seeds": (0, 1, 2)})))
        (item,) = [item for item in search_advice(evidence) if item.text.startswith("More trials")]
        assert item.command is not None
        assert item.command.endswith("search.trials=80")

    def test_a_best_at_the_start_had_stopped(self):
        evidence = reordered(evidence_of("middling"), best_last=False)
        (found,) = [f for f in findings(evidence) if "improving" in f.sentence]
        assert found.sentence.startswith("The search had stopped improving: its best is trial 1 of 120")
        assert not is_improving(evidence.searches[0])
        assert not any("More trials" in item.text for item in advice(evidence))

    def test_a_gain_of_one_image_is_no_sign(self):
        (search,) = evidence_of("middling").searches
        trials = search.recorded.tables.trials.copy()
        assert search.best is not None
        last = trials.index[trials["trial_id"] == search.scored[-1].trial_id]
        trials.loc[last, "val_accuracy"] = search.score(search.best) + 0.005
        evidence = Evidence(replace(search.recorded.tables, trials=trials))
        (found,) = [f for f in findings(evidence) if "improving" in f.sentence]
        assert "may still have been improving" in found.sentence
        assert "1 validation image of 200" in found.sentence
        assert found.verdict == "cannot tell"


class TestEdges:
    def test_the_end_of_a_range_is_widened(self):
        (search,) = evidence_of("edge").searches
        assert ("lr", False) in [(axis.name, upwards) for axis, upwards in edges(search)]
        (item,) = [item for item in advice(evidence_of("edge")) if item.text.startswith("Learning rate")]
        assert "the lower end of what was searched (1e-5): search 1e-6 to 0.1." in item.text
        assert item.command is not None
        assert item.command.endswith("--set 'stages.search.space.lr.loguniform=[1e-6, 0.1]'")

    def test_the_advised_value_is_one_a_sweep_takes(self, tmp_path):
        file = tmp_path / "s.yaml"
        file.write_text(
            "name: s\ntitle: t\nquestion: q\nstages:\n  - name: search\n    space: {lr: {loguniform: [0.00001, 0.1]}}\n"
            "    search: {method: random, trials: 3}\n"
        )
        sweep = load_sweep(file, values=["stages.search.space.lr.loguniform=[1e-6, 0.1]"])
        assert sweep.stages[0].space["lr"].args == (1e-6, 0.1)

    def test_no_end_where_the_best_lie_inside(self):
        assert edges(evidence_of("middling").searches[0]) == []

    def test_no_end_where_trials_diverge(self):
        (search,) = Evidence(searched.searched(60, best_lr=1.0)).searches
        assert not [axis for axis, upwards in edges(search) if axis.name == "lr" and upwards]


class TestStopping:
    def test_the_winner_is_one_that_trained_to_the_end(self):
        found, (search,) = told("asha", "stopped early"), evidence_of("asha").searches
        assert found.sentence.startswith(
            f"{len(search.pruned)} of 150 trials were stopped early, between epochs 1 and 9"
        )
        assert f"chosen among the {len(search.scored)} trained to the end" in found.sentence
        best = evidence_of("asha").best
        assert best is not None
        statuses = evidence_of("asha").tables.trials.set_index("trial_id")["status"]
        assert statuses[best.key] == "done"

    def test_stopped_trials_that_stood_higher_are_owned_up_to(self):
        tables = evidence_of("asha").tables
        trials = tables.trials.copy()
        trials.loc[trials.index[trials["status"] == "pruned"][:2], "val_accuracy"] = 0.999
        found = [f for f in findings(Evidence(replace(tables, trials=trials))) if "stopped early" in f.sentence]
        assert "2 stopped trials stood higher when stopped" in found[0].sentence

    def test_none_trained_to_the_end_is_no_winner_and_is_said(self):
        tables = evidence_of("asha").tables
        trials = tables.trials[tables.trials["status"] != "done"].reset_index(drop=True)
        evidence = Evidence(replace(tables, trials=trials, planned=len(trials)))
        assert evidence.best is None
        said = answer(evidence)
        assert said.verdict == "cannot tell"
        assert "no trial was trained to its end" in said.sentence
        top = trials.loc[trials["status"] == "pruned", "val_accuracy"].max()
        assert f"at a lower budget is {100 * top:.1f} %" in said.sentence
        assert "after 9 of 27 epochs" in said.sentence
        (found,) = [f for f in findings(evidence) if "stopped early" in f.sentence]
        assert "None was trained to its end" in found.sentence
        assert not any("smaller steps" in item.text for item in advice(evidence))

    def test_one_that_got_no_better_may_win(self):
        found = told("patience", "stopped early").sentence
        (search,) = evidence_of("patience").searches
        assert search.best is not None
        if search.best.status == "pruned":
            assert "having got no better" in found
        else:
            assert f"among the {len(search.scored)} that trained to the end or got no better" in found


class TestFront:
    @pytest.mark.parametrize("name", ["two", "three"])
    def test_the_set_and_its_ends_are_told(self, name):
        found, (search,) = told(name, "beaten by no other"), evidence_of(name).searches
        assert f"{len(search.front)} of {len(search.scored)} are beaten by no other" in found.sentence
        fastest = min(search.front, key=lambda one: one.scores["seconds"])
        assert f"for training time, trial {fastest.number}" in found.sentence
        assert f"The best for validation accuracy, trial {search.front[0].number}" in found.sentence

    def test_late_members_are_counted(self):
        (search,) = evidence_of("two").searches
        late = sum(one.number > 40 for one in search.front)
        assert f"{late or 'none'} {'was' if late == 1 else 'were'} found in" in told("two", "no other beats").sentence


def test_grids_are_told_as_before():
    assert not any(finding.anchor.startswith("search") for finding in findings(Evidence(factory.part1())))
    nothing: list[Advice] = search_advice(Evidence(factory.part1()))
    assert nothing == []


def test_what_has_no_part_in_a_setting_is_not_named_as_shared() -> None:
    """Settings of other optimizers all have the default momentum, which says nothing about them."""
    evidence = evidence_of("middling")
    plain = [configuration for configuration in evidence.configurations if configuration.values["optimizer"] != "sgd"]
    assert len({configuration.values["momentum"] for configuration in plain}) == 1
    assert "momentum" in evidence.varying
    assert "momentum" not in shared(evidence, plain)
