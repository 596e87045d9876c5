"""`cnnsearch explain`: one trial on one screen, whatever became of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from cnnsearch.evidence.evidence import Evidence
from cnnsearch.explanation import LONGEST_CURVE, sparkline
from cnnsearch.planning.trial import Status
from cnnsearch.results.folder import Results
from cnnsearch.results.record import Record
from cnnsearch.results.tables import load
from cnnsearch.spec.load import load_sweep
from tests.asking import ask
from tests.report.watch.test_watch import state_of
from tests.test_telling import SETTINGS, valid

SPACE = "{model: plain, optimizer: sgd, lr: {grid: [0.01, 100]}, batch_size: {grid: [6, 12]}}"
STAGES = f"stages=[{{name: grid, space: {SPACE}}}]"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of four trials, of which two diverged."""
    out = tmp_path_factory.mktemp("explain")
    assert ask("part1", *SETTINGS, "--set", STAGES, "--serial", "--out", out).returncode == 1
    return out / "part1"


@pytest.fixture
def results(trained: Path, tmp_path: Path) -> Results:
    """A copy of them, to change."""
    return Results(shutil.copytree(trained, tmp_path / "part1"))


def one_with(results: Results, **settings: Any) -> Record:
    """The one record with these settings."""
    (found,) = (
        record
        for record in results.records().values()
        if all(getattr(record.settings, name) == value for name, value in settings.items())
    )
    return found


def ends(results: Results, record: Record, status: Status, error: str, stopped_by: str | None = None) -> None:
    """Let a recorded trial have ended otherwise."""
    best = record.best if status is Status.PRUNED else None
    changed = {"status": status, "error": error, "stopped_by": stopped_by, "best": best}
    results.trial(record.trial_id).commit(record.model_copy(update=changed))


def rows_of(text: str) -> dict[str, list[str]]:
    """Label -> its lines."""
    found: dict[str, list[str]] = {}
    label = ""
    labels = [line.split("  ")[0] for line in text.splitlines()[1:]]
    width = max(map(len, labels)) + 2
    for line in text.splitlines()[1:]:
        label = line[:width].strip() or label
        found.setdefault(label, []).append(line[width:])
    return found


def test_the_best(trained: Path) -> None:
    evidence = Evidence(load(trained, store=False))
    before = state_of(trained)
    answer = ask(trained, "best", "--json", command="explain")
    assert state_of(trained) == before
    found = valid(answer)
    best = evidence.best
    assert best is not None
    assert found["kind"] == "explanation"
    assert (found["trial"]["id"], found["is_best"]) == (evidence.best_trial, True)
    texts = []
    for split, name in (("val", "validation"), ("test", "test")):
        score = evidence.score(best, split)
        assert score is not None
        assert (found[name]["value"], found[name]["low"], found[name]["high"]) == score[:3]
        texts.append(f"{name} {score.text}")
    curves = {curve["name"]: curve for curve in found["curves"]}
    assert set(curves) == {"train_loss", "train_accuracy", "validation_loss", "validation_accuracy"}
    rows = Results(trained).trial(found["trial"]["id"]).epochs()
    assert curves["validation_loss"]["values"] == [row["val_loss"] for row in rows]
    assert curves["validation_loss"]["best"] == min(row["val_loss"] for row in rows)
    assert curves["validation_accuracy"]["best_epoch"] == found["trial"]["best_epoch"]
    assert found["to_try"]
    assert found["again"].startswith("python -m cnnsearch.sweep ")
    assert "best.safetensors" in found["files"]
    text = answer.stderr
    assert text.splitlines()[0].endswith("trained to its end, 2 of 2 epochs · the best by validation")
    assert len(text.splitlines()) <= 24
    assert rows_of(text)["scores"][0].startswith(", ".join(texts))
    assert rows_of(text)["again"] == [found["again"]]
    assert found["log_file"] == str(Results(trained).trial(found["trial"]["id"]).epochs_file)
    assert rows_of(text)["log"] == [f"{found['log_file']}, a line for each epoch"]
    assert found["repeat"] == f"cnnsearch reproduce {trained} {found['trial']['id']}"
    assert rows_of(text)["repeat it"] == [found["repeat"]]
    assert ask(trained, found["trial"]["id"][:8], command="explain").stdout == text


