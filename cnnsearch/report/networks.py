"""What each network of a sweep is, in a line."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cnnsearch.evidence.configurations import is_missing
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.spec.model_names import TIMM, is_timm
from cnnsearch.words import printable

_OWN = {
    "plain": (
        "A 3×3 convolution and a max-pooling, then five 3×3 convolutions with ReLU and one linear layer over all "
        "positions; no normalisation, no shortcuts"
    ),
    "residual": (
        "A 3×3 convolution and a max-pooling, then five residual blocks of two 3×3 convolutions each, global average "
        "pooling and one linear layer; batch normalisation, and a shortcut around each block"
    ),
}

# Pattern of a torchvision name -> what it is. The first that matches counts; \1 and \2 are the pattern's groups.
_FAMILIES = (
    (r"alexnet", "AlexNet: five convolutions and three linear layers, no normalisation"),
    (r"convnext_(\w+)", r"ConvNeXt, size \1: convolutions with large depthwise filters and layer normalisation"),
    (r"densenet(\d+)", r"DenseNet, \1 layers: each layer of a block sees the outputs of all before it"),
    (r"efficientnet_v2_(\w)", r"EfficientNetV2, size \1: inverted residual blocks, in the first stages fused ones"),
    (r"efficientnet_(b\d)", r"EfficientNet-\1: inverted residual blocks; depth, width and image size grow together"),
    (r"googlenet", "GoogLeNet, 22 layers: inception modules, filters of several sizes beside each other"),
    (r"inception_v3", "Inception v3, 48 layers: inception modules with factorised filters"),
    (r"maxvit_t", "MaxViT, size t: inverted residual blocks with attention within windows and over a grid"),
    (r"mnasnet(\d)_(\d+)", r"MNASNet at width \1.\2: inverted residual blocks found by a search, for phones"),
    (r"mobilenet_v2", "MobileNetV2, 53 layers: inverted residual blocks, for phones"),
    (r"mobilenet_v3_(\w+)", r"MobileNetV3, \1: inverted residual blocks with squeeze and excitation, for phones"),
    (r"regnet_(x|y)_(\w+)", r"RegNet \1 of \2 operations: residual blocks whose widths follow a simple rule"),
    (r"resnet(\d+)", r"ResNet, \1 layers: residual blocks, that is, convolutions with shortcuts around them"),
    (r"resnext(\d+)_(\w+)", r"ResNeXt, \1 layers, \2: residual blocks of grouped convolutions"),
    (r"shufflenet_v2_x(\d)_(\d)", r"ShuffleNetV2, width \1.\2: grouped convolutions, channels shuffled in between"),
    (r"squeezenet(\d)_(\d)", r"SqueezeNet \1.\2, 18 layers: modules of 1×1 and 3×3 filters, few parameters"),
    (r"swin_v2_(\w)", r"Swin transformer V2, size \1: attention within windows that shift from block to block"),
    (r"swin_(\w)", r"Swin transformer, size \1: attention within windows that shift from block to block"),
    (r"vgg(\d+)_bn", r"VGG, \1 layers with batch normalisation: stacked 3×3 convolutions and three linear layers"),
    (r"vgg(\d+)", r"VGG, \1 layers: stacked 3×3 convolutions and three linear layers"),
    (r"vit_(\w)_(\d+)", r"Vision transformer, size \1: attention between patches of \2×\2 pixels"),
    (r"wide_resnet(\d+)_(\d)", r"Wide ResNet, \1 layers: residual blocks, \2 times as wide inside"),
)  # fmt: skip

# Pattern of the beginning of one of timm's names -> what it is. The first that matches counts.
_OF_TIMM = (
    (r"(tf_)?efficientnet", "EfficientNet: inverted residual blocks; depth, width and image size grow together"),
    (r"(tf_)?mobilenet|mnasnet|ghostnet|mobileone", "inverted residual blocks or other cheap ones, for phones"),
    (r"convnext", "ConvNeXt: convolutions with large depthwise filters and layer normalisation"),
    (r"vit_\w*?patch(\d+)\w*dino", r"DINO's vision transformer: attention between patches of \1×\1 pixels"),
    (r"(?:vit|deit3?|beit(?:v2)?|eva02|eva|cait|xcit)_\w*?(?:patch|p)(\d+)",
     r"vision transformer: attention between patches of \1×\1 pixels"),
    (r"vit\d*(_|$)|deit|beit|eva|cait|xcit", "vision transformer: attention between patches"),
    (r"swin", "Swin transformer: attention within windows that shift from block to block"),
    (r"maxvit|maxxvit|coatnet|coat_|levit|mobilevit|tiny_vit|edgenext|efficientformer|crossvit|fastvit",
     "convolutions and attention in one network"),
    (r"mixer|gmlp|resmlp", "linear layers over positions and over channels in turn, without attention"),
    (r"(wide_)?resnet|resnext|seresne|ecaresnet|skresne|nfnet|regnet",
     "residual blocks, that is, convolutions with shortcuts around them"),
    (r"densenet", "DenseNet: each layer of a block sees the outputs of all before it"),
    (r"vgg|repvgg", "stacked 3×3 convolutions"),
)  # fmt: skip


@dataclass(frozen=True)
class Network:
    """A model of the sweep."""

    name: str
    line: str
    """Its layers and what kind of network it is, and how many parameters were trained."""


def networks(evidence: Evidence) -> list[Network]:
    """Describe each model that was tried."""
    files = {model: printable(one.file) for one in evidence.tables.sweep.code for model in one.models}
    told = {model: f"A network of one's own, from {file}" for model, file in files.items()}
    return [
        Network(model, f"{told.get(model) or describe(model)}{_parameters(evidence, model)}.")
        for model in evidence.models
        if model
    ]


def describe(model: str) -> str:
    """The layers of a model and what kind of network it is; its name alone where that is not known."""
    if model in _OWN:
        return _OWN[model]
    if is_timm(model):
        return _describe_timm(model)
    for pattern, text in _FAMILIES:
        match = re.fullmatch(pattern, model)
        if match:
            return match.expand(text)
    return f"The network {model}"


def _describe_timm(model: str) -> str:
    name, _, weights = model.removeprefix(TIMM).partition(".")
    published = f"; its published weights are {weights}" if weights else ""
    for pattern, text in _OF_TIMM:
        if match := re.match(pattern, name.removeprefix("test_")):
            return f"timm's {name}: {match.expand(text)}{published}"
    return f"timm's {name}{published}"


def _parameters(evidence: Evidence, model: str) -> str:
    """How many parameters its trials trained; empty where not recorded."""
    trials = evidence.tables.trials
    if "parameters" not in trials:
        return ""
    counts = [int(count) for count in trials.loc[trials["model"] == model, "parameters"] if not is_missing(count)]
    if not counts:
        return ""
    low, high = min(counts), max(counts)
    span = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return f"; {span} trainable parameter{'s' if high != 1 else ''}"
