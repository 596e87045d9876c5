"""Optimizers: fused ones that are given their parameters in the order of memory, and PyTorch's others as they are.

On a CPU, torch's fused kernels copy every weight, gradient and moment in channels_last order to the standard order and
back, which takes half the time of a step. They work element by element, so here they are given views in the order of
memory instead. The results are the same bit for bit.

The fused ones call torch's functional optimizers. Its optimizer classes import the compiler when the first is made,
which takes two seconds of a worker's start, and take a millisecond per step.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from cnnsearch.errors import RequestError
from cnnsearch.spec.settings import Settings
from cnnsearch.training.compute.device_kinds import device_of

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
"""β₁, β₂ and ε of Adam and AdamW: torch's defaults."""

State = dict[str, Tensor]
"""What the optimizer remembers of one parameter, under the names that torch's optimizers use."""

_IN_MEMORY, _IN_MODEL = (0, 2, 3, 1), (0, 3, 1, 2)
"""Permutation of a weight [K, C, h, w] to the order that channels_last has in memory, and the one back."""


class Optimizer(Protocol):
    """What training asks of an optimizer."""

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of the next step, in place if it is a tensor, since a recorded step reads that."""

    def step(self) -> None:
        """Update the parameters that have gradients, and drop the gradients."""

    def zero_grad(self) -> None:
        """Drop all gradients."""

    def state_dict(self) -> dict[str, Any]:
        """Return all that it remembers: tensors and numbers."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of an equal optimizer. The learning rate stays as it is: it is a function of the step."""


def optimizer_of(model: nn.Module, settings: Settings, heads: Collection[str] = ()) -> Optimizer:
    """Return the optimizer of a model's parameters that require gradients.

    Args:
        model: on its device.
        settings: which optimizer, and how it steps.
        heads: names of the last layer, or layers; needed where settings treat them otherwise than the others: see
            `needs_head`.

    Raises RequestError where this version of PyTorch has no such optimizer.
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    of_head = {name for name, _ in named if name.rpartition(".")[0] in heads}
    factors = [settings.head_lr_factor if name in of_head else 1.0 for name, _ in named]
    parameters = [parameter for _, parameter in named]
    if settings.has_fused_steps:
        return FusedOptimizer(parameters, settings, factors)
    matrices = [p.dim() >= 2 and name not in of_head for name, p in named] if settings.optimizer == "muon" else None
    return TorchOptimizer(parameters, settings, factors, matrices)


def needs_head(settings: Settings) -> bool:
    """Whether the last layer is stepped otherwise than the others."""
    return settings.head_lr_factor != 1.0 or settings.optimizer == "muon"


class FusedOptimizer:
    """A fused optimizer for some parameters.

    As soon as the gradient of a parameter is complete, it moves to the view through which the parameter is updated.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], settings: Settings, factors: Sequence[float] | None = None
    ) -> None:
        """Args:
        parameters: all of them require gradients, and lie on one device.
        settings: of the trial.
        factors: by which the learning rate of each parameter is multiplied; None: 1.
        """
        self.parameters = list(parameters)
        self._factors = list(factors or [1.0] * len(self.parameters))
        self.stepped = [_view(parameter) for parameter in self.parameters]
        self.lr: float | Tensor = settings.lr
        if device_of(self.parameters[0]).has_graphs:
            # A step that was recorded reads its learning rate from this tensor.
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
        if self._settings.grad_clip:
            nn.utils.clip_grad_norm_(self.stepped, self._settings.grad_clip)
        every = zip(self.stepped, self._states, self._factors, strict=True)
        found = [(p, state, factor) for p, state, factor in every if p.grad is not None]
        for factor in dict.fromkeys(factor for *_, factor in found):
            some = [(p, state) for p, state, its in found if its == factor]
            lr = self.lr if factor == 1.0 else self.lr * factor
            self._update([p for p, _ in some], [state for _, state in some], self._settings, lr)
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
            self._states[index] = {
                name: value.to(_place_of_step(parameter) if name == "step" else parameter.device, copy=True)
                for name, value in found.items()
            }

    def _in_order(self, index: int, state: State, order: tuple[int, ...]) -> State:
        """Permute the moments of a parameter that is updated through a view; leave those of others."""
        if self.stepped[index] is self.parameters[index]:
            return state
        return {name: value.permute(order) if value.dim() == 4 else value for name, value in state.items()}


