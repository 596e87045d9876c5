"""The benchmarks: every rival does the work it is given and says what it must; the arithmetic of the comparison."""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import check, decoding, gpu, gpu_steps, predict, report_load, show, suite
from benchmarks.__main__ import parser
from benchmarks.figures import (
    OURS,
    Run,
    check_outcomes,
    extrapolated,
    gate,
    reject_implausible,
    summarise,
)
from benchmarks.images import changed, write_folder
from benchmarks.limit import flops, image_flops
from benchmarks.processes import run
from benchmarks.rivals.task import Outcome
from benchmarks.suite import Bench, run_ours, run_rival
from benchmarks.workloads import SCALES, WORKLOADS, make_sweep, settings_of
from cnnsearch.execution.machine.hardware import detect
from cnnsearch.plan_text import plan_text
from cnnsearch.prepare import prepared
from cnnsearch.results.tables import load
from cnnsearch.spec.settings import Settings
from cnnsearch.spec.sweep import Sweep
from cnnsearch.training.compute.graphs import RECORDERS

RAY = ("plain_ray", "tuned_ray")


def tiny(name: str, folder: Path) -> Bench:
    return Bench.prepare(WORKLOADS[name], "tiny", folder)


def assert_did_the_work(bench: Bench, run: Run) -> None:
    assert run.failure is None
    assert run.accuracy is not None
    assert run.trial_seconds is not None
    assert 0 <= run.accuracy <= 1
    assert run.trial_seconds > 0
    assert run.peak_bytes > 50e6
    assert not run.sampled
    assert not (bench.folder / "scratch").exists()


@pytest.mark.after
@pytest.mark.parametrize("rival", ["notebook", "loop", *(pytest.param(name, marks=pytest.mark.slow) for name in RAY)])
def test_every_rival_trains_networks_from_scratch(rival: str, tmp_path: Path) -> None:
    bench = tiny("grid-32", tmp_path)
    assert_did_the_work(bench, run_rival(bench, rival))


@pytest.mark.after
@pytest.mark.parametrize("name", ["last-2-convs", "thousand-heads"])
@pytest.mark.parametrize(
    "rival",
    ["loop", *(pytest.param(name, marks=pytest.mark.slow) for name in ("notebook", *RAY))],
)
def test_every_rival_fine_tunes(rival: str, name: str, tmp_path: Path) -> None:
    bench = tiny(name, tmp_path)
    assert_did_the_work(bench, run_rival(bench, rival))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["grid-32", "head"])
def test_this_project_does_the_same_work(name: str, tmp_path: Path) -> None:
    bench = tiny(name, tmp_path)
    assert_did_the_work(bench, run_ours(bench, None))


@pytest.mark.after
def test_a_rival_that_fails_has_no_numbers(tmp_path: Path) -> None:
    bench = tiny("grid-32", tmp_path)
    for file in (tmp_path / "images" / "val").rglob("*.png"):
        file.write_bytes(b"not an image")
    failed = run_rival(bench, "loop")
    assert failed.failure is not None
    assert "exit code 1" in failed.failure
    rows = summarise({"loop": [failed], "cnnsearch": [Run(10.0, 1)]}, flop=1e12, rate=1e12, slots=2)
    assert rows["loop"] == {"failed": failed.failure}
    table = show.table("some", {"work": "work", "rows": rows})
    assert "failed: exit code 1" in table


@pytest.mark.after
def test_a_sampled_rival_runs_few_trials_and_epochs(tmp_path: Path) -> None:
    bench = tiny("grid-32", tmp_path)
    longer = tuple(settings.model_copy(update={"epochs": 50}) for settings in bench.trials)
    bench = replace(bench, trials=longer, size=replace(bench.size, epochs=50, samples={"notebook": (1, 1)}))
    assert [settings.epochs for settings in bench.sample("notebook")] == [1]
    assert bench.sample("loop") == longer
    assert run_rival(bench, "notebook").sampled


def outcome(trial: int = 0, *, val: tuple[float, ...] = (0.5, 0.6), epoch_seconds: float = 1.0) -> Outcome:
    return Outcome(trial, list(val), 0.5, [epoch_seconds] * len(val), 3.0)


def test_answers_that_are_not_the_work_are_refused() -> None:
    assert check_outcomes([outcome(0), outcome(1)], 2, [2, 2]) is None
    assert check_outcomes([outcome(0)], 2, [2, 2]) == "1 of 2 trials"
    assert check_outcomes([outcome(0), outcome(0)], 2, [2, 2]) == "2 of 2 trials"
    assert check_outcomes([outcome(0, val=(0.5,))], 1, [2]) == "trial 0 has 1 of 2 epochs"
    assert check_outcomes([outcome(0, val=(0.5, float("nan")))], 1, [2]) == "trial 0 has an accuracy that is none"


