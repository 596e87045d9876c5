from __future__ import annotations

from datetime import UTC, datetime

from cnnsearch.execution.worker_log import EPOCH_SECONDS, WorkerLog
from cnnsearch.planning.trial import EpochRow, Status, Trial
from cnnsearch.results.record import Record
from cnnsearch.spec.settings import Settings

TRIAL = Trial("grid", Settings(model="plain", epochs=50), "data")
LABEL = f"2030-01-02 03:04:05Z grid: plain, lr 0.001 [{TRIAL.id}]"


class Log:
    """A worker's log whose clock stands until it is moved."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.seconds = 0.0
        noon = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
        self.log = WorkerLog(["model", "lr"], self.lines.append, lambda: self.seconds, lambda: noon)


def epoch(number: int) -> EpochRow:
    return EpochRow(number, 0.5, 0.8, 0.75, 0.715, 0.001, 1.0)


def test_a_trial_is_followed_from_its_start_to_its_end() -> None:
    a = Log()
    a.log.begins([TRIAL])
    for number in range(1, 31):  # one a second
        a.seconds += EPOCH_SECONDS / 10
        a.log.hears(TRIAL, epoch(number))
    ended = Record(
        trial_id=TRIAL.id,
        stage="grid",
        status=Status.FAILED,
        settings=TRIAL.settings,
        data="data",
        error="ValueError: x",
        seconds=30,
    )
    a.log.hears(TRIAL, ended)
    assert a.lines == [
        f"{LABEL}: started, 50 epochs",
        *(f"{LABEL}: epoch {n}/50, train loss 0.5, val loss 0.75, val 71.5 %" for n in (10, 20, 30)),
        f"{LABEL}: failed, 30 s: ValueError: x",
    ]


def test_an_epoch_before_training_and_a_worker_that_breaks() -> None:
    a = Log()
    a.log.begins([TRIAL])
    a.seconds = EPOCH_SECONDS
    a.log.hears(TRIAL, EpochRow(0, None, None, 2.5, 0.1, 0.001, 0.0))
    a.log.breaks("out of memory")
    assert a.lines[1:] == [
        f"{LABEL}: epoch 0/50, val loss 2.5, val 10.0 %",
        "2030-01-02 03:04:05Z worker ends: out of memory",
    ]
