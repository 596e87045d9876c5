"""The card of an exported network: what it is, what it was trained and tested on, and how to load it.

In the form that model hubs read: Markdown with a block of YAML before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from cnnsearch.data.dataset import SPLIT_WORDS
from cnnsearch.data.images import Interpolation
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.planning.labels import setting, told_axes
from cnnsearch.results.tables import load
from cnnsearch.spec.confirm import CONFIRM
from cnnsearch.spec.model_names import TIMM, is_timm
from cnnsearch.stats import wilson
from cnnsearch.use.choose import Chosen
from cnnsearch.words import accuracy, counted, percent, printable


@dataclass(frozen=True)
class Agreement:
    """How often an exported network answers as was recorded when it was trained."""

    same: int
    of: int
    split: str = "test"

    @property
    def images(self) -> str:
        """`test images`."""
        return f"{SPLIT_WORDS[self.split]} images"

    def __str__(self) -> str:
        share = "all" if self.same == self.of else f"{self.same:,} ({percent(self.same / self.of)})"
        return f"{share} of {self.of:,} {self.images}"


def write_card(file: Path, chosen: Chosen, interpolation: Interpolation, agreements: Mapping[str, Agreement]) -> None:
    """Write the card.

    Args:
        file: to write.
        chosen: the trial.
        interpolation: how its images are resized.
        agreements: format -> how it agrees with what was recorded, of the formats that are in the folder.
    """
    parts = [
        _front(chosen),
        f"# {printable(chosen.sweep.title or chosen.sweep.name)}\n\n{_what(chosen)}",
        _loading(chosen, interpolation, agreements),
        _scores(chosen),
        _selection(chosen),
        _data(chosen),
        _settings(chosen),
        _untested(chosen),
    ]
    file.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _counts(chosen: Chosen) -> dict[str, int]:
    """Split -> number of its images."""
    return {split: sum(of_classes) for split, of_classes in chosen.data.get("counts", {}).items()}


def _source(chosen: Chosen) -> str:
    """The data's name: of a folder, the last part of its path alone."""
    return printable(str(chosen.data.get("source", "")).rstrip("/").rpartition("/")[2] or "images")


def _measured(chosen: Chosen, split: str) -> float | None:
    best = chosen.record.best
    if best is None or (split == "test" and chosen.is_sealed):
        return None
    return best.val_accuracy if split == "val" else best.test_accuracy


def _front(chosen: Chosen) -> str:
    """The block of YAML."""
    counts = _counts(chosen)
    metrics = []
    for split in ("val", "test"):
        value = _measured(chosen, split)
        if value is not None and counts.get(split):
            low, high = wilson(round(value * counts[split]), counts[split])
            name = f"{SPLIT_WORDS[split]} accuracy, 95 % interval {low:.4f} to {high:.4f}"
            metrics.append({"type": "accuracy", "name": name, "value": round(value, 4)})
    dataset = {"name": _source(chosen), "type": "image-folder"}
    results = [{"task": {"type": "image-classification"}, "dataset": dataset, "metrics": metrics}]
    facts: dict[str, Any] = {
        "license": "unknown",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "pytorch", "cnnsearch", chosen.record.settings.model],
        "metrics": ["accuracy"],
        "model-index": [{"name": chosen.sweep.name, "results": results}],
    }
    return f"---\n{yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)}---"


def _what(chosen: Chosen) -> str:
    classes = ", ".join(printable(name) for name in chosen.classes[:20])
    more = f" and {len(chosen.classes) - 20} more (`classes.json`)" if len(chosen.classes) > 20 else ""
    size = chosen.record.settings.image_size
    return (
        f"Classifies an image as one of {counted(len(chosen.classes), 'class', 'classes')}: {classes}{more}.\n"
        f"The input is a batch of RGB images of {size}×{size} pixels, uint8 `[batch, 3, {size}, {size}]`, which it "
        "normalises itself.\nThe output is a batch of probabilities, `[batch, classes]`, in the order of "
        "`classes.json`.\n\n"
        "The licence is not known to the program that wrote this card: state it in the first lines before you pass the "
        "network on.\nIt depends on the rights to the training images"
        + ("." if chosen.record.settings.weights == "none" else ", and to the pretrained weights.")
    )


def _loading(chosen: Chosen, interpolation: Interpolation, agreements: Mapping[str, Agreement]) -> str:
    size = chosen.record.settings.image_size
    filter_ = f"Image.Resampling.{interpolation.upper()}"
    pixels = (
        f'np.array(ImageOps.exif_transpose(Image.open("image.png")).convert("RGB").resize(({size}, {size}), {filter_}))'
    )
    parts = ["## How to load it"]
    if "pt2" in agreements:
        parts.append(
            "With torch alone:\n\n```python\nimport json, numpy as np, torch\nfrom PIL import Image, ImageOps\n\n"
            f"images = torch.from_numpy({pixels}).permute(2, 0, 1)[None]\n"
            'probabilities = torch.export.load("model.pt2").module()(images)[0]\n'
            'print(json.load(open("classes.json", encoding="utf-8"))[int(probabilities.argmax())])\n```'
        )
    if "onnx" in agreements:
        parts.append(
            "With onnxruntime alone:\n\n```python\nimport json, numpy as np, onnxruntime\n"
            "from PIL import Image, ImageOps\n\n"
            f"images = {pixels}.transpose(2, 0, 1)[None]\n"
            'probabilities = onnxruntime.InferenceSession("model.onnx").run(None, {"images": images})[0][0]\n'
            'print(json.load(open("classes.json", encoding="utf-8"))[int(probabilities.argmax())])\n```'
        )
    if "safetensors" in agreements:
        parts.append(
            "`weights.safetensors` is the state dict of the network alone, without normalisation "
            f"({_architecture(chosen)})."
        )
    parts.append(
        "`preprocessing.json` says how training images were prepared: turned upright, transparency blended with white, "
        "resized without\nkeeping the aspect ratio. The lines of Python here neither blend transparency nor scale "
        "16-bit greys: do so first\nwhere images have them."
    )
    parts.append(_checked(chosen, agreements))
    return "\n\n".join(parts)


