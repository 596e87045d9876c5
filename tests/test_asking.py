"""What people type who know other tools."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cnnsearch.asking import seeds_of
from tests.asking import ask


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["--epochs", "3"], "--set train.epochs=3"),
        (["--lr=0.1"], "--set train.lr=0.1"),
        (["--learning_rate", "0.1"], "--set train.lr=0.1"),
        (["--resume"], "the same command goes on"),
        (["--seed", "3"], "--set train.seed=3"),
        (["--seeds", "3"], "--seeds 0,1,2"),
        (["--workers", "4"], "--set run.trials_at_once=4"),
        (["--gpus", "2"], "run.gpus_per_trial"),
        (["--n-trials", "50"], "search.trials=50"),
    ],
)
def test_options_of_other_tools_lead_to_the_key(typed: list[str], told: str) -> None:
    answer = ask("part1", *typed, "--dry-run")
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert answer.stderr.startswith("error: ")
    assert told in answer.stderr


@pytest.mark.parametrize(("key", "told"), [("train.learning_rate=1", "train.lr"), ("lr=1", "train.lr")])
def test_keys_of_other_tools_lead_to_ours(key: str, told: str) -> None:
    answer = ask("part1", "--set", key, "--dry-run")
    assert answer.returncode == 2
    assert f"Did you mean {told}?" in answer.stderr


@pytest.mark.parametrize("command", ["check", "predict", "init"])
def test_a_folder_that_is_taken_for_options_is_named(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = ["results"] if command == "predict" else []
    assert "./" not in ask(*first, "-photos", command=command).stderr
    (tmp_path / "-photos").mkdir()
    answer = ask(*first, "-photos", command=command)
    assert answer.returncode == 2
    assert "No such option: -p; to name what is here, write ./-photos" in answer.stderr


@pytest.mark.parametrize("named", ["fashion-mini", "torchvision:CIFAR10"])
def test_init_says_what_images_with_a_name_are_for(named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    answer = ask(named, command="init")
    assert answer.returncode == 2
    assert f"{named}: there is no such folder or file; give a folder with a sub-folder of images" in answer.stderr
    assert "cnnsearch sweep part1 --data fashion-mini" in answer.stderr


def test_until_clear_says_that_confirm_0_is_in_its_way() -> None:
    told = "--until-clear adds seeds to settings that are confirmed: "
    assert f"{told}give --confirm too" in ask("part1", "--until-clear", "1h").stderr
    assert f"{told}--confirm 0 turns that off" in ask("part1", "--confirm", "0", "--until-clear", "1h").stderr


@pytest.mark.parametrize(("text", "seeds"), [("3,", [3]), ("0", [0]), ("0,1,2", [0, 1, 2]), (None, [])])
def test_what_is_clear_is_taken(text: str | None, seeds: list[int]) -> None:
    assert seeds_of(text) == seeds


def test_without_a_sweep_it_says_which_there_are() -> None:
    answer = ask()
    assert answer.returncode == 2
    for name in ("part1", "part2", "tune"):
        assert f"  {name} " in answer.stderr


def test_the_package_is_a_command_too() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cnnsearch", "--version"], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("cnnsearch 0.")
