"""Pretrained weights are read, fitted, refused and explained."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from cnnsearch.errors import RequestError
from cnnsearch.training.models import weights as weights_module
from cnnsearch.training.models.build import build
from cnnsearch.training.models.weights import load_into, read_state
from tests.training.models.making import CLASSES, seeded, settings


def test_weights_round_trip_whatever_the_format(tmp_path: Path) -> None:
    torch.manual_seed(7)
    state = build(settings("resnet18"), 1000).state_dict()
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    save_file(state, tmp_path / "b.safetensors")
    for file in (tmp_path / "a.pth", tmp_path / "b.safetensors"):
        model = seeded("resnet18")
        head = model.fc.weight.clone()  # type: ignore[union-attr, operator]
        load_into(model, read_state(file), CLASSES, str(file))
        assert torch.equal(model.state_dict()["layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])
        assert torch.equal(model.fc.weight, head)  # type: ignore[union-attr, arg-type]
    same_classes = seeded("resnet18")
    own = {name: value + 1 for name, value in same_classes.state_dict().items()}
    load_into(same_classes, own, CLASSES, "own")
    assert torch.equal(same_classes.state_dict()["fc.weight"], own["fc.weight"])


def test_weights_that_do_not_fit_are_explained(tmp_path: Path) -> None:
    model = seeded("resnet18")
    state = dict(model.state_dict())
    del state["layer1.0.conv1.weight"]
    with pytest.raises(RequestError, match=r"w\.pth does not fit: it lacks layer1\.0\.conv1\.weight"):
        load_into(model, state, CLASSES, "w.pth")
    with pytest.raises(RequestError, match="besides what the model needs, another"):
        load_into(model, {**model.state_dict(), "another": torch.zeros(1)}, CLASSES, "w.pth")
    with pytest.raises(RequestError, match=r"conv1\.weight is \(1,\), the model needs \(64, 3, 7, 7\)"):
        load_into(model, {**model.state_dict(), "conv1.weight": torch.zeros(1)}, CLASSES, "w.pth")
    with pytest.raises(RequestError, match="there is no file of weights"):
        read_state(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("not weights")
    with pytest.raises(RequestError):
        read_state(tmp_path / "text.pth")


class Malicious:
    """Unpickled, it would leave a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.trace,))


@pytest.mark.parametrize("protocol", ["torch", "pickle"])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, protocol: str) -> None:
    file, trace = tmp_path / "bad.pth", tmp_path / "trace"
    if protocol == "torch":
        torch.save({"weight": Malicious(trace)}, file)
    else:
        file.write_bytes(pickle.dumps(Malicious(trace)))
    with pytest.raises(RequestError, match=r"bad\.pth"):
        read_state(file)
    assert not trace.exists()


def test_without_a_network_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import urllib.error
    import urllib.request

    def unreachable(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    monkeypatch.setattr("torch.hub.urlopen", unreachable)
    with pytest.raises(RequestError) as caught:
        weights_module.imagenet_file("resnet18")
    assert "resnet18-f37072fd.pth" in str(caught.value)
    assert str(tmp_path / "hub" / "checkpoints") in str(caught.value)
    assert "--set train.weights=" in str(caught.value)
