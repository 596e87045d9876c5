"""Arguments by name, of which each is an axis: `model_args` of networks of the user's own, `optimizer_args`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

GROUPS = ("model_args", "optimizer_args")
"""The settings that hold arguments by name."""
ARGS = tuple(f"{group}." for group in GROUPS)
"""What the name of an argument begins with, as an axis."""
GIVEN = ("num_classes", "image_size", "width", "dropout")
"""Arguments that networks get from elsewhere, where they take them."""


def _arguments(args: dict[str, Any]) -> dict[str, Any]:
    for name in args:
        if not name.isidentifier():
            raise ValueError(f"{name!r} cannot be the name of an argument")
        if name in GIVEN:
            there = "the number of classes in the data" if name == "num_classes" else f"the key {name}"
            raise ValueError(f"{name} is no argument to give here: the network gets {there}, if it takes {name}")
    return args


Arguments = Annotated[dict[str, JsonValue], AfterValidator(_arguments)]

_Part = Annotated[float, Field(ge=0, lt=1)]
_Positive = Annotated[float, Field(gt=0)]
_Least = Annotated[float, Field(ge=0)]
_BETAS: dict[str, Any] = {"betas": tuple[_Part, _Part], "eps": _Least}
OF_OPTIMIZER: dict[str, dict[str, Any]] = {
    "adam": {**_BETAS, "amsgrad": bool},
    "adamw": {**_BETAS, "amsgrad": bool},
    "sgd": {"dampening": Annotated[float, Field(ge=0, le=1)], "nesterov": bool},
    "adadelta": {"rho": Annotated[float, Field(ge=0, le=1)], "eps": _Least},
    "adafactor": {"beta2_decay": Annotated[float, Field(le=0)], "d": Annotated[float, Field(ge=1)]},
    "adagrad": {"lr_decay": _Least, "initial_accumulator_value": _Least, "eps": _Least},
    "adamax": _BETAS,
    "asgd": {"lambd": _Least, "alpha": _Least, "t0": _Positive},
    "muon": {"momentum": _Part, "nesterov": bool, "eps": _Least, "ns_steps": Annotated[int, Field(ge=1, lt=100)]},
    "nadam": {**_BETAS, "momentum_decay": _Least, "decoupled_weight_decay": bool},
    "radam": {**_BETAS, "decoupled_weight_decay": bool},
    "rmsprop": {"alpha": _Part, "eps": _Least, "momentum": _Part, "centered": bool},
    "rprop": {
        "etas": tuple[Annotated[float, Field(gt=0, lt=1)], Annotated[float, Field(gt=1)]],
        "step_sizes": tuple[_Positive, _Positive],
    },
}
"""Optimizer -> the arguments that PyTorch's class takes beside those that are settings of their own, and their values.
"""
_NAMES = {name for args in OF_OPTIMIZER.values() for name in args}
_OWN = {"lr": "lr", "weight_decay": "weight_decay"}


def _of_some_optimizer(args: dict[str, Any]) -> dict[str, Any]:
    for name in args:
        if name in _OWN:
            raise ValueError(f"{name} is a setting of its own: give {name}")
        if name not in _NAMES:
            raise ValueError(f"no optimizer takes {name!r}; allowed: {', '.join(sorted(_NAMES))}")
    return args


OptimizerArguments = Annotated[dict[str, JsonValue], AfterValidator(_of_some_optimizer)]
_EXACT = ConfigDict(allow_inf_nan=False, strict=False)
ARGUMENTS: dict[str, TypeAdapter[Any]] = {
    "model_args": TypeAdapter(Arguments, config=ConfigDict(allow_inf_nan=False)),
    "optimizer_args": TypeAdapter(OptimizerArguments, config=ConfigDict(allow_inf_nan=False)),
}


def optimizer_problem(optimizer: str, args: Mapping[str, Any]) -> str | None:
    """Say why an optimizer cannot have arguments; None where it can."""
    allowed = OF_OPTIMIZER[optimizer]
    for name, value in args.items():
        if name not in allowed:
            return f"optimizer_args.{name} with optimizer {optimizer}: allowed: {', '.join(allowed)}"
        if isinstance(value, bool) is not (allowed[name] is bool):
            kind = "true or false" if allowed[name] is bool else "a number"
            return f"optimizer_args.{name} is {value!r}; allowed: {kind}"
        try:
            TypeAdapter(allowed[name], config=_EXACT).validate_python(value)
        except ValidationError as error:
            return f"optimizer_args.{name} is {value!r}: {error.errors()[0]['msg']}"
    return None


def group_and_name(axis: str) -> tuple[str, str]:
    """Split the axis of an argument, as `model_args.depth`."""
    group, _, name = axis.partition(".")
    return group, name


def with_arguments(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values of settings with each `model_args.NAME` put into `model_args`, and likewise `optimizer_args`."""
    plain = {key: value for key, value in values.items() if not str(key).startswith(ARGS)}
    for group in GROUPS:
        args = {group_and_name(key)[1]: value for key, value in values.items() if str(key).startswith(f"{group}.")}
        before = plain.get(group, {})
        if args and isinstance(before, Mapping):
            plain[group] = {**before, **args}
    return plain


def plain_value(value: Any) -> Any:
    """An argument as it is, or as JSON where it is a list or an object."""
    return json.dumps(value, sort_keys=True) if isinstance(value, list | dict) else value
