from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cnnsearch import inputs
from cnnsearch.execution.machine.hardware import Hardware
from cnnsearch.use import conditions

MAC = Hardware("Apple M4", 10, 2**34, ("Apple M4",), 2**33, "mps")


@pytest.mark.parametrize(
    ("machine", "recorded", "again"),
    [
        (MAC, "mps", "mps"),
        (MAC, "cuda", "cpu"),
        (MAC, "cpu", "cpu"),
        (MAC, None, "cpu"),
        (Hardware("cpu", 8, 2**34, ("H100",), 2**36), "cuda", "cuda"),
        (Hardware("cpu", 8, 2**34, ()), "cuda", "cpu"),
        (Hardware("cpu", 8, 2**34, ()), "cpu", "cpu"),
    ],
)
def test_a_trial_is_computed_again_where_it_was_if_this_machine_can(
    machine: Hardware, recorded: str | None, again: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "detect", lambda: machine)
    record: Any = SimpleNamespace(device=recorded)
    assert inputs.device_again(record) == again


@pytest.mark.parametrize(("then", "now", "named"), [("mps", "mps", True), ("xpu", "cpu", True), ("cpu", "cpu", False)])
def test_gpus_are_among_the_conditions_where_one_was_used(
    then: str, now: str, named: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conditions, "detect", lambda: MAC)
    same: dict[str, Any] = {"schema_version": 1, "trial_id": "a", "threads": 1, "precision": "fp32", "started_at": None}
    settings = SimpleNamespace(model="plain")
    records: list[Any] = [SimpleNamespace(device=device, settings=settings, **same) for device in (then, now)]
    found = conditions._both(records[0], records[1], [])
    assert ("GPUs" in [name for name, *_ in found]) is named
