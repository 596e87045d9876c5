"""The training loop of most tutorials, used by N and R: images decoded every epoch, fp32, `.item()` at every step."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.rivals.task import Outcome, Task, make_model, normalisation
from cnnsearch.spec.settings import Settings

LOADER_PROCESSES = 4
"""Of a trial on a GPU, which would wait for the images otherwise. On a CPU they would take the cores it trains on."""


class Usual:
    """One trial: iterate over its epochs, then ask for its outcome."""

    def __init__(self, task: Task, number: int) -> None:
        self.start = time.perf_counter()
        self.number, self.settings = number, task.trials[number]
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.loaders = {split: self._loader(task, split) for split in ("train", "val", "test")}
        self.model = make_model(self.settings, len(task.classes), task.weights).to(self.device)
        self.val: list[float] = []
        self.epoch_seconds: list[float] = []

    def _loader(self, task: Task, split: str) -> DataLoader[Any]:
        s, size = self.settings, (self.settings.image_size,) * 2
        steps = [transforms.Resize(size), transforms.ToTensor(), transforms.Normalize(*normalisation(s))]
        images = ImageFolder(task.images / split, transforms.Compose(steps))
        processes = LOADER_PROCESSES if self.device == "cuda" else 0
        return DataLoader(
            images, s.batch_size, shuffle=split == "train", num_workers=processes, persistent_workers=processes > 0
        )

    def epochs(self) -> Iterator[float]:
        """Train; yields the validation accuracy after every epoch, when `model` is as it was then."""
        settings: Settings = self.settings
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(trained, lr=settings.lr)
        best = -1.0
        for _ in range(settings.epochs):
            start = time.perf_counter()
            # Frozen BatchNorm stays as it was learned.
            self.model.train(settings.fine_tune == "full")
            total = 0.0
            for pixels, labels in self.loaders["train"]:
                pixels, labels = pixels.to(self.device), labels.to(self.device)
                optimizer.zero_grad()
                loss = F.cross_entropy(self.model(pixels), labels)
                loss.backward()
                optimizer.step()
                total += loss.item() * len(labels)
            accuracy = self.accuracy("val")
            if accuracy > best:
                best, self.best_weights = accuracy, copy.deepcopy(self.model.state_dict())
            self.val.append(accuracy)
            self.epoch_seconds.append(time.perf_counter() - start)
            yield accuracy

    def outcome(self) -> Outcome:
        """Test the best epoch."""
        self.model.load_state_dict(self.best_weights)
        test = self.accuracy("test")
        return Outcome(self.number, self.val, test, self.epoch_seconds, time.perf_counter() - self.start)

    @torch.no_grad()
    def accuracy(self, split: str) -> float:
        """Over one split."""
        model: nn.Module = self.model.eval()
        correct = seen = 0
        for pixels, labels in self.loaders[split]:
            predicted = model(pixels.to(self.device)).argmax(1)
            correct += (predicted == labels.to(self.device)).sum().item()
            seen += len(labels)
        return correct / seen
