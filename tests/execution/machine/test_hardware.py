from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from cnnsearch.errors import RequestError
from cnnsearch.execution.machine.hardware import (
    CUDA_CONTEXT_BYTES,
    GPU_PARTS,
    Hardware,
    Layout,
    _cpu_name,
    detect,
    gpu_slots,
    lay_out,
)
from cnnsearch.spec.sweep import RunSpec

LAPTOP = Hardware("cpu", 8, 16 * 2**30, ())
BOX = Hardware("cpu", 16, 64 * 2**30, ("H100", "H100"), 80 * 10**9)
MAC = Hardware("Apple M4", 10, 16 * 2**30, ("Apple M4",), 12 * 10**9, "mps")
INTEL = Hardware("cpu", 16, 64 * 2**30, ("Arc", "Arc"), 12 * 10**9, "xpu")


def run(**values: object) -> RunSpec:
    return RunSpec.model_validate(values)


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ("fpu sse2 avx2 avx512f amx_tile amx_bf16", "A Processor (AMX)"),
        ("fpu sse2 avx2 avx512f", "A Processor (AVX-512)"),
        ("fpu sse2 avx2", "A Processor (AVX2)"),
        ("fpu sse2", "A Processor"),
    ],
)
def test_processors_of_one_name_are_told_apart(tmp_path: Path, flags: str, name: str) -> None:
    """Timings of one do not hold on the other."""
    core = f"processor\t: 0\nmodel name\t: A   Processor\nflags\t\t: {flags}\n\n"
    (tmp_path / "cpuinfo").write_text(core + core)
    assert _cpu_name(tmp_path / "cpuinfo") == name
    assert _cpu_name(tmp_path / "none")  # not Linux


@pytest.mark.parametrize(
    ("hardware", "request_", "layout"),
    [
        (LAPTOP, run(), Layout("cpu", 8, 1, 0)),
        (LAPTOP, run(threads_per_trial=4), Layout("cpu", 2, 4, 0)),
        (LAPTOP, run(trials_at_once=3), Layout("cpu", 3, 1, 0)),
        (BOX, run(), Layout("cuda", 2, 1, 1)),
        (BOX, run(gpus_per_trial=0.25), Layout("cuda", 8, 1, 0.25)),
        (BOX, run(gpus_per_trial=0.1, threads_per_trial=2), Layout("cuda", 8, 2, 0.1)),
        (BOX, run(gpus_per_trial=2), Layout("cuda", 1, 1, 2)),
        (BOX, run(gpus_per_trial=0.4), Layout("cuda", 4, 1, 0.4)),
        (BOX, run(trials_at_once=4), Layout("cuda", 4, 1, 0.5)),
        (BOX, run(device="cpu"), Layout("cpu", 16, 1, 0)),
        (MAC, run(), Layout("mps", 1, 1, 1)),
        (MAC, run(device="mps", gpus_per_trial=1), Layout("mps", 1, 1, 1)),
        (MAC, run(device="cpu", trials_at_once=4), Layout("cpu", 4, 1, 0)),
        (INTEL, run(), Layout("xpu", 2, 1, 1)),
        (INTEL, run(device="xpu", gpus_per_trial=0.5), Layout("xpu", 4, 1, 0.5)),
        (INTEL, run(trials_at_once=4), Layout("xpu", 4, 1, 0.5)),
    ],
)
def test_layout(hardware: Hardware, request_: RunSpec, layout: Layout) -> None:
    assert lay_out(request_, hardware) == layout


@pytest.mark.parametrize(
    ("hardware", "request_", "complaint"),
    [
        (LAPTOP, run(device="cuda"), "there is no GPU"),
        (LAPTOP, run(threads_per_trial=9), "this machine has 8 cores"),
        (LAPTOP, run(trials_at_once=9), "there is room for 8"),
        (BOX, run(gpus_per_trial=3), "there are 2 GPUs"),
        (BOX, run(trials_at_once=17), "there is room for 16"),
        (
            BOX,
            run(device="mps"),
            "is mps, and the GPUs of this machine are cuda; allowed here: auto, cpu, cuda",
        ),
        (LAPTOP, run(device="xpu"), "run.device is xpu, and there is no GPU on this machine; allowed here: auto, cpu$"),
        (MAC, run(trials_at_once=2), "there is room for 1"),
        (MAC, run(gpus_per_trial=0.5), "gpus_per_trial is 0.5, and on mps one trial runs at a time; allowed: 1, auto"),
    ],
)
def test_more_than_there_is_is_refused(hardware: Hardware, request_: RunSpec, complaint: str) -> None:
    with pytest.raises(RequestError, match=complaint):
        lay_out(request_, hardware)


def test_no_more_trials_than_memory_allows() -> None:
    each = 3 * 2**30
    layout = lay_out(run(), LAPTOP, host_bytes=each)
    assert layout == Layout("cpu", 4, 1, 0, host_bytes=each)
    assert "4 trials at a time, 1 thread each (3.2 GB each measured: memory allows no more)" in layout.describe(LAPTOP)
    assert lay_out(run(), LAPTOP, host_bytes=2**30) == Layout("cpu", 8, 1, 0)
    assert lay_out(run(), LAPTOP, host_bytes=2**40).trials_at_once == 1
    assert lay_out(run(trials_at_once=7), LAPTOP, host_bytes=each).trials_at_once == 7  # who asks gets it