def _checked(chosen: Chosen, agreements: Mapping[str, Agreement]) -> str:
    """Say how often it answers as in training."""
    differ = ""
    if chosen.record.precision == "bf16":
        differ = "It was trained in bf16 and is exported in fp32, so that some answers may differ. "
    if len(told := {str(found) for found in agreements.values()}) == 1:
        return (
            f"{differ}Checked when it was exported: it gives the class that was recorded in training for {told.pop()}."
        )
    each = "; ".join(f"{name}: {found}" for name, found in agreements.items())
    return f"{differ}Checked when it was exported, it gives the class that was recorded in training for: {each}."


def _architecture(chosen: Chosen) -> str:
    settings = chosen.record.settings
    if settings.code:
        return f"`{settings.model}` of the code in `code/`, called with the settings below"
    if settings.model in ("plain", "residual"):
        return f"`{settings.model}` of cnnsearch {metadata.version('cnnsearch')}, width {settings.width:g}"
    if is_timm(settings.model):
        return (
            f"timm's `{settings.model.removeprefix(TIMM)}`, made with num_classes={len(chosen.classes)} for images of "
            f"{settings.image_size}×{settings.image_size} pixels"
        )
    return f"torchvision's `{settings.model}`, its last layer with {len(chosen.classes)} outputs"


def _scores(chosen: Chosen) -> str:
    counts = _counts(chosen)
    lines = ["## Scores", "", "| images | accuracy, 95 % interval |", "|---|---|"]
    for split in ("val", "test"):
        value, n = _measured(chosen, split), counts.get(split, 0)
        told = accuracy(value, n) if value is not None and n else "not measured: the test set is sealed"
        lines.append(f"| {n:,} {SPLIT_WORDS[split]} images | {told} |")
    lines += [
        "",
        "Of this network alone. The interval is Wilson's: it covers other images of the same kind, not other seeds.",
    ]
    return "\n".join(lines)


def _selection(chosen: Chosen) -> str:
    evidence = Evidence(load(chosen.results.path, store=False))
    among = counted(len(evidence.contenders), "setting")
    if evidence.is_confirmed:
        tried = sum(c.stage != CONFIRM.name for c in evidence.configurations)
        among += f" that were trained again on fresh seeds, out of {tried:,} tried,"
    kept = f"its weights are those of epoch {chosen.record.best_epoch}, its best by {evidence.chosen_by}"
    if chosen.is_best:
        how = (
            f"The best of {among} by mean {evidence.chosen_by}, and of its seeds the best one; {kept}. "
            "Test images had no part in the choice. The best of several is lucky: its validation score is too good."
        )
    else:
        all_tried = counted(sum(len(c.trial_ids) for c in evidence.configurations), "network")
        how = f"Named by whoever exported it, one of {all_tried}; {kept}."
    return f"## How it was selected\n\n{how}"


def _data(chosen: Chosen) -> str:
    counts = _counts(chosen)
    sizes = ", ".join(f"{counts[split]:,} {word}" for split, word in SPLIT_WORDS.items() if split in counts)
    parts = chosen.data.get("parts") or []
    split = chosen.sweep.data.split.model_dump(mode="json")
    how = (
        f"as the source divides them ({', '.join(parts)})" if parts else ", ".join(f"{k} {v}" for k, v in split.items())
    )
    lines = [
        "## What it was trained on",
        "",
        f"- data: {_source(chosen)}, {sizes} images; fingerprint `{chosen.data.get('fingerprint', '')}`",
        f"- split: {how}",
        *(f"- {printable(warning)}" for warning in chosen.data.get("warnings", [])),
    ]
    return "\n".join(lines)


def _settings(chosen: Chosen) -> str:
    record = chosen.record
    facts = {**record.settings.flat(), "computed in": record.precision, "trial": record.trial_id}
    facts["weights"] = facts["weights"].rpartition("/")[2]
    started = f"It started from the weights of trial `{record.parent_id}`.\n\n" if record.parent_id else ""
    rows = [f"| {name} | {printable(str(value))} |" for name, value in facts.items() if value is not None]
    named = setting(record.settings, told_axes(chosen.sweep))
    return "\n".join(["## Settings", "", f"{named}.\n\n{started}| setting | value |\n|---|---|", *rows])


def _untested(chosen: Chosen) -> str:
    sealed = "" if _measured(chosen, "test") is not None else "- Any test image: the test set was sealed.\n"
    return (
        "## What it was not tested on\n\n"
        f"{sealed}"
        "- Images from elsewhere: other cameras, places, times or ways of collecting than those of its data.\n"
        f"- Images that show none of its {len(chosen.classes)} classes: it names one of them all the same.\n"
        "- Whether its probabilities are calibrated; damaged, altered or adversarial images; groups of people."
    )
