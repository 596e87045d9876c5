"""Arguments for networks of the user's own: `model_args`, of which each is an axis."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, JsonValue, TypeAdapter

ARGS = "model_args."
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
ARGUMENTS: TypeAdapter[Any] = TypeAdapter(Arguments, config=ConfigDict(allow_inf_nan=False))


def with_arguments(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values of settings with each `model_args.NAME` put into `model_args`."""
    plain = {key: value for key, value in values.items() if not str(key).startswith(ARGS)}
    args = {key.removeprefix(ARGS): value for key, value in values.items() if str(key).startswith(ARGS)}
    before = plain.get("model_args", {})
    return {**plain, "model_args": {**before, **args}} if args and isinstance(before, Mapping) else plain


def plain_value(value: Any) -> Any:
    """An argument as it is, or as JSON where it is a list or an object."""
    return json.dumps(value, sort_keys=True) if isinstance(value, list | dict) else value
