"""The commands as people call them, judged by output, exit code and what is on disk; refusals in this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.asking import Answer, ask
from tests.conftest import SMALL
from tests.faults.running import SHORT

SETTINGS = [part for value in SMALL for part in ("--set", value)]
FEWER = [*SETTINGS, "--set", "stages.dropout.space.dropout.grid=[0.1]"]
"""Ten trials instead of sixteen, and so fewer figures in the report."""


def call(*arguments: object, module: str = "cnnsearch.sweep", **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=110, **options)


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [*SHORT, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def last_json(done: subprocess.CompletedProcess[str] | Answer) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def folder_of_images(path: Path, per_class: int = 12, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    for label, name in enumerate(classes):
        (path / name).mkdir(parents=True)
        for index in range(per_class):
            colour = (label * 120, index * 10, 40)
            Image.new("RGB", (10, 12), colour).save(path / name / f"{index:03}.png")
    return path


@pytest.mark.timeout(300)  # the real thing, with the report: minutes on a slow machine
def test_part1_from_command_to_report_and_again(tmp_path: Path) -> None:
    first = call("part1", *FEWER, "--serial", "--out", tmp_path, "--json")
    assert first.returncode == 0, first.stderr
    told = last_json(first)
    assert (told["planned"], told["counts"]["done"], told["counts"]["failed"]) == (10, 10, 0)
    part1 = tmp_path / "part1"
    assert Path(told["report"]) == part1 / "report.html"
    (first_run,) = json.loads((part1 / "provenance.json").read_text())["runs"]
    assert first_run["command"].startswith("python -m cnnsearch.sweep part1 --set data.image_size=8 ")
    for name in (
        "trials.parquet",
        "epochs.parquet",
        "predictions.parquet",
        "report.md",
        "sweep.yaml",
        "provenance.json",
    ):
        assert (part1 / name).stat().st_size > 0
    assert "10 of 10 trials done" in first.stderr
    records = {file: file.stat().st_mtime_ns for file in part1.glob("trials/*/record.json")}

    # The same command trains nothing.
    second = ask("part1", *FEWER, "--serial", "--out", tmp_path)
    assert (second.returncode, second.stderr) == (0, "")
    assert "10 trials (10 already done), nothing to run" in second.stdout
    assert {file: file.stat().st_mtime_ns for file in part1.glob("trials/*/record.json")} == records

    # One more learning rate trains its cells only.
    more = ask(
        "part1", *FEWER, "--serial", "--out", tmp_path, "--dry-run", "--json",
        "--set", "stages.grid.space.lr.grid=[0.0001, 0.001, 0.01]",
    )  # fmt: skip
    assert (last_json(more)["planned"], last_json(more)["stages"]["grid"]["to_run"]) == (14, 4)

    # The report is made again from results alone.
    (part1 / "report.html").unlink()
    again = call(part1, module="cnnsearch.report")
    assert again.returncode == 0, again.stderr
    assert again.stdout.strip() == str(part1 / "report.html")
    assert (part1 / "report.html").is_file()


def test_dry_run_starts_and_writes_nothing(tmp_path: Path) -> None:
    alone = ask("part1", *SETTINGS, "--dry-run", "--serial", "--out", tmp_path / "results")
    assert ", 1 trial at a time, " in alone.stdout
    done = ask("part1", *SETTINGS, "--dry-run", "--out", tmp_path / "results")
    assert done.returncode == 0, done.stderr
    assert "16 trials (0 already done), about" in done.stdout
    assert "10 classes, 60 train / 40 validation / 1,600 test" in done.stdout
    assert not (tmp_path / "results").exists()


def test_confirm_may_stand_without_its_number(tmp_path: Path) -> None:
    def confirmed(*arguments: object) -> Any:
        done = ask(*arguments, *SETTINGS, "--dry-run", "--json", "--out", tmp_path)
        assert done.returncode == 0, done.stderr
        stage = last_json(done)["stages"].get("confirm")
        return stage and stage["planned"]

    of_five = confirmed("part1", "--confirm")
    assert of_five == (5 + 2) * 5  # at most five contenders, and the best of each model that some of them start from
    assert confirmed("--confirm", "part1") == confirmed("part1", "--confirm", "5") == of_five
    assert confirmed("part1", "--confirm=7") == of_five // 5 * 7
    assert confirmed("part1") is confirmed("part1", "--set", "confirm=5", "--confirm", "0") is None


def test_own_images_random_search_and_failure_exit_code(tmp_path: Path) -> None:
    images = folder_of_images(tmp_path / "images")
    sweep = tmp_path / "mine.yaml"
    sweep.write_text(
        "name: mine\ndata: {image_size: 8, split: {method: stratified, train: 0.5, val: 0.25}}\n"
        "train: {epochs: 4, width: 0.05, model: plain, precision: fp32, optimizer: sgd}\n"
        "stages:\n  - name: draws\n    search: {method: random, trials: 2}\n"
        "    space: {lr: {loguniform: [0.001, 0.1]}}\n"
        "  - name: wild\n    space: {lr: 100}\n",
        encoding="utf-8",
    )
    done = ask(sweep, "--data", images, "--serial", "--out", tmp_path, "--json")
    assert done.returncode == 1, done.stderr
    told = last_json(done)
    assert (told["planned"], told["counts"]["done"], told["counts"]["diverged"]) == (3, 2, 1)
    assert "2 of 3 trials done" in done.stderr
    assert "1 diverged" in done.stderr


def wrong_requests(tmp_path: Path) -> dict[str, tuple[list[Any], str]]:
    """Name -> (arguments, what the message must say)."""
    empty = tmp_path / "empty"
    empty.mkdir()
    one = folder_of_images(tmp_path / "one", classes=("cat",))
    few = folder_of_images(tmp_path / "few", per_class=6)
    text = folder_of_images(tmp_path / "text")
    (text / "cat" / "x.png").write_text("this is not a picture, whatever its name says\n")
    broken = folder_of_images(tmp_path / "broken")
    whole = (broken / "dog" / "003.png").read_bytes()
    (broken / "dog" / "003.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "file").touch()
    split = ["--set", "data.split={method: fill, train_per_class: 6, val_per_class: 4}"]
    return {
        "unknown sweep": (["prt1"], "no sweep named 'prt1'. Did you mean part1?"),
        "mistyped key": (["part1", "--set", "train.epoch=3"], "train.epoch is not a key. Did you mean train.epochs?"),
        "out of range": (["part1", "--set", "train.lr=-1"], "train.lr given -1"),
        "unknown profile": (["part1", "--profile", "fast"], "has no profile 'fast'"),
        "seeds": (["part1", "--seeds", "a,b"], "--seeds a,b: give whole numbers"),
        "few fresh seeds": (["part1", "--confirm", "2"], "confirm.seeds given 2; allowed: 3 to 1,000"),
        "time": (["part1", "--max-time", "soon"], "--max-time soon: give a number and s, m, h or d"),
        "endless time": (["part1", "--max-time", "9" * 20 + "d"], "d: allowed is up to 3650d"),
        "endless seeds": (["part1", "--confirm", "--until-clear", "9" * 400 + "d"], "d: allowed is up to 3650d"),
        "long sweep": (["p" * 300], "ppp… is too long: most file systems take names of up to 255 bytes"),
        "long out": (["part1", *SETTINGS, "--out", tmp_path / ("o" * 300)], "is too long"),
        "long out, planned": (["part1", *SETTINGS, "--out", tmp_path / ("o" * 300), "--dry-run"], "is too long"),
        "too many convs": (
            ["part1", *SETTINGS, "--set", "train.fine_tune=last-99-convs"],
            "model plain: fine_tune last-99-convs: the model has 6 convolutions",
        ),
        "no weights": (["part2", "--set", "train.weights=/no/such.pth"], "there is no file of weights /no/such.pth"),
        "both executors": (["part1", "--serial", "--address", "auto"], "give one of them"),
        "no folder": (["part1", "--data", tmp_path / "none"], "none"),
        "no images": (["part1", "--data", empty], "empty"),
        "one class": (["part1", "--data", one, *split], "one"),
        "few images": (["part1", "--data", few, *split], 'class "cat" has 6 images; the split needs'),
        "text as png": (["part1", "--data", text, *split], "cat/x.png"),
        "truncated": (["part1", "--data", broken, *split], "dog/003.png"),
        "out is a file": (["part1", "--out", tmp_path / "file"], "cannot be written"),
        "too many threads": (["part1", "--set", "run.threads_per_trial=1000"], "run.threads_per_trial is 1000"),
    }


CASES = (
    "unknown sweep", "mistyped key", "out of range", "unknown profile", "seeds", "time", "both executors", "no folder",
    "too many convs", "no weights", "no images", "one class", "few images", "text as png", "truncated",
    "out is a file", "too many threads", "few fresh seeds", "endless time", "endless seeds", "long sweep", "long out",
    "long out, planned",
)  # fmt: skip


@pytest.mark.usefixtures("whole")
@pytest.mark.parametrize("case", CASES)
def test_wrong_requests_get_one_clear_message(tmp_path: Path, case: str) -> None:
    cases = wrong_requests(tmp_path)
    assert cases.keys() == set(CASES)
    arguments, complaint = cases[case]
    out = [] if "--out" in arguments else ["--out", tmp_path / "results"]
    # Two as real commands: one that is refused at once, and one when its images have been looked at.
    done = (call if case in ("unknown sweep", "truncated") else ask)(*arguments, *out)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("results/*/trials/*"))


@pytest.mark.parametrize("command", ["report", "watch"])
def test_names_that_no_file_system_takes_are_refused(command: str) -> None:
    done = ask("n" * 300, command=command)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: nnn")
    assert "is too long" in done.stderr


def test_bad_images_can_be_skipped(tmp_path: Path) -> None:
    images = folder_of_images(tmp_path / "images")
    (images / "cat" / "x.png").write_text("not a picture")
    split = "data.split={method: fill, train_per_class: 6, val_per_class: 4}"
    done = ask(
        "part1",
        *SETTINGS,
        "--data",
        images,
        "--set",
        split,
        "--set",
        "data.on_bad_image=skip",
        "--dry-run",
        "--out",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "x.png" in done.stdout


def test_report_on_what_is_no_results_folder(tmp_path: Path) -> None:
    done = ask(tmp_path, command="report")
    assert done.returncode == 2
    assert "has no sweep.yaml" in done.stderr
    missing = ask(tmp_path / "none", command="report")
    assert missing.returncode == 2
    assert "there is no folder" in missing.stderr


def until(condition: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_when_time_is_up_the_rest_is_left_for_later(tmp_path: Path) -> None:
    arguments = ["part1", *SETTINGS, "--set", "train.epochs=100000", "--serial", "--out", tmp_path, "--json"]
    done = ask(*arguments, "--max-time", "2s")
    assert done.returncode == 0, done.stderr
    assert "time is up: 0 of 16 trials done" in done.stderr
    told = last_json(done)
    assert (told["left_because"], told["left_for_later"], told["counts"]["done"]) == ("time", 16, 0)
    late = ask(*arguments, "--max-time", "2s", "--exit-code-when-left", "3")
    assert (late.returncode, last_json(late)["exit_code"]) == (3, 3), late.stderr


def test_a_second_start_on_one_folder_is_refused(tmp_path: Path) -> None:
    running = start("part1", *SETTINGS, "--set", "train.epochs=100000", "--serial", "--out", tmp_path)
    try:
        until(lambda: list(tmp_path.glob("part1/trials/*/epochs.jsonl")))
        second = ask("part1", *SETTINGS, "--serial", "--out", tmp_path)
        assert second.returncode == 2
        assert f"in use by process {running.pid} on" in second.stderr
    finally:
        running.kill()
        running.communicate()


def test_help_and_a_plan_do_not_wait_for_torch_or_ray() -> None:
    code = (
        "import sys; from cnnsearch import cli; from cnnsearch.spec import load; load.load_sweep('part1');"
        "early = any(name in sys.modules for name in ('torch', 'ray', 'matplotlib', 'pandas'));"
        "from cnnsearch import prepare, session;"  # what a plan takes
        "sys.exit(early or any(name in sys.modules for name in ('torch', 'ray', 'matplotlib', 'scipy', 'sklearn')))"
    )
    assert subprocess.run([sys.executable, "-c", code], env=os.environ).returncode == 0
    shown = call("--help")
    assert shown.returncode == 0
    for flag in (
        "--data",
        "--profile",
        "--set",
        "--seeds",
        "--out",
        "--address",
        "--serial",
        "--dry-run",
        "--max-time",
        "--json",
    ):
        assert flag in shown.stdout
