"""`cnnsearch reproduce`: a recorded trial is trained again, alone, and held against its record."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnsearch.execution.machine import software
from cnnsearch.planning.identity import MODEL_VERSIONS
from cnnsearch.planning.trial import Status
from cnnsearch.results.folder import Results
from cnnsearch.results.record import SCHEMA_VERSION, Record
from cnnsearch.use import reproduce as module
from cnnsearch.use.conditions import run_of
from tests.asking import Answer, ask
from tests.report.watch.test_watch import state_of
from tests.test_telling import valid
from tests.use.conftest import make_results

ONE = "stages=[{name: grid, space: {model: plain, optimizer: sgd, lr: {grid: [0.01, 100]}, width: 0.05}}]"


@pytest.fixture
def copy(results: Path, tmp_path: Path) -> Results:
    """A copy of the results, to change; its images stay where they are."""
    return Results(shutil.copytree(results, tmp_path / "part1"))


def reproduce(results: Path, trial: str, out: Path, *more: object) -> Answer:
    return ask(results, trial, "--out", out, "--json", *more, command="reproduce")


def one_of(results: Results, stage: str, **settings: Any) -> Record:
    """The first record of a stage with these settings."""
    return next(
        record
        for record in results.records().values()
        if record.stage == stage and all(getattr(record.settings, name) == value for name, value in settings.items())
    )


def rewrite(results: Results, record: Record, **changes: Any) -> None:
    results.trial(record.trial_id).commit(record.model_copy(update=changes))


def test_the_best_is_identical_and_its_results_are_only_read(results: Path, tmp_path: Path) -> None:
    before = state_of(results)
    answer = reproduce(results, "best", tmp_path / "again")
    found = valid(answer)
    assert state_of(results) == before
    assert (found["kind"], found["exit_code"], found["verdict"]) == ("reproduction", 0, "identical")
    assert found["is_best"]
    assert (found["validation_accuracy"]["value"], found["validation_loss"]["value"]) == (0, 0)
    assert [(one["split"], one["images"], one["same"]) for one in found["answers"]] == [
        ("validation", 12, 1), ("test", 18, 1)
    ]  # fmt: skip
    assert found["conditions"] == []
    written = json.loads((tmp_path / "again" / module.ANSWER).read_text())
    assert (written["trial"], written["verdict"]) == (found["trial"], "identical")
    again = Results(tmp_path / "again").trial(found["trial"])
    assert again.weights_file.read_bytes() == Results(results).trial(found["trial"]).weights_file.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["again"]


def test_progress_is_a_line_for_each_epoch(results: Path, tmp_path: Path) -> None:
    trial = one_of(Results(results), "grid").trial_id
    answer = ask(results, trial[:10], "--out", tmp_path / "again", command="reproduce")
    lines = answer.stderr.splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert all(line.endswith(", as recorded") for line in lines)
    words = answer.stdout.splitlines()
    assert f"trial {trial}" in words[0]
    assert words[2].startswith(
        "identical  every epoch's numbers, and all predictions of 12 validation and 18 test images"
    )


@pytest.mark.after
def test_every_kind_of_trial_is_identical(results: Path, tmp_path: Path) -> None:
    records = Results(results).records()
    kinds = {(record.stage, record.settings.fine_tune): id_ for id_, record in records.items()}
    assert {stage for stage, _ in kinds} == {"grid", "more", "heads", "convs", "transfer"}
    for (stage, mode), id_ in kinds.items():
        found = valid(reproduce(results, id_, tmp_path / id_))
        assert found["verdict"] == "identical", (stage, mode)
        starts = [(one["id"], one["how"]) for one in found["starts_from"]]
        assert starts[-1:] == ([(records[id_].parent_id, "kept weights")] if records[id_].parent_id else [])


def test_parents_whose_weights_are_gone_are_trained_again(copy: Results, tmp_path: Path) -> None:
    last = one_of(copy, "convs")
    head = copy.trial(last.parent_id or "").record()
    assert head is not None
    first = copy.trial(head.parent_id or "").record()
    assert first is not None
    for record in (head, first):
        copy.trial(record.trial_id).drop_weights("accuracy")
    answer = reproduce(copy.path, last.trial_id, tmp_path / "again")
    found = valid(answer)
    assert [(one["id"], one["how"], one["verdict"]) for one in found["starts_from"]] == [
        (first.trial_id, "trained again", "identical"),
        (head.trial_id, "trained again", "identical"),
    ]
    assert found["verdict"] == "identical"
    assert f"trial {first.trial_id[:8]}, epoch 2/2" in answer.stderr
    assert f"starts from  trial {head.trial_id}, whose weights are not kept: trained again, identical" in answer.stderr


def test_a_difference_that_images_explain_is_within(copy: Results, tmp_path: Path) -> None:
    record = one_of(copy, "grid")
    place = copy.trial(record.trial_id)
    rows = place.epochs()
    rows[1]["val_loss"] += 0.25
    place.epochs_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rewrite(copy, record)
    answer = reproduce(copy.path, record.trial_id, tmp_path / "again")
    found = valid(answer)
    assert (found["verdict"], found["reason"], found["exit_code"]) == ("within", None, 0)
    assert found["validation_loss"]["value"] == pytest.approx(0.25)
    assert found["validation_loss"]["epoch"] == 2
    assert found["validation_accuracy"]["value"] == 0
    assert "0.25 of validation loss (epoch 2) apart" in answer.stderr
    assert "100.0 % of 18 images have the same prediction" in answer.stderr
    assert f"(recorded: {100 * rows[1]['val_accuracy']:.1f} %, " in answer.stderr


def test_a_difference_that_nothing_explains_is_different(copy: Results, tmp_path: Path) -> None:
    record = one_of(copy, "grid")
    place = copy.trial(record.trial_id)
    found_then = place.predictions()
    labels = np.array(copy.read("data.json")["examples"]["test"]["labels"])
    right = (found_then["test", "best"][0] == labels).mean() > 0.5
    wrong_way = (labels + 1) % 3 if right else labels  # as far from what it answers as can be
    place.save_predictions({**found_then, ("test", "best"): (wrong_way, found_then["test", "best"][1])})
    rewrite(copy, record)
    answer = reproduce(copy.path, record.trial_id, tmp_path / "again")
    found = valid(answer)
    assert (found["verdict"], answer.returncode) == ("different", 1)
    assert found["reason"] == "neither other images nor other seeds explain how far the accuracy on test is apart"
    assert [one["is_within"] for one in found["answers"]] == [True, False]
    assert (tmp_path / "again" / module.ANSWER).is_file()


def test_another_end_is_different(copy: Results, tmp_path: Path) -> None:
    record = one_of(copy, "grid")
    rewrite(copy, record, status=Status.DIVERGED, error="the loss was no longer a number in epoch 2", best=None)
    found = valid(reproduce(copy.path, record.trial_id, tmp_path / "again"))
    assert (found["verdict"], found["reason"]) == ("different", "it diverged then, and trained to its end now")


def test_what_differs_between_then_and_now_is_told(copy: Results, tmp_path: Path) -> None:
    record = one_of(copy, "grid")
    provenance = copy.read("provenance.json")
    (run,) = provenance["runs"]
    run["versions"]["torch"] = "1.0"
    run["hardware"]["cpu"] = "an older one"
    del run["versions"]["pillow"]
    copy.write("provenance.json", provenance)
    rewrite(copy, record, device="cuda", schema_version=2)
    answer = reproduce(copy.path, record.trial_id, tmp_path / "again")
    told = {one["name"]: (one["then"], one["now"]) for one in valid(answer)["conditions"]}
    assert told["torch"] == ("1.0", software.versions()["torch"])
    assert told["processor"][0] == "an older one"
    assert told["device"] == ("cuda", "cpu")
    assert told["record version"] == ("2", str(SCHEMA_VERSION))
    assert told["pillow"] == (None, software.versions()["pillow"])
    assert not {"python", "threads", "precision", "ray", "trial id"} & told.keys()
    assert "it is not recorded: pillow" in answer.stderr


def test_a_trial_taken_over_has_no_run_here(results: Path) -> None:
    record = one_of(Results(results), "grid")
    runs = Results(results).read("provenance.json")["runs"]
    assert run_of(record, runs) == runs[0]
    assert record.started_at is not None
    earlier = record.model_copy(update={"started_at": record.started_at.replace(year=2020)})
    assert run_of(earlier, runs) == {}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    """Results of a trial that was stopped after its first epoch, and of one that diverged."""
    root = tmp_path_factory.mktemp("ended")
    return make_results(root, images, "train.max_seconds=1e-9", "train.epochs=4", "name=ended", stages=ONE)


def test_a_trial_that_was_stopped_is_reproduced_up_to_its_last_epoch(ended: Path, tmp_path: Path) -> None:
    record = one_of(Results(ended), "grid", lr=0.01)
    assert (record.status, record.epochs_done) == (Status.PRUNED, 1)
    answer = reproduce(ended, record.trial_id, tmp_path / "again")
    found = valid(answer)
    assert (found["verdict"], found["status"], found["status_now"]) == ("identical", "pruned", "pruned")
    assert (found["epochs"], found["epochs_planned"]) == (1, 4)
    assert "1 of 4 epochs, up to the epoch after which it was stopped" in answer.stderr


def test_a_trial_that_diverged_diverges_again(images: Path, tmp_path: Path) -> None:
    place = make_results(tmp_path / "diverges", images, "train.epochs=4", "name=diverges", stages=ONE)
    record = one_of(Results(place), "grid", lr=100.0)
    assert record.status is Status.DIVERGED
    answer = reproduce(place, record.trial_id, tmp_path / "again")
    found = valid(answer)
    assert (found["verdict"], found["status_now"], found["answers"]) == ("identical", "diverged", [])
    assert "the loss is no number" in answer.stderr


def test_seeds_explain_a_difference_too(images: Path, tmp_path: Path) -> None:
    stages = "stages=[{name: grid, space: {model: plain, width: 0.05}}]"
    place = make_results(tmp_path / "seeds", images, "seeds=[0, 1, 2]", "name=seeds", stages=stages)
    results = Results(place)
    record = one_of(results, "grid", seed=1)
    found = valid(reproduce(place, record.trial_id, tmp_path / "again"))
    scores = [one.best.test_accuracy for one in results.records().values() if one.best]
    allowed = 4.302653 * np.sqrt(2) * np.std(np.array(scores, dtype=float), ddof=1)
    assert found["answers"][1]["allowed_by_seeds"] == pytest.approx(allowed, rel=1e-5)
    assert ", seed 1" in found["name"]


def test_a_sealed_test_set_stays_sealed(images: Path, tmp_path: Path) -> None:
    stages = "stages=[{name: grid, space: {model: plain, width: 0.05}}]"
    place = make_results(tmp_path / "sealed", images, "evidence.test=sealed", "name=sealed", stages=stages)
    found = valid(reproduce(place, "best", tmp_path / "again"))
    assert found["verdict"] == "identical"
    assert [one["split"] for one in found["answers"]] == ["validation"]


def test_where_nothing_can_be_compared_it_is_refused(copy: Results, tmp_path: Path) -> None:
    failed, damaged = one_of(copy, "grid", model="plain"), one_of(copy, "transfer")
    rewrite(copy, failed, status=Status.FAILED, error="no memory", best=None)
    copy.trial(damaged.trial_id).epochs_file.write_text("")
    out = tmp_path / "again"
    for trial, told in [
        (failed.trial_id, f"trial {failed.trial_id} failed, so there is no result to reproduce: no memory"),
        (damaged.trial_id, f"trial {damaged.trial_id}: epochs.jsonl is changed, so there is nothing to compare with"),
        ("zzz", "has no trial whose id begins with zzz"),
    ]:
        answer = ask(copy.path, trial, "--out", out, command="reproduce")
        assert (answer.returncode, answer.stdout) == (2, "")
        assert told in answer.stderr
        assert not out.exists()


def test_a_parent_without_a_record_is_named(copy: Results, tmp_path: Path) -> None:
    child = one_of(copy, "more")
    shutil.rmtree(copy.trial(child.parent_id or "").path)
    answer = ask(copy.path, child.trial_id, "--out", tmp_path / "again", command="reproduce")
    assert answer.returncode == 2
    assert f"starts from trial {child.parent_id}, which has no record in" in answer.stderr


def test_where_it_goes(copy: Results, tmp_path: Path) -> None:
    trial = one_of(copy, "grid").trial_id
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    (tmp_path / "empty").mkdir()
    for out, told in [
        (tmp_path / "full", "exists already: give a folder that is new or empty"),
        (copy.path / "again", "which is only read: give a folder elsewhere"),
    ]:
        answer = ask(copy.path, trial, "--out", out, command="reproduce")
        assert answer.returncode == 2
        assert told in answer.stderr
    assert ask(copy.path, trial, "--out", tmp_path / "empty", command="reproduce").returncode == 0
    beside = tmp_path / f"part1-reproduced-{trial[:8]}"
    assert valid(ask(copy.path, trial, "--json", command="reproduce"))["folder"] == str(beside)
    assert (beside / "trials" / trial / "record.json").is_file()
    again = ask(copy.path, trial, command="reproduce")
    assert again.returncode == 2
    assert str(beside) in again.stderr


def test_images_that_moved_are_found_where_they_are_said_to_be(copy: Results, images: Path, tmp_path: Path) -> None:
    trial = one_of(copy, "grid").trial_id
    text = copy.sweep_text()
    assert str(images) in text
    copy.write("sweep.yaml", text.replace(str(images), str(tmp_path / "gone")))
    out = tmp_path / "again"
    answer = ask(copy.path, trial, "--out", out, command="reproduce")
    assert answer.returncode == 2
    assert f"--data says where the images of {copy.path} are now" in answer.stderr
    assert not out.exists()
    others = shutil.copytree(images, tmp_path / "others")
    shutil.copy(others / "dark" / "00.jpg", others / "light" / "02.jpg")
    answer = ask(copy.path, trial, "--out", out, "--data", others, command="reproduce")
    assert answer.returncode == 2
    assert "these are not the images, or not the split" in answer.stderr
    assert ask(copy.path, trial, "--out", out, "--data", images, command="reproduce").returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_when_stopped_it_leaves_nothing(
    number: signal.Signals, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        signal.raise_signal(number)

    monkeypatch.setattr("cnnsearch.use.reproduced.epoch_line", stop)
    trial = one_of(Results(results), "grid").trial_id
    answer = ask(results, trial, "--out", tmp_path / "again", command="reproduce")
    assert answer.returncode == 130
    assert list(tmp_path.iterdir()) == []


def test_a_trial_whose_model_is_computed_otherwise_now_has_another_id(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = one_of(Results(results), "more")
    monkeypatch.setitem(MODEL_VERSIONS, child.settings.model, 99)
    found = valid(reproduce(results, child.trial_id, tmp_path / "again"))
    (condition,) = found["conditions"]
    assert (condition["name"], condition["then"]) == ("trial id", child.trial_id)
    assert (tmp_path / "again" / "trials" / condition["now"] / "record.json").is_file()
    assert found["verdict"] == "identical"


def test_a_trial_that_starts_from_itself_is_refused(copy: Results, tmp_path: Path) -> None:
    child = one_of(copy, "more")
    rewrite(copy, child, parent_id=child.trial_id)
    copy.trial(child.trial_id).drop_weights("accuracy")
    other = one_of(copy, "grid").trial_id
    answer = ask(copy.path, child.trial_id, "--out", tmp_path / "again", command="reproduce")
    assert answer.returncode == 2
    assert f"trial {child.trial_id} is recorded to start from itself" in answer.stderr
    assert ask(copy.path, other, "--out", tmp_path / "again", command="reproduce").returncode == 0


@pytest.mark.after
def test_a_head_that_was_trained_in_company_is_identical_alone(images: Path, tmp_path: Path) -> None:
    heads = (
        "stages=[{name: heads, space: {model: resnet18, weights: WEIGHTS, fine_tune: head, "
        "lr: {grid: [0.001, 0.01, 0.1]}}}]"
    )
    place = make_results(tmp_path, images, "run.threads_per_trial=1", "name=company", stages=heads)
    record = one_of(Results(place), "heads", lr=0.01)
    assert record.threads == 1
    assert valid(reproduce(place, record.trial_id, tmp_path / "again"))["verdict"] == "identical"
