from __future__ import annotations

import pytest
import torch
from torch import nn

from cnnsearch.spec.model_names import OWN
from cnnsearch.spec.settings import Settings
from cnnsearch.training.models.build import MODELS, build
from cnnsearch.training.models.own import Block, Plain


def kinds(model: nn.Module) -> list[str]:
    return [type(module).__name__ for module in model.modules() if not list(module.children())]


def test_every_named_model_can_be_built() -> None:
    assert set(MODELS) == set(OWN)


def test_plain_layer_by_layer() -> None:
    model = build(Settings(model="plain", image_size=64), classes=8)
    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels) for c in convs] == [
        (3, 32), (32, 64), (64, 128), (128, 256), (256, 512), (512, 1024),
    ]  # fmt: skip
    assert {(c.kernel_size, c.stride, c.padding) for c in convs} == {((3, 3), (1, 1), (1, 1))}
    assert isinstance(model.head, nn.Linear)
    assert (model.head.in_features, model.head.out_features) == (1024 * 32 * 32, 8)
    # 3·32·9+32 + 32·64·9+64 + 64·128·9+128 + 128·256·9+256 + 256·512·9+512 + 512·1024·9+1024 + 1024·32·32·8+8
    assert sum(p.numel() for p in model.parameters()) == 6_288_192 + 8_388_616


def test_plain_has_no_relu_between_the_first_two_convs() -> None:
    """conv, pool, conv, ReLU: the sign of what leaves the pool must reach the second conv."""
    model = Plain(2, image_size=8, width=0.1).eval()
    seen: list[torch.Tensor] = []
    model.convs[0].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model.convs[1].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model(torch.randn(2, 3, 8, 8))
    assert seen[0].shape[-1] == 4
    assert (seen[0] < 0).any()
    assert not (seen[1] < 0).any()


def test_residual_layer_by_layer() -> None:
    model = build(Settings(model="residual", image_size=64), classes=8)
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    assert [(b.conv1.in_channels, b.conv1.out_channels, b.conv2.out_channels) for b in blocks] == [
        (32, 64, 64), (64, 128, 128), (128, 256, 256), (256, 512, 512), (512, 1024, 1024),
    ]  # fmt: skip
    assert all(isinstance(b.shortcut, nn.Sequential) and b.shortcut[0].kernel_size == (1, 1) for b in blocks)
    widths = [(32, 64), (64, 128), (128, 256), (256, 512), (512, 1024)]
    expected = 3 * 32 * 9 + 32 + 2 * 32
    expected += sum(9 * a * b + b + 9 * b * b + b + a * b + b + 3 * 2 * b for a, b in widths)
    expected += 1024 * 8 + 8
    assert sum(p.numel() for p in model.parameters()) == expected


def test_residual_block_adds_its_input() -> None:
    block = Block(4, 4, 0.0).eval()
    nn.init.zeros_(block.conv2.weight)
    assert block.conv2.bias is not None
    nn.init.zeros_(block.conv2.bias)
    x = torch.rand(2, 4, 5, 5)
    assert torch.equal(block(x), x)
    assert isinstance(block.shortcut, nn.Identity)


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize(("image_size", "classes", "width"), [(8, 2, 0.1), (32, 10, 0.25), (33, 3, 0.05), (64, 7, 0.1)])
def test_any_size_and_number_of_classes(name: str, image_size: int, classes: int, width: float) -> None:
    settings = Settings.model_validate({"model": name, "image_size": image_size, "width": width})
    logits = build(settings, classes)(torch.randn(2, 3, image_size, image_size))
    assert logits.shape == (2, classes)
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", list(MODELS))
def test_dropout_keeps_weights_and_changes_nothing_in_eval_mode(name: str) -> None:
    settings = Settings.model_validate({"model": name, "image_size": 16, "width": 0.1})
    torch.manual_seed(0)
    without = build(settings, 5)
    images = torch.randn(4, 3, 16, 16)
    without(images)  # moves the BatchNorm statistics
    dropped = build(settings.model_copy(update={"dropout": 0.5}), 5)
    dropped.load_state_dict(without.state_dict())
    assert torch.equal(without.eval()(images), dropped.eval()(images))
    dropped.train()
    assert not torch.equal(dropped(images), dropped(images))


def test_dropout_stands_where_the_assignment_put_it() -> None:
    plain = build(Settings(model="plain", image_size=8, width=0.1, dropout=0.3), 2)
    assert kinds(plain)[:4] == ["Conv2d", "MaxPool2d", "Dropout", "Conv3x3"]
    assert kinds(plain).count("Dropout") == 1
    residual = build(Settings(model="residual", width=0.1, dropout=0.3), 2)
    assert kinds(residual)[:4] == ["Conv2d", "BatchNorm2d", "Dropout", "MaxPool2d"]
    block = next(module for module in residual.modules() if isinstance(module, Block))
    assert kinds(block)[:5] == ["Conv3x3", "BatchNorm2d", "Dropout", "Conv3x3", "BatchNorm2d"]
    assert kinds(residual).count("Dropout") == 6


@pytest.mark.parametrize("name", list(MODELS))
def test_same_seed_same_initial_weights_whatever_the_dropout(name: str) -> None:
    settings = Settings.model_validate({"model": name, "image_size": 8, "width": 0.1})
    torch.manual_seed(3)
    one = build(settings, 2).state_dict()
    torch.manual_seed(3)
    two = build(settings.model_copy(update={"dropout": 0.5}), 2).state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert one.keys() == two.keys()