def test_extrapolation() -> None:
    # Two trials at a time, 4 of 8 trials, 2 of 20 epochs: 8 s in epochs are 4 s of wall-clock; 1 s goes beside them.
    outcomes = [outcome(number) for number in range(4)]
    seconds = extrapolated(12.0, 5.0, outcomes, slots=2, trials=2, epochs=10)
    assert seconds == pytest.approx(7.0 + 2 * (1.0 + 10 * 4.0))
    assert extrapolated(12.0, 5.0, outcomes, slots=2, trials=1, epochs=1) == pytest.approx(12.0)


def test_an_implausible_accuracy_is_a_failure() -> None:
    runs = {name: [Run(1.0, 1, None, accuracy)] for name, accuracy in (("a", 0.6), ("b", 0.55), ("c", 0.1))}
    runs["d"] = [Run(1.0, 1, None, 0.0, sampled=True)]
    judged = reject_implausible(runs)
    assert judged["a"][0].failure is judged["b"][0].failure is judged["d"][0].failure is None
    assert judged["c"][0].failure == "mean validation accuracy 0.10, the others' 0.55"


def test_medians_ratios_shares_and_efficiency() -> None:
    runs = {
        "loop": [Run(seconds, 10, None, 0.5, trial_seconds=12.0) for seconds in (9.0, 8.0, 30.0)],
        "cnnsearch": [Run(seconds, peak, None, 0.5, 14.0) for seconds, peak in ((12.0, 5), (10.0, 7), (11.0, 6))],
    }
    rows = summarise(runs, flop=22e12, rate=4e12, slots=2)
    assert rows["loop"]["median_seconds"] == 9.0
    assert rows["loop"]["ratio"] == pytest.approx(9 / 11)
    assert rows["cnnsearch"]["ratio"] == 1.0
    assert rows["cnnsearch"]["share_of_limit"] == pytest.approx(0.5)
    assert rows["cnnsearch"]["efficiency"] == pytest.approx(12 / 22)
    assert rows["cnnsearch"]["peak_bytes"] == 7
    lines = show.table("some", {"work": "work", "rows": rows}).splitlines()
    assert lines[-1].split() == ["cnnsearch", "11.0", "(10.0–12.0)", "1.00×", "50", "%", "0.00", "GB", "55", "%"]


def figures(**ratios: float) -> dict[str, Any]:
    rows = {rival: {"ratio": ratio} for rival, ratio in ratios.items()} | {"cnnsearch": {"ratio": 1.0}}
    return {"hardware": "here", "workloads": {"grid-32": {"rows": rows}}}


def test_the_gate_fails_on_a_loss_of_more_than_its_share(capsys: pytest.CaptureFixture[str]) -> None:
    reference = figures(loop=1.0, tuned_ray=4.0)
    assert gate(reference, figures(loop=0.86, tuned_ray=9.0))[1] == []
    lines, failed = gate(reference, figures(loop=0.84, tuned_ray=4.0))
    assert len(lines) == 2
    assert failed == ["grid-32, loop: 1.00× before, 0.84× now (-16%)"]
    assert gate(reference, figures(loop=1.0))[1] == ["grid-32, tuned_ray: 4.00× before, not measured now"]
    assert gate(reference, {"workloads": {}}) == ([], [])
    assert check.compare(reference, reference) == 0
    assert check.compare(reference, figures(loop=0.5, tuned_ray=4.0)) == 1
    assert "grid-32, loop: 1.00× before, 0.50× now" in capsys.readouterr().err


def test_each_kind_of_machine_has_a_reference_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(check, "REFERENCE", tmp_path / "reference.json")
    suite.save({"another, 2 cores": figures(loop=0.1)}, check.REFERENCE)
    assert check.main([]) == 2
    told = capsys.readouterr().err
    assert detect().key in told
    assert "another, 2 cores" in told
    now = [figures(loop=1.0)]
    monkeypatch.setattr(suite, "run_suite", lambda *asked: now[0])
    monkeypatch.setattr(show, "table", lambda name, measured: name)
    assert check.main(["--update"]) == 0
    assert list(check.references()) == sorted(["another, 2 cores", detect().key])
    assert check.main([]) == 0
    now[0] = figures(loop=0.8)
    assert check.main([]) == 1


def test_operations_of_a_layer_counted_by_hand() -> None:
    # plain at 8×8, width 1: six 3×3 convolutions, all but the first on 4×4 maps, and a linear layer.
    channels = [32, 64, 128, 256, 512, 1024]
    first = 8 * 8 * 9 * 3 * 32
    rest = [4 * 4 * 9 * a * b for a, b in itertools.pairwise(channels)]
    linear = 1024 * 4 * 4 * 10
    frozen, evaluated, trained = image_flops(Settings(model="plain", image_size=8), 10)
    assert frozen == 0
    assert evaluated == 2 * (first + sum(rest) + linear)
    # Backward: the gradients of weights and of inputs, of which images need none.
    assert trained == 2 * (2 * first + 3 * (sum(rest) + linear))


