"""Pretrained weights are found and identified."""

from __future__ import annotations

from pathlib import Path

import pytest

from cnnsearch.training.models.pretrained import IMAGENET, Preprocessing, Pretrained, find_weights
from tests.training.models.making import save_weights


@pytest.mark.after
def test_published_weights_found_in_place_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path that downloads, without the download: torchvision's file name in torch's hub folder."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    place = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    place.parent.mkdir(parents=True)
    save_weights(tmp_path).rename(place)
    found = find_weights({("resnet18", "imagenet")})["resnet18", "imagenet"]
    assert found.file == place
    assert found.preprocessing == IMAGENET
    again = find_weights({("resnet18", str(place))})["resnet18", str(place)]
    assert again.digest == found.digest


def test_other_preprocessing_makes_another_trial(tmp_path: Path) -> None:
    """And the usual one the same as ever: trials recorded before filters were told apart keep their ids."""
    usual, other = Pretrained(tmp_path, "d", IMAGENET), Pretrained(tmp_path, "d", Preprocessing((0.5,) * 3, (0.5,) * 3))
    assert usual.identity == "d"
    assert other.identity != "d"
    assert other.identity != Pretrained(tmp_path, "d", Preprocessing((0.5,) * 3, (0.5,) * 3, "bicubic")).identity
