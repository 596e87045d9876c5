"""`cnnsearch status`: how far sweeps are, while they run and after, told by one who only reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cnnsearch import progress
from cnnsearch.errors import RequestError
from cnnsearch.progress import Noting
from cnnsearch.results.folder import PROGRESS, Results
from cnnsearch.results.looking import Look
from cnnsearch.status import looks_at, status_of, status_text
from tests.asking import ask
from tests.report.watch.test_watch import state_of
from tests.test_telling import DIVERGES, TWO, valid


def test_while_a_run_is_active(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says of the run what the run says itself, and the run is not disturbed."""
    seen: list[tuple[Any, list[Look], float]] = []
    note = Noting.__call__

    def note_and_look(noting: Noting) -> None:
        note(noting)
        seen.append((dict(noting._state.running), looks_at(tmp_path), noting._state.seconds_left))

    monkeypatch.setattr(progress, "NOTE_SECONDS", 0.0)
    monkeypatch.setattr(Noting, "__call__", note_and_look)
    assert ask("part1", *TWO, "--serial", "--out", tmp_path).returncode == 0
    trained = [(running, looks[0], left) for running, looks, left in seen if any(row for _, row in running.values())]
    assert len(trained) >= 2
    for running, look, left in trained:
        ((trial, row),) = running.values()
        assert (look.name, look.is_held, look.planned) == ("part1", True, 2)
        assert look.holder.startswith("process ")
        assert look.seconds_left == pytest.approx(left, abs=0.06)
        (one,) = look.running
        assert (one.trial_id, one.epoch) == (trial.id, row.epoch)
    _, look, left = trained[-1]
    text = status_text([look])
    assert text.startswith(f"part1 · running by {look.holder}\n")
    assert "  trials   1 of 2 ended: 1 done, 1 running; about " in text
    assert "  running  lr 0.01: epoch 2/2, val " in text
    assert "  best     lr 0.001: val " in text
    (told,) = status_of([look]).sweeps
    assert (told.state, told.counts.done, told.counts.left) == ("running", 1, 1)
    assert (told.running[0].epoch, told.running[0].epochs) == (2, 2)
    assert told.seconds_left == look.seconds_left
    assert not (tmp_path / "part1" / PROGRESS).exists()


def test_after_a_run(tmp_path: Path) -> None:
    assert ask("part1", *TWO, "--serial", "--out", tmp_path, "--max-trials", "1").returncode == 0
    assert ask("part1", *DIVERGES, "--set", "name=other", "--serial", "--out", tmp_path).returncode == 1
    (tmp_path / "comparison").mkdir()
    before = state_of(tmp_path)
    answer = ask(tmp_path, "--json", command="status")
    assert state_of(tmp_path) == before
    found = valid(answer)
    assert (found["kind"], found["exit_code"]) == ("status", 0)
    other, part1 = found["sweeps"]
    assert (other["sweep"], other["state"], other["counts"]["diverged"]) == ("other", "finished", 1)
    assert (part1["sweep"], part1["state"], part1["by"], part1["seconds_left"]) == ("part1", "stopped", None, None)
    assert part1["counts"] == {"done": 1, "failed": 0, "diverged": 0, "pruned": 0, "left": 1}
    assert part1["best"]["validation_accuracy"] >= 0
    assert part1["running"] == []
    text = ask(tmp_path / "part1", command="status").stdout
    assert text.startswith("part1 · stopped\n  trials   1 of 2 ended: 1 done, 1 left\n  best     lr 0.001: val ")
    assert "other · finished\n  trials   2 of 2 ended: 1 done, 1 diverged\n" in answer.stderr


def test_a_run_that_was_killed_has_no_time_left(tmp_path: Path) -> None:
    results = Results(tmp_path / "part1")
    with results.locked():
        results.note_progress(60)
        assert results.seconds_left() == 60
        assert results.holder().startswith("process ")
    assert (results.path / PROGRESS).exists()
    assert results.seconds_left() is None
    assert results.holder() == ""
    with results.locked():
        assert looks_at(results.path)[0].seconds_left is None or results.held_since() is not None
        (results.path / PROGRESS).write_text('{"seconds_left": 5}', encoding="utf-8")  # nobody's: it has no checksum
        assert results.seconds_left() is None


def test_a_note_from_before_the_run_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = Results(tmp_path / "part1")
    with results.locked():
        results.note_progress(60)
        later = (results.path / PROGRESS).stat().st_mtime + 1
        monkeypatch.setattr(Results, "held_since", lambda self: later)
        assert results.seconds_left() is None


def test_notes_are_rare_and_never_end_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, told = [0.0], list[float | None]()
    monkeypatch.setattr(Results, "note_progress", lambda self, left: told.append(left))

    class Fake:
        class ready:  # noqa: N801
            is_remote = False

            class results:  # noqa: N801
                here = Results(tmp_path)

        seconds_left = 7.0

    with Noting(Fake, clock=lambda: now[0]) as note:  # type: ignore[arg-type]
        for second in (0.0, 1.0, 1.9, 2.0, 3.0):
            now[0] = second
            note()
    assert told == [7.0, 7.0, None]
    monkeypatch.undo()
    Results(tmp_path / "none").note_progress(3)  # there is no such folder, which is no matter
    Results(tmp_path / "none").note_progress(None)


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    for path, message in ((tmp_path / "none", "there is no folder"), (tmp_path / "file", "is no folder")):
        (tmp_path / "file").touch()
        answer = ask(path, command="status")
        assert (answer.returncode, answer.stdout) == (2, "")
        assert message in answer.stderr
        with pytest.raises(RequestError):
            looks_at(path)
    assert valid(ask(tmp_path / "none", "--json", command="status"))["kind"] == "error"
    assert ask("s3://bucket/results", command="status").returncode == 2
    assert ask(tmp_path, command="status").stdout == f"no sweep in {tmp_path}\n"


def test_what_is_damaged_is_named(tmp_path: Path) -> None:
    assert ask("part1", *TWO, "--serial", "--out", tmp_path).returncode == 0
    record = next(tmp_path.glob("part1/trials/*/record.json"))
    record.write_text("nothing", encoding="utf-8")
    text = ask(tmp_path, command="status").stdout
    assert "1 of 2 ended: 1 done, 1 left" in text
    assert f"  note     The record of trial {record.parent.name} is damaged" in text
