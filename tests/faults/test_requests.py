"""Names and files that lead out of their folder or run code, and more processors than there are."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

from tests.asking import ask
from tests.faults.running import TWO_TRIALS, assert_refused, images, sweep_file


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self._proof = proof

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self._proof}",)


@pytest.mark.row(19)
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["{file}", "--set", "name=../escaped"], "name given '../escaped'"),
        (["{file}", "--set", "name=/tmp/escaped"], "name given '/tmp/escaped'"),
        (["{file}", "--set", "name=.."], "name given '..'"),
        (["{file}", "--set", "name="], "name given None"),
        (["{file}", "--set", "stages.grid.name=../../escaped"], "name given '../../escaped'"),
        (["{file}", "--profile", "../escaped"], "no profile '../escaped'"),
        (["{file}", "--data", "torchvision:../../escaped"], "torchvision:../../escaped is not a known data set"),
        (["..", "--dry-run"], "no sweep named '..'"),
    ],
)
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, arguments: list[str], complaint: str) -> None:
    file = sweep_file(tmp_path)
    out = tmp_path / "deep" / "results"
    ended = ask(*(file if argument == "{file}" else argument for argument in arguments), "--serial", "--out", out)
    assert_refused(ended, complaint)
    assert sorted(tmp_path.iterdir()) == [file]


@pytest.mark.row(19)
def test_links_out_of_the_data_are_refused(tmp_path: Path) -> None:
    outside = images(tmp_path / "outside", ("secret",))
    inside = images(tmp_path / "inside")
    file = sweep_file(tmp_path)
    picture = inside / "cat" / "link.png"
    picture.symlink_to(outside / "secret" / "000.png")
    ended = ask(file, "--data", inside, "--serial", "--out", tmp_path / "results")
    assert_refused(ended, f"inside/cat/link.png is linked to {outside}/secret/000.png, outside the data")
    skipping = ("--set", "data.on_bad_image=skip", "--dry-run")
    skipped = ask(file, "--data", inside, *skipping, "--out", tmp_path / "results")
    assert skipped.returncode == 0
    assert "Skipped 1 unreadable image" in skipped.stdout
    (inside / "owl").symlink_to(outside / "secret")  # a whole class cannot be skipped
    ended = ask(file, "--data", inside, *skipping, "--out", tmp_path / "results")
    assert_refused(ended, "inside/owl is linked to")


@pytest.mark.row(19)
def test_odd_entries_among_the_trials_are_not_trials(tmp_path: Path) -> None:
    file = sweep_file(tmp_path)
    trials = tmp_path / "tiny" / "trials"
    trials.mkdir(parents=True)
    (trials / "a file").write_text("no folder", encoding="utf-8")
    (trials / "nothing").symlink_to(tmp_path / "nothing")
    (trials / "round").symlink_to(trials / "round")
    (trials / "new\nline").mkdir()
    os.mkdir(os.fsencode(trials) + b"/\xff")
    ended = ask(file, "--serial", "--out", tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "2 of 2 trials done" in ended.stdout


@pytest.mark.row(19)
def test_a_link_in_the_place_of_a_trial_s_folder_is_not_followed(tmp_path: Path) -> None:
    file = sweep_file(tmp_path, TWO_TRIALS.replace("[0.01, 0.1]", "[0.01]"))
    assert ask(file, "--serial", "--out", tmp_path).returncode == 0
    (trial,) = (tmp_path / "tiny" / "trials").iterdir()
    outside = trial.rename(tmp_path / "outside")
    trial.symlink_to(outside)
    (outside / "record.json").write_text("not a record", encoding="utf-8")
    before = {path.name: path.read_bytes() for path in outside.iterdir()}
    ended = ask(file, "--serial", "--out", tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "1 of 1 trials done" in ended.stdout
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == before
    assert not trial.is_symlink()


@pytest.mark.row(20)
@pytest.mark.parametrize(
    "kind",
    ["torch.save", *(pytest.param(kind, marks=pytest.mark.after) for kind in ("a bare pickle", "named .safetensors"))],
)
def test_weights_that_are_a_program_are_refused_and_not_run(tmp_path: Path, kind: str) -> None:
    proof = tmp_path / "code-ran"
    file = tmp_path / ("weights.safetensors" if kind == "named .safetensors" else "weights.pth")
    if kind == "torch.save":
        torch.save({"fc.weight": torch.zeros(2), "more": Payload(proof)}, file)
    else:
        file.write_bytes(pickle.dumps(Payload(proof)))
    ended = ask("part2", "--set", f"train.weights={file}", "--out", tmp_path / "results")
    assert_refused(ended, str(file))
    told = "(posix.system), which could run code" if kind == "torch.save" else "is a pickle that torch did not write"
    assert told in ended.stderr
    assert not proof.exists()
    assert not (tmp_path / "results").exists()


@pytest.mark.row(21)
@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("run.threads_per_trial=5000", "run.threads_per_trial is 5000, and this machine has"),
        ("run.trials_at_once=5000", "run.trials_at_once is 5000, and there is room for"),
        ("run.gpus_per_trial=8", "run.gpus_per_trial is 8, and there are 0 GPUs"),
        ("run.device=cuda", "run.device is cuda, and there is no GPU on this machine"),
    ],
)
def test_more_than_there_is_is_an_error(tmp_path: Path, setting: str, complaint: str) -> None:
    file = sweep_file(tmp_path, TWO_TRIALS)
    ended = ask(file, "--set", setting, "--out", tmp_path / "results", env={"CUDA_VISIBLE_DEVICES": ""})
    assert_refused(ended, complaint)
    assert not (tmp_path / "results").exists()
