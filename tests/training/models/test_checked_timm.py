"""What timm's models are is looked up once, by a process, and only where timm is installed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from cnnsearch.errors import RequestError
from cnnsearch.inputs import without_misfits
from cnnsearch.spec.load import load_sweep
from cnnsearch.spec.settings import Settings
from cnnsearch.spec.sweep import Sweep
from cnnsearch.training.models import checked_timm
from cnnsearch.training.models.build import build
from cnnsearch.training.models.checked_timm import Size, misfits
from cnnsearch.training.models.pretrained import find_weights

VIT = "timm:vit_tiny_patch16_224"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[Size]]:
    """What the process is asked; in its place, sizes that are no multiple of 16 do not suit the transformer."""
    found: list[list[Size]] = []

    def answer(pairs: list[Size]) -> Mapping[Size, str]:
        found.append(pairs)
        return {pair: f"{pair[0]} not at {pair[1]}" if pair[0] == VIT and pair[1] % 16 else "" for pair in pairs}

    monkeypatch.setenv("CNNSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(checked_timm, "_answer", answer)
    return found


def sweep(models: str, size: int = 24, more: str = "") -> Sweep:
    stage = f"{{name: s, space: {{model: {models}{more}}}}}"
    return load_sweep("part1", values=[f"data.image_size={size}", f"stages=[{stage}]"])


def test_what_was_looked_up_is_remembered(asked: list[list[Size]]) -> None:
    assert misfits([(VIT, 24), (VIT, 32)]) == {(VIT, 24): f"{VIT} not at 24"}
    assert misfits([(VIT, 24), (VIT, 48)]) == {(VIT, 24): f"{VIT} not at 24"}
    assert asked == [[(VIT, 24), (VIT, 32)], [(VIT, 48)]]
    assert misfits([]) == {}


def test_a_model_that_cannot_take_the_size_is_left_out_of_its_axis(asked: list[list[Size]]) -> None:
    fitting, told = without_misfits(sweep(f"{{grid: [{VIT}, timm:test_resnet, plain]}}"))
    assert fitting.stages[0].space["model"].args == ("timm:test_resnet", "plain")
    assert told == (f"{VIT} not at 24",)
    assert without_misfits(sweep(f"{{grid: [{VIT}, plain]}}", 32))[1] == ()


def test_a_model_that_stands_alone_or_takes_one_size_of_two_is_refused(asked: list[list[Size]]) -> None:
    with pytest.raises(RequestError, match=f"^{VIT} not at 24$"):
        without_misfits(sweep(VIT))
    with pytest.raises(RequestError, match=f"^{VIT} not at 40$"):
        without_misfits(sweep(f"{{grid: [{VIT}, plain]}}", 32, ", image_size: {grid: [32, 40]}"))
    with pytest.raises(RequestError, match=f"^{VIT} not at 24$"):
        without_misfits(
            load_sweep(
                "part1", values=["data.image_size=24", f"train.model={VIT}", "stages=[{name: s, space: {lr: 0.1}}]"]
            )
        )


def test_a_sweep_without_them_asks_nothing(asked: list[list[Size]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checked_timm, "find_spec", lambda name: None)
    plain = sweep("{grid: [plain, residual]}")
    assert without_misfits(plain) == (plain, ())
    assert asked == []


def test_without_timm_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checked_timm, "find_spec", lambda name: None)
    message = f"^model {VIT} is one of timm's, which is not installed: pip install 'cnnsearch\\[timm\\]'$"
    for attempt in (
        lambda: without_misfits(sweep(f"{{grid: [{VIT}, plain]}}")),
        lambda: find_weights({(VIT, "pretrained")}),
        lambda: build(Settings(model=VIT, image_size=32), 3),
    ):
        with pytest.raises(RequestError, match=message):
            attempt()


@pytest.mark.after
def test_the_process_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CNNSEARCH_CACHE", str(tmp_path))
    found = misfits([("timm:test_resnet", 32), (VIT, 40)])
    assert list(found) == [(VIT, 40)]
    assert "it takes 32, 48 and 224" in found[VIT, 40]
