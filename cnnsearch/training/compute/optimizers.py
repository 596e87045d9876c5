"""Fused optimizers that are given their parameters in the order of memory.

On a CPU, torch's fused kernels copy every weight, gradient and moment in channels_last order to the standard order and
back, which takes half the time of a step. They work element by element, so here they are given views in the order of
memory instead. The results are the same bit for bit.

This module calls torch's functional optimizers. Its optimizer classes import the compiler when the first is made, which
takes two seconds of a worker's start, and take a millisecond per step.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from cnnsearch.spec.settings import Settings

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
"""β₁, β₂ and ε of Adam and AdamW: torch's defaults."""

State = dict[str, Tensor]
"""What the optimizer remembers of one parameter, under the names that torch's optimizers use."""

_IN_MEMORY, _IN_MODEL = (0, 2, 3, 1), (0, 3, 1, 2)
"""Permutation of a weight [K, C, h, w] to the order that channels_last has in memory, and the one back."""


class Optimizer:
    """A fused optimizer for some parameters.

    As soon as the gradient of a parameter is complete, it moves to the view through which the parameter is updated.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], settings: Settings) -> None:
        self.parameters = list(parameters)
        self.stepped = [_view(parameter) for parameter in self.parameters]
        self.lr: float | Tensor = settings.lr
        if self.parameters[0].is_cuda:
            # A step that was recorded on a GPU reads its learning rate from this tensor.
            self.lr = torch.tensor(settings.lr, device=self.parameters[0].device)
        self._settings = settings
        self._update = UPDATES[settings.optimizer]
        self._states: list[State] = [{} for _ in self.parameters]

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of the next step, in place if it is a tensor, since a recorded step reads that."""
        if isinstance(self.lr, Tensor):
            self.lr.fill_(lr)
        else:
            self.lr = lr

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters that have gradients, and drop the gradients."""
        pairs = [(p, state) for p, state in zip(self.stepped, self._states, strict=True) if p.grad is not None]
        self._update([p for p, _ in pairs], [state for _, state in pairs], self._settings, self.lr)
        self.zero_grad()

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for parameter in self.stepped:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return what torch's optimizer of the same parameters has as its state, in their shapes on every device."""
        return {"state": {index: self._in_order(index, s, _IN_MODEL) for index, s in enumerate(self._states) if s}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of an equal optimizer. The learning rate stays as it is: it is a function of the step."""
        for index, parameter in enumerate(self.parameters):
            found = self._in_order(index, state["state"].get(index, {}), _IN_MEMORY)
            # Copied, since the next step changes them in place.
            self._states[index] = {name: value.to(parameter.device, copy=True) for name, value in found.items()}

    def _in_order(self, index: int, state: State, order: tuple[int, ...]) -> State:
        """Permute the moments of a parameter that is updated through a view; leave those of others."""
        if self.stepped[index] is self.parameters[index]:
            return state
        return {name: value.permute(order) if value.dim() == 4 else value for name, value in state.items()}


class Update(Protocol):
    """A function that takes one step of an optimizer."""

    def __call__(
        self, parameters: list[nn.Parameter], states: list[State], settings: Settings, lr: float | Tensor
    ) -> None:
        """Update parameters by their gradients, and the state of each.

        Args:
            parameters: all of them have gradients.
            states: one for each parameter; empty before its first step.
            settings: weight decay and momentum.
            lr: learning rate of this step.
        """


def _adam(*, decoupled_weight_decay: bool) -> Update:
    def update(parameters: list[nn.Parameter], states: list[State], settings: Settings, lr: float | Tensor) -> None:
        for parameter, state in zip(parameters, states, strict=True):
            if not state:
                state["step"] = torch.zeros((), device=parameter.device)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        adam(
            list[Tensor](parameters),
            _gradients(parameters),
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            decoupled_weight_decay=decoupled_weight_decay,
            amsgrad=False,
            beta1=BETA1,
            beta2=BETA2,
            lr=lr,
            weight_decay=settings.weight_decay,
            eps=EPSILON,
            maximize=False,
        )

    return update


def _sgd(parameters: list[nn.Parameter], states: list[State], settings: Settings, lr: float | Tensor) -> None:
    momenta = [state.get("momentum_buffer") for state in states]
    sgd(
        list[Tensor](parameters),
        _gradients(parameters),
        momenta,
        fused=True,
        weight_decay=settings.weight_decay,
        momentum=settings.momentum,
        lr=lr,
        dampening=0.0,
        nesterov=False,
        maximize=False,
    )
    for state, momentum in zip(states, momenta, strict=True):
        if momentum is not None:
            state["momentum_buffer"] = momentum


def _gradients(parameters: list[nn.Parameter]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


UPDATES: dict[str, Update] = {
    "adam": _adam(decoupled_weight_decay=False),
    "adamw": _adam(decoupled_weight_decay=True),
    "sgd": _sgd,
}
"""Optimizers by name, with torch's defaults for whatever is not a hyperparameter here."""


def _view(parameter: nn.Parameter) -> nn.Parameter:
    """Return what to update for a parameter: on a CPU, a view [K, h, w, C] of one in channels_last order; else itself.

    The gradients of the parameter move to the view.
    """
    if parameter.is_cuda or parameter.dim() != 4 or not parameter.is_contiguous(memory_format=torch.channels_last):
        return parameter
    view = nn.Parameter(parameter.detach().permute(_IN_MEMORY))

    def hand_over(complete: Tensor) -> None:
        assert complete.grad is not None
        view.grad, complete.grad = complete.grad.permute(_IN_MEMORY).contiguous(), None

    parameter.register_post_accumulate_grad_hook(hand_over)
    return view
