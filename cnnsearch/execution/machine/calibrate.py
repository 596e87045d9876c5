"""The process that times real training steps of a sweep's own models on this machine.

It runs as `python -m cnnsearch.execution.machine.calibrate`, with JSON on standard input and output, so that the
command that plans a sweep never imports torch. `timing` starts it, and remembers its answers.
"""

from __future__ import annotations

# ruff: noqa: E402
import contextlib
import json
import sys
import time
from typing import Any

import torch

IMPORT_SECONDS = time.process_time()
"""Seconds of the processor until torch was imported: how fast the machine is, however busy it is just now."""

from torch import fx, nn

from cnnsearch.errors import RequestError
from cnnsearch.execution.jobs import only_head
from cnnsearch.execution.machine.pace import PACE, pace
from cnnsearch.execution.record import is_out_of_memory
from cnnsearch.planning.job import HEADS_AT_ONCE
from cnnsearch.spec.own_code import trust
from cnnsearch.spec.settings import ResolvedPrecision, Settings
from cnnsearch.training.compute.device import probe_precision, reset_process, shared_memory_bytes
from cnnsearch.training.compute.device_kinds import DEVICES
from cnnsearch.training.compute.graphs import RECORDERS, WARM_UP_STEPS
from cnnsearch.training.evaluate import batch_size as batch_size_of_evaluation, evaluate
from cnnsearch.training.features import Examples, Features, compute
from cnnsearch.training.head_scores import HeadInputs, evaluate_heads
from cnnsearch.training.heads import HeadState, train_heads
from cnnsearch.training.models.build import heads_apart, initial_model
from cnnsearch.training.models.checked_code import as_snapshots
from cnnsearch.training.pixels import Pixels
from cnnsearch.training.train import TrainingState, needs_company, train

ONE_VALUE = "Expected more than 1 value per channel"
"""What torch says of batch normalisation in a batch of one image whose maps are a single pixel."""
LONGEST_SECONDS = 1.0
"""Seconds, about, for which a workload is timed."""
_OF_GPUS = ("CUDA", "MPS", "XPU", "UR_RESULT")
"""What errors of GPUs and their drivers hold."""
ENOUGH = 20
"""Steps after which half of that time is enough."""


def main() -> None:
    """Answer one request: `{"device", "threads", "classes", "workloads": [settings, ...], **known of the machine}`.

    What is known of the machine may be `"precision"`, and `"import_seconds"` with the `"import_pace"` at which it was
    timed; a null means that it must be found out.
    """
    request = json.load(sys.stdin)
    device, threads = request["device"], request["threads"]
    trust(as_snapshots(request.get("code", [])))
    precision = request["precision"] or probe_precision(device)
    import_seconds, import_pace = request["import_seconds"], request.get("import_pace")
    if not import_seconds:
        import_seconds, import_pace = IMPORT_SECONDS, pace()
    measured = []
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what code of the user's own prints is no answer
            for workload in request["workloads"]:  # smallest first: the peak of memory only ever rises
                settings = Settings.model_validate(workload)
                measured.append(measure(settings, request["classes"], device, threads, precision))
    except RequestError as error:
        json.dump({"error": f"model {settings.model}: {error}"}, sys.stdout)
        return
    except (RuntimeError, ValueError) as error:
        if is_machines_fault(error):
            raise
        json.dump({"error": refusal(settings, error)}, sys.stdout)
        return
    of_machine = {"precision": precision, "import_seconds": import_seconds, "import_pace": import_pace}
    json.dump({**of_machine, "workloads": measured}, sys.stdout)


def is_machines_fault(error: BaseException) -> bool:
    """Whether an exception says more about the machine than about the model that was asked for."""
    return (
        is_out_of_memory(error)
        or any(name in str(error) for name in _OF_GPUS)
        or type(error) not in (RuntimeError, ValueError)
    )


def refusal(settings: Settings, error: BaseException) -> str:
    """Say that a model cannot train as requested, and why."""
    given = f"model {settings.model} cannot train with image_size {settings.image_size}"
    reason = " ".join(str(error).split())
    if ONE_VALUE in reason:
        reason = "its batch normalisation would see one value per channel; give a batch_size of at least 2"
    return f"{given} and batch_size {settings.batch_size}: {reason[:300]}"


def measure(
    settings: Settings, classes: int, device: str, threads: int, precision: ResolvedPrecision
) -> dict[str, Any]:
    """Seconds of a training step and of an evaluated image, and the bytes of memory and disk that a trial needs."""
    reset_process(threads)
    if settings.precision != "auto":
        precision = settings.precision
    if precision == "bf16" and not DEVICES[device].has_bf16():
        raise RequestError(f"precision is bf16, which {device} does not compute in here; allowed: auto, fp32")
    images = settings.batch_size
    pixels = _random_pixels(settings.image_size, classes, images, device)
    # The learning rate does not change the time, and with a large one the loss would diverge.
    settings = settings.model_copy(update={"epochs": 1_000_000, "lr": 1e-9})
    model = initial_model(settings, classes, device)
    state, examples, prefix_seconds, features_bytes = _arrange(model, settings, classes, pixels, precision)
    if isinstance(state.trained, fx.GraphModule) and settings.fits_in_company and only_head(state.trained):
        assert isinstance(examples, Features)
        step_seconds, eval_seconds = _time_heads(settings, classes, examples.values[0].shape[1])
    else:
        step_seconds, eval_seconds = _time_steps(state, examples, settings, precision)
    measured_at = pace()
    memory_bytes = DEVICES[device].peak_memory_bytes()
    weights = sum(value.nbytes for name, value in state.model.state_dict().items() if name in state.keep)
    return {
        "step_seconds": max(step_seconds, 1e-6),
        "eval_image_seconds": eval_seconds,
        PACE: measured_at,
        "prefix_image_seconds": prefix_seconds,
        "features_image_bytes": features_bytes,
        "memory_bytes": memory_bytes,
        "shared_bytes": shared_memory_bytes() if device == "cpu" else 0,
        "weights_bytes": weights,
        "needs_company": needs_company(state, examples, precision),
        "parameters": sum(p.numel() for p in state.model.parameters() if p.requires_grad),
    }


