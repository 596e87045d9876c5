"""Images are classified as the trial's own evaluation classified them; one that cannot be read ends nothing."""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import cnnsearch
from cnnsearch.data.images import Reading, decode
from cnnsearch.data.packs import in_threads
from cnnsearch.errors import RequestError
from cnnsearch.execution.machine import hardware
from cnnsearch.planning.trial import Status
from cnnsearch.results.folder import Results
from cnnsearch.results.tables import load
from cnnsearch.use import predict as module
from cnnsearch.use.choose import choose
from cnnsearch.use.classifier import Classifier, classifier
from cnnsearch.use.listing import listed
from tests.asking import ask
from tests.data.making import photo
from tests.use.conftest import CLASSES, STAGES, make_results


def recorded(folder: Path, trial_id: str) -> pd.DataFrame:
    """What the sweep noted of the test images of a trial."""
    found = load(folder).predictions
    rows = found[(found["trial_id"] == trial_id) & (found["split"] == "test") & (found["moment"] == "best")]
    return rows.reset_index(drop=True)


def assert_as_recorded(folder: Path, images: Path, trial_id: str) -> None:
    wanted = recorded(folder, trial_id)
    found = cnnsearch.load(folder).trial(trial_id).predict([images / name for name in wanted["example"]])
    assert found["predicted"].tolist() == wanted["predicted"].astype(str).tolist()
    np.testing.assert_allclose(found["confidence"], wanted["confidence"], rtol=1e-5)
    assert found["error"].isna().all()


@pytest.mark.after
def test_every_kind_of_network_gives_what_is_recorded(results: Path, images: Path) -> None:
    """Own and torchvision's; trained whole, the head alone, the last convolutions; going on from another."""
    trials = load(results).trials
    kinds = {(row["stage"], row["model"], row["fine_tune"]) for row in trials.to_dict("records")}
    assert len(kinds) == len(trials) == 9
    for trial_id in trials["trial_id"]:
        assert_as_recorded(results, images, trial_id)


@pytest.mark.after
def test_in_half_precision_too(tmp_path: Path, images: Path) -> None:
    folder = make_results(tmp_path, images, "train.precision=bf16", "data.image_size=16", stages=STAGES)
    for trial_id in load(folder).trials["trial_id"]:
        wanted = recorded(folder, trial_id)
        found = cnnsearch.load(folder).trial(trial_id).predict([images / name for name in wanted["example"]])
        assert found["predicted"].tolist() == wanted["predicted"].astype(str).tolist()
        np.testing.assert_allclose(found["confidence"], wanted["confidence"], rtol=1e-3)


def test_the_best_is_the_reports(results: Path) -> None:
    from cnnsearch.evidence.evidence import Evidence

    best = Evidence(load(results)).best
    assert best is not None
    assert cnnsearch.load(results).best().id in best.trial_ids
    assert choose(results).is_best


def test_of_several_seeds_the_best_by_validation(tmp_path: Path, images: Path) -> None:
    stages = "stages=[{name: grid, space: {model: plain, width: 0.05}}]"
    folder = make_results(tmp_path, images, "seeds=[0, 1, 2, 3]", stages=stages)
    trials = load(folder).trials
    chosen = trials[trials["trial_id"] == cnnsearch.load(folder).best().id]
    assert trials["val_accuracy"].nunique() > 1
    assert chosen["val_accuracy"].item() == trials["val_accuracy"].max()


def test_old_records_are_read_with_the_images_of_the_sweep(results: Path, images: Path, tmp_path: Path) -> None:
    """They do not say how images were normalised: that is computed again, if the images are there."""
    old, moved = tmp_path / "old", tmp_path / "moved"
    shutil.copytree(results, old)
    shutil.copytree(images, moved)
    trial_id = load(old).trials["trial_id"].iloc[0]
    folder = Results(old).trial(trial_id)
    record = folder.record()
    assert record is not None
    folder.commit(record.model_copy(update={"inputs": None}))
    assert_as_recorded(old, images, trial_id)
    sweep = (old / "sweep.yaml").read_text()
    (old / "sweep.yaml").write_text(sweep.replace(str(images), str(tmp_path / "gone")))
    gone = ask(old, images, "--trial", trial_id, command="predict")
    assert gone.returncode == 2
    assert "older version" in gone.stderr
    there = ask(old, moved / "dark", "--trial", trial_id, "--data", moved, command="predict")
    assert there.returncode == 0, there.stderr


