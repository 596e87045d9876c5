"""The copy of a results folder that a URI names: it holds what is there, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cnnsearch import run, session
from cnnsearch.errors import ResultsError, RunError
from cnnsearch.evidence.mistakes import examples_wanted
from cnnsearch.execution.events import Ended, Event
from cnnsearch.execution.spool import RemoteStore
from cnnsearch.planning.plan import make_plan
from cnnsearch.planning.trial import Status
from cnnsearch.prepare import prepared
from cnnsearch.report import Refreshed
from cnnsearch.results.folder import Results
from cnnsearch.results.mirror import Mirror
from cnnsearch.results.parcel import HOLDER, Parcel
from cnnsearch.results.place import open_results, reading
from cnnsearch.results.tables import Tables
from cnnsearch.spec.load import load_sweep
from cnnsearch.storage.cache import cache_root
from cnnsearch.storage.remote import Remote
from tests.conftest import SMALL
from tests.recorded import numbers

SOME = [*SMALL, "stages.grid.space.model=plain", "stages.grid.space.batch_size=16", "stages.grid.space.lr=0.01"]
SOME += ["stages.dropout.space.dropout.grid=[0.1, 0.2]"]
"""A trial, and two that start from it."""


@pytest.fixture
def there(tmp_path: Path) -> Path:
    return tmp_path / "there"


@pytest.fixture
def mirror(there: Path) -> Iterator[Mirror]:
    (there / "trials" / "0" / "x").mkdir(parents=True)
    (there / "sweep.yaml").write_text("name: a")
    (there / "trials" / "0" / "record.json").write_text("{}")
    (there / "trials" / "0" / "best.safetensors").write_text("large")
    old(there)
    yield Mirror.of(Remote.of(there.as_uri()))
    shutil.rmtree(cache_root() / "remote", ignore_errors=True)


def old(folder: Path) -> None:
    """Make its files older than what is written from now on; by store's clocks, a second is not told apart."""
    for file in folder.rglob("*"):
        os.utime(file, (file.stat().st_mtime - 100,) * 2)


def names(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file() and file.name[0] != "."}


def test_it_holds_what_is_there_and_nothing_else(mirror: Mirror, there: Path) -> None:
    mirror.pull()
    assert names(mirror.here.path) == {"sweep.yaml", "trials/0/record.json"}
    # What a killed run had written here and not there; what was changed here; what was changed there.
    (mirror.here.path / "trials" / "1").mkdir()
    (mirror.here.path / "trials" / "1" / "record.json").write_text("half")
    (mirror.here.path / "sweep.yaml").write_text("name: b")
    (there / "trials" / "0" / "record.json").write_text("[]")
    mirror.pull()
    assert names(mirror.here.path) == {"sweep.yaml", "trials/0/record.json"}
    assert (mirror.here.path / "sweep.yaml").read_text() == "name: a"
    assert (mirror.here.path / "trials" / "0" / "record.json").read_text() == "[]"
    assert not (mirror.here.path / "trials" / "1").exists()
    (there / "trials" / "0" / "record.json").unlink()
    mirror.pull()
    assert names(mirror.here.path) == {"sweep.yaml"}


