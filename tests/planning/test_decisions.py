"""What a stopping rule decided stays decided, whatever of the trials' own files is lost."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cnnsearch.execution.events import EpochDone, Event
from cnnsearch.planning.decisions import Note, by_rule, rule_key
from cnnsearch.prepare import prepared
from cnnsearch.results.decisions import MOST_BYTES, DecisionsFolder
from cnnsearch.results.folder import Results
from cnnsearch.session import execute
from cnnsearch.spec.load import load_sweep
from cnnsearch.spec.sweep import Sweep
from tests.recorded import numbers

SWEEP = """
name: cut
data: {image_size: 8, split: {method: fill, train_per_class: 6, val_per_class: 10}}
train: {model: residual, width: 0.05, epochs: 6, precision: fp32}
run: {dashboard: false, trials_at_once: 1, checkpoint_epochs: 1}
stages:
  - name: grid
    space: {lr: {loguniform: [0.0001, 0.3]}}
    search: {method: tpe, trials: 8}
    stop_early: {method: RULE}
"""


class Cut(BaseException):
    """The power fails."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cut")


def sweep(root: Path, rule: str) -> Sweep:
    file = root / f"{rule.partition(',')[0]}.yaml"
    file.write_text(SWEEP.replace("RULE", rule.removeprefix("heads ")), encoding="utf-8")
    return load_sweep(str(file), values=["train.fine_tune=head"] if rule.startswith("heads") else [])


def run(sweep: Sweep, out: Path, epochs: int | None = None) -> Path:
    """Run it in this process; cut off after so many epochs of all trials."""
    seen = 0

    def listen(event: Event) -> None:
        nonlocal seen
        seen += isinstance(event, EpochDone)
        if seen == epochs:
            raise Cut

    with prepared(sweep, out) as ready, contextlib.suppress(Cut):
        execute(ready, serial=True, listen=listen)
    return out / sweep.name


def lose_rows(folder: Path, kept: int) -> None:
    """Lose what was not synced: the rows of trials that have no record yet."""
    for file in folder.glob("trials/*/epochs.jsonl"):
        if not (file.parent / "record.json").exists():
            file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:kept]))


def lose_a_record(folder: Path, kept: int) -> None:
    """Damage the record of the first trial that went to its end, which then runs again."""
    done = [one for one in sorted(folder.glob("trials/*/record.json")) if '"done"' in one.read_text()]
    for file in done[:1]:
        file.write_bytes(file.read_bytes()[:-20])


def lose_epochs(folder: Path, kept: int) -> None:
    """Damage the rows of trials that have ended."""
    for file in sorted(folder.glob("trials/*/epochs.jsonl"))[::2]:
        file.write_bytes(file.read_bytes()[:-10])


RULES = [
    "asha, metric: val_loss, reduction_factor: 2",
    "hyperband, metric: val_loss, reduction_factor: 2",
    "median, metric: val_loss",
    "heads median, metric: val_loss",
]


PARAMS = [
    pytest.param(rule, id=name, marks=() if name == "asha" else pytest.mark.after)
    for rule, name in zip(RULES, ["asha", "hyperband", "median", "heads"], strict=True)
]


@pytest.fixture(scope="module", params=PARAMS)
def whole(request: pytest.FixtureRequest, root: Path) -> tuple[str, Path]:
    """The rule, and the results of a run that nothing disturbed."""
    rule: str = request.param
    folder = run(sweep(root, rule), root / rule.partition(",")[0])
    assert {record.status.value for record in Results(folder).records().values()} >= {"done", "pruned"}
    return rule, folder


@pytest.mark.parametrize("lose", [lose_rows, lose_a_record, lose_epochs])
@pytest.mark.parametrize("kept", [0, 1])
@pytest.mark.parametrize("epochs", [2, 9, 17])
@pytest.mark.after
def test_a_power_cut_changes_no_decision(
    whole: tuple[str, Path], tmp_path: Path, lose: Callable[[Path, int], None], kept: int, epochs: int
) -> None:
    rule, undisturbed = whole
    if (kept or epochs != 9 or rule.startswith("heads")) and lose is not lose_rows:
        pytest.skip("says nothing more, or a head that is alone does not meet the others where it did")
    asked = sweep(undisturbed.parents[1], rule)
    folder = run(asked, tmp_path, epochs)
    lose(folder, kept)
    run(asked, tmp_path)
    assert numbers(folder) == numbers(undisturbed)


def test_damaged_records_after_the_end_are_put_right(whole: tuple[str, Path], tmp_path: Path) -> None:
    rule, undisturbed = whole
    shutil.copytree(undisturbed, tmp_path / "cut")
    for file in sorted(tmp_path.glob("cut/trials/*/record.json"))[1::2]:
        file.write_bytes(b"{}")
    run(sweep(undisturbed.parents[1], rule), tmp_path)
    assert numbers(tmp_path / "cut") == numbers(undisturbed)


def test_it_is_written_before_anybody_acts(whole: tuple[str, Path], tmp_path: Path, monkeypatch: Any) -> None:
    """Whenever a worker is told to go on or to end, the decision can be read back."""
    rule, undisturbed = whole
    told: list[tuple[str, int]] = []
    from cnnsearch.planning.queue import Queue

    commit = Queue.commit

    def watched(queue: Queue) -> None:
        commit(queue)
        known = by_rule(DecisionsFolder(tmp_path / "cut" / "decisions").read())
        for notes in queue._notes.values():
            assert notes.reasons == (known[notes.rule].reasons if notes.rule in known else {})
            told.extend(notes.reasons)

    monkeypatch.setattr(Queue, "commit", watched)
    run(sweep(undisturbed.parents[1], rule), tmp_path)
    assert told


def test_notes_come_back_without_damaged_lines(tmp_path: Path) -> None:
    folder = DecisionsFolder(tmp_path / "decisions")
    notes = [Note("r", f"t{n}", 1, value=n / 7) for n in range(5)] + [Note("r", "t1", 1, reason="3rd of 4")]
    assert folder.read() == []
    folder.append(notes[:3])
    file = folder.append(notes[3:])
    assert folder.read() == notes
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([lines[0], lines[1][:-9], b"\n", b"[1]\n", *lines[2:-1], lines[-1][:12]]))
    assert folder.read() == [notes[0], *notes[2:5]]
    folder.append([notes[-1]])  # not into the line that was cut off
    assert folder.read() == [notes[0], *notes[2:5], notes[-1]]


def test_files_stay_small(tmp_path: Path) -> None:
    folder = DecisionsFolder(tmp_path / "decisions")
    for n in range(40):
        folder.append([Note("r", f"{n}-{m}", 1, value=0.5) for m in range(50)])
    assert len(folder.read()) == 2000
    assert max(file.stat().st_size for file in folder.path.iterdir()) < MOST_BYTES + 10_000
    assert len(list(folder.path.iterdir())) > 2


def test_a_changed_rule_decides_anew(root: Path) -> None:
    rules = [sweep(root, rule).stages[0].stop_early for rule in ("asha", "asha, reduction_factor: 2", "median")]
    assert len({rule_key(rule) for rule in rules if rule is not None}) == 3
