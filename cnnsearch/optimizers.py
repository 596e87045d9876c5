"""Fused optimizers, given their parameters in the order they lie in memory.

On a CPU the fused kernels copy every weight, gradient and moment in channels_last order to the other order and back,
which is half of what a step takes. They work number by number, so they are given views in the order of memory instead:
the results are the same, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from cnnsearch.spec import Settings

OPTIMIZERS: dict[str, Callable[[list[nn.Parameter], Settings, float | Tensor], torch.optim.Optimizer]] = {
    "adam": lambda p, s, lr: torch.optim.Adam(p, lr=lr, weight_decay=s.weight_decay, fused=True),
    "adamw": lambda p, s, lr: torch.optim.AdamW(p, lr=lr, weight_decay=s.weight_decay, fused=True),
    "sgd": lambda p, s, lr: torch.optim.SGD(p, lr=lr, weight_decay=s.weight_decay, momentum=s.momentum, fused=True),
}

_IN_MEMORY, _IN_MODEL = (0, 2, 3, 1), (0, 3, 1, 2)
"""Dimensions of a weight [K, C, h, w] as channels_last has them, and back."""


class Optimizer:
    """A fused optimizer of some parameters.

    Gradients move from a parameter to the view of it that is stepped as soon as they are complete.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], settings: Settings) -> None:
        self.parameters = list(parameters)
        self.stepped = [_view(parameter) for parameter in self.parameters]
        on_gpu = self.parameters[0].is_cuda
        # A step recorded on a GPU reads its learning rate from there.
        lr = torch.tensor(settings.lr, device=self.parameters[0].device) if on_gpu else settings.lr
        self.torch = OPTIMIZERS[settings.optimizer](self.stepped, settings, lr)

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of the next step; in place where it is a tensor, which a recorded step reads."""
        for group in self.torch.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr

    def step(self) -> None:
        """Change the parameters by their gradients, and drop those."""
        self.torch.step()
        self.torch.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """As a torch optimizer of the model's own parameters has it: shapes are theirs, on every device."""
        return self._with_moments(self.torch.state_dict(), _IN_MODEL)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a state of an equal optimizer; the learning rate, a function of the step, stays as it is."""
        rates = [group["lr"] for group in self.torch.param_groups]
        self.torch.load_state_dict(self._with_moments(state, _IN_MEMORY))
        for group, lr in zip(self.torch.param_groups, rates, strict=True):
            group["lr"] = lr

    def _with_moments(self, state: dict[str, Any], order: tuple[int, ...]) -> dict[str, Any]:
        """A state with the moments of viewed parameters in another order."""
        moments = dict(state["state"])
        for index, (parameter, stepped) in enumerate(zip(self.parameters, self.stepped, strict=True)):
            if stepped is not parameter and index in moments:
                moments[index] = {
                    name: value.permute(order) if isinstance(value, Tensor) and value.dim() == 4 else value
                    for name, value in moments[index].items()
                }
        return {**state, "state": moments}


def _view(parameter: nn.Parameter) -> nn.Parameter:
    """The parameter, or on a CPU a view [K, h, w, C] of one in channels_last order, which then gets its gradients."""
    if parameter.is_cuda or parameter.dim() != 4 or not parameter.is_contiguous(memory_format=torch.channels_last):
        return parameter
    view = nn.Parameter(parameter.detach().permute(_IN_MEMORY))

    def hand_over(complete: Tensor) -> None:
        assert complete.grad is not None
        view.grad, complete.grad = complete.grad.permute(_IN_MEMORY).contiguous(), None

    parameter.register_post_accumulate_grad_hook(hand_over)
    return view