class TorchOptimizer:
    """One of PyTorch's optimizer classes, with its defaults where settings do not say otherwise."""

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        settings: Settings,
        factors: Sequence[float],
        matrices: Sequence[bool] | None = None,
    ) -> None:
        """Args:
        parameters: all of them require gradients, and lie on one device.
        settings: of the trial.
        factors: by which the learning rate of each parameter is multiplied.
        matrices: which of them the optimizer takes, each as a matrix [K, n]; the others are stepped by AdamW. None:
            all, as they are.

        Raises RequestError where this version of PyTorch has no such optimizer.
        """
        self._parameters = list(parameters)
        self._settings = settings
        self._matrices = matrices or [False] * len(self._parameters)
        stepped = [
            nn.Parameter(p.detach().reshape(len(p), -1).clone()) if is_matrix else p
            for p, is_matrix in zip(self._parameters, self._matrices, strict=True)
        ]
        self._stepped = stepped
        parts = [(settings.optimizer, [i for i in range(len(stepped)) if matrices is None or matrices[i]])]
        if matrices is not None:
            parts.append(("adamw", [i for i in range(len(stepped)) if not matrices[i]]))
        self._parts = [
            _class_of(name)(
                [
                    {"params": [stepped[i] for i in indices if factors[i] == factor], "factor": factor}
                    for factor in dict.fromkeys(factors[i] for i in indices)
                ],
                lr=settings.lr,
                **_arguments(name, settings),
            )
            for name, indices in parts
            if indices
        ]

    def set_lr(self, lr: float) -> None:
        """See `Optimizer`."""
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = lr * group["factor"]

    def step(self) -> None:
        """See `Optimizer`."""
        with torch.no_grad():
            for own, stepped in zip(self._parameters, self._stepped, strict=True):
                if own is not stepped and own.grad is not None:
                    stepped.grad = own.grad.reshape(len(own), -1)
                    stepped.copy_(own.reshape(len(own), -1))
        if self._settings.grad_clip:
            nn.utils.clip_grad_norm_(self._stepped, self._settings.grad_clip)
        for part in self._parts:
            part.step()
        with torch.no_grad():
            for own, stepped in zip(self._parameters, self._stepped, strict=True):
                if own is not stepped:
                    own.copy_(stepped.reshape(own.shape))
        self.zero_grad()

    def zero_grad(self) -> None:
        """See `Optimizer`."""
        for parameter in (*self._parameters, *self._stepped):
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """See `Optimizer`."""
        return {"parts": [part.state_dict()["state"] for part in self._parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Optimizer`."""
        for part, found in zip(self._parts, state["parts"], strict=True):
            part.load_state_dict({"state": found, "param_groups": part.state_dict()["param_groups"]})


def _arguments(name: str, settings: Settings) -> dict[str, Any]:
    """What one of PyTorch's classes is called with; the one that `muon` leaves the rest to takes none of its own."""
    args: dict[str, Any] = {} if name == "rprop" else {"weight_decay": settings.weight_decay}
    if name == "sgd":
        args["momentum"] = settings.momentum
    return args | (settings.optimizer_args if name == settings.optimizer else {})


def _class_of(name: str) -> Callable[..., torch.optim.Optimizer]:
    """A class of `torch.optim`, by its name in any case. Raises RequestError where there is none."""
    for found, kind in vars(torch.optim).items():
        if found.lower() == name and isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer):
            return kind
    raise RequestError(f"optimizer {name} is not in PyTorch {torch.__version__}; a newer one has it")


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
                state["step"] = torch.zeros((), device=_place_of_step(parameter))
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        adam(
            list[Tensor](parameters),
            _gradients(parameters),
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=_fused(parameters[0]),
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
        fused=_fused(parameters[0]),
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


def _fused(parameter: nn.Parameter) -> bool | None:
    """Ask torch for fused steps where it has them; else leave the choice among its others to it."""
    return True if device_of(parameter).has_fused_optimizers else None


def _place_of_step(parameter: nn.Parameter) -> torch.device:
    """Where a parameter's count of steps is kept: fused steps read it on the device, others on the processor."""
    return parameter.device if _fused(parameter) else torch.device("cpu")


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
    is_reordered = parameter.dim() == 4 and parameter.is_contiguous(memory_format=torch.channels_last)
    if parameter.device.type != "cpu" or not is_reordered:
        return parameter
    view = nn.Parameter(parameter.detach().permute(_IN_MEMORY))

    def hand_over(complete: Tensor) -> None:
        assert complete.grad is not None
        view.grad, complete.grad = complete.grad.permute(_IN_MEMORY).contiguous(), None

    parameter.register_post_accumulate_grad_hook(hand_over)
    return view