def test_settings_of_the_data_are_the_sweeps(tmp_path: Path) -> None:
    """The range of greys and the links that may be followed, from sweep.yaml."""
    source = tmp_path / "greys"
    for label, name in enumerate(("low", "high")):
        (source / name).mkdir(parents=True)
        for row in range(12):
            pixels = np.random.default_rng(row).integers(0, 2000, (9, 9)) + 2000 * label
            Image.fromarray(pixels.astype(np.uint16)).save(source / name / f"{row:02}.png")
    stages = "stages=[{name: grid, space: {model: plain, width: 0.05}}]"
    values = ("data.grey_range=[0, 4095]", "data.follow_links=true")
    folder = make_results(tmp_path, source, *values, stages=stages)
    best = cnnsearch.load(folder).best()
    assert_as_recorded(folder, source, best.id)
    square = classifier(choose(folder)).square(str(source / "high" / "00.png"))
    assert square.mean() > 100  # of the full range it would be 11
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "link.png").symlink_to(source / "low" / "00.png")
    assert best.predict(outside)["error"].isna().all()


def test_jpeg_files_are_decoded_as_they_were_for_training(tmp_path: Path) -> None:
    source = tmp_path / "photos"
    for label, name in enumerate(("one", "two")):
        (source / name).mkdir(parents=True)
        for row in range(12):
            photo(row + 100 * label).save(source / name / f"{row:02}.jpg")
    stages = "stages=[{name: grid, space: {model: plain, width: 0.05}}]"
    folder = make_results(tmp_path, source, "data.jpeg=scaled", stages=stages)
    assert_as_recorded(folder, source, cnnsearch.load(folder).best().id)
    file = source / "two" / "00.jpg"
    (scaled,) = decode(file, [8], reading=Reading(scales_jpeg=True))
    assert not np.array_equal(scaled, decode(file, [8])[0])
    assert np.array_equal(classifier(choose(folder)).square(str(file)), scaled)


def answers_of(results: Path, *arguments: object) -> tuple[int, dict[str, Any]]:
    done = ask(results, *arguments, "--json", command="predict")
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, json.loads(done.stdout)


