from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import multiprocessing
import os
import stat
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cnnsearch.errors import DiskError, ResultsError
from cnnsearch.planning.trial import EpochRow, Status, Trial
from cnnsearch.results.folder import Results
from cnnsearch.results.record import Measures, Record
from cnnsearch.results.trial_folder import Damage, TrialFolder
from cnnsearch.spec.settings import Settings
from cnnsearch.storage.checksums import checksum, sealed

TRIAL = Trial("grid", Settings(model="plain", lr=0.1 + 0.2), "d" * 16)
ROW = EpochRow(1, 1.5, 0.25, float("nan"), 0.5, 0.1, 2.0)


def ended(folder: TrialFolder, status: Status = Status.DONE) -> Record:
    folder.begin(TRIAL, [])
    folder.append_epoch(ROW)
    folder.save_weights({"w": torch.arange(6.0).reshape(2, 3)})
    folder.save_predictions({("val", "best"): (np.array([1, 0]), np.array([0.5, 0.9]))})
    measures = Measures(val_loss=1.0, val_accuracy=0.5, test_loss=2.0, test_accuracy=0.25)
    return folder.commit(
        Record(trial_id=TRIAL.id, stage="grid", settings=TRIAL.settings, data=TRIAL.data, status=status, best=measures)
    )


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "results" / "part1")


def test_a_trial_round_trips(results: Results) -> None:
    folder = results.trial(TRIAL.id)
    written = ended(folder)
    assert results.records() == {TRIAL.id: written}
    read = results.records()[TRIAL.id]
    assert read.settings.lr == 0.1 + 0.2
    assert read.outcome.val_accuracy == 0.5
    assert folder.epochs() == [
        {"epoch": 1, "train_loss": 1.5, "train_accuracy": 0.25, "val_loss": None, "val_accuracy": 0.5, "lr": 0.1,
         "seconds": 2.0}
    ]  # fmt: skip
    assert torch.equal(folder.load_weights()["w"], torch.arange(6.0).reshape(2, 3))
    predicted, confidence = folder.predictions()["val", "best"]
    assert predicted.tolist() == [1, 0]
    assert confidence.tolist() == pytest.approx([0.5, 0.9])


def test_without_a_record_a_trial_does_not_count(results: Results) -> None:
    folder = results.trial(TRIAL.id)
    ended(folder)
    folder.record_file.unlink()
    assert results.records() == {}


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's /proc")
def test_a_record_is_named_once_all_it_vouches_for_is_on_the_disk(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(fd: int) -> None:
        done.append(f"sync {Path(os.readlink(f'/proc/self/fd/{fd}')).name}")
        fsync(fd)

    def renamed(source: Path, target: Path) -> Path:
        done[:] = [name.replace(source.name, Path(target).name) for name in done] + [f"name {Path(target).name}"]
        return replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    record = ended(results.trial(TRIAL.id))
    last = done.index("name record.json")
    assert {f"sync {name}" for name in (*record.files, "record.json")} <= set(done[:last])
    assert len(record.files) == 3
    assert done[last + 1 :] == [f"sync {TRIAL.id}"]
    assert sum(step.startswith("sync") for step in done) == 5


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"null", b'{"trial_id": "x"}'])
def test_a_damaged_record_counts_as_none(results: Results, damage: bytes) -> None:
    folder = results.trial(TRIAL.id)
    ended(folder)
    folder.record_file.write_bytes(damage)
    assert results.records() == {}


def test_any_flipped_digit_in_a_record_is_found(results: Results) -> None:
    folder = results.trial(TRIAL.id)
    ended(folder)
    text = folder.record_file.read_text()
    assert '"val_accuracy": 0.5' in text
    folder.record_file.write_text(text.replace('"val_accuracy": 0.5', '"val_accuracy": 0.6'))
    assert results.records() == {}


def test_weights_are_checked_before_they_are_used(results: Results) -> None:
    folder = results.trial(TRIAL.id)
    ended(folder)
    content = bytearray(folder.weights_file.read_bytes())
    content[-1] ^= 1
    folder.weights_file.write_bytes(content)
    with pytest.raises(ResultsError, match="not what its record says"):
        folder.load_weights()


def test_unknown_fields_of_a_newer_version_are_ignored(results: Results) -> None:
    folder = results.trial(TRIAL.id)
    ended(folder)
    plain = json.loads(folder.record_file.read_text())
    del plain["checksum"]
    from cnnsearch.storage.checksums import checksum

    newer = {**plain, "flops": 1}
    folder.record_file.write_text(json.dumps({"checksum": checksum(newer), **newer}))
    assert results.records()[TRIAL.id].status is Status.DONE


def test_checkpoints_round_trip_and_damaged_ones_are_dropped(results: Results) -> None:
    folder = results.trial(TRIAL.id)
    folder.begin(TRIAL, [])
    assert folder.load_checkpoint("model") is None
    folder.save_checkpoint({"kind": "model", "model": {"w": torch.ones(3)}, "rows": [vars(ROW)], "best": None})
    loaded = folder.load_checkpoint("model")
    assert loaded is not None
    assert torch.equal(loaded["model"]["w"], torch.ones(3))
    folder.checkpoint_file.write_bytes(folder.checkpoint_file.read_bytes()[:100])
    assert folder.load_checkpoint("model") is None
    assert not folder.checkpoint_file.exists()


