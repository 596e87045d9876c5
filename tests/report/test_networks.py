"""Each network of a sweep has a line that says what it is."""

from __future__ import annotations

import re

import pytest

from cnnsearch.evidence.evidence import Evidence
from cnnsearch.report.networks import describe, networks
from cnnsearch.spec.model_names import KNOWN
from cnnsearch.training.models.own import Plain, Residual
from tests.report import factory


@pytest.mark.parametrize("model", KNOWN)
def test_every_model_that_a_sweep_may_name_is_described(model: str) -> None:
    line = describe(model)
    assert line != f"The network {model}"
    assert "\\" not in line
    assert len(line) <= 200


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("resnet18", "ResNet, 18 layers"),
        ("vgg16_bn", "VGG, 16 layers with batch normalisation"),
        ("vit_b_16", "patches of 16×16 pixels"),
        ("wide_resnet50_2", "50 layers"),
        ("mnasnet0_75", "width 0.75"),
        ("efficientnet_v2_s", "EfficientNetV2, size s"),
    ],
)
def test_the_line_says_which_of_its_family_it_is(model: str, said: str) -> None:
    assert said in describe(model)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            "timm:convnext_atto.d2_in1k",
            "timm's convnext_atto: ConvNeXt: convolutions with large depthwise filters and layer normalisation; its "
            "published weights are d2_in1k",
        ),
        ("timm:vit_small_patch14_dinov2", "DINO's vision transformer: attention between patches of 14×14 pixels"),
        ("timm:vit_base_patch16_clip_224.openai", "vision transformer: attention between patches of 16×16 pixels"),
        ("timm:tf_efficientnetv2_s.in21k", "inverted residual blocks"),
        ("timm:resnet18.a1_in1k", "timm's resnet18: residual blocks"),
        ("timm:coatnet_0_rw_224", "convolutions and attention in one network"),
        ("timm:xyz.w", "timm's xyz; its published weights are w"),
    ],
)
def test_timms_are_described_by_their_names(model: str, said: str) -> None:
    assert said in describe(model)
    assert len(describe(model)) <= 200


def test_our_own_are_described_as_they_are_built() -> None:
    plain, residual = Plain(10, image_size=8), Residual(10)
    assert len(plain.convs) == 5
    assert "then five 3×3 convolutions" in describe("plain")
    assert len(residual.blocks) == 5
    assert "five residual blocks of two 3×3 convolutions" in describe("residual")


def test_trained_parameters_are_counted() -> None:
    tables = factory.part1()
    counts = {"plain": [7, 7], "residual": [1200, 3400]}
    tables.trials["parameters"] = [counts[str(model)][i % 2] for i, model in enumerate(tables.trials["model"])]
    told = {network.name: network.line for network in networks(Evidence(tables))}
    assert told["plain"].endswith("; 7 trainable parameters.")
    assert re.search(r"; 1,200 to 3,400 trainable parameters\.$", told["residual"])


def test_a_sweep_without_counts_has_lines_without_them() -> None:
    told = networks(Evidence(factory.one_trial()))
    assert [network.name for network in told] == sorted({network.name for network in told})
    assert all(network.line for network in told)
