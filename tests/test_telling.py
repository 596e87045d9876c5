"""What `--json` prints: one object, alone on standard output, of the documented shape, at every exit code."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jsonschema
import pytest

from cnnsearch import ending, told
from cnnsearch.ending import Stopper, answering
from cnnsearch.errors import DiskError, RunError
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.evidence.statements import of_change, of_models
from cnnsearch.report.claims import Kind
from cnnsearch.results.folder import Results
from cnnsearch.results.tables import load
from cnnsearch.telling import of_report
from tests.asking import Answer, ask
from tests.conftest import SMALL
from tests.report import factory

SETTINGS = [part for value in SMALL for part in ("--set", value)]
TWO = [*SETTINGS, "--set", "stages=[{name: grid, space: {model: plain, lr: {grid: [0.001, 0.01]}}}]"]
DIVERGES = [
    *SETTINGS, "--set", "stages=[{name: grid, space: {model: plain, optimizer: sgd, lr: {grid: [0.01, 100]}}}]",
    "--set", "train.epochs=4",
]  # fmt: skip


def valid(answer: Answer) -> dict[str, Any]:
    """The object that a command printed, held against the documented schema."""
    found: dict[str, Any] = json.loads(answer.stdout)
    assert len(answer.stdout.splitlines()) == 1
    documented = json.loads((Path(__file__).parents[1] / "docs" / "json.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(documented)
    jsonschema.validate(found, documented, cls=jsonschema.Draft202012Validator)
    assert found["exit_code"] == answer.returncode
    return found


def test_what_does_not_fit_would_be_noticed() -> None:
    answer = Answer(2, '{"kind": "error", "exit_code": 2}\n', "")
    with pytest.raises(jsonschema.ValidationError):
        valid(answer)


def test_a_run_that_is_done(tmp_path: Path) -> None:
    done = ask("part1", *TWO, "--serial", "--out", tmp_path, "--json")
    found = valid(done)
    assert (found["kind"], found["exit_code"], found["planned"]) == ("run", 0, 2)
    assert found["counts"] == {"done": 2, "failed": 0, "diverged": 0, "pruned": 0, "left": 0}
    assert (found["left_for_later"], found["left_because"], found["go_on"]) == (0, None, None)
    assert "2 of 2 trials done" in done.stderr
    evidence = Evidence(load(tmp_path / "part1"))
    best = evidence.best
    assert best is not None
    for split, name in (("val", "validation"), ("test", "test")):
        score = evidence.score(best, split)
        assert score is not None
        told_of = found["best"][name]
        assert (told_of["value"], told_of["low"], told_of["high"]) == score[:3]
        assert (told_of["images"], told_of["covers"]) == (score.n, "images")
    assert found["best"]["trials"] == list(best.trial_ids) == [found["best"]["weights_of"]]
    assert Path(found["best"]["weights"]).is_file()
    assert [setting["values"]["lr"] for setting in found["not_told_apart"]] == [
        c.values["lr"] for c in evidence.near_best
    ]
    assert found["answer"]["verdict"] == "cannot tell"
    records = Results(tmp_path / "part1").records()
    assert {trial["id"] for trial in found["trials"]} == records.keys()
    for trial in found["trials"]:
        record = records[trial["id"]]
        assert (trial["stage"], trial["status"], trial["error"]) == ("grid", "done", None)
        assert trial["settings"] == record.settings.model_dump() | {"precision": record.precision}
        assert record.best is not None
        assert trial["test_accuracy"] == record.best.test_accuracy


def test_weights_that_are_not_kept_are_null(tmp_path: Path) -> None:
    assert ask("part1", *TWO, "--serial", "--out", tmp_path).returncode == 0
    for file in tmp_path.glob("part1/trials/*/best.safetensors"):
        file.unlink()
    found = valid(ask(tmp_path / "part1", "--json", command="report"))
    assert (found["kind"], found["best"]["weights"]) == ("report", None)
    assert found["best"]["validation"]["value"] >= 0


def test_a_plan(tmp_path: Path) -> None:
    done = ask("part1", *SETTINGS, "--dry-run", "--out", tmp_path, "--json")
    found = valid(done)
    assert (found["kind"], found["planned"], found["done"]) == ("plan", 16, 0)
    assert {trial["status"] for trial in found["trials"]} == {"left"}
    assert len(found["trials"]) == found["stages"]["grid"]["planned"] == 8
    assert "16 trials (0 already done)" in done.stderr


def test_trials_that_diverged(tmp_path: Path) -> None:
    found = valid(ask("part1", *DIVERGES, "--serial", "--out", tmp_path, "--json"))
    assert (found["kind"], found["exit_code"], found["counts"]["diverged"]) == ("run", 1, 1)
    (lost,) = [trial for trial in found["trials"] if trial["status"] == "diverged"]
    assert "no longer a number" in lost["error"]
    assert (lost["settings"]["lr"], lost["validation_accuracy"]) == (100, None)
    assert "divergence" in {claim["kind"] for claim in found["findings"]}


def test_trials_that_are_left(tmp_path: Path) -> None:
    arguments = ["part1", *TWO, "--serial", "--out", tmp_path, "--json", "--max-trials", "1"]
    found = valid(ask(*arguments, "--exit-code-when-left", "7"))
    assert (found["exit_code"], found["left_for_later"], found["left_because"]) == (7, 1, "trials")
    assert found["counts"] | {"done": 1, "left": 1} == found["counts"]
    assert sorted(trial["status"] for trial in found["trials"]) == ["done", "left"]
    assert found["go_on"].startswith("python -m cnnsearch.sweep part1 ")
    rest = valid(ask(*arguments, "--exit-code-when-left", "7"))
    assert (rest["exit_code"], rest["left_for_later"], rest["counts"]["done"]) == (0, 0, 2)


def test_trials_that_are_left_are_no_failure_by_themselves(tmp_path: Path) -> None:
    found = valid(ask("part1", *TWO, "--serial", "--out", tmp_path, "--json", "--max-trials", "1"))
    assert (found["exit_code"], found["left_for_later"]) == (0, 1)


def test_failure_comes_before_what_is_left(tmp_path: Path) -> None:
    first = "stages=[{name: grid, space: {model: plain, optimizer: sgd, lr: {grid: [100, 0.01]}}}]"
    arguments = [*SETTINGS, "--set", first, "--set", "train.epochs=4", "--serial", "--out", tmp_path, "--json"]
    found = valid(ask("part1", *arguments, "--max-trials", "1", "--exit-code-when-left", "7"))
    assert (found["exit_code"], found["counts"]["diverged"], found["left_for_later"]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["prt1"], "no sweep named 'prt1'"),
        (["part1", "--no-such-option"], "No such option: --no-such-option"),
        (["part1", "--max-trials", "many"], "Invalid value for '--max-trials'"),
        (["part1", "--num-workers", "4"], "--num-workers is not an option"),
        (["part1", "--max-trials", "1", "--exit-code-when-left", "2"], "allowed are 0 and 3 to 125"),
        (["part1", "--exit-code-when-left", "3"], "give one of them"),
    ],
)
def test_wrong_requests(tmp_path: Path, arguments: list[str], error: str) -> None:
    answer = ask(*arguments, "--json", "--out", tmp_path)
    found = valid(answer)
    assert (found["kind"], found["exit_code"], found["progress"]) == ("error", 2, None)
    assert error in found["error"]
    assert error in answer.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["report", "unseal"])
def test_wrong_requests_of_other_commands(tmp_path: Path, command: str) -> None:
    found = valid(ask(tmp_path / "none", "--json", command=command))
    assert (found["kind"], found["exit_code"]) == ("error", 2)


@contextlib.contextmanager
def ended_by(error: BaseException) -> Iterator[None]:
    """Let runs end so once their first trial has."""
    from cnnsearch import session

    execute = session.execute

    def cut(*arguments: Any, **options: Any) -> Any:
        execute(*arguments, **{**options, "max_trials": 1})
        raise error

    with mock.patch.object(session, "execute", cut):
        yield


@pytest.mark.parametrize("error", [RunError("Ray went away"), DiskError("the disk is full")])
def test_a_run_that_was_ended_from_outside(tmp_path: Path, error: RunError) -> None:
    with ended_by(error):
        answer = ask("part1", *TWO, "--serial", "--out", tmp_path, "--json")
    found = valid(answer)
    assert (found["kind"], found["exit_code"]) == ("error", 1)
    assert found["error"].startswith(str(error))
    assert found["progress"]["counts"] | {"done": 1, "left": 1} == found["progress"]["counts"]
    assert found["go_on"] in answer.stderr


def test_a_run_that_was_stopped(tmp_path: Path) -> None:
    with ended_by(KeyboardInterrupt()):
        answer = ask("part1", *TWO, "--serial", "--out", tmp_path, "--json")
    found = valid(answer)
    assert (found["kind"], found["exit_code"]) == ("stopped", 130)
    assert found["progress"]["planned"] == 2
    assert found["progress"]["counts"]["done"] == 1
    assert found["progress"]["results"] == str(tmp_path / "part1")
    assert found["go_on"].startswith("python -m cnnsearch.sweep part1 ")
    assert found["go_on"] in answer.stderr
    assert answer.stderr.endswith(f"What is done:\n  cnnsearch report {tmp_path / 'part1'}\n")


def test_stopped_while_a_library_was_imported(tmp_path: Path) -> None:
    """Some turn the interrupt into an error of their own, as torch does."""

    def imports(*arguments: Any, **options: Any) -> Any:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise RuntimeError("Only a single TORCH_LIBRARY can be used")

    with mock.patch("cnnsearch.session.execute", imports):
        answer = ask("part1", *TWO, "--serial", "--out", tmp_path, "--json")
    found = valid(answer)
    assert (found["kind"], found["exit_code"]) == ("stopped", 130)
    assert answer.stderr.count("TORCH_LIBRARY") == 0


def test_stopped_before_it_began(tmp_path: Path) -> None:
    with mock.patch("cnnsearch.spec.load.load_sweep", side_effect=KeyboardInterrupt):
        found = valid(ask("part1", "--out", tmp_path, "--json"))
    assert (found["kind"], found["progress"]) == ("stopped", None)
    assert found["go_on"].startswith("python -m cnnsearch.sweep part1 ")


def test_stopped_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    written: dict[int, bytes] = {}
    monkeypatch.setattr(os, "write", lambda number, text: written.update({number: written.get(number, b"") + text}))
    monkeypatch.setattr(os, "_exit", lambda code: written.update({-1: b"%d" % code}))
    monkeypatch.setattr(os, "isatty", lambda number: False)
    stopper = Stopper(as_json=True)
    with pytest.raises(KeyboardInterrupt):
        stopper(2, None)
    stopper(2, None)
    found = valid(Answer(int(written[-1]), written[1].decode(), ""))
    assert (found["kind"], found["message"] in written[2].decode()) == ("stopped", True)


def test_a_fault_in_here_is_told_too(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with answering(True):
            print("on its way")
            raise ZeroDivisionError("by zero")

    with pytest.raises(ZeroDivisionError):
        fail()
    out, err = capsys.readouterr()
    found = valid(Answer(1, out, err))
    assert (found["kind"], found["error"]) == ("error", "ZeroDivisionError: by zero")
    assert "on its way" in err


def test_unsealing(tmp_path: Path) -> None:
    sealed = valid(ask("part1", *TWO, "--set", "evidence.test=sealed", "--serial", "--out", tmp_path, "--json"))
    assert (sealed["test_is_sealed"], sealed["judged_on"], sealed["best"]["test"]) == (True, "validation", None)
    assert {trial["test_accuracy"] for trial in sealed["trials"]} == {None}
    opened = valid(ask(tmp_path / "part1", "--json", command="unseal"))
    assert (opened["kind"], opened["tested"], opened["test_is_sealed"]) == ("unsealed", 2, False)
    assert opened["best"]["test"]["value"] >= 0
    again = valid(ask(tmp_path / "part1", "--json", command="unseal"))
    assert (again["exit_code"], "not sealed" in again["error"]) == (2, True)


@pytest.mark.usefixtures("figures_left_blank")
def test_reports_of_one_sweep_and_of_two(tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert ask("part1", *TWO, "--set", f"name={name}", "--serial", "--out", tmp_path).returncode == 0
    one = valid(ask(tmp_path / "one", "--json", command="report"))
    assert (one["kind"], one["sweep"], one["report"]) == ("report", "one", str(tmp_path / "one" / "report.html"))
    both = valid(ask(tmp_path / "one", tmp_path / "two", "--json", command="report"))
    assert (both["kind"], both["report"]) == ("comparison", str(tmp_path / "comparison" / "report.html"))
    assert [part["sweep"] for part in both["sweeps"]] == ["one", "two"]
    assert both["sweeps"][0]["best"] == one["best"]
    assert both["answer"]["verdict"] == "cannot tell"


def test_verdicts_are_those_of_the_evidence(tmp_path: Path) -> None:
    evidence = Evidence(factory.part1(seeds=(0, 1, 2)))
    found = of_report(evidence, Results(tmp_path), "report.html").model_dump()
    of_kind = {claim["kind"]: claim for claim in found["comparisons"]}
    assert of_kind.keys() == {"model", "axis", "change", "settings"}
    key = of_models("grid", "residual", "plain")
    assert of_kind["model"] | {"stage": "grid", "a": "residual", "b": "plain"} == of_kind["model"]
    assert of_kind["model"]["difference"] == evidence.statements[key].difference.value
    assert of_kind["model"]["verdict"] == evidence.verdict(key) == "clear"
    assert len(found["comparisons"]) == len(evidence.statements)
    changes = {one["a"]: one["verdict"] for one in found["comparisons"] if one["kind"] == "change"}
    assert changes == {c.key: evidence.verdict(of_change(c)) for c in evidence.stage("dropout")}
    assert found["best"]["validation"]["covers"] == "seeds and images"
    assert [setting["trials"][0] for setting in found["not_told_apart"]] == [c.key for c in evidence.near_best]
    assert {"model", "axis", "stage"} <= {claim["kind"] for claim in found["findings"]}


def test_where_nothing_finished_there_is_no_best(tmp_path: Path) -> None:
    found = of_report(Evidence(factory.all_failed()), Results(tmp_path), "report.html")
    assert (found.best, found.not_told_apart, found.counts.done) == (None, [], 0)
    assert found.answer.sentence.startswith("No answer")
    assert {trial.status for trial in found.trials} == {"failed"}


def test_names_that_are_no_text_are_told_in_escapes() -> None:
    told_of = told.Failure(exit_code=2, error=os.fsdecode(b"images/\xff is broken"))
    assert json.loads(told.line(told_of))["error"] == "images/\\udcff is broken"


def test_the_kinds_of_findings_are_those_documented() -> None:
    assert typing.get_args(told.Subject) == typing.get_args(Kind)
    assert ending.INTERRUPTED == 130