def test_beginning_again_keeps_only_the_rows_gone_on_from(results: Results) -> None:
    folder = results.trial(TRIAL.id)
    folder.begin(TRIAL, [])
    for _ in range(3):
        folder.append_epoch(ROW)
    with folder.epochs_file.open("a") as file:
        file.write('{"epoch": 4, "tr')  # cut off
    assert len(folder.epochs()) == 3
    folder.begin(TRIAL, [ROW])
    assert len(folder.epochs()) == 1


def test_files_have_the_permissions_people_expect(results: Results) -> None:
    folder = results.trial(TRIAL.id)
    ended(folder)
    plain = folder.path / "plain"
    plain.touch()
    modes = {stat.S_IMODE(file.stat().st_mode) for file in folder.path.iterdir()}
    assert modes == {stat.S_IMODE(plain.stat().st_mode)}


def test_finished_trials_are_adopted_from_other_sweeps(results: Results) -> None:
    other = Results(results.path.parent / "other")
    ended(other.trial(TRIAL.id))
    failed = other.trial("0" * 16)
    failed.commit_failure(TRIAL, "broke")
    kept = other.trial(TRIAL.id).predictions_file.read_bytes()
    other.trial(TRIAL.id).predictions_file.unlink()
    assert results.adopt([TRIAL.id]) == []  # a record without what it vouches for is none
    other.trial(TRIAL.id).predictions_file.write_bytes(kept)
    assert results.adopt([TRIAL.id, "0" * 16, "1" * 16]) == [TRIAL.id]
    assert results.records().keys() == {TRIAL.id}
    assert results.trial(TRIAL.id).load_weights().keys() == {"w"}


def test_trials_whose_weights_nothing_needed_are_adopted_without(results: Results) -> None:
    other = Results(results.path.parent / "other")
    ended(other.trial(TRIAL.id))
    assert other.trial(TRIAL.id).has_weights()
    other.trial(TRIAL.id).drop_weights("accuracy")
    assert results.adopt([TRIAL.id]) == [TRIAL.id]
    assert results.records().keys() == {TRIAL.id}
    assert not results.trial(TRIAL.id).has_weights()


def _hold(path: Path, held: Any) -> None:
    with Results(path).locked():
        held.put(True)
        time.sleep(300)


def test_a_held_folder_is_refused_and_its_owner_named(results: Results) -> None:
    context = multiprocessing.get_context("spawn")
    held = context.Queue()
    owner = context.Process(target=_hold, args=(results.path, held))
    owner.start()
    try:
        assert held.get(timeout=60)
        with pytest.raises(ResultsError, match=f"in use by process {owner.pid} on"), results.locked():
            pass
        assert results.held_since() == results.lock_file.stat().st_mtime
    finally:
        owner.kill()
        owner.join()
    assert results.lock_file.stat().st_size > 0
    assert results.held_since() is None
    with results.locked():  # the lock ended with its holder
        assert results.held_since() is not None
    assert results.held_since() is None


def test_asking_who_holds_a_folder_writes_nothing(tmp_path: Path) -> None:
    assert Results(tmp_path).held_since() is None
    assert list(tmp_path.iterdir()) == []


def test_who_just_looks_keeps_nobody_out(results: Results) -> None:
    """Looking takes the lock for an instant, and a sweep may begin in that instant."""
    with results.locked():
        pass
    with results.lock_file.open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        timer = threading.Timer(0.03, fcntl.flock, (lock, fcntl.LOCK_UN))
        timer.start()
        with results.locked():
            pass
        timer.join()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResultsError, match="cannot be written"), Results(tmp_path / "file" / "part1").locked():
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ResultsError, match="cannot be written"), Results(tmp_path / "part1").locked():
        pass


def test_a_lock_that_is_only_shared_is_told_from_a_run(results: Results) -> None:
    with results.locked():
        pass
    with results.lock_file.open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        with pytest.raises(ResultsError, match="by a process that is no run of a sweep"), results.locked():
            pass


def test_what_a_lock_says_cannot_act_on_a_terminal(results: Results) -> None:
    results.path.mkdir(parents=True)
    results.lock_file.write_text("process \x1b[2J1\nerror: all is lost\n")
    with results.lock_file.open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ResultsError) as caught, results.locked():
            pass
    assert "in use by process \\x1b[2J1; wait" in str(caught.value)


@pytest.mark.parametrize("name", [".lock", "trials", "studies", "plots"])
def test_no_link_takes_the_place_of_what_a_run_opens(results: Results, tmp_path: Path, name: str) -> None:
    results.path.mkdir(parents=True)
    (tmp_path / "precious").write_text("kept")
    (results.path / name).symlink_to(tmp_path / "precious")
    with pytest.raises(ResultsError, match=f"{name} is a link"), results.locked():
        pass
    assert (tmp_path / "precious").read_text() == "kept"
    assert results.records() == {}
    assert results.held_since() is None


