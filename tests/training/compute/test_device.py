from __future__ import annotations

import resource
import subprocess
import sys

import psutil
import pytest
import torch

from cnnsearch.training.compute.device import derived_seed, flushing_denormals, probe_precision, reset_process

MIB = 2**20


def faults() -> int:
    """Pages this process has been given so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of glibc's allocator")
def test_memory_that_tensors_give_back_is_kept_until_the_next_trial() -> None:
    """In a process of its own: what other tests have allocated would blur it."""
    code = "from tests.training.compute.test_device import check_memory; check_memory()"
    subprocess.run([sys.executable, "-c", code], check=True)


def check_memory() -> None:
    """The test's own process."""
    reset_process(1)
    for _ in range(40):  # holes of the right size come about in the first few
        before = faults()
        for _ in range(20):
            torch.ones(64 * MIB, dtype=torch.uint8)
        if faults() - before < 500:  # 20 × 16,384 where each is new
            break
    else:
        raise AssertionError("memory is taken anew again and again")
    process = psutil.Process()
    kept = process.memory_info().rss
    reset_process(1)
    assert process.memory_info().rss < kept - 50 * MIB


def test_denormals_are_zero_within_a_block_and_only_there() -> None:
    tiny = torch.full((64,), 1e-39)

    def survive() -> bool:
        return bool((tiny * 0.5).count_nonzero())

    assert survive()
    with flushing_denormals():
        assert not survive()
        with flushing_denormals():
            assert not survive()
        assert not survive()
    assert survive()


def test_denormals_are_zero_on_all_threads_of_an_operation() -> None:
    """In a process of its own: threads are started once."""
    code = "from tests.training.compute.test_device import check_threads; check_threads()"
    subprocess.run([sys.executable, "-c", code], check=True)


def check_threads() -> None:
    """The test's own process."""
    reset_process(2)
    tiny = torch.full((2**20,), 1e-39)
    assert (tiny * 0.5).count_nonzero()
    with flushing_denormals():
        assert not (tiny * 0.5).count_nonzero()


def test_seeds_are_pure_functions_of_their_purpose() -> None:
    assert derived_seed("order", 1, 2) == derived_seed("order", 1, 2)
    assert len({derived_seed(p, a, b) for p in ("order", "dropout") for a in range(10) for b in range(10)}) == 200
    assert 0 <= derived_seed("order", 0) < 2**63


def test_the_probe_answers_and_leaves_the_threads_alone() -> None:
    torch.set_num_threads(2)
    assert probe_precision("cpu") in ("fp32", "bf16")
    assert torch.get_num_threads() == 2
