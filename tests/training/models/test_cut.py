"""What trains, and where models are cut."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cnnsearch.errors import RequestError
from cnnsearch.training.models.cut import cut, freeze
from tests.training.models.making import BACKBONES, CLASSES, seeded


@pytest.mark.parametrize("name", list(BACKBONES))
def test_every_cut_gives_the_same_logits(name: str) -> None:
    """To the bit in fp32, for images together or alone; with frozen BatchNorm and, after the cut, dropout."""
    torch.manual_seed(1)
    model = seeded(name)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    size = BACKBONES[name]
    images = torch.randn(6, 3, size, size).to(memory_format=torch.channels_last)
    modes = ["head", "last-1-convs"] + (["last-2-convs"] if name != "vit_b_16" else [])
    for mode in modes:
        frozen = freeze(model, mode, CLASSES)
        halves = cut(frozen, size)
        if name == "vit_b_16" and mode != "head":
            assert halves is None  # its one convolution comes first
            continue
        assert halves is not None
        model.eval()
        with torch.no_grad():
            whole = model(images)
            features = halves.prefix(images)
            assert torch.equal(halves.suffix(*features), whole)
            alone = [halves.prefix(image[None].to(memory_format=torch.channels_last)) for image in images]
            together = halves.suffix(*(torch.cat(parts) for parts in zip(*alone, strict=True)))
        assert torch.allclose(together, whole, rtol=1e-4, atol=1e-5)


def test_resnet18_trains_exactly_what_is_asked() -> None:
    model = seeded("resnet18")
    assert freeze(model, "head", CLASSES).trained == {"fc.weight", "fc.bias"}
    two = freeze(model, "last-2-convs", CLASSES)
    assert two.trained == {"layer4.1.conv1.weight", "layer4.1.conv2.weight", "fc.weight", "fc.bias"}
    assert {name for name, p in model.named_parameters() if p.requires_grad} == two.trained
    halves = cut(two, 64)
    assert halves is not None
    assert halves.name == "layer4_0_relu_1"
    everything = {name for name, _ in model.named_parameters()}
    assert freeze(model, "full", CLASSES).trained == everything
    assert cut(freeze(model, "full", CLASSES), 64) is None


def test_convs_are_counted_in_the_order_they_compute() -> None:
    model = seeded("residual")
    one = freeze(model, "last-1-convs", CLASSES).trained
    assert {name for name in one if "head" not in name} == {
        "blocks.4.shortcut.0.weight",
        "blocks.4.shortcut.0.bias",
    }
    three = freeze(model, "last-3-convs", CLASSES).trained
    assert {"blocks.4.conv1.weight", "blocks.4.conv2.weight", "blocks.4.shortcut.0.weight"} <= three
    with pytest.raises(RequestError, match="the model has 16 convolutions"):
        freeze(model, "last-17-convs", CLASSES)


def test_frozen_batchnorm_does_not_move() -> None:
    model = seeded("resnet18")
    frozen = freeze(model, "last-2-convs", CLASSES)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    frozen.train_mode()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(torch.randn(4, 3, 64, 64)).square().sum().backward()
    optimizer.step()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == frozen.trained