def test_neighbours_differ_in_one_setting(trained: Path) -> None:
    own = one_with(Results(trained), lr=0.01, batch_size=6)
    answer = ask(trained, own.trial_id[:8], "--json", command="explain")
    neighbours = valid(answer)["neighbours"]
    changed = [[(part["axis"], part["here"], part["there"]) for part in one["changed"]] for one in neighbours]
    assert changed == [[("batch_size", 6, 12)], [("lr", 0.01, 100.0)]]
    first, second = rows_of(answer.stderr)["neighbours"]
    assert first.startswith("batch 12 (here 6): validation ")
    assert " points  [" in first
    assert second.startswith("lr 100 (here 0.01): diverged  [")


def test_a_trial_that_diverged(trained: Path) -> None:
    own = one_with(Results(trained), lr=100.0, batch_size=6)
    rows = rows_of(ask(trained, own.trial_id, command="explain").stdout)
    assert rows["why"] == [own.error]
    *_, last, place = rows["log"]
    assert "loss is no number" in last
    assert place.split(",")[0] == str(Results(trained).trial(own.trial_id).epochs_file)
    assert rows["to try"] == ["Leave it out: with learning rate 0.01 and all else equal, training went to its end."]
    assert "scores" not in rows


def test_where_no_rate_worked_it_names_smaller_ones(results: Results) -> None:
    own = one_with(results, lr=0.01, batch_size=6)
    ends(results, own, Status.DIVERGED, "the loss was no longer a number in epoch 1")
    rows = rows_of(ask(results.path, own.trial_id, command="explain").stdout)
    assert rows["to try"][0].startswith("Take smaller steps: try learning rate 0.003 or 0.001; a warm-up")


def test_a_failure_names_its_place_first(results: Results) -> None:
    own = one_with(results, lr=0.01, batch_size=6)
    ends(results, own, Status.FAILED, "ValueError: no such layer (train.py, line 9, in step)")
    answer = ask(results.path, own.trial_id, "--json", command="explain")
    found = valid(answer)
    assert found["repeat"] is None
    assert found["place"] == "train.py, line 9, in step"
    assert (found["validation"], found["setting"]) == (None, None)
    rows = rows_of(answer.stderr)
    assert rows["why"] == ["at train.py, line 9, in step", "ValueError: no such layer"]
    *_, last, place = rows["log"]
    assert last.startswith("epoch 2/2, train loss ")
    assert place == f"{results.trial(own.trial_id).epochs_file}, a line for each epoch"
    assert rows["to try"] == ["It would fail again: leave out such a setting, or report the error."]


@pytest.mark.parametrize(
    ("error", "first"),
    [
        ("out of memory; CUDA out of memory", "Make it smaller: try batch size 3."),
        ("the worker process died once; killed", "The same command tries it again."),
    ],
)
def test_a_failure_of_the_machine(results: Results, error: str, first: str) -> None:
    own = one_with(results, lr=0.01, batch_size=6)
    ends(results, own, Status.FAILED, error)
    found = valid(ask(results.path, own.trial_id, "--json", command="explain"))
    assert found["to_try"][0]["text"] == first
    assert found["to_try"][-1]["command"] == found["again"]
    assert found["place"] is None


@pytest.mark.parametrize(("rule", "change"), [("asha", "stages.grid.stop_early=null"), ("patience", "")])
def test_a_trial_that_was_stopped(results: Results, rule: str, change: str) -> None:
    own = one_with(results, lr=0.01, batch_size=6)
    assert own.best is not None
    ends(results, own, Status.PRUNED, f"{rule}: 3rd of 4 at epoch 2", rule)
    answer = ask(results.path, own.trial_id, "--json", command="explain")
    found = valid(answer)
    (tip,) = found["to_try"]
    assert tip["command"] == (f"{found['again']} --set {change}" if change else None)
    assert found["validation"]["value"] == own.best.val_accuracy
    rows = rows_of(answer.stderr)
    assert rows["why"] == [f"{rule}: 3rd of 4 at epoch 2"]
    if change:
        assert rows["to try"][1] == f"  again, with --set {change}"
        assert load_sweep("part1", values=[change]).stages[0].stop_early is None


