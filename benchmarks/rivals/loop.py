"""S, the best hand-written loop without an orchestrator: a lower bound on what any tool could take here.

Images are decoded once. One process a core is forked, each with one thread, and takes one trial after another, the
longest first: for small networks that is faster than one process with all threads. Training is that of `careful`,
with denormal numbers taken for zero. Frozen layers are computed once, and heads that see the same batches are trained
as one matrix product with the gradient written out. Nothing is written to disk, nothing can be continued, and a failure
loses everything.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.rivals import careful
from benchmarks.rivals.task import Outcome, Task, answer, make_model
from cnnsearch.spec.settings import Settings

_SHARED: dict[str, Any] = {}
"""Filled before the fork, so that every process reads the same memory."""


def run(task: Task) -> Iterator[Outcome]:
    """The grid, shared out to forked processes."""
    fork = multiprocessing.get_context("fork")
    first = task.trials[0]
    _SHARED.update(task=task, classes=len(task.classes), arrays=careful.decode(task.images, first.image_size))
    if first.fine_tune != "full":
        with fork.Pool(1) as pool:  # a process that has used several threads cannot be forked safely
            _SHARED["arrays"] = pool.apply(_features)
    cores = len(os.sched_getaffinity(0))
    with fork.Pool(cores, initializer=_set_up) as pool:
        for outcomes in pool.imap_unordered(_train, _jobs(task)):
            yield from outcomes


def _set_up() -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def _jobs(task: Task) -> list[list[int]]:
    """Numbers of trials to be trained together, the longest job first."""
    if task.trials[0].fine_tune != "head":
        longest_first = sorted(enumerate(task.trials), key=lambda one: (one[1].model != "residual", one[1].batch_size))
        return [[number] for number, _ in longest_first]
    groups: dict[tuple[int, int], list[int]] = {}
    for number, settings in enumerate(task.trials):
        groups.setdefault((settings.batch_size, settings.seed), []).append(number)
    return [groups[key] for key in sorted(groups)]


def _features() -> dict[str, tuple[Any, Any]]:
    """What the frozen layers make of every image, on all cores."""
    task: Task = _SHARED["task"]
    prefix, _ = _halves(task.trials[0])
    prefix = prefix.eval().to(memory_format=torch.channels_last)
    prepare = careful.pixels(task.trials[0], "cpu")
    made = {}
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=task.precision == "bf16"):
        for split, (images, labels) in careful.tensors(_SHARED["arrays"], "cpu").items():
            values = torch.cat([prefix(prepare(some)).float() for some in images.split(64)])
            made[split] = (values.numpy(), labels.numpy())
    return made


def _halves(settings: Settings) -> tuple[nn.Module, nn.Module]:
    """A ResNet-18 in two: what is frozen and comes first, and the rest."""
    net: Any = make_model(settings, _SHARED["classes"], _SHARED["task"].weights)
    stem = [net.conv1, net.bn1, net.relu, net.maxpool, net.layer1, net.layer2, net.layer3, net.layer4[0]]
    end = [net.avgpool, nn.Flatten()]
    if settings.fine_tune == "head":
        return nn.Sequential(*stem, net.layer4[1], *end), net.fc
    return nn.Sequential(*stem), nn.Sequential(net.layer4[1], *end, net.fc)


def _train(numbers: list[int]) -> list[Outcome]:
    """One job."""
    task: Task = _SHARED["task"]
    data = careful.tensors(_SHARED["arrays"], "cpu")
    some = [task.trials[number] for number in numbers]
    if some[0].fine_tune == "head":
        return train_heads(numbers, some, data, _SHARED["classes"])
    prepare: Callable[[Tensor], Tensor]
    if some[0].fine_tune == "full":
        model, prepare = make_model(some[0], _SHARED["classes"], None), careful.pixels(some[0], "cpu")
    else:
        _, model = _halves(some[0])
        data = {split: (values.contiguous(memory_format=torch.channels_last), y) for split, (values, y) in data.items()}
        prepare = _as_it_is
    return [careful.train(numbers[0], some[0], model, data, prepare, task.precision)]


def _as_it_is(features: Tensor) -> Tensor:
    return features


@torch.no_grad()
def train_heads(
    numbers: list[int], some: list[Settings], data: dict[str, careful.Split], classes: int
) -> list[Outcome]:
    """Linear layers that differ in their learning rate alone: T heads, C classes, K inputs (the last one is the bias).

    The gradient of the mean cross-entropy over B examples is (softmax(W x) − onehot(y)) xᵀ / B; the update is Adam's.
    """
    start = time.perf_counter()
    settings = some[0]
    inputs = {split: (F.pad(x, (0, 1), value=1.0), y) for split, (x, y) in data.items()}
    x, y = inputs["train"]
    onehot = F.one_hot(y, classes).float()
    torch.manual_seed(settings.seed)
    bound = 1 / math.sqrt(x.shape[1] - 1)
    weight = torch.empty(classes, x.shape[1]).uniform_(-bound, bound).repeat(len(some), 1)  # [T·C, K]
    mean, square = torch.zeros_like(weight), torch.zeros_like(weight)
    lr = torch.tensor([s.lr for s in some]).repeat_interleave(classes)[:, None]
    order = torch.Generator().manual_seed(settings.seed)
    val: list[Tensor] = []
    best, best_weight = torch.full((len(some),), -1.0), weight.clone()
    epoch_seconds = []
    step = 0
    for _ in range(settings.epochs):
        began = time.perf_counter()
        for rows in torch.randperm(len(y), generator=order).split(settings.batch_size):
            batch, step = x[rows], step + 1
            error = (weight @ batch.T).view(len(some), classes, -1).softmax(1).sub_(onehot[rows].T)
            gradient = (error.view(len(weight), -1) @ batch).div_(len(rows))
            mean.lerp_(gradient, 0.1)
            square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
            root = math.sqrt(1 - 0.999**step)
            change = mean.div(torch.sqrt(square).add_(1e-8 * root))
            weight.addcmul_(change, lr, value=-root / (1 - 0.9**step))
        val.append(_accuracies(weight, inputs["val"], classes))
        better = val[-1] > best
        best = torch.where(better, val[-1], best)
        best_weight = torch.where(better.repeat_interleave(classes)[:, None], weight, best_weight)
        epoch_seconds.append((time.perf_counter() - began) / len(some))
    test = _accuracies(best_weight, inputs["test"], classes).tolist()
    by_trial = torch.stack(val, 1).tolist()
    seconds = (time.perf_counter() - start) / len(some)
    return [Outcome(n, by_trial[i], test[i], epoch_seconds, seconds) for i, n in enumerate(numbers)]


def _accuracies(weight: Tensor, split: careful.Split, classes: int) -> Tensor:
    """Of each head, [T]."""
    x, y = split
    return ((weight @ x.T).view(-1, classes, len(y)).argmax(1) == y).float().mean(1)


if __name__ == "__main__":
    answer(run)
