"""Sweeps whose results go to a store that speaks S3: what is there in the end is what a folder would hold."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from cnnsearch import run
from cnnsearch.execution.events import Ended, Event
from cnnsearch.results.place import reading
from cnnsearch.spec.load import load_sweep
from cnnsearch.storage.cache import cache_root
from cnnsearch.storage.remote import Remote
from tests.asking import ask
from tests.conftest import SMALL
from tests.faults.running import SHORT, assert_refused, call, sweep_file
from tests.recorded import numbers
from tests.s3.conftest import Store

pytestmark = pytest.mark.after

SLOW = """
name: tiny
data: {image_size: 8, split: {method: fill, train_per_class: 6, val_per_class: 4}}
train: {model: residual, width: 0.05, epochs: 10, precision: fp32}
run: {dashboard: false, checkpoint_epochs: 2}
stages:
  - name: search
    space: {lr: {loguniform: [0.001, 0.1]}}
    search: {method: tpe, trials: 4, at_once: 1}
  - name: dropout
    start_from: {stage: search}
    space: {dropout: {grid: [0.1, 0.2]}}
"""
"""A search whose later suggestions know the earlier results, and trials that start from its best."""
TRIALS = 6
FEW = ("stages.grid.space.batch_size=16", "stages.grid.space.lr=0.01", "stages.dropout.space.dropout.grid=[0.1, 0.2]")


def there(uri: str) -> dict[str, Any]:
    """What is recorded under a URI, and that nothing of it is damaged."""
    with reading(uri) as mirror:
        assert not mirror.here.damaged(mirror.here.records())
        return numbers(mirror.here.path)


def files(folder: Path) -> set[str]:
    """Names of what a run leaves in a results folder, but for hidden files."""
    names = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    return {name for name in names if not Path(name).name.startswith(".")}


@pytest.mark.parametrize("serial", [True, pytest.param(False, marks=pytest.mark.after)])
def test_what_is_there_is_what_a_folder_would_hold(store: Store, tmp_path: Path, serial: bool) -> None:
    """With Ray and without: weights that nothing needs are dropped, and nothing is trained again."""
    sweep = load_sweep("part1", values=[*SMALL, *FEW])
    run(sweep, tmp_path, serial=True)
    wanted = numbers(tmp_path / "part1")
    root, ended = store.uri(f"results/{serial}"), []
    mine = Remote.of(store.uri(f"results/{serial}/part1"))

    def listen(event: Event) -> None:
        ended.extend([event] if isinstance(event, Ended) else [])

    tables = run(sweep, root, serial=serial, listen=listen)
    assert len(tables.trials) == len(ended) == len(wanted)
    assert there(mine.uri) == wanted
    assert set(mine.list()) == files(tmp_path / "part1")
    assert not mine.list_in(".lock")
    assert not [name for name in mine.list_in("trials") if name.endswith(".holder")]
    run(sweep, root, serial=True, listen=listen)
    # Another sweep in the same root has the same trials.
    other = sweep.with_values({"name": "other"})
    run(other, root, serial=True, listen=listen)
    assert len(ended) == len(wanted)
    assert there(store.uri(f"results/{serial}/other")) == wanted


def test_a_killed_search_goes_on_on_another_machine(store: Store, tmp_path: Path) -> None:
    """The command is killed again and again, and its mirror with it; nothing that had ended is trained twice."""
    sweep, uri = sweep_file(tmp_path, SLOW), store.uri("results/killed")
    mine = Remote.of(store.uri("results/killed/tiny"))
    command = [*SHORT, str(sweep), "--serial", "--out"]

    def records() -> dict[str, int]:
        return {name: facts.changed for name, facts in mine.list().items() if name.endswith("record.json")}

    kept: dict[str, int] = {}
    for wanted in (1, 5):
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen([*command, uri], stdout=output, stderr=output, start_new_session=True)
            deadline = time.monotonic() + 90
            while len(records()) < wanted and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            assert process.poll() is None
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        found = records()
        assert kept.items() <= found.items()
        kept = found
        shutil.rmtree(cache_root() / "remote")
    assert len(run(load_sweep(str(sweep)), uri, serial=True).trials) == TRIALS
    assert kept.items() <= records().items()
    run(load_sweep(str(sweep)), tmp_path, serial=True)
    assert there(mine.uri) == numbers(tmp_path / "tiny")
    with reading(mine.uri) as mirror:
        suggested = {file.name: file.read_bytes() for file in (mirror.here.path / "studies").iterdir()}
    assert suggested == {file.name: file.read_bytes() for file in (tmp_path / "tiny" / "studies").iterdir()}


def test_two_commands_on_one_uri(store: Store, tmp_path: Path) -> None:
    """The second is refused and told by whom, also where it has a mirror of its own."""
    sweep, uri = sweep_file(tmp_path, SLOW), store.uri("results/twice")
    first = subprocess.Popen(
        [*SHORT, str(sweep), "--serial", "--set", "train.epochs=500", "--out", uri],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while not Remote.of(store.uri("results/twice/tiny")).list() and time.monotonic() < deadline:
            time.sleep(0.1)
        for cache in (str(tmp_path / "elsewhere"), os.environ["CNNSEARCH_CACHE"]):
            second = ask(sweep, "--serial", "--out", uri, env={"CNNSEARCH_CACHE": cache})
            assert_refused(second, f"s3://results/twice/tiny is in use by process {first.pid} on ")
        assert ask(sweep, "--dry-run", "--out", uri).returncode == 0
    finally:
        first.kill()
        first.wait()


@pytest.mark.usefixtures("figures_left_blank")
def test_the_report_from_the_uri(store: Store, tmp_path: Path) -> None:
    sweep = load_sweep("part1", values=[*SMALL, "stages=[{name: grid, space: {lr: {grid: [0.01, 0.1]}}}]"])
    run(sweep, store.uri("results/told"), serial=True)
    mine = Remote.of(store.uri("results/told/part1"))
    mine.delete("report.html")
    told = ask(mine.uri, command="report")
    assert (told.returncode, told.stdout) == (0, "s3://results/told/part1/report.html\n"), told.stderr
    assert mine.read("report.html")
    elsewhere = ask(mine.uri, "--out", tmp_path / "here", command="report")
    assert elsewhere.stdout == f"{tmp_path}/here/report.html\n"
    assert (tmp_path / "here" / "report.html").is_file()
    nothing = ask(store.uri("results/nothing"), command="report")
    assert_refused(nothing, "s3://results/nothing is not the results of a sweep")
    both = ask(mine.uri, mine.uri, command="report")
    assert_refused(both, "--out: say in which folder the comparison goes")


WRONG = {
    "bucket": ("s3://elsewhere/a{query}", "s3://elsewhere/a/tiny cannot be reached: .*ACCESS_DENIED"),
    "key": ("s3://AKIA:hush%2Fhush@results/a{query}", r"s3://\*\*\*@results/a/tiny cannot be .*INVALID_ACCESS_KEY_ID"),
    "secret": ("s3://{key}:hush@results/a{query}", r"s3://\*\*\*@results/a/tiny cannot be .*SIGNATURE_DOES_NOT_MATCH"),
    "network": ("s3://results/a?endpoint_override=127.0.0.1:1&scheme=http&region=a", "NETWORK_CONNECTION"),
    "scheme": ("nonesuch://results/a", "Unrecognized filesystem type"),
    "no bucket": ("s3://", "--out s3:// names no bucket or folder"),
    "option": ("s3://results/a{query}&hush=hush", "Unexpected query parameter"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_uris_get_one_clear_message(store: Store, tmp_path: Path, case: str) -> None:
    uri, complaint = WRONG[case]
    uri = uri.format(query=store.uri("").removeprefix("s3://"), key=store.key)
    ended = ask(sweep_file(tmp_path), "--serial", "--out", uri)
    assert_refused(ended, "")
    assert re.search(complaint, ended.stderr), ended.stderr
    assert ended.stderr.replace("hush'", "").count("hush") == 0
    assert len(ended.stderr.splitlines()) == 1


def test_secrets_are_neither_printed_nor_recorded(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    quoted = store.secret.replace("/", "%2F").replace("+", "%2B")
    uri = store.uri("results/quiet").replace("s3://", f"s3://{store.key}:{quoted}@")
    ended = call(sweep_file(tmp_path), "--serial", "--json", "--max-trials", "1", "--out", uri)
    assert ended.returncode == 0, ended.stderr
    assert "--out 's3://***@results/quiet?endpoint_override=" in ended.stderr
    assert ended.told["results"] == "s3://***@results/quiet/tiny"
    assert ended.told["report"] == "s3://***@results/quiet/tiny/report.html"
    mine = Remote.of(uri.replace("results/quiet", "results/quiet/tiny"))
    kept = b"".join(mine.read(name) or b"" for name in mine.list()) + (ended.stdout + ended.stderr).encode()
    mirrored = [file for file in (cache_root() / "remote").rglob("*") if file.is_file()]
    kept += b"".join(file.read_bytes() for file in mirrored) + "".join(map(str, mirrored)).encode()
    assert b"***@results/quiet" in kept
    for secret in (store.key, store.secret, quoted):
        assert secret.encode() not in kept