def test_a_trial_that_has_not_ended(results: Results) -> None:
    own = one_with(results, lr=0.01, batch_size=6)
    results.trial(own.trial_id).record_file.unlink()
    answer = ask(results.path, own.trial_id, "--json", command="explain")
    found = valid(answer)
    assert (found["trial"]["status"], found["trial"]["epochs_done"], found["to_try"]) == ("left", 2, [])
    assert "has not ended, 2 of 2 epochs" in answer.stderr
    *_, last, place, dashboard = rows_of(answer.stderr)["log"]
    assert last.startswith("epoch 2/2, train loss ")
    assert place == f"{found['log_file']}, a line for each epoch"
    assert "dashboard" in dashboard


def test_a_trial_without_weights(results: Results) -> None:
    own = one_with(results, lr=0.01, batch_size=6)
    results.trial(own.trial_id).drop_weights("accuracy")
    found = valid(ask(results.path, own.trial_id, "--json", command="explain"))
    assert found["validation"] is not None
    assert "best.safetensors" not in found["files"]


def test_a_sealed_test_set_stays_sealed(results: Results) -> None:
    sweep = yaml.safe_load(results.sweep_text())
    results.sweep_file.write_text(yaml.safe_dump(sweep | {"evidence": {"test": "sealed"}}), encoding="utf-8")
    answer = ask(results.path, "best", "--json", command="explain")
    found = valid(answer)
    assert found["validation"] is not None
    assert (found["test"], found["trial"]["test_accuracy"], found["setting"]["test"]) == (None, None, None)
    assert "test " not in rows_of(answer.stderr)["scores"][0]


def test_refusals(trained: Path, tmp_path: Path) -> None:
    for arguments, message in (
        ((trained, "zz"), f"{trained} has no trial whose id begins with "),
        ((trained, ""), f"{trained} has no trial whose id begins with "),
        ((tmp_path, "best"), f"{tmp_path} is not the results of a sweep: it has no sweep.yaml"),
        ((tmp_path / "none", "best"), f"there is no folder {tmp_path / 'none'}"),
        (("s3://bucket/part1", "best"), "s3://bucket/part1: explain looks at folders; "),
    ):
        answer = ask(*arguments, command="explain")
        assert (answer.returncode, answer.stdout) == (2, "")
        assert answer.stderr.startswith(f"error: {message}")
    unknown = ask(trained, "zz", "--json", command="explain")
    assert valid(unknown)["kind"] == "error"
    assert all(id_ in unknown.stderr for id_ in Results(trained).records())


def test_a_damaged_record_is_named(results: Results) -> None:
    own = one_with(results, lr=0.01, batch_size=6)
    results.trial(own.trial_id).record_file.write_text("{", encoding="utf-8")
    answer = ask(results.path, own.trial_id, command="explain")
    assert answer.returncode == 2
    assert f"The record of trial {own.trial_id} is damaged" in answer.stderr


def test_no_best_where_nothing_has_finished(results: Results) -> None:
    for record in results.records().values():
        if record.status is Status.DONE:
            ends(results, record, Status.FAILED, "killed")
    answer = ask(results.path, "best", command="explain")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr == f"error: {results.path}: no trial has finished, so there is no best one\n"


@pytest.mark.parametrize("command", ["explain", "reproduce"])
def test_tables_alone_are_no_trials(results: Results, command: str) -> None:
    load(results.path)
    shutil.rmtree(results.path / "trials")
    for trial in ("best", "1234"):
        answer = ask(results.path, trial, command=command)
        assert answer.returncode == 2
        assert f"{results.path} holds the tables of a sweep but not its trials, which this needs" in answer.stderr


def test_sparklines() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([2.0, None, 1.0]) == "█×▁"
    assert sparkline([1.0, 1.0]) == "▁▁"
    assert sparkline([None]) == "×"
    long = sparkline([float(value) for value in range(1000)])
    assert len(long) == LONGEST_CURVE
    assert (long[0], long[-1], "".join(sorted(long))) == ("▁", "█", long)


@pytest.mark.parametrize("command", ["explain", "reproduce", "predict", "export", "unseal", "report", "diff"])
def test_the_folder_that_holds_the_results_is_told_of_them(command: str, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "part1").symlink_to(trained)
    more = {"predict": trained, "export": tmp_path / "net", "diff": trained, "unseal": "", "report": ""}
    answer = ask(tmp_path, *filter(None, [more.get(command, "best")]), command=command)
    assert answer.returncode == 2
    assert answer.stderr.startswith(f"error: {tmp_path} is not the results of a sweep: it has no sweep.yaml; ")
    assert answer.stderr.endswith("; give one of those in it: part1\n")
