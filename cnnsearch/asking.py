"""What people type who know other tools, and what it is called here."""

from __future__ import annotations

import itertools
from typing import Any

from typer.core import TyperCommand

from cnnsearch.ending import one_clear_message
from cnnsearch.errors import RequestError

BARE_CONFIRM = "5"
"""What `--confirm` without a number means."""
_AXIS = "for all trials: --set train.{key}={value}; as an axis: --set 'stages.STAGE.space.{key}.grid=[{value}, ...]'"
_OPTIONS = {
    "config": "the sweep file is the command's argument: cnnsearch sweep my.yaml",
    "cpu": "--set run.device=cpu",
    "dataset": "--data {value}",
    "device": "--set run.device={value}",
    "gpus": "GPUs are used where there are any; --set run.device=cpu uses none, --set run.gpus_per_trial=1 gives each "
    "trial one",
    "image-size": "--set data.image_size={value}",
    "img-size": "--set data.image_size={value}",
    "jobs": "--set run.trials_at_once={value}",
    "n-trials": "of a stage with a searcher: --set stages.STAGE.search.trials={value}; begin at most so many now: "
    "--max-trials {value}",
    "num-samples": "of a stage with a searcher: --set stages.STAGE.search.trials={value}",
    "num-workers": "--set run.trials_at_once={value}",
    "output": "--out {value}",
    "output-dir": "--out {value}",
    "resume": "nothing is needed: the same command goes on where it stopped",
    "seed": "one seed: --set train.seed={value}; several: --seeds 0,1,2",
    "timeout": "--max-time 30m",
    "trials": "of a stage with a searcher: --set stages.STAGE.search.trials={value}; begin at most so many now: "
    "--max-trials {value}",
    "workers": "--set run.trials_at_once={value}",
}
"""Option of other tools -> what to type here."""


class SweepCommand(TyperCommand):
    """The command `sweep`: `--confirm` may stand without its number, and options of other tools are explained."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put in the number of `--confirm` where the next word is none."""
        known = {"--help", *(name for parameter in self.params for name in parameter.opts)}
        whole: list[str] = []
        for word, after in itertools.zip_longest(args, args[1:], fillvalue=""):
            is_bare = word == "--confirm" and not after.removeprefix("-").isdigit()
            whole += [word, BARE_CONFIRM] if is_bare else [word]
            name, _, value = word.partition("=")
            if name.startswith("--") and name not in known:
                with one_clear_message():
                    _explain(name, value or (after if not after.startswith("-") else ""))
        if not args:
            with one_clear_message():
                raise RequestError(_what_there_is())
        return super().parse_args(ctx, whole)


def _explain(option: str, given: str) -> None:
    """Raise RequestError with what an option of other tools is called here, if it is one."""
    from cnnsearch.spec.explain import ALIASES
    from cnnsearch.spec.settings import Recipe

    name = option.removeprefix("--").replace("_", "-")
    word = name.replace("-", "_")
    key = ALIASES.get(word, word)
    means = _OPTIONS.get(name, _AXIS if key in Recipe.model_fields else "")
    if means:
        raise RequestError(f"{option} is not an option; {means.format(key=key, value=given or '...')}")


def _what_there_is() -> str:
    from cnnsearch.spec.load import sweeps_there_are

    rows = sweeps_there_are()
    width = max((len(name) for name, _ in rows), default=0)
    listed = "\n".join(f"  {name:<{width}}  {title}" for name, title in rows)
    return (
        f"which sweep? There are\n{listed}\n"
        "and any sweep file of your own, as in docs/sweeps.md. For example:\n"
        "  cnnsearch sweep part1 --profile quick\n"
        "  cnnsearch sweep tune --data path/to/images --dry-run"
    )
