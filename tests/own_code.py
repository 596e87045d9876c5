"""Networks of a user's own, as files, and a sweep that names them."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

BLOCKS = """
from torch import nn


def block(before, after):
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU())
"""
NETS = '''
from torch import nn

from blocks import block


class SmallNet(nn.Module):
    """Some blocks and a linear layer; `view` needs torch's usual order in memory."""

    def __init__(self, num_classes, depth=1, dropout=0.0):
        super().__init__()
        self.blocks = nn.Sequential(*(block(4 if number else 3, 4) for number in range(depth)))
        self.drop = nn.Dropout(dropout)
        self.pool = nn.MaxPool2d(4)
        self.head = nn.Linear(16, num_classes)

    def forward(self, images):
        x = self.pool(self.blocks(images))
        return self.head(self.drop(x.view(x.size(0), -1)))


def flat_net(num_classes, image_size, width):
    hidden = int(8 * width)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * image_size**2, hidden), nn.Linear(hidden, num_classes))


def _helper():
    raise AssertionError
'''
SWEEP = """
name: mine
data: {source: fashion-mini, image_size: 8, split: {method: fill, train_per_class: 4, val_per_class: 4}}
train: {epochs: 2, batch_size: 16, precision: fp32}
run: {keep: all}
stages:
  - name: grid
    space:
      model: SmallNet
      model_args.depth: {grid: [1, 2]}
"""


def write_nets(folder: Path, nets: str = NETS, name: str = "nets.py") -> Path:
    """Write a file with networks, and beside it one that it imports."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "blocks.py").write_text(BLOCKS, encoding="utf-8")
    (folder / name).write_text(dedent(nets), encoding="utf-8")
    return folder / name


def write_sweep(folder: Path, text: str = SWEEP) -> Path:
    """Write the sweep file."""
    (folder / "mine.yaml").write_text(text, encoding="utf-8")
    return folder / "mine.yaml"
