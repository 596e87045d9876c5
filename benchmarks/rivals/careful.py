"""A training loop by someone who has measured, used by R+ and S: uint8 images in memory, channels_last, bf16 where the
machine is fast at it, fused Adam, no `.item()` before the epoch's end."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.rivals.task import Outcome, normalisation
from cnnsearch.spec.settings import Settings

Arrays = dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]]
"""Split -> images [n, S, S, 3] and labels [n]."""
Split = tuple[Tensor, Tensor]
EVALUATED_AT_ONCE = 128


def decode(folder: Path, image_size: int) -> Arrays:
    """Every image of a folder, once."""
    return {split: _decode(folder / split, image_size) for split in ("train", "val", "test")}


def _decode(folder: Path, image_size: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    images, labels = [], []
    for label, name in enumerate(sorted(path.name for path in folder.iterdir())):
        for file in sorted((folder / name).iterdir()):
            images.append(np.asarray(Image.open(file).convert("RGB").resize((image_size, image_size))))
            labels.append(label)
    return np.stack(images), np.array(labels)


def tensors(arrays: Arrays, device: str) -> dict[str, Split]:
    """The same memory as tensors, or a copy on a GPU."""
    return {
        split: (torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device))
        for split, (images, labels) in arrays.items()
    }


def pixels(settings: Settings, device: str) -> Callable[[Tensor], Tensor]:
    """A function from uint8 images [B, S, S, 3] to normalised ones [B, 3, S, S] in channels_last order."""
    mean, std = (255 * torch.tensor(values, device=device) for values in normalisation(settings))
    return lambda images: images.float().sub_(mean).div_(std).permute(0, 3, 1, 2)


def train(
    number: int,
    settings: Settings,
    model: nn.Module,
    data: Mapping[str, Split],
    prepare: Callable[[Tensor], Tensor],
    precision: str,
    report: Callable[[float], None] = lambda accuracy: None,
) -> Outcome:
    """Train one trial and test its best epoch.

    Args:
        number: the trial's place in the task.
        settings: its hyperparameters.
        model: from what `prepare` gives to logits.
        data: split -> inputs and labels.
        prepare: makes a batch of inputs ready for the model.
        precision: bf16 or fp32.
        report: called with the validation accuracy after every epoch.
    """
    start = time.perf_counter()
    inputs, labels = data["train"]
    device = labels.device
    model = model.to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=settings.lr, fused=True)
    order = torch.Generator().manual_seed(settings.seed)
    val: list[float] = []
    epoch_seconds: list[float] = []
    best_weights = {}
    for _ in range(settings.epochs):
        began = time.perf_counter()
        model.train(settings.fine_tune == "full")
        total = torch.zeros((), device=device)
        for rows in torch.randperm(len(labels), generator=order).to(device).split(settings.batch_size):
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                logits = model(prepare(inputs[rows]))
            loss = F.cross_entropy(logits.float(), labels[rows])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            total += loss.detach() * len(rows)
        val.append(accuracy(model, data["val"], prepare, precision))
        if val[-1] == max(val) and val.count(val[-1]) == 1:
            best_weights = copy.deepcopy(model.state_dict())
        epoch_seconds.append(time.perf_counter() - began)
        report(val[-1])
    model.load_state_dict(best_weights)
    test = accuracy(model, data["test"], prepare, precision)
    return Outcome(number, val, test, epoch_seconds, time.perf_counter() - start)


@torch.inference_mode()
def accuracy(model: nn.Module, split: Split, prepare: Callable[[Tensor], Tensor], precision: str) -> float:
    """Over one split."""
    model.eval()
    inputs, labels = split
    correct = torch.zeros((), dtype=torch.int64, device=labels.device)
    for some, right in zip(inputs.split(EVALUATED_AT_ONCE), labels.split(EVALUATED_AT_ONCE), strict=True):
        with torch.autocast(labels.device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits = model(prepare(some))
        correct += (logits.argmax(1) == right).sum()
    return correct.item() / len(labels)