def test_frozen_layers_count_once_for_all_trials() -> None:
    head = Settings(model="resnet18", fine_tune="head", image_size=32, epochs=7)
    images = {"train": 50, "val": 20, "test": 30}
    frozen, evaluated, trained = image_flops(head, 10)
    assert evaluated == 2 * 512 * 10
    once, twice = (flops([head] * trials, images, 10) for trials in (1, 2))
    assert twice - once == pytest.approx(7 * (50 * trained + 20 * evaluated) + 30 * evaluated)
    assert once - (twice - once) == pytest.approx(100 * frozen)


def test_heads_trained_together_are_trained_right() -> None:
    """Against autograd and torch's Adam, one head at a time."""
    from benchmarks.rivals.loop import train_heads

    rng = torch.Generator().manual_seed(1)
    data = {
        split: (torch.randn(n, 6, generator=rng), torch.randint(0, 3, (n,), generator=rng))
        for split, n in (("train", 20), ("val", 200), ("test", 200))
    }
    some = [Settings(model="resnet18", fine_tune="head", lr=lr, batch_size=8, epochs=4) for lr in (0.3, 0.003)]
    for settings, together in zip(some, train_heads([0, 1], some, data, 3), strict=True):
        torch.manual_seed(0)
        bound = 6**-0.5
        weight = torch.empty(3, 7).uniform_(-bound, bound).requires_grad_()
        optimizer = torch.optim.Adam([weight], lr=settings.lr)
        order = torch.Generator().manual_seed(0)
        for accuracy in together.val:
            for rows in torch.randperm(20, generator=order).split(8):
                x, y = data["train"][0][rows], data["train"][1][rows]
                torch.nn.functional.cross_entropy(x @ weight[:, :6].T + weight[:, 6], y).backward()
                optimizer.step()
                optimizer.zero_grad()
            x, y = data["val"]
            expected = ((x @ weight[:, :6].T + weight[:, 6]).argmax(1) == y).float().mean().item()
            assert accuracy == pytest.approx(expected, abs=0.0051)  # one example may lie on the border


def test_image_folders_repeat_and_differ(tmp_path: Path) -> None:
    write_folder(tmp_path / "a", {"train": 52, "val": 1, "test": 1}, 16)
    write_folder(tmp_path / "b", {"train": 52, "val": 1, "test": 1}, 16)
    files = sorted((tmp_path / "a").rglob("*.png"))
    assert len(files) == 540
    contents = {file.relative_to(tmp_path / "a"): file.read_bytes() for file in files}
    assert all((tmp_path / "b" / name).read_bytes() == content for name, content in contents.items())
    assert len(set(contents.values())) == 540
    image = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert not np.array_equal(changed(image, (0, 0, 1)), changed(image, (0, 0, 2)))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", WORKLOADS)
def test_every_workload_is_a_sweep(name: str, scale: Any) -> None:
    size = WORKLOADS[name].sizes[scale]
    weights = Path("weights.pth") if WORKLOADS[name].fine_tunes else None
    trials = settings_of(make_sweep(name, size, Path("images"), weights))
    assert {settings.epochs for settings in trials} == {size.epochs}
    expected = {("thousand-heads", "full"): 1000, ("short-trials", "full"): 200, ("grid-64", "full"): 8}
    assert len(trials) == expected.get((name, scale), len(trials)) >= 2


def test_width_and_epochs_can_be_chosen() -> None:
    size = WORKLOADS["grid-64"].with_options(width=0.5, epochs=7).sizes["full"]
    assert (size.width, size.epochs) == (0.5, 7)
    assert WORKLOADS["head"].with_options(width=0.5, epochs=None).sizes["full"] == WORKLOADS["head"].sizes["full"]


def test_made_up_results_can_be_read(tmp_path: Path) -> None:
    report_load.write_results(tmp_path / "report", 16, 3)
    tables = load(tmp_path / "report")
    assert len(tables.trials) == tables.planned == 16
    assert len(tables.epochs) == 48
    assert len(tables.predictions) == 16 * (160 + 229)


def test_a_process_is_watched_with_its_children(tmp_path: Path) -> None:
    hold = "import time; block = bytearray(150_000_000); time.sleep(1)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', '''{hold}'''])"
    done = run([sys.executable, "-c", code], tmp_path / "log.txt")
    assert done.failure is None
    assert done.peak_bytes > 150e6
    failed = run([sys.executable, "-c", "print('some words'); raise SystemExit(3)"], tmp_path / "log.txt")
    assert failed.failure == "exit code 3: some words"