def test_a_lock_is_a_regular_file(results: Results) -> None:
    results.path.mkdir(parents=True)
    os.mkfifo(results.lock_file)
    with pytest.raises(ResultsError, match=r"\.lock is not a regular file"), results.locked():
        pass
    assert results.held_since() is None


def test_files_of_a_trial_are_not_written_through_links(results: Results, tmp_path: Path) -> None:
    folder = results.trial(TRIAL.id)
    folder.make()
    names = [
        "epochs.jsonl",
        "trial.json",
        "record.json",
        "best.safetensors",
        "predictions.safetensors",
        "checkpoint.pt",
    ]
    for name in names:
        (tmp_path / name).write_text("kept")
        (folder.path / name).symlink_to(tmp_path / name)
    with pytest.raises(DiskError):
        folder.append_epoch(ROW)
    assert folder.record() is None
    ended(folder)
    folder.save_checkpoint({"kind": "model"})
    assert [(tmp_path / name).read_text() for name in names] == ["kept"] * 6
    assert not any((folder.path / name).is_symlink() for name in names)
    (results.path / "studies").mkdir()
    file = results.study("0")
    file.path.symlink_to(tmp_path / "epochs.jsonl")
    with pytest.raises(DiskError):
        file.append(0, [{"lr": 0.1}], {})
    assert (tmp_path / "epochs.jsonl").read_text() == "kept"


def test_special_files_keep_nobody_waiting(results: Results) -> None:
    folder = results.trial(TRIAL.id)
    record = ended(folder)
    (results.path / "studies").mkdir()
    others = [results.path / "data.json", results.path / "sweep.yaml", results.path / "studies" / "0.jsonl"]
    for file in (*others, *folder.path.iterdir(), folder.checkpoint_file):
        file.unlink(missing_ok=True)
        os.mkfifo(file)
    assert results.records() == {}
    assert results.suggestions() == {"0": []}
    for read in (
        folder.epochs,
        folder.predictions,
        folder.begun,
        results.sweep_text,
        lambda: results.read("data.json"),
    ):
        with pytest.raises(ResultsError, match="FIFO"):
            read()
    assert folder.damage(record) == dict.fromkeys(record.files, Damage.CHANGED)
    assert folder.has_damaged_checkpoint()
    assert folder.load_checkpoint("model") is None


def test_a_sibling_is_adopted_by_its_own_files_alone(results: Results, tmp_path: Path) -> None:
    """A record may name any file: what it names elsewhere is neither linked here nor removed."""
    sibling = Results(results.path.parent / "other")
    folder = sibling.trial(TRIAL.id)
    ended(folder)
    (tmp_path / "precious").write_text("kept")
    plain = json.loads(folder.record_file.read_text())
    digest = hashlib.sha256(b"kept").hexdigest()
    for name in (str(tmp_path / "precious"), "../../../../precious", "record.json/../../../../../precious"):
        facts = {**plain, "files": {**plain["files"], name: digest}}
        del facts["checksum"]
        folder.record_file.write_text(json.dumps({"checksum": checksum(facts), **facts}))
        with contextlib.suppress(ResultsError):
            assert results.adopt([TRIAL.id]) == []
    assert (tmp_path / "precious").read_text() == "kept"
    assert not results.trials_path.exists()
    folder.record_file.write_text(json.dumps(plain))
    real = folder.path.parent.rename(tmp_path / "elsewhere")
    folder.path.parent.symlink_to(real)
    assert results.adopt([TRIAL.id]) == []
    folder.path.parent.unlink()
    real.rename(folder.path.parent)
    assert results.adopt([TRIAL.id]) == [TRIAL.id]


def test_another_trials_checkpoint_counts_as_damaged(results: Results, caplog: pytest.LogCaptureFixture) -> None:
    mine, other = results.trial(TRIAL.id), results.trial("0123456789abcdef")
    for folder in (mine, other):
        folder.make()
        folder.save_checkpoint({"kind": "model", "rows": []})
    mine.checkpoint_file.write_bytes(other.checkpoint_file.read_bytes())
    assert mine.load_checkpoint("model") is None
    assert "is that of trial 0123456789abcdef: the trial starts again" in caplog.text
    assert other.load_checkpoint("model") == {"kind": "model", "rows": []}


def test_checkpoints_of_older_versions_do_not_say_whose_they_are(results: Results) -> None:
    folder, content = results.trial(TRIAL.id), io.BytesIO()
    folder.make()
    torch.save({"kind": "model", "rows": []}, content)
    folder.checkpoint_file.write_bytes(sealed(content.getbuffer()))
    assert folder.load_checkpoint("model") == {"kind": "model", "rows": []}


@pytest.mark.parametrize("content", [b"", b"x" * 99, b"PK\x03\x04", b"<!DOCTYPE html>", b"\x80\x02."])
def test_a_checkpoint_that_is_none_is_damaged_though_it_is_sealed(results: Results, content: bytes) -> None:
    folder = results.trial(TRIAL.id)
    folder.make()
    folder.checkpoint_file.write_bytes(sealed(content))
    assert folder.load_checkpoint("model") is None
    assert not folder.checkpoint_file.exists()
