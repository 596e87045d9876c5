"""Pretrained weights are read, fitted, refused and explained."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save, save_file
from torch import nn

from cnnsearch.errors import RequestError
from cnnsearch.training.models import weights as weights_module
from cnnsearch.training.models.build import build
from cnnsearch.training.models.weights import load_file_into
from cnnsearch.training.models.weights_file import read_states
from tests.training.models.making import CLASSES, seeded, settings


def test_weights_round_trip_whatever_the_format(tmp_path: Path) -> None:
    torch.manual_seed(7)
    state = build(settings("resnet18"), 1000).state_dict()
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    save_file(state, tmp_path / "b.safetensors")
    for file in (tmp_path / "a.pth", tmp_path / "b.safetensors"):
        model = seeded("resnet18")
        head = model.fc.weight.clone()  # type: ignore[union-attr, operator]
        load_file_into(model, file, CLASSES)
        assert torch.equal(model.state_dict()["layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])
        assert torch.equal(model.fc.weight, head)  # type: ignore[union-attr, arg-type]
    same_classes = seeded("resnet18")
    own = {name: value + 1 for name, value in same_classes.state_dict().items()}
    load(same_classes, own, tmp_path)
    assert torch.equal(same_classes.state_dict()["fc.weight"], own["fc.weight"])


def load(model: nn.Module, content: object, folder: Path) -> str:
    """Load what a file `w.pth` with this content holds."""
    torch.save(content, folder / "w.pth")
    return load_file_into(model, folder / "w.pth", CLASSES)


def under(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": value for name, value in state.items()}


def saved(state: dict[str, torch.Tensor]) -> dict[str, tuple[object, str]]:
    """Ways in which training scripts save weights, and how they are said to be read."""
    ema = {name: value for name, value in state.items() if name.startswith("fc")}
    return {
        "DistributedDataParallel": (under("module.", state), "without the prefix module."),
        "torch.compile": (under("_orig_mod.", state), "without the prefix _orig_mod."),
        "both": (under("module._orig_mod.", state), "without the prefix module._orig_mod."),
        "Lightning": ({"state_dict": under("model.", state)}, "under state_dict, without the prefix model."),
        "tutorial": ({"epoch": 3, "model_state_dict": state, "loss": 0.4}, "under model_state_dict"),
        "nested": ({"ckpt": {"net": state}, "acc": 91.0}, "under ckpt.net"),
        "torchvision": ({"model": state, "model_ema": state, "args": None}, "under model"),
        "with an optimizer": ({"net": state, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}}, "under net"),
        "PyTorch Image Models": (
            {"state_dict": under("module.", state), "params": {"x": torch.zeros(2)}},
            "under state_dict, without the prefix module.",
        ),
        "params": ({"params": state}, "under params"),
        "average of a training": ({"model_ema": state, "optimizer": {"a": torch.zeros(3)}}, "under model_ema"),
        "with a part that does not fit": ({"net": state, "ema": ema}, "under net"),
    }


def test_a_last_layer_for_another_number_of_classes_is_told(tmp_path: Path) -> None:
    model, other = seeded("residual"), build(settings("residual"), 7)
    head = model.state_dict()["head.weight"].clone()
    assert load(model, other.state_dict(), tmp_path) == "with its last layer, for 7 classes, only if there are as many"
    assert torch.equal(model.state_dict()["head.weight"], head)


@pytest.mark.parametrize("way", saved({}) | {"plain": ({}, "")})
def test_weights_are_found_however_they_were_saved(tmp_path: Path, way: str) -> None:
    state = {name: value + 1 for name, value in seeded("plain").state_dict().items()}
    content, note = (saved(state) | {"plain": (state, "")})[way]
    model = seeded("plain")
    assert load(model, content, tmp_path) == note
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_of_dino_the_teachers_backbone_is_taken(tmp_path: Path) -> None:
    """Its student and teacher have a projection on top, and no layer for classes."""
    state = {name: value + 1 for name, value in seeded("plain").state_dict().items()}
    backbone = {name: value for name, value in state.items() if not name.startswith("head.")}
    top = {"head.mlp.0.weight": torch.zeros(4, 4), "head.last_layer.weight": torch.zeros(8, 4)}
    other = {name: value * 0 for name, value in backbone.items()}
    content = {
        "student": under("module.", under("backbone.", other) | top),
        "teacher": under("backbone.", backbone) | top,
        "epoch": 99,
    }
    model = seeded("plain")
    head = model.state_dict()["head.weight"].clone()
    total = len(backbone) + 2
    assert load(model, content, tmp_path) == (
        f"under teacher, without the prefix backbone., without 2 of its {total} tensors, with a new last layer, "
        "which it lacks"
    )
    loaded = model.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in backbone.items())
    assert torch.equal(loaded["head.weight"], head)


def test_weights_that_do_not_fit_are_explained(tmp_path: Path) -> None:
    model = seeded("resnet18")
    state = dict(model.state_dict())
    del state["layer1.0.conv1.weight"]
    with pytest.raises(RequestError, match=r"w\.pth does not fit: it lacks layer1\.0\.conv1\.weight$"):
        load(model, state, tmp_path)
    with pytest.raises(RequestError, match=r"w\.pth \(net\) does not fit: it lacks layer1\.0\.conv1\.weight$"):
        load(model, {"net": under("module.", state), "optimizer": {"x": torch.zeros(1)}}, tmp_path)
    with pytest.raises(RequestError, match="besides what the model needs, another"):
        load(model, {**model.state_dict(), "another": torch.zeros(1)}, tmp_path)
    with pytest.raises(RequestError, match=r"conv1\.weight is \(1,\), the model needs \(64, 3, 7, 7\)"):
        load(model, {**model.state_dict(), "conv1.weight": torch.zeros(1)}, tmp_path)
    with pytest.raises(RequestError, match=r"conv1\.weight is not a plain tensor"):
        load(model, {**model.state_dict(), "conv1.weight": model.state_dict()["conv1.weight"].to_sparse()}, tmp_path)
    with pytest.raises(RequestError, match=r"w\.pth holds several weights that fit: net and ema; save those"):
        load(model, {"net": model.state_dict(), "ema": model.state_dict()}, tmp_path)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n"


def torch_file(content: object, *, as_zip: bool = True) -> bytes:
    written = io.BytesIO()
    torch.save(content, written, _use_new_zipfile_serialization=as_zip)
    return written.getvalue()


def archive(*names: str) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as opened:
        for name in names:
            opened.writestr(name, "x")
    return written.getvalue()


TENSORS = {"w": torch.zeros(64)}
NONE = {
    "empty": (b"", r"is empty \(0 bytes\)"),
    "pointer": (LFS, "is a Git LFS pointer, not the weights themselves; run git lfs pull"),
    "page": (b"<!DOCTYPE html><html>404</html>", "is not weights .its content is a web page"),
    "text": (b"not weights", "is not weights .its content is text"),
    "Keras": (b"\x89HDF\r\n\x1a\n" + bytes(90), "its content is an HDF5 file"),
    "noise": (bytes(range(1, 120)) * 9, "its content is of no known kind"),
    "zeros": (bytes(9000), "zeros alone"),
    "zip": (archive("photo.jpg"), "is not weights .its content is a zip archive"),
    "script": (archive("m/data.pkl", "m/constants.pkl"), "is a TorchScript program"),
    "whole model": (torch_file(nn.Linear(2, 2)), r"more than tensors \(torch\.nn\.modules\.linear\.Linear\), .* save"),
    "cut": (torch_file(TENSORS)[:-40], "is damaged or not complete"),
    "cut pickle": (torch_file(TENSORS, as_zip=False)[:-5], "is damaged or not complete"),
    "stub of a pickle": (torch_file(TENSORS, as_zip=False)[:40], "is damaged or not complete"),
    "cut safetensors": (save(TENSORS)[:-5], "is damaged: it begins like safetensors"),
    "numbers": (torch_file({"epoch": 3, "loss": 0.1}), "holds no weights, .* its keys are epoch, loss"),
    "list": (torch_file([torch.zeros(2)]), "holds no weights, .* its content is a list"),
}  # fmt: skip


@pytest.mark.parametrize("kind", NONE)
def test_a_file_that_holds_no_weights_is_described(tmp_path: Path, kind: str) -> None:
    content, message = NONE[kind]
    for file in (tmp_path / "w.pth", tmp_path / "w.safetensors"):  # a name proves nothing
        file.write_bytes(content)
        with pytest.raises(RequestError, match=rf"{file.name} .*{message}") as caught:
            read_states(file)
        assert ("more than tensors" in str(caught.value)) == (kind == "whole model")


def test_weights_are_read_from_regular_files_alone(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="there is no file of weights"):
        read_states(tmp_path / "none.pth")
    os.mkfifo(tmp_path / "pipe.pth")
    for file, what in ((tmp_path / "pipe.pth", "a FIFO"), (Path("/dev/zero"), "a device"), (tmp_path, "a folder")):
        with pytest.raises(RequestError, match=f"{file} cannot be read as weights: it is {what}, not a file"):
            read_states(file)
    torch.save(TENSORS, tmp_path / "w.pth")
    (tmp_path / "link.pth").symlink_to("w.pth")  # as caches of downloads have them
    assert read_states(tmp_path / "link.pth")[""].keys() == {"w"}


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
        read_states(file)
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