def test_the_plot_is_drawn(tmp_path: Path) -> None:
    made = figures(loop=0.8, notebook=5.0)
    made["workloads"]["grid-32"]["work"] = "eight trials"
    show.plot(made, tmp_path / "figures.png")
    assert (tmp_path / "figures.png").read_bytes().startswith(b"\x89PNG")
    show.plot(suite.empty_figures(1), tmp_path / "nothing.png")
    assert not (tmp_path / "nothing.png").exists()


def test_commands_parse_and_refuse(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options = parser().parse_args(["--workloads", "grid-32", "report", "--rivals", "loop", "--scale", "short"])
    assert options.workloads == ["grid-32", "report"]
    monkeypatch.setattr(check, "REFERENCE", tmp_path / "reference.json")
    assert check.main([]) == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    detect.cache_clear()
    assert gpu.main([]) == 2
    detect.cache_clear()
    assert "no CUDA GPU" in capsys.readouterr().err


def test_the_table_says_how_far_the_plan_was_off() -> None:
    ours = Run(20.0, 3 * 10**9, trials_wall=10.0, foretold=(16.0, 2 * 10**9))
    runs = {"loop": [Run(18.0, 10**9, trial_seconds=18.0)], OURS: [ours, ours]}
    rows = summarise(runs, flop=None, rate=1.0, slots=2)
    assert rows[OURS]["efficiency"] == pytest.approx(18 / (2 * 20))
    assert rows[OURS]["efficiency_while_trials_run"] == pytest.approx(18 / (2 * 10))
    lines = show.table("work", {"work": "some", "rows": rows}).splitlines()
    assert any("16.0 s and 2.00 GB; it was +25% and +50%" in line for line in lines)
    assert lines[-1].startswith("  while trials ran")
    assert lines[-1].endswith("90 %")


def test_the_gpu_benchmark_tells_what_the_plan_picked(small_sweep: Callable[..., Sweep], tmp_path: Path) -> None:
    with prepared(small_sweep(), tmp_path, dry_run=True) as ready:
        assert gpu.picked(plan_text(ready)) == f"{ready.places}, {ready.precision}"
    assert gpu.picked("error: no such sweep\n") == "error: no such sweep"


class PlainRecorder:
    """Repeats what it was given."""

    def run(self, work: Callable[[], None]) -> None:
        work()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        return work


def test_what_the_gpu_benchmark_measures_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    ways: list[tuple[bool, bool]] = []
    timed = gpu_steps.step_seconds

    def watched(settings: Settings, device: str) -> float:
        ways.append((device in RECORDERS, torch.backends.cudnn.deterministic))
        return timed(settings, device)

    monkeypatch.setattr(gpu_steps, "step_seconds", watched)
    monkeypatch.setattr(gpu_steps, "STEPS", 1)
    monkeypatch.setattr(gpu_steps, "matmul_rate", lambda device: 2e12)
    monkeypatch.setitem(RECORDERS, "cpu", PlainRecorder)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)  # as on a machine with a GPU
    found = gpu_steps.measure(0.05, "cpu", image_size=8)
    assert ways == [(False, True), (True, True), (True, False)] * 4
    assert all(ms > 0 for each in found.step_milliseconds.values() for ms in each.values())
    assert list(found.convolution_microseconds) == ["3 to 6 channels at 4×4", "26 to 51 channels at 4×4"]
    assert all(list(each) == ["1", "4", "8"] for each in found.convolution_microseconds.values())
    assert any("convolution" in name for name in found.kernel_microseconds["plain"])
    lines = list(gpu_steps.told(found))
    assert lines[0] == "best matrix product: 2.0 TFLOP/s"
    assert any(line.startswith("a step of residual, batch 32: ") for line in lines)
    assert gpu_steps.Measured(**json.loads(json.dumps(asdict(found)))) == found


@pytest.mark.after
def test_steps_of_trials_that_share_a_device_are_added_up() -> None:
    found = gpu_steps.packed(0.01, "cpu", sharing=(2,), seconds=0.1, image_size=8)
    assert list(found) == [2]
    assert found[2] > 0


def test_predicting_is_compared_with_a_loop_that_gives_the_same_answers(capsys: pytest.CaptureFixture[str]) -> None:
    assert predict.main(["--images", "40", "--side", "16", "--width", "0.05", "--rounds", "1"]) == 0
    printed = capsys.readouterr().out
    assert "round 1  loop" in printed
    assert "round 1  cnnsearch" in printed
    assert "of CPU time" in printed
    assert "% of answers alike" in printed


@pytest.mark.after
def test_decoding_is_compared_with_a_loop_that_hashes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert decoding.main(["--images", "60", "--side", "16"]) == 0
    told = capsys.readouterr().out
    for way in ("cnnsearch", "cnnsearch again", "cnnsearch exact"):
        assert re.search(rf"^{way}: [0-9.]+ of the rate of draft$", told, re.MULTILINE)
