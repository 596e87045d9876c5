"""Networks that are defined in a notebook's cells, or in a module, are known to sweeps once they are registered."""

from __future__ import annotations

import importlib
import linecache
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import pytest
import torch

import cnnsearch
from cnnsearch.errors import RequestError
from cnnsearch.spec import own_code
from cnnsearch.spec.settings import Settings
from cnnsearch.training.models.code import make
from tests.own_code import NETS, SWEEP, write_nets, write_sweep

IMPORTS = """
import torch
from torch import nn
from torch.nn import functional as F
import cnnsearch
"""
BLOCK = """
KERNEL = 3
CHANNELS = {"first": [4, 8]}
images = object()  # a name that the network has for something of its own

def block(before, after):
    return nn.Sequential(nn.Conv2d(before, after, KERNEL, padding=1), nn.ReLU())

class Base(nn.Module):
    def forward(self, images):
        return self.head(F.relu(self.layers(images)).mean((2, 3)))
"""
NETWORK = """
class SmallNet(Base):
    def __init__(self, num_classes, depth=1):
        super().__init__()
        self.layers = nn.Sequential(block(3, CHANNELS["first"][0]), *(block(4, 4) for _ in range(depth)))
        self.head = nn.Linear(4, num_classes)
"""

Cell = Callable[[str], ModuleType]


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cell:
    """Runs cells as a notebook's kernel does: in `__main__`, which has no file, each from a file only Python knows."""
    monkeypatch.setattr(own_code, "_TRUSTED", {})
    monkeypatch.setattr(own_code, "_REGISTERED", {})
    monkeypatch.chdir(tmp_path)
    main = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    names = iter(range(100))

    def run(source: str) -> ModuleType:
        source, name = dedent(source), f"<cell {next(names)} of {tmp_path.name}>"
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        exec(compile(source, name, "exec"), vars(main))
        return main

    return run


def trials_model(**values: Any) -> torch.nn.Module:
    """The network of the first trial of the sweep that names what was registered."""
    snapshot = own_code.registered()["SmallNet"]
    given = {"model": "SmallNet", "code": snapshot.digest, "image_size": 8, **values}
    return make(Settings.model_validate(given), 5)


def test_a_class_of_a_cell_is_registered_with_all_it_uses(cell: Cell) -> None:
    for source in (IMPORTS, BLOCK):
        cell(source)
    main = cell(NETWORK)
    assert cnnsearch.register(main.SmallNet) is main.SmallNet
    del main.block, main.Base, main.KERNEL
    assert trials_model(model_args={"depth": 2})(torch.rand(2, 3, 8, 8)).shape == (2, 5)
    source = own_code.registered()["SmallNet"].files["SmallNet.py"]
    assert "import torch.nn.functional as F" in source
    assert "CHANNELS = {'first': [4, 8]}" in source
    assert "object()" not in source


def test_it_is_also_a_decorator(cell: Cell) -> None:
    for source in (IMPORTS, BLOCK, f"@cnnsearch.register\n{NETWORK.strip()}\n"):
        cell(source)
    assert "register" not in own_code.registered()["SmallNet"].files["SmallNet.py"]
    assert trials_model()(torch.rand(2, 3, 8, 8)).shape == (2, 5)


def test_a_sweep_names_what_was_registered(cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cnnsearch.training.models.checked_code.answer", lambda request: {})
    for source in (IMPORTS, BLOCK):
        cell(source)
    cnnsearch.register(cell(NETWORK).SmallNet)
    sweep = cnnsearch.load_sweep(write_sweep(tmp_path)).with_values({"train.epochs": 1})
    tables = cnnsearch.run(sweep, tmp_path, serial=True, show=False)
    assert list(tables.trials["status"]) == ["done", "done"]
    assert tables.best().model().classes  # without naming it again
    (kept,) = (tmp_path / "mine" / "code").glob("*/SmallNet.py")
    monkeypatch.setattr(own_code, "_TRUSTED", {})
    assert cnnsearch.load_model(tmp_path / "mine", code=[kept]).classes


def test_a_change_counts_once_it_is_registered_again(cell: Cell, tmp_path: Path) -> None:
    for source in (IMPORTS, BLOCK):
        cell(source)
    cnnsearch.register(cell(NETWORK).SmallNet)
    before = cnnsearch.load_sweep(write_sweep(tmp_path))
    main = cell(NETWORK.replace("depth=1", "depth=3"))
    assert cnnsearch.load_sweep(write_sweep(tmp_path)).code == before.code
    cnnsearch.register(main.SmallNet)
    assert cnnsearch.load_sweep(write_sweep(tmp_path)).code != before.code


def test_sweeps_that_name_none_of_it_stay_as_they_are(cell: Cell) -> None:
    for source in (IMPORTS, BLOCK):
        cell(source)
    cnnsearch.register(cell(NETWORK).SmallNet)
    assert cnnsearch.load_sweep("part1").code == ()


def test_files_beside_the_notebook_are_part_of_it(cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_nets(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    cell("from torch import nn\nfrom blocks import block")
    main = cell(NETS[NETS.index("class SmallNet") : NETS.index("def flat_net")])
    cnnsearch.register(main.SmallNet)
    sys.modules.pop("blocks")
    assert list(own_code.registered()["SmallNet"].files) == ["SmallNet.py", "blocks.py"]


def test_a_network_of_a_module_is_known_by_the_modules_file(
    cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_nets(tmp_path, name="nets_of_mine.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("nets_of_mine")
    for name in ("nets_of_mine", "blocks"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "nets_of_mine", module)
    cnnsearch.register(module.SmallNet)
    assert own_code.registered()["SmallNet"].digest == own_code.read_code(file).digest
    assert cnnsearch.load_sweep(write_sweep(tmp_path, SWEEP)).code[0].file == str(file)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("%matplotlib inline\n" + NETWORK, "the source of SmallNet cannot be found: define it by itself in a cell"),
        (NETWORK.replace("depth=1", "depth=table"), "SmallNet uses table, a Table of this notebook, which is no part"),
        (NETWORK.replace("SmallNet", "resnet18"), "resnet18 is the name of a model that there is already"),
    ],
)
def test_what_a_source_cannot_say_is_refused(source: str, told: str, cell: Cell, tmp_path: Path) -> None:
    for one in (IMPORTS, BLOCK, "class Table:\n    pass\ntable = Table()"):
        cell(one)
    if source.startswith("%"):  # the kernel runs it, and Python cannot read it
        main = cell(source.partition("\n")[2])
        name = f"<cell 3 of {tmp_path.name}>"
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    else:
        main = cell(source)
    with pytest.raises(RequestError, match=told):
        cnnsearch.register(getattr(main, "resnet18", None) or main.SmallNet)


@pytest.mark.parametrize("what", [3, "nets.py", lambda num_classes: None])
def test_what_has_no_name_is_refused(what: Any) -> None:
    with pytest.raises(RequestError, match="cannot be registered: give a class or a function"):
        cnnsearch.register(what)