def _time_heads(settings: Settings, classes: int, width: int) -> tuple[float, float]:
    """Seconds of a training step and of an evaluated image of one head among many that are trained together."""
    steps, evaluated = 8, 32
    n = steps * settings.batch_size
    values = torch.rand(n + evaluated, width)
    rows = torch.arange(n + evaluated)
    features = HeadInputs(values, rows % classes, {"train": rows[:n], "val": rows[n : n + 1], "test": rows[n:]})
    settings = settings.model_copy(update={"epochs": 10})
    states = [HeadState(settings, torch.zeros(classes, width), torch.zeros(classes)) for _ in range(HEADS_AT_ONCE)]
    step_seconds = min(row.seconds for epoch in train_heads(features, states) for row in epoch if row) / steps
    weight, bias = torch.stack([s.weight for s in states]), torch.stack([s.bias for s in states])
    start = time.perf_counter()
    evaluate_heads(features, "test", weight, bias)
    return step_seconds, (time.perf_counter() - start) / evaluated / HEADS_AT_ONCE


def _time_steps(
    state: TrainingState, examples: Examples, settings: Settings, precision: ResolvedPrecision
) -> tuple[float, float]:
    """Seconds of a training step and of an evaluated image.

    On one thread of a CPU they are seconds of the processor: others that want it just now do not count.
    """
    is_alone = examples.device == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if is_alone else time.perf_counter
    steps = train(state, examples, settings, precision=precision)
    next(steps)
    step_seconds = eval_seconds = float("inf")
    began = time.perf_counter()
    # A step that a trial would replay as a graph is replayed here too: that takes less time and more memory.
    least = WARM_UP_STEPS + 1 if examples.device in RECORDERS else 1
    timed = 0
    while timed < least or time.perf_counter() - began < LONGEST_SECONDS / (1 if timed < ENOUGH else 2):
        timed += 1
        start = clock()
        evaluate(state.trained, examples, "test", precision=precision)
        evaluated = clock()
        next(steps)
        stepped = clock()
        eval_seconds = min(eval_seconds, (evaluated - start) / len(examples.rows["test"]))
        step_seconds = min(step_seconds, stepped - evaluated - len(examples.rows["val"]) * eval_seconds)
    if examples.device in RECORDERS:
        # A smaller last batch is not replayed: its memory comes on top of the graph's, which `steps` still holds.
        next(train(state, examples, settings, precision=precision))
    return step_seconds, eval_seconds


def _arrange(
    model: nn.Module, settings: Settings, classes: int, pixels: Pixels, precision: ResolvedPrecision
) -> tuple[TrainingState, Examples, float, int]:
    """Return what is trained, its inputs, and seconds and bytes per image of the frozen layers' outputs.

    The last two are 0 if no outputs are shared.
    """
    heads = heads_apart(model, settings, classes)
    if settings.fine_tune == "full":
        return TrainingState.start(model, settings, heads=heads), pixels, 0.0, 0
    from cnnsearch.training.models.cut import cut_for, freeze

    frozen = freeze(model, settings.fine_tune, classes)
    halves = cut_for(settings, frozen)
    if halves is None:
        return TrainingState.start(model, settings, model, frozen.train_mode, frozen.trained, heads), pixels, 0.0, 0
    compute(halves.prefix, pixels, precision)
    start = time.perf_counter()
    values = compute(halves.prefix, pixels, precision)
    n = len(pixels.labels)
    seconds = (time.perf_counter() - start) / n
    state = TrainingState.start(model, settings, halves.suffix, frozen.train_mode, frozen.trained, heads)
    return state, Features(values, pixels.labels, pixels.rows), seconds, sum(v.nbytes for v in values) // n


def _random_pixels(image_size: int, classes: int, batch_size: int, device: str) -> Pixels:
    """One batch of noise for training, one image for validation, and an evaluation batch."""
    evaluated = batch_size_of_evaluation(3 * image_size**2, device)
    n = batch_size + 1 + evaluated
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, image_size, image_size, 3), dtype=torch.uint8, generator=generator)
    labels = torch.arange(n) % classes
    rows = torch.arange(n)
    return Pixels(
        images.to(device),
        labels.to(device),
        {
            "train": rows[:batch_size].to(device),
            "val": rows[batch_size : batch_size + 1].to(device),
            "test": rows[-evaluated:].to(device),
        },
        torch.full((3,), 127.5, device=device),
        torch.full((3,), 73.9, device=device),
    )


if __name__ == "__main__":
    main()
