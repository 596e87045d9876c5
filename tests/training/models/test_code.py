"""A user's own networks are made from a snapshot, called with what they take, and refused with their own line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cnnsearch.errors import RequestError
from cnnsearch.spec import own_code
from cnnsearch.spec.own_code import Snapshot, read_code, trust
from cnnsearch.spec.settings import Settings
from cnnsearch.training.models.build import initial_model
from cnnsearch.training.models.code import load, make
from cnnsearch.training.models.cut import cut_for, freeze
from tests.own_code import BLOCKS, NETS, write_nets


@pytest.fixture(autouse=True)
def _nothing_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_code, "_TRUSTED", {})


def settings(snapshot: Snapshot, model: Any = "SmallNet", **values: Any) -> Settings:
    trust([snapshot])
    return Settings.model_validate({"model": model, "code": snapshot.digest, "image_size": 8, **values})


def test_a_network_is_called_with_what_it_takes(tmp_path: Path) -> None:
    snapshot = read_code(write_nets(tmp_path))
    model = make(settings(snapshot, dropout=0.25, **{"model_args.depth": 3}), 5)
    assert len(model.blocks) == 3  # type: ignore[arg-type]
    assert model.get_submodule("drop").p == 0.25
    assert model.get_submodule("head").out_features == 5
    flat = make(settings(snapshot, "flat_net", width=2.0), 5)
    assert isinstance(flat, nn.Sequential)
    assert flat[1].weight.shape == (16, 3 * 64)


def test_it_gets_its_images_in_the_usual_order_under_its_own_name(tmp_path: Path) -> None:
    model = initial_model(settings(read_code(write_nets(tmp_path))), 5, "cpu")
    images = torch.rand(3, 3, 8, 8).to(memory_format=torch.channels_last)
    assert model(images).shape == (3, 5)
    assert type(model).__name__ == "SmallNet"
    assert next(iter(model.state_dict())) == "blocks.0.0.weight"


@pytest.mark.parametrize("fine_tune", ["head", "last-1-convs"])
def test_it_is_frozen_and_cut_like_torchvision_models(fine_tune: str, tmp_path: Path) -> None:
    chosen = settings(read_code(write_nets(tmp_path)), fine_tune=fine_tune, **{"model_args.depth": 2})
    model = initial_model(chosen, 5, "cpu")
    frozen = freeze(model, fine_tune, 5)
    assert frozen.trained == {"head.weight", "head.bias"} | (
        set() if fine_tune == "head" else {"blocks.1.0.weight", "blocks.1.0.bias"}
    )
    halves = cut_for(chosen, frozen)
    assert halves is not None
    images = torch.rand(3, 3, 8, 8).to(memory_format=torch.channels_last)
    model.eval()
    assert torch.equal(halves.suffix(*halves.prefix(images)), model(images))


def test_images_alone_are_not_kept_as_features(tmp_path: Path) -> None:
    chosen = settings(read_code(write_nets(tmp_path)), fine_tune="last-1-convs")
    assert cut_for(chosen, freeze(initial_model(chosen, 5, "cpu"), "last-1-convs", 5)) is None


def test_code_runs_only_where_its_file_was_named(tmp_path: Path) -> None:
    file = tmp_path / "nets.py"
    file.write_text("raise SystemExit\ndef net(num_classes): pass\n")
    unnamed = Settings(model="net", code=read_code(file).digest, image_size=8)
    with pytest.raises(RequestError, match=r"model net is of code with the digest .*--code"):
        make(unnamed, 5)


def test_a_snapshot_stays_as_it_was_read_and_apart_from_others(tmp_path: Path) -> None:
    before = set(sys.modules)
    old = read_code(write_nets(tmp_path))
    (tmp_path / "blocks.py").write_text(BLOCKS.replace("nn.ReLU()", "nn.GELU()"))
    new = read_code(tmp_path / "nets.py")
    for _ in range(2):
        assert isinstance(make(settings(old), 5).blocks[0][2], nn.ReLU)  # type: ignore[index]
        assert isinstance(make(settings(new), 5).blocks[0][2], nn.GELU)  # type: ignore[index]
    (tmp_path / "blocks.py").unlink()
    assert isinstance(make(settings(new), 5).blocks[0][2], nn.GELU)  # type: ignore[index]
    assert "blocks" not in set(sys.modules) - before


def test_imports_in_a_snapshot_find_each_other(tmp_path: Path) -> None:
    (tmp_path / "layers").mkdir()
    (tmp_path / "layers" / "__init__.py").write_text("import blocks.inner as inner\nfrom . import own\n")
    (tmp_path / "layers" / "own.py").write_text("from ..blocks.inner import value\n")
    (tmp_path / "blocks").mkdir()
    (tmp_path / "blocks" / "inner.py").write_text("value = 3\n")
    (tmp_path / "nets.py").write_text(
        "import layers.own\nimport torch.nn as nn\nfrom blocks import inner\n"
        "def net(num_classes):\n"
        "    from layers import inner as same\n"
        "    assert same is inner and layers.own.value == 3\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(192, num_classes))\n"
    )
    assert make(settings(read_code(tmp_path / "nets.py"), "net"), 5)(torch.rand(2, 3, 8, 8)).shape == (2, 5)


@pytest.mark.parametrize(
    ("change", "values", "told"),
    [
        (("depth=1, ", ""), {"model_args.depth": 2}, r"its code takes no depth \(.*nets.py, line 7\); allowed: none"),
        (
            (", dropout=0.0", ", size=1"),
            {"dropout": 0.1},
            r"dropout 0.1 with model SmallNet: its code takes no dropout",
        ),
        (("", ""), {"width": 2.0}, r"width 2 with model SmallNet: its code takes no width \(.*nets.py, line 7\)"),
        (("depth=1", "depth"), {}, r"nets.py, line 7: SmallNet needs depth: give model_args.depth"),
        (("num_classes, depth", "classes, depth"), {}, r"nets.py, line 7: SmallNet takes no num_classes"),
        (("nn.MaxPool2d(4)", "nn.MaxPool2d()"), {}, r"nets.py, line 14: TypeError: .*kernel_size.*\nwhile making"),
        (("from blocks", "from bloks"), {}, r"nets.py, line 4: ModuleNotFoundError: No module named 'bloks'"),
        (("super().__init__()", "pass"), {}, r"nets.py, line 12: AttributeError: "),
    ],
)
def test_what_does_not_fit_is_refused_with_the_users_own_line(
    change: tuple[str, str], values: dict[str, Any], told: str, tmp_path: Path
) -> None:
    snapshot = read_code(write_nets(tmp_path, NETS.replace(*change)))
    with pytest.raises(RequestError, match=told):
        make(settings(snapshot, **values), 5)


def test_what_is_no_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text("def net(num_classes):\n    return [num_classes]\n")
    with pytest.raises(RequestError, match=r"nets.py, line 1: net makes a list, not a torch.nn.Module"):
        make(settings(read_code(tmp_path / "nets.py"), "net"), 5)


def test_a_file_that_was_imported_is_not_imported_again(tmp_path: Path) -> None:
    snapshot = read_code(write_nets(tmp_path))
    trust([snapshot])
    assert load(snapshot) is load(snapshot)