def test_a_folder_of_classes_says_how_many_are_right(results: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "answers.csv"
    code, told = answers_of(results, images, "--out", out)
    assert (code, told["images"], told["unreadable"]) == (0, 45, 0)
    answers = pd.read_csv(out)
    assert list(answers) == ["path", "predicted", "confidence", "label", "error"]
    assert answers["path"].tolist() == [str(file) for file in sorted(images.rglob("*.*g"))]
    assert (answers["label"] == [Path(path).parent.name for path in answers["path"]]).all()
    right = (answers["label"] == answers["predicted"]).mean()
    assert told["accuracy"]["value"] == pytest.approx(right)
    assert told["accuracy"]["low"] < right < told["accuracy"]["high"]
    matrix = pd.read_csv(told["confusion"], index_col="label")
    assert told["confusion"] == str(out.with_name("answers-confusion.csv"))
    assert list(matrix) == list(matrix.index) == list(CLASSES)
    assert matrix.to_numpy().sum() == 45
    assert np.trace(matrix.to_numpy()) == round(45 * right)
    assert matrix.sum(axis=1).tolist() == [15, 15, 15]


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_other_files_hold_the_same(results: Path, images: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / f"answers.{kind}"
    ask(results, images, "--out", out, "--top", 2, command="predict")
    found = pd.read_parquet(out) if kind == "parquet" else pd.read_json(out, lines=True)
    wanted = cnnsearch.load(results).best().predict(images, top=2)
    assert list(found) == list(wanted)
    assert found["predicted"].tolist() == wanted["predicted"].tolist()
    np.testing.assert_allclose(found["confidence_2"], wanted["confidence_2"], rtol=1e-6)


def test_the_best_classes_and_their_confidences(results: Path, images: Path) -> None:
    found = cnnsearch.load(results).best().predict(images, top=3)
    assert list(found)[5:] == [f"{what}_{k}" for k in (1, 2, 3) for what in ("class", "confidence")]
    assert (found["class_1"] == found["predicted"]).all()
    assert (found["confidence_1"] >= found["confidence_2"]).all()
    np.testing.assert_allclose(found.filter(like="confidence_").sum(axis=1), 1, rtol=1e-5)
    assert [set(row) for row in found.filter(like="class_").to_numpy()] == [set(CLASSES)] * len(found)


def test_bad_images_are_rows_with_their_reasons(results: Path, images: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed images" / "dark"
    mixed.mkdir(parents=True)
    shutil.copy(images / "dark" / "00.jpg", mixed / "a.jpg")
    (mixed / "b.jpg").write_bytes((images / "dark" / "00.jpg").read_bytes()[:200])
    (mixed / "c.png").write_text("no image")
    (mixed / "d.png").symlink_to(tmp_path / "elsewhere.png")
    (mixed / "notes.txt").write_text("not looked at")
    os.mkfifo(mixed / "e.png")
    code, told = answers_of(results, mixed.parent)
    assert code == 1
    rows = {Path(row["path"]).name: row for row in told["predictions"]}
    assert list(rows) == ["a.jpg", "b.jpg", "c.png", "e.png", "d.png"]
    assert rows["a.jpg"]["error"] is None
    assert rows["a.jpg"]["predicted"] in CLASSES
    assert "truncated" in rows["b.jpg"]["error"]
    assert "its content is text" in rows["c.png"]["error"]
    assert rows["d.png"]["error"] == "is a link to nothing"
    assert rows["e.png"]["error"] == "is not a regular file"
    assert all(rows[name]["predicted"] is rows[name]["confidence"] is None for name in list(rows)[1:])
    assert all(row["label"] == "dark" for row in rows.values())
    assert told["accuracy"]["images"] == 1  # of those that could be read
    shown = ask(results, mixed.parent, command="predict").stdout
    assert "5, of which 4 cannot be read" in shown
    assert "ignored   1 not called like images, for example" in shown


def test_what_is_shown_without_a_file(results: Path, images: Path) -> None:
    done = ask(results, images, images / "dark" / "01.png", command="predict")
    assert done.returncode == 0
    assert done.stderr == ""  # no bar where nobody looks
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["path", "predicted", "confidence", "label"]
    assert len({line.index("%") for line in lines[1:47]}) == 1
    assert lines[46].startswith(str(images / "dark" / "01.png"))
    best = cnnsearch.load(results).best().id
    assert f"trial {best}, the best by validation: " in done.stdout
    assert "of 45 images whose class is known" in done.stdout
    assert "classes (rows) and what they were taken for (columns)" in done.stdout


def test_the_folder_that_is_given_may_be_called_like_a_class(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def labels(given: str | Path) -> set[str | None]:
        found = listed([given], CLASSES)
        assert found.has_labels
        return {item.label for item in found.items}

    assert labels(images) == {"dark", "light", "mixed"}
    assert labels(images / "dark") == labels(f"{images}/dark/") == {"dark"}
    monkeypatch.chdir(images / "dark")
    assert labels(".") == {"dark"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere.jpg",), "no file or folder nowhere.jpg; give images, folders of them, tables of their paths"),
        (("{images}", "--top", 4), "top 4: give a whole number from 1 to 3"),
        (("{images}", "--top", 0), "top 0"),
        (("{images}", "--out", "answers.xlsx"), "allowed are files that end in .csv, .jsonl or .parquet"),
        (("{images}", "--out", "{images}/folder.csv"), "is a folder"),
        (("{images}", "--trial", "zz"), "no trial whose id begins with zz. Weights are kept of trials "),
        (("{empty}",), "looked for files named *.avif"),
    ],
)
def test_wrong_requests_start_nothing(
    results: Path, images: Path, tmp_path: Path, arguments: tuple[Any, ...], message: str
) -> None:
    (tmp_path / "folder.csv").mkdir()
    shutil.copytree(images, tmp_path, dirs_exist_ok=True)
    (tmp_path / "empty").mkdir()
    places = {"images": tmp_path, "empty": tmp_path / "empty"}
    done = ask(results, *(str(part).format(**places) for part in arguments), command="predict")
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""


def test_the_beginning_of_an_id_is_enough(results: Path, tmp_path: Path) -> None:
    ids = sorted(load(results).trials["trial_id"])
    unique = next(
        id_[:length] for id_ in ids for length in (3, 4, 5) if sum(i[:length] == id_[:length] for i in ids) == 1
    )
    assert choose(results, unique).record.trial_id.startswith(unique)
    copied = tmp_path / "twins"
    shutil.copytree(results, copied)
    twin = ids[0][:15] + ("0" if ids[0][15] != "0" else "1")
    record = Results(copied).trial(ids[0]).record()
    assert record is not None
    shutil.copytree(copied / "trials" / ids[0], copied / "trials" / twin)
    Results(copied).trial(twin).commit(record.model_copy(update={"trial_id": twin}))
    with pytest.raises(RequestError, match=f"could be .*{ids[0]}.*give more of its id"):
        choose(copied, ids[0][:12])


def test_a_trial_without_weights_says_which_have_them(results: Path, images: Path, tmp_path: Path) -> None:
    copied = tmp_path / "some"
    shutil.copytree(results, copied)
    best = cnnsearch.load(copied).best().id
    Results(copied).trial(best).drop_weights("accuracy")
    for trial in ((), ("--trial", best)):
        done = ask(copied, images, *trial, command="predict")
        assert done.returncode == 2
        assert f"{best}, has not kept its weights." in done.stderr
        assert "Weights are kept of trials " in done.stderr
        assert " and 3 more." in done.stderr
        assert "run.keep=all" in done.stderr
    for record in Results(copied).records().values():
        Results(copied).trial(record.trial_id).drop_weights("accuracy")
    none = ask(copied, images, command="predict").stderr
    assert f"the best trial, {best}, has not kept its weights.\nNo trial here has its weights." in none
    shutil.rmtree(copied / "trials")  # as in results that are passed on without them
    alone = ask(copied, images, command="predict")
    assert alone.returncode == 2
    assert f"{copied} holds the tables of a sweep but not its trials, which this needs" in alone.stderr


def test_results_without_a_finished_trial(results: Path, images: Path, tmp_path: Path) -> None:
    copied = tmp_path / "none"
    shutil.copytree(results, copied)
    for folder in Results(copied).records().values():
        path = Results(copied).trial(folder.trial_id)
        path.commit(folder.model_copy(update={"status": Status.FAILED, "best": None}))
    done = ask(copied, images, command="predict")
    assert done.returncode == 2
    assert "no trial has finished, so there is no best one" in done.stderr


def test_weights_below_the_trained_layers_are_needed_too(results: Path, images: Path, tmp_path: Path) -> None:
    copied = tmp_path / "cut"
    shutil.copytree(results, copied)
    trials = load(copied).trials
    convs = trials[trials["stage"] == "convs"].iloc[0]
    Results(copied).trial(convs["parent_id"]).drop_weights("accuracy")
    done = ask(copied, images, "--trial", convs["trial_id"], command="predict")
    assert done.returncode == 2
    assert f"those of trial {convs['parent_id']}" in done.stderr


def test_other_pretrained_weights_are_refused(results: Path, images: Path, tmp_path: Path) -> None:
    copied = tmp_path / "other"
    shutil.copytree(results, copied)
    data = Results(copied).read("data.json")
    Results(copied).write("data.json", {**data, "weights": [[*found[:2], "0" * 16] for found in data["weights"]]})
    trials = load(results).trials
    head = trials[(trials["stage"] == "transfer") & (trials["fine_tune"] == "head")]["trial_id"].item()
    done = ask(copied, images, "--trial", head, command="predict")
    assert done.returncode == 2
    assert "these are not the weights that trial" in done.stderr


def test_damaged_weights_are_refused(results: Path, images: Path, tmp_path: Path) -> None:
    copied = tmp_path / "damaged"
    shutil.copytree(results, copied)
    file = Results(copied).trial(choose(copied).record.trial_id).weights_file
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert "is not what its record says" in ask(copied, images, command="predict").stderr


def test_results_that_are_not_there(tmp_path: Path, images: Path) -> None:
    for place, message in ((tmp_path / "no", "there is no folder"), (tmp_path, "no sweep.yaml"), ("s3://a/b", "copy")):
        done = ask(place, images, command="predict")
        assert done.returncode == 2
        assert message in done.stderr


def test_no_more_images_are_decoded_than_threads_can_use(
    results: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few chunks are in memory at a time, however many images there are."""
    cores = 2
    monkeypatch.setattr(module, "detect", lambda: hardware.Hardware("", cores, 10**9, (), 0))
    monkeypatch.setattr(module, "CHUNK", 8)
    lock, held, most, sizes = threading.Lock(), 0, 0, []

    class Watched(Classifier):
        def square(self, source: Any) -> Any:
            nonlocal held, most
            with lock:
                held += 1
                most = max(most, held)
            return super().square(source)

        def probabilities(self, images: Any) -> Any:
            nonlocal held
            with lock:
                held -= len(images)
                sizes.append(len(images))
            return super().probabilities(images)

    found = classifier(choose(results))
    items = listed([images] * 10, found.classes).items
    told: list[tuple[int, int]] = []
    module.predict(Watched(found.chosen, found.network), items, listen=lambda *done: told.append(done))
    assert len(items) == 450
    assert max(sizes) == 8
    assert most <= 8 * cores
    assert told[-1] == (450, 450)
    assert [done for done, _ in told] == sorted({done for done, _ in told})


def test_an_interrupt_ends_it_with_130(
    results: Path, images: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(self: Any, source: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Classifier, "square", interrupted)
    done = ask(results, images, "--out", tmp_path / "answers.csv", command="predict")
    assert done.returncode == 130
    assert "nothing was written" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_process_computes_afterwards_as_before(results: Path, images: Path) -> None:
    torch.manual_seed(7)
    before = torch.get_num_threads(), torch.get_rng_state()
    cnnsearch.load(results).best().predict(images / "dark")
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


def test_threads_begin_as_told() -> None:
    begun: list[int] = []
    assert list(in_threads(lambda item: item + 1, range(5), 2, lambda: begun.append(1))) == [1, 2, 3, 4, 5]
    assert 1 <= len(begun) <= 2
