"""Python imports this at its start where this folder is in PYTHONPATH: makes trials break as CNNSEARCH_TEST_FAULT says.

Workers are processes that Ray starts: there is no other way into them without a way in the product.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import pathlib
import resource
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

_FAULT = os.environ.get("CNNSEARCH_TEST_FAULT")
_TARGET = "cnnsearch.execution.trial"


class _Finder(importlib.abc.MetaPathFinder):
    """Lets the module be found as ever, then changes it."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != _TARGET:
            return None
        sys.meta_path.remove(self)
        found = importlib.machinery.PathFinder.find_spec(name, path)
        assert found is not None
        assert found.loader is not None
        run = found.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run(module)
            _break(module)

        found.loader.exec_module = exec_module  # type: ignore[method-assign]
        return found


def _is_first() -> bool:
    """Whether no process has asked before."""
    try:
        (pathlib.Path(os.environ["CNNSEARCH_TEST_FOLDER"]) / "happened").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _break(module: Any) -> None:
    train = module.train
    spoiled: list[float] = []

    def broken(state: Any, examples: Any, settings: Any, **options: Any) -> Any:
        if _FAULT == "exception" and (settings.lr == 0.5 or spoiled):
            spoiled.append(settings.lr)
            raise ArithmeticError(f"injected for lr {settings.lr}\nand more")
        if settings.batch_size == 60 and (_FAULT == "memory" or (_FAULT == "memory once" and _is_first())):
            with open("/proc/self/statm", encoding="ascii") as file:
                used = int(file.read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + 2**20, used + 2**20))
        yield from train(state, examples, settings, **options)

    module.train = broken


if _FAULT:
    sys.meta_path.insert(0, _Finder())
