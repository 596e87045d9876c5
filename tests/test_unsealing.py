"""A sealed test set: nobody looks at it, and opened it gives what it would have given all along."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnsearch import run, unsealing
from cnnsearch.errors import RequestError
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.results.folder import Results
from cnnsearch.results.tables import load
from cnnsearch.spec.sweep import Sweep
from cnnsearch.unsealing import unseal
from tests.recorded import VARYING

STAGES = (
    "stages=[{name: grid, space: {lr: {grid: [0.001, 0.01]}, model: plain}}, "
    "{name: more, start_from: {stage: grid, best: val_accuracy}, space: {dropout: {grid: [0.1, 0.5]}}}, "
    "{name: heads, start_from: {stage: grid, best: val_accuracy}, "
    "space: {fine_tune: head, lr: {grid: [0.001, 0.01]}}}, "
    "{name: convs, start_from: {stage: heads, best: val_accuracy}, space: {fine_tune: last-2-convs}}]"
)
SEALED = "evidence.test=sealed"

Make = Callable[..., Sweep]


def recorded(folder: Path) -> dict[str, Any]:
    return {id_: record.model_dump(exclude={*VARYING, "files"}) for id_, record in Results(folder).records().items()}


def answers(folder: Path) -> list[tuple[Any, ...]]:
    return sorted(map(tuple, load(folder).predictions.astype(str).to_numpy()))


@pytest.fixture
def sealed(tmp_path: Path, small_sweep: Make) -> Path:
    """Results of a sweep whose test set is sealed, in a root of their own."""
    run(small_sweep(STAGES, SEALED), tmp_path / "shut", serial=True)
    return tmp_path / "shut" / "part1"


def test_opened_it_gives_what_an_open_one_gives(sealed: Path, tmp_path: Path, small_sweep: Make) -> None:
    """Every number and answer, of stages from scratch, going on, with frozen layers and with a single layer."""
    tables = load(sealed)
    assert tables.is_sealed
    assert tables.trials.filter(like="test_").isna().all(axis=None)
    assert set(tables.predictions["split"]) == {"val"}
    assert (tables.trials["val_accuracy"] >= 0).all()

    run(small_sweep(STAGES), tmp_path / "open", serial=True)
    assert recorded(sealed) != recorded(tmp_path / "open" / "part1")
    assert unseal(sealed).tested == 7
    assert recorded(sealed) == recorded(tmp_path / "open" / "part1")
    for record in Results(sealed).records().values():
        trial, other = (Results(path).trial(record.trial_id) for path in (sealed, tmp_path / "open" / "part1"))
        assert trial.damage(record) == {}
        chances = trial.probabilities()
        assert set(chances) == {"val", "test"}
        kept = other.probabilities()
        assert all(np.array_equal(chances[split], found) for split, found in kept.items())
    assert answers(sealed) == answers(tmp_path / "open" / "part1")
    assert not load(sealed).is_sealed


@pytest.mark.usefixtures("reports_in_words")
def test_its_report_tells_no_number_of_the_test_images(tmp_path: Path, small_sweep: Make) -> None:
    run(small_sweep(STAGES, SEALED), tmp_path, serial=True)
    told = (tmp_path / "part1" / "report.md").read_text(encoding="utf-8")
    assert "The test set is sealed" in told
    assert not re.search(r"(?i)test (accuracy|loss)|test images right|on the test images", told)


def test_an_open_command_is_refused_and_a_sealed_one_goes_on(sealed: Path, small_sweep: Make) -> None:
    before = recorded(sealed)
    with pytest.raises(RequestError, match=r"is sealed.*not been tested[\s\S]*cnnsearch unseal"):
        run(small_sweep(STAGES), sealed.parent, serial=True)
    run(small_sweep(STAGES, SEALED), sealed.parent, serial=True)
    assert recorded(sealed) == before


def test_interrupted_it_goes_on(sealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, test = sealed.with_name("whole"), unsealing._test
    tested: list[str] = []
    shutil.copytree(sealed, whole)

    def stop_after_two(*args: Any) -> None:
        if len(tested) == 2:
            raise KeyboardInterrupt
        tested.append(args[0].id)
        test(*args)

    monkeypatch.setattr(unsealing, "_test", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        unseal(sealed)
    monkeypatch.setattr(unsealing, "_test", test)
    assert Results(sealed).damaged(Results(sealed).records()) == {}
    assert unseal(sealed).tested == 5
    unseal(whole)
    assert recorded(sealed) == recorded(whole)


def test_nothing_is_looked_at_where_weights_are_damaged(sealed: Path) -> None:
    broken = next(sealed.glob("trials/*/best.safetensors"))
    broken.write_bytes(broken.read_bytes()[:-1] + b"x")
    with pytest.raises(RequestError, match=r"best.safetensors is changed"):
        unseal(sealed)
    assert load(sealed).is_sealed
    assert all(record.lacks_test for record in Results(sealed).records().values())


def test_it_is_opened_once(sealed: Path) -> None:
    unseal(sealed)
    with pytest.raises(RequestError, match="not sealed"):
        unseal(sealed)


def test_other_images_are_refused(sealed: Path) -> None:
    data = Results(sealed).read("data.json")
    Results(sealed).write("data.json", {**data, "fingerprint": "other"})
    with pytest.raises(RequestError, match="not the images"):
        unseal(sealed)


def test_settings_added_since_are_counted(sealed: Path, small_sweep: Make) -> None:
    assert Evidence(load(sealed)).added == []
    more = STAGES.replace("[0.001, 0.01]}, model", "[0.001, 0.01, 1e-9]}, model")
    run(small_sweep(more, SEALED), sealed.parent, serial=True)
    assert Evidence(load(sealed)).added == []  # nobody had seen a test score
    unseal(sealed)
    run(small_sweep(more.replace("1e-9", "1e-9, 2e-9"), SEALED), sealed.parent, serial=True)
    evidence = Evidence(load(sealed))
    assert [c.values["lr"] for c in evidence.added] == [2e-9]
    assert evidence.score(evidence.added[0], "test") is not None  # it was tested when it ended


def test_trials_of_a_sealed_sweep_are_no_loan_for_an_open_one(sealed: Path, small_sweep: Make) -> None:
    """They have no test score; the other way round there is one, which the sealed sweep does not show."""
    twin = small_sweep(STAGES, "name=twin")
    tables = run(twin, sealed.parent, serial=True)
    assert tables.trials["test_accuracy"].notna().all()
    shut = run(small_sweep(STAGES, SEALED, "name=third"), sealed.parent, serial=True)
    assert len(shut.trials) == 7
    assert shut.trials["test_accuracy"].isna().all()
