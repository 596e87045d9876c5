"""Hyperparameter sweeps for image classification with CNNs.

For notebooks and scripts:

    import cnnsearch

    sweep = cnnsearch.load_sweep("part1", profile="quick").with_values({"train.epochs": 3})
    tables = cnnsearch.run(sweep)
    tables.trials  # a DataFrame
    cnnsearch.plots.learning_curves(tables)  # a matplotlib Figure

    cnnsearch.load("results/part1").best().predict("folder/of/images")  # a DataFrame
    model = cnnsearch.load_model("results/part1")  # a torch module

    cnnsearch.register(SmallNet)  # a network of your own, which sweeps may then name
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cnnsearch import plots
    from cnnsearch.notebook import run
    from cnnsearch.results.tables import Tables
    from cnnsearch.spec.load import load_sweep
    from cnnsearch.spec.registering import register
    from cnnsearch.use.opened import load, load_model

__all__ = ["Tables", "__version__", "load", "load_model", "load_sweep", "plots", "register", "run"]

_HOMES = {
    "run": "notebook",
    "load_sweep": "spec.load",
    "register": "spec.registering",
    "Tables": "results.tables",
    "load": "use.opened",
    "load_model": "use.opened",
}


def __getattr__(name: str) -> Any:
    """Import a part when it is first used: `--help` must not wait for all of them."""
    if name == "plots":
        return importlib.import_module("cnnsearch.plots")
    if name in _HOMES:
        return getattr(importlib.import_module(f"cnnsearch.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'cnnsearch' has no attribute {name!r}")
