"""Intel's GPUs of a worker where Ray cannot tell them from NVIDIA's."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
import ray

from cnnsearch.execution.on_ray.worker import INTEL_GPUS, show_own_gpus


@pytest.mark.parametrize(
    ("variable", "seen", "given", "shown"),
    [
        ("CUDA_VISIBLE_DEVICES", None, [1], "1"),
        ("CUDA_VISIBLE_DEVICES", None, [2, 0], "2,0"),
        ("CUDA_VISIBLE_DEVICES", "4,6", [1], "6"),
        ("ZE_AFFINITY_MASK", "1", ["1"], "1"),
    ],
)
def test_a_worker_sees_those_it_was_given(
    variable: str, seen: str | None, given: list[int], shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = SimpleNamespace(get_visible_accelerator_ids_env_var=lambda: variable)
    monkeypatch.setattr(ray._private.accelerators, "get_accelerator_manager_for_resource", lambda name: manager)
    monkeypatch.setattr(ray, "get_gpu_ids", lambda: given)
    monkeypatch.setenv(INTEL_GPUS, seen or "")
    if seen is None:
        monkeypatch.delenv(INTEL_GPUS)
    show_own_gpus()
    assert os.environ[INTEL_GPUS] == shown