def test_only_what_differs_is_brought(mirror: Mirror, there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = Remote.read

    def noted(self: Remote, name: str) -> bytes | None:
        read.append(name)
        return real(self, name)

    monkeypatch.setattr(Remote, "read", noted)
    (there / "new.json").write_text("{}")
    mirror.pull()
    assert sorted(read) == ["new.json", "sweep.yaml", "trials/0/record.json"]
    del read[:]
    mirror.pull()
    # What was written just before the listing may have changed since: its time would not tell.
    assert read == ["new.json"]
    (mirror.here.path.parent / ".index.json").write_text("[")
    del read[:]
    mirror.pull()
    assert len(read) == 3


def test_names_that_lead_elsewhere_are_not_followed(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Remote._list
    hostile = {"../x": 1, "/etc/x": 1, "a//x": 1, "a/../../x": 1, ".lock": 1}
    facts = next(iter(mirror.remote.list().values()))
    monkeypatch.setattr(Remote, "_list", lambda self, *a, **k: {**real(self, *a, **k), **dict.fromkeys(hostile, facts)})
    assert set(mirror.remote.list()) == {"sweep.yaml", "trials/0/record.json", "trials/0/best.safetensors"}
    for name in ("..", ".", ".hidden"):
        where = Mirror.of(mirror.remote.at(name)).here.path
        assert where.resolve() == where
        assert where.parent.parent == cache_root() / "remote"


def test_what_is_written_here_goes_there(mirror: Mirror, there: Path) -> None:
    space = "{method: tpe, trials: 2}, space: {lr: {loguniform: [0.001, 0.1]}}"
    sweep = load_sweep("part1", values=[*SMALL, f"stages=[{{name: a, search: {space}}}]"])
    (study,) = make_plan(sweep, "data", {}).stages[0].studies
    with mirror.locked():
        mirror.write("data.json", {"a": 1})
        assert json.loads((there / "data.json").read_text())["a"] == 1
        mirror.record_suggestions(study, [{"lr": 0.1}])
        assert Results(there).suggestions() == {study.id: [{"lr": 0.1}]}
        (mirror.here.path / "data.json").write_text("broken")
        assert mirror.set_damaged_aside() == ["data.json"]
        assert not (there / "data.json").exists()
        assert (there / "data.json.damaged").read_text() == "broken"
        (mirror.here.path / "plots").mkdir()
        (mirror.here.path / "plots" / "a.png").write_bytes(b"1")
        assert not (there / "plots").exists()
        mirror.publish()
        assert (there / "plots" / "a.png").read_bytes() == b"1"
        mirror._claims[0].taken_by = "somebody"
        with pytest.raises(RunError, match="was taken over by somebody"):
            mirror.write("data.json", {})
        assert not (there / "data.json").exists()


def test_a_sweep_as_in_a_folder(tmp_path: Path, there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In two parts on two machines, then again, then in a sweep beside it; and a worker's trial that failed."""

    def refresh(
        tables: Tables, pictures_of: Callable[[list[str]], dict[str, Any]], training_of: Any, beside: Any
    ) -> Refreshed:
        pictures = pictures_of(examples_wanted(tables))
        return Refreshed(replace(tables, pictures=pictures), tables.folder / "report.html", [])

    monkeypatch.setattr("cnnsearch.report.refresh", refresh)
    sweep = load_sweep("part1", values=SOME)
    run(sweep, tmp_path, serial=True)
    wanted, ended = numbers(tmp_path / "part1"), []

    def listen(event: Event) -> None:
        ended.extend([event] if isinstance(event, Ended) else [])

    for most in (2, None):
        with prepared(sweep, there.as_uri()) as ready:
            session.execute(ready, serial=True, listen=listen, max_trials=most)
        shutil.rmtree(cache_root() / "remote")
    assert numbers(there / "part1") == wanted
    assert names(there / "part1") == names(tmp_path / "part1")
    run(sweep, there.as_uri(), serial=True, listen=listen)
    run(sweep.with_values({"name": "other"}), there.as_uri(), serial=True, listen=listen)
    assert len(ended) == len(wanted)
    assert numbers(there / "other") == wanted
    with prepared(sweep, there.as_uri(), dry_run=True) as ready:
        assert ready.remaining == 0
        trial = next(iter(ready.plan.trials.values()))
        record = open_results(there.as_uri(), "part1").commit_failure(trial, "gave up")
    assert record.status is Status.FAILED
    found = Results(there / "part1")
    assert found.records()[trial.id] == record
    assert not found.trial(trial.id).damage(record)
    assert "epochs.jsonl" in record.files


def test_who_was_given_up_writes_no_more(there: Path) -> None:
    store = RemoteStore(Remote.of(there.as_uri()))
    assert store.hand_over("0", "first", ["record.json", "checkpoint.pt"]) == {}
    store.keep("first", [Parcel("0", {"checkpoint.pt": b"1"})])
    assert store.hand_over("0", "second", ["record.json", "checkpoint.pt"]) == {"checkpoint.pt": b"1"}
    with pytest.raises(RunError, match="was given to another worker"):
        store.keep("first", [Parcel("0", {"checkpoint.pt": b"2"})])
    store.keep("second", [Parcel("0", {"epochs.jsonl": b"3", "record.json": b"4"}, frozenset({"checkpoint.pt"}))])
    assert {file.name for file in (there / "trials" / "0").iterdir()} == {"epochs.jsonl", "record.json"}
    # The trial has ended: nobody holds it.
    with pytest.raises(RunError, match="was given to another worker"):
        store.keep("second", [Parcel("0", {"epochs.jsonl": b"5"})])
    store.hand_over("0", "third", [])
    assert (there / "trials" / "0" / HOLDER).read_bytes() == b"third"


def test_the_record_goes_first_and_comes_last(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = RemoteStore(Remote.of(there.as_uri()))
    store.hand_over("0", "me", [])
    done: list[str] = []

    def noting(action: str) -> Callable[..., None]:
        real = getattr(Remote, action)

        def noted(self: Remote, name: str, *content: bytes) -> None:
            done.append(f"{action} {name.rpartition('/')[2]}")
            real(self, name, *content)

        return noted

    for action in ("write", "delete"):
        monkeypatch.setattr(Remote, action, noting(action))
    store.keep("me", [Parcel("0", {"record.json": b"", "a": b"", "z": b""}, frozenset({"b"}))])
    wanted = ["delete record.json", "write a", "write z", "write record.json", "delete .holder", "delete b"]
    assert done == wanted


def test_where_no_sweep_is(there: Path) -> None:
    with pytest.raises(ResultsError, match=f"{there.as_uri()} is not the results of a sweep"), reading(there.as_uri()):
        pass