def box(gpus: int = 1, cores: int = 64, memory: int = 80 * 10**9) -> Hardware:
    return Hardware("cpu", cores, 64 * 2**30, ("H100",) * gpus, memory)


def bytes_for(trials: int) -> int:
    """What a trial may take at most so that this many fit a GPU of 80 GB."""
    return int(0.9 * 80e9 / trials) - CUDA_CONTEXT_BYTES


@pytest.mark.parametrize(
    ("hardware", "request_", "gpu_bytes", "at_once", "share"),
    [
        (box(), run(), bytes_for(3), 3, 0.3333),
        (box(), run(), bytes_for(3) + 1, 2, 0.5),
        (box(), run(), bytes_for(6), 6, 0.1666),
        (box(), run(), 1, 8, 0.125),
        (box(), run(), 200 * 10**9, 1, 1),
        (box(gpus=2), run(), 1, 16, 0.125),
        (box(gpus=2, cores=7), run(), 1, 6, 0.3333),
        (box(gpus=4, cores=2), run(), 1, 2, 1),
        (box(cores=8), run(threads_per_trial=2), 1, 4, 0.25),
        (box(gpus=2), run(trials_at_once=3), 1, 3, 0.5),
        (box(memory=0), run(), 1, 1, 1),
    ],
)
def test_trials_share_a_gpu_as_measured_memory_allows(
    hardware: Hardware, request_: RunSpec, gpu_bytes: int, at_once: int, share: float
) -> None:
    layout = lay_out(request_, hardware, gpu_bytes)
    assert layout == Layout("cuda", at_once, layout.threads, share, gpu_bytes)
    assert f"{share:g} GPU each ({gpu_bytes / 1e9:.1f} GB measured)" in layout.describe(hardware)


def test_measured_memory_puts_several_trials_on_a_gpu_of_intel_and_one_on_an_apple() -> None:
    assert lay_out(run(), INTEL, 10**9) == Layout("xpu", 12, 1, 0.1666, 10**9)
    layout = lay_out(run(), MAC, 10**9)
    assert layout == Layout("mps", 1, 1, 1, 10**9)
    assert layout.describe(MAC) == "1 × Apple M4, 1 trial at a time, 1 GPU each (1.0 GB measured)"


def test_a_share_that_was_asked_for_is_taken() -> None:
    layout = lay_out(run(gpus_per_trial=0.5), box(), 1)
    assert layout == Layout("cuda", 2, 1, 0.5)
    assert layout.describe(box()).endswith("2 trials at a time, 0.5 GPU each")


def test_more_at_once_than_memory_allows_is_refused() -> None:
    with pytest.raises(RequestError, match="there is room for 2"):
        lay_out(run(trials_at_once=3), box(), bytes_for(2))


def test_measured_memory_does_not_matter_on_a_cpu() -> None:
    assert lay_out(run(), LAPTOP, 10**12) == lay_out(run(), LAPTOP)


@given(st.integers(1, 8), st.integers(1, 2000))
def test_by_rays_count_as_many_fit_a_gpu_as_are_planned(gpus: int, parts: int) -> None:
    for asked in (1 / parts, parts / 2000):
        layout = lay_out(run(gpus_per_trial=asked), box(gpus, cores=100_000))
        counted = round(layout.gpus * GPU_PARTS)
        assert layout.trials_at_once == gpus * (GPU_PARTS // counted) == gpu_slots(gpus, layout.gpus)


@pytest.mark.parametrize(
    ("listed", "visible", "found"),
    [
        ("NVIDIA H100 80GB HBM3, 81559\nNVIDIA L4, 23034\n", None, (("NVIDIA H100 80GB HBM3", "NVIDIA L4"), 23034)),
        ("NVIDIA H100 80GB HBM3, 81559\nNVIDIA L4, 23034\n", "0", (("NVIDIA H100 80GB HBM3",), 81559)),
        ("NVIDIA GB10, [N/A]\n", None, (("NVIDIA GB10",), 0)),
        ("NVIDIA A100, 40960\n", "MIG-c7384736", (("NVIDIA A100",), 0)),
        ("NVIDIA A100, 40960\n", "-1", ((), 0)),
    ],
)
def test_gpus_are_asked_for_their_memory(
    monkeypatch: pytest.MonkeyPatch, listed: str, visible: str | None, found: tuple[tuple[str, ...], int]
) -> None:
    def answer(command: list[str], **how: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 0, listed)

    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(subprocess, "run", answer)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    hardware = detect.__wrapped__()
    assert (hardware.gpus, hardware.gpu_memory_bytes) == (found[0], found[1] * 2**20)
    assert hardware.key.endswith("".join(f", {name}" for name in found[0]))


def test_threads_do_not_depend_on_what_else_runs() -> None:
    """They change the rounding: the same request must give the same threads on one core or on eight."""
    one = Hardware("cpu", 1, 2**30, ())
    assert (
        lay_out(run(), one).threads == lay_out(run(), LAPTOP).threads == lay_out(run(trials_at_once=2), LAPTOP).threads
    )


def test_this_machine_is_seen() -> None:
    hardware = detect()
    assert hardware.cores >= 1
    assert hardware.memory_bytes > 2**28
    assert hardware.cpu
