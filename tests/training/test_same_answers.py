"""What is fast gives the answers of what is plain: a notebook's training, written out here.

More of this kind: heads together against heads alone (test_heads), features kept against computed anew (test_transfer),
Ray against one process (test_executors), blocks of channels against oneDNN's own way (test_convolution).
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnnsearch.data import load
from cnnsearch.data.dataset import Dataset
from cnnsearch.spec.data import DataSpec
from cnnsearch.spec.settings import ResolvedPrecision, Settings
from cnnsearch.training.compute.convolution import Conv3x3
from cnnsearch.training.compute.device import derived_seed, reset_process
from cnnsearch.training.compute.linear import LongLinear
from cnnsearch.training.compute.optimizers import FusedOptimizer
from cnnsearch.training.models.build import initial_model
from cnnsearch.training.pixels import Pixels, channel_statistics
from cnnsearch.training.train import TrainingState, train

SIZE = 12
SEEDS = range(5)


@pytest.fixture(scope="module")
def fashion() -> Dataset:
    split = {"method": "fill", "train_per_class": 20, "val_per_class": 20}
    return load(DataSpec.model_validate({"image_size": SIZE, "split": split}), [SIZE], interpolation="bilinear")[SIZE]


@dataclass
class Trained:
    """What came of a training."""

    first_loss: float
    gradients: dict[str, Tensor]
    """Of the first step."""
    val_accuracy: float
    """After the last epoch."""


def plain_way(dataset: Dataset, chosen: Settings) -> Trained:
    """fp32, images one after another in [C, H, W] order, ordinary layers, Adam parameter after parameter."""
    model = initial_model(chosen, len(dataset.classes), "cpu").to(memory_format=torch.contiguous_format)
    for module in model.modules():
        if isinstance(module, Conv3x3 | LongLinear):
            module.__class__ = type(module).__base__  # type: ignore[assignment]
    mean, std = (torch.tensor(values)[:, None, None] for values in channel_statistics(dataset))

    def batch(rows: list[int]) -> tuple[Tensor, Tensor]:
        images = [torch.from_numpy(dataset.images[row].copy()).permute(2, 0, 1).float() for row in rows]
        return torch.stack([(image - mean) / std for image in images]), torch.from_numpy(dataset.labels[rows])

    optimizer = torch.optim.Adam(model.parameters(), lr=chosen.lr, fused=False, foreach=False)
    rows = dataset.indices["train"]
    first: tuple[float, dict[str, Tensor]] | None = None
    for epoch in range(1, chosen.epochs + 1):
        generator = torch.Generator().manual_seed(derived_seed("order", chosen.seed, epoch))
        order = rows[torch.randperm(len(rows), generator=generator).numpy()].tolist()
        model.train()
        for start in range(0, len(order), chosen.batch_size):
            images, labels = batch(order[start : start + chosen.batch_size])
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images), labels)
            loss.backward()
            first = first or (loss.item(), gradients(model))
            optimizer.step()
    model.eval()
    with torch.no_grad():
        images, labels = batch(dataset.indices["val"].tolist())
        accuracy = float((model(images).argmax(1) == labels).float().mean())
    assert first is not None
    return Trained(*first, accuracy)


def fast_way(dataset: Dataset, chosen: Settings, precision: ResolvedPrecision) -> Trained:
    """As trials are trained."""
    reset_process(threads=1)
    state = TrainingState.start(initial_model(chosen, len(dataset.classes), "cpu"), chosen)
    optimizer = state.optimizer
    assert isinstance(optimizer, FusedOptimizer)
    seen: list[dict[str, Tensor]] = []

    def look() -> None:
        if not seen:
            stepped = zip(state.model.named_parameters(), optimizer.stepped, strict=True)
            seen.append({name: in_shape(view.grad, parameter).clone() for (name, parameter), view in stepped})

        FusedOptimizer.step(optimizer)

    optimizer.step = look  # type: ignore[method-assign]
    rows = list(train(state, Pixels.of(dataset, "cpu"), chosen, precision=precision))
    assert rows[0].train_loss is not None
    assert rows[-1].val_accuracy is not None
    return Trained(rows[0].train_loss, seen[0], rows[-1].val_accuracy)


def in_shape(grad: Tensor | None, parameter: Tensor) -> Tensor:
    """The gradient of what is stepped, a view in the order of memory, as one of the parameter."""
    assert grad is not None
    return grad if grad.dim() < 4 else grad.permute(0, 3, 1, 2).view_as(parameter)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """A copy of each parameter's."""
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("model", "tolerance"), [("plain", 1e-4), ("residual", 0.03)])
def test_loss_and_gradients_of_the_first_step(fashion: Dataset, model: str, tolerance: float) -> None:
    """In fp32. Rounding turns a few ReLUs of the residual network on or off, and BatchNorm makes much of that; in fp64,
    where it does not, the gradients agree. One step an epoch, so that its loss is the epoch's.
    """
    values = {"model": model, "image_size": SIZE, "width": 0.1, "batch_size": 200, "epochs": 1}
    chosen = Settings.model_validate(values)
    plain, fast = plain_way(fashion, chosen), fast_way(fashion, chosen, "fp32")
    assert fast.first_loss == pytest.approx(plain.first_loss, rel=1e-5)
    assert differences(fast.gradients, plain.gradients) < tolerance
    pixels = Pixels.of(fashion, "cpu")
    (images,), labels = pixels.batch(pixels.rows["train"])
    exact = []
    for order in (torch.channels_last, torch.contiguous_format):
        net = initial_model(chosen, 10, "cpu").double().to(memory_format=order).train()
        F.cross_entropy(net(images.double().contiguous(memory_format=order)), labels).backward()
        exact.append(gradients(net))
    assert differences(*exact) < 1e-9


def differences(one: dict[str, Tensor], two: dict[str, Tensor]) -> float:
    """Largest relative difference of a weight's gradient, by norm. Biases before BatchNorm have none but rounding."""
    assert one.keys() == two.keys()
    weights = [name for name in one if name.endswith("weight")]
    return max(float((one[name] - two[name]).norm() / two[name].norm()) for name in weights)


@pytest.mark.after
@pytest.mark.timeout(900)  # minutes where a processor has no bf16
@pytest.mark.parametrize("model", ["plain", pytest.param("residual", marks=pytest.mark.slow)])
def test_accuracy_in_bf16_is_within_the_plain_ways_own_spread(fashion: Dataset, model: str) -> None:
    values = {"model": model, "image_size": SIZE, "width": 0.1, "lr": 2e-3, "epochs": 8}
    plain, fast = [], []
    for seed in SEEDS:
        chosen = Settings.model_validate({**values, "seed": seed})
        plain.append(plain_way(fashion, chosen).val_accuracy)
        fast.append(fast_way(fashion, chosen, "bf16").val_accuracy)
    assert min(plain + fast) > 0.3  # of ten classes
    assert abs(statistics.mean(fast) - statistics.mean(plain)) < statistics.stdev(plain), (plain, fast)
