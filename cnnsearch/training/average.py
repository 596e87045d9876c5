"""An exponential moving average of a model's weights, which is evaluated and kept in their place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

Weights = dict[str, Tensor]


class Average:
    """The average of the weights after each step; statistics of batch normalisation are averaged, too.

    Of the steps before a step, it remembers about 1 / (1 - decay). The first ones weigh less than that says, so that
    the random weights at the beginning are soon forgotten.
    """

    def __init__(self, model: nn.Module, names: Iterable[str], decay: float) -> None:
        """Begin with the weights as they are.

        Args:
            model: whose weights are averaged; it is changed in place by training.
            names: of what can change, in its state dict.
            decay: share of the average that a step leaves as it is, below 1.
        """
        weights = model.state_dict()
        self._weights = {name: weights[name] for name in sorted(names)}
        self._decay = decay
        self.values: Weights = {name: value.clone() for name, value in self._weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step, by its number from 0."""
        change = 1 - min(self._decay, (1 + step) / (10 + step))
        for name, value in self._weights.items():
            if value.is_floating_point():
                self.values[name].lerp_(value, change)
            else:
                self.values[name].copy_(value)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the average into the model for the time of the block."""
        own = {name: value.clone() for name, value in self._weights.items()}
        self._put(self.values)
        try:
            yield
        finally:
            self._put(own)

    def load(self, values: Weights) -> None:
        """Go on from an average that was saved."""
        for name, value in self.values.items():
            value.copy_(values[name])

    @torch.no_grad()
    def _put(self, values: Weights) -> None:
        for name, value in self._weights.items():
            value.copy_(values[name])
