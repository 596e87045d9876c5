"""Two commands on one URI: at most one holds it, whatever became of the other."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest

from cnnsearch.errors import ResultsError, RunError
from cnnsearch.storage import remote_lock
from cnnsearch.storage.durable import this_process
from cnnsearch.storage.remote import Remote
from cnnsearch.storage.remote_lock import Claim, held


@pytest.fixture
def place(tmp_path: Path) -> Remote:
    return Remote.of(tmp_path.as_uri())


def claim(place: Remote, process: str, age_seconds: float = 0.0) -> Path:
    """A claim that somebody else wrote some time ago."""
    place.write(".lock/other.json", json.dumps({"who": "process 7 on far", "process": process}).encode())
    file = Path(place.uri.removeprefix("file://")) / ".lock" / "other.json"
    os.utime(file, (time.time() - age_seconds,) * 2)
    return file


def test_the_second_is_refused_and_told_by_whom(place: Remote) -> None:
    with (
        held(place),
        pytest.raises(ResultsError, match=f"{place} is in use by process {os.getpid()} on .*free in (29.|300) s"),
        held(place),
    ):
        pass
    assert not place.list_in(".lock")
    with held(place):
        pass


def test_of_many_at_once_one_at_most_holds_it(place: Remote) -> None:
    inside, seen, refused = [0], [], []
    start = threading.Barrier(6)

    def run() -> None:
        start.wait()
        try:
            with held(place):
                inside[0] += 1
                seen.append(inside[0])
                time.sleep(0.3)
                inside[0] -= 1
        except ResultsError as error:
            refused.append(error)

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(seen) <= {1}
    assert len(seen) + len(refused) == 6
    assert not place.list_in(".lock")


def test_what_a_dead_process_of_this_machine_left_is_taken_over(
    place: Remote, caplog: pytest.LogCaptureFixture
) -> None:
    machine, boot, _ = this_process().split("-")
    file = claim(place, f"{machine}-{boot}-4194305")  # no process has that number
    with held(place):
        assert not file.exists()
    assert "was held by process 7 on far" in caplog.text


def test_what_another_machine_left_is_taken_over_when_it_is_old(
    place: Remote, caplog: pytest.LogCaptureFixture
) -> None:
    claim(place, "elsewhere-1-2", age_seconds=200)
    with pytest.raises(ResultsError, match=r"process 7 on far .*free in (9.|100) s"), held(place):
        pass
    claim(place, "elsewhere-1-2", age_seconds=301)
    with held(place):
        assert "taken over" in caplog.text


def test_who_was_taken_over_is_interrupted(place: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_lock, "BEAT_SECONDS", 0.05)
    began = time.monotonic()
    with held(place) as mine:
        claim(place, "elsewhere-1-2")
        place.delete(mine.name)
        with pytest.raises(KeyboardInterrupt):
            time.sleep(20)
    assert time.monotonic() - began < 15
    with pytest.raises(RunError, match="was taken over by process 7 on far"):
        mine.check()
    assert set(place.list_in(".lock")) == {"other.json"}


def test_who_only_asks_disturbs_nobody(place: Remote) -> None:
    mine = Claim(place)
    mine.write()
    for _ in range(3):
        other = Claim(place)
        other.write()
        mine.beat()
        place.delete(other.name)
    assert mine.taken_by is None
    # Two that hold it both, which takes a holder that stood still: each of them ends.
    claim(place, "elsewhere-1-2")
    mine.beat()
    mine.beat()
    assert mine.taken_by == "process 7 on far"
