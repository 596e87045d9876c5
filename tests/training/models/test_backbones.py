"""torchvision's models with a new last layer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cnnsearch.spec.model_names import IMAGE_SIZES
from cnnsearch.spec.settings import Settings
from cnnsearch.training.models.backbones import DropoutLinear, fit_position_embedding, head_name, make
from tests.training.models.making import BACKBONES, CLASSES, settings


@pytest.mark.parametrize("name", [name for name in BACKBONES if name not in ("plain", "residual")])
def test_only_the_last_layer_is_replaced(name: str) -> None:
    from torchvision import models

    replaced = make(name, settings(name), CLASSES)
    options = {"image_size": BACKBONES[name]} if name.startswith("vit") else {}
    original = models.get_model(name, weights=None, **options)
    head = head_name(replaced, CLASSES)
    assert replaced.state_dict().keys() == original.state_dict().keys()
    differing = {key for key, value in replaced.state_dict().items() if value.shape != original.state_dict()[key].shape}
    assert differing == {f"{head}.weight", f"{head}.bias"}
    assert replaced(torch.randn(2, 3, BACKBONES[name], BACKBONES[name])).shape == (2, CLASSES)


def test_dropout_goes_before_the_last_layer() -> None:
    resnet, mobilenet = make("resnet18", settings("resnet18", dropout=0.3), 5), None
    assert isinstance(resnet.fc, DropoutLinear)
    assert resnet.fc.dropout == 0.3
    mobilenet = make("mobilenet_v3_small", settings("mobilenet_v3_small", dropout=0.3), 5)
    assert mobilenet.classifier[2].p == 0.3  # type: ignore[index, union-attr]
    assert mobilenet.classifier[3].dropout == 0.0  # type: ignore[index, union-attr]
    kept = make("mobilenet_v3_small", settings("mobilenet_v3_small"), 5)
    assert kept.classifier[2].p == 0.2  # type: ignore[index, union-attr]
    inputs = torch.ones(4, 512)
    resnet.train()
    assert not torch.equal(resnet.fc(inputs), resnet.fc(inputs))
    resnet.eval()
    assert torch.equal(resnet.fc(inputs), resnet.fc(inputs))


@pytest.mark.parametrize(
    "name",
    ["alexnet", "convnext_tiny", "densenet121", "googlenet", "inception_v3", "maxvit_t", "squeezenet1_0", "vgg16"],
)
def test_the_sizes_that_a_model_takes_are_known(name: str) -> None:
    least, most = IMAGE_SIZES[name]
    # Shapes alone: tensors without data take neither time nor memory.
    with torch.device("meta"):
        model = make(name, Settings(), CLASSES)
        for size in (least, most or 1024):
            assert model(torch.empty(2, 3, size, size)).shape == (2, CLASSES)
        for size in (least - 1, *([most + 1] if most else [])):
            with pytest.raises(RuntimeError):
                model(torch.empty(2, 3, size, size))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "efficientnet_b0", "shufflenet_v2_x0_5"])
def test_all_other_models_take_every_size(name: str) -> None:
    assert name not in IMAGE_SIZES
    with torch.device("meta"):
        assert make(name, Settings(), CLASSES)(torch.empty(2, 3, 8, 8)).shape == (2, CLASSES)


@pytest.mark.parametrize("shape", [(3,), (1, 1, 8), (1, 4, 8), (2, 10, 8), (1, 10, 5), (0, 0, 0)])
def test_a_position_embedding_that_no_transformer_has_is_left_as_it_is(shape: tuple[int, ...]) -> None:
    model = nn.Module()
    model.encoder = nn.ParameterDict({"pos_embedding": torch.zeros(1, 5, 8)})
    key = "encoder.pos_embedding"
    assert fit_position_embedding({key: torch.zeros(shape)}, model)[key].shape == shape
    assert fit_position_embedding({key: torch.zeros(1, 10, 8)}, model)[key].shape == (1, 5, 8)
