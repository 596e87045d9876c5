"""The process that times models: what it says of a model that cannot train as requested."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cnnsearch.execution.machine import calibrate
from cnnsearch.spec import own_code
from cnnsearch.spec.own_code import read_code
from cnnsearch.spec.settings import Settings
from cnnsearch.training.compute.device_kinds import DEVICES, Cpu
from cnnsearch.training.models.checked_code import as_plain
from tests.own_code import NETS, write_nets


def answer(monkeypatch: pytest.MonkeyPatch, *settings: Settings) -> dict[str, Any]:
    """Answer a request in this process."""
    request = {
        "precision": "fp32",
        "import_seconds": 1.0,
        "device": "cpu",
        "threads": 1,
        "classes": 3,
        "workloads": [chosen.model_dump() for chosen in settings],
        "code": as_plain(chosen.code for chosen in settings),
    }
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(request)))
    monkeypatch.setattr(sys, "stdout", out := io.StringIO())
    calibrate.main()
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


@pytest.mark.usefixtures("one_thread")
def test_a_batch_of_one_that_cannot_be_normalised_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Settings(model="resnet18", image_size=32, batch_size=1, precision="fp32")
    assert answer(monkeypatch, one) == {
        "error": "model resnet18 cannot train with image_size 32 and batch_size 1: its batch normalisation would see "
        "one value per channel; give a batch_size of at least 2"
    }


@pytest.mark.usefixtures("one_thread")
def test_a_model_that_needs_two_images_a_batch_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "LONGEST_SECONDS", 0.0)
    two = Settings(model="resnet18", image_size=32, batch_size=2, precision="fp32")
    small = Settings(model="residual", width=0.05, image_size=8, batch_size=1, precision="fp32")
    assert [timed["needs_company"] for timed in answer(monkeypatch, two, small)["workloads"]] == [True, False]


@pytest.mark.usefixtures("one_thread")
def test_what_a_network_of_ones_own_prints_is_no_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(calibrate, "LONGEST_SECONDS", 0.0)
    monkeypatch.setattr(own_code, "_TRUSTED", {})
    snapshot = read_code(write_nets(tmp_path, f"print('imported')\n{NETS}"))
    own_code.trust([snapshot])
    chosen = Settings.model_validate({"model": "SmallNet", "code": snapshot.digest, "image_size": 8, "batch_size": 4})
    assert answer(monkeypatch, chosen)["workloads"][0]["parameters"] > 0


@pytest.mark.usefixtures("one_thread")
def test_time_in_which_others_have_the_processor_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any, **options: Any) -> Iterator[None]:
        while True:
            time.sleep(0.1)
            yield

    monkeypatch.setattr(calibrate, "LONGEST_SECONDS", 0.0)
    monkeypatch.setattr(calibrate, "train", interrupted)
    chosen = Settings(model="plain", width=0.05, image_size=8, batch_size=4, precision="fp32")
    assert answer(monkeypatch, chosen)["workloads"][0]["step_seconds"] < 0.05


def test_any_other_refusal_of_a_model_has_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("output size\nis too small")

    monkeypatch.setattr(calibrate, "measure", broken)
    assert answer(monkeypatch, Settings(model="resnet18", image_size=64))["error"] == (
        "model resnet18 cannot train with image_size 64 and batch_size 32: output size is too small"
    )


@pytest.mark.usefixtures("one_thread")
def test_bf16_is_refused_where_a_device_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old(Cpu):
        def has_bf16(self) -> bool:
            return False

    monkeypatch.setitem(DEVICES, "cpu", Old())
    monkeypatch.setattr(calibrate, "LONGEST_SECONDS", 0.0)
    chosen = Settings(model="plain", width=0.05, image_size=8, batch_size=4, precision="bf16")
    assert answer(monkeypatch, chosen) == {
        "error": "model plain: precision is bf16, which cpu does not compute in here; allowed: auto, fp32"
    }
    assert answer(monkeypatch, chosen.model_copy(update={"precision": "auto"}))["workloads"]


ERRORS = [
    RuntimeError("CUDA error: unspecified"),
    RuntimeError("MPS backend failed"),
    MemoryError(),
    NotImplementedError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_what_the_machine_cannot_do_is_not_the_request(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise error

    monkeypatch.setattr(calibrate, "measure", broken)
    with pytest.raises(type(error)):
        answer(monkeypatch, Settings(model="resnet18"))
