"""What people type who know other tools, and what it is called here."""

from __future__ import annotations

import itertools
import os
import re
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from cnnsearch.ending import answering, one_clear_message
from cnnsearch.errors import RequestError

AsJson = Annotated[
    bool,
    typer.Option("--json", help="Standard output is one JSON object and nothing else; all else is on standard error."),
]
"""The option `--json`."""
Code = Annotated[
    list[str] | None,
    typer.Option(
        "--code",
        help="Let this Python file run: the sweep's models may be its classes and functions. May be given again.",
        metavar="FILE.py",
    ),
]
"""The option `--code`, where a sweep is run."""
KeptCode = Annotated[
    list[str] | None,
    typer.Option(
        "--code",
        help="Let this Python file run: of a network of one's own, its code as it was. RESULTS/code holds a copy.",
        metavar="FILE.py",
    ),
]
"""The option `--code`, where a network that was trained is used."""
EXAMPLES = {
    "sweep": "part1 --data photos --profile quick",
    "report": "results/part1",
    "unseal": "results/tune",
    "status": "results",
    "watch": "results/part1",
    "predict": "results/part1 photos --out answers.csv",
    "export": "results/part1 classifier",
    "explain": "results/part1 best",
    "reproduce": "results/part1 best",
    "diff": "results/part1 new/part1 --fail-on-regression",
    "init": "photos",
    "check": "photos --out found.csv",
    "convert": "wandb-sweep.yaml --out mine.yaml",
    "share": "results/part1 --to optuna:journal.log",
    "schema": "--out sweep.schema.json",
}
"""Command -> arguments that show what it is for."""
BARE_CONFIRM = "5"
"""What `--confirm` without a number means."""
_AXIS = "for all trials: --set train.{key}={value}; as an axis: --set 'stages.STAGE.space.{key}.grid=[{value}, ...]'"
_FOLDS = "--set 'data.split={{method: folds, k: {value}}}'"
_OPTIONS = {
    "config": "the sweep file is the command's argument: cnnsearch sweep my.yaml",
    "cpu": "--set run.device=cpu",
    "cv": _FOLDS,
    "dataset": "--data {value}",
    "device": "--set run.device={value}",
    "folds": _FOLDS,
    "gpus": "GPUs are used where there are any; --set run.device=cpu uses none, --set run.gpus_per_trial=1 gives each "
    "trial one",
    "image-size": "--set data.image_size={value}",
    "img-size": "--set data.image_size={value}",
    "jobs": "--set run.trials_at_once={value}",
    "k-folds": _FOLDS,
    "n-splits": _FOLDS,
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


DAY_SECONDS = 86_400
MOST_DAYS = 3650
"""Longest time that can be asked for: what a system's timers take is limited."""
CODES_LEFT = (0, *range(3, 126))
"""Exit codes that `--exit-code-when-left` may be: the others mean something else here or to a shell."""


def example(command: str) -> str | None:
    """The example that a command's help ends with; None for one that is none of ours, as of a test."""
    return f"Example: cnnsearch {command} {EXAMPLES[command]}" if command in EXAMPLES else None


class PlainCommand(TyperCommand):
    """A command that knows that a word such as `-photos` may name a folder."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments."""
        given = list(args)  # the parser takes words out of the list
        try:
            return super().parse_args(ctx, args)
        except Exception as error:  # typer keeps the class of those that know an `option_name` to itself
            option = getattr(error, "option_name", None)
            named = [word for word in given if option and word.startswith(option) and os.path.lexists(word)]
            if named:
                error.message += f"; to name what is here, write ./{named[0]}"  # type: ignore[attr-defined]
            raise


class Command(PlainCommand):
    """A command that may be asked for `--json`: what cannot be understood is told so, too."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments."""
        with answering("--json" in args and "--help" not in args):
            return self.understood(ctx, args)

    def understood(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments; a command of ours may prepare them first."""
        return super().parse_args(ctx, args)


class SweepCommand(Command):
    """The command `sweep`: `--confirm` may stand without its number, and options of other tools are explained."""

    def understood(self, ctx: Any, args: list[str]) -> list[str]:
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
        return super().understood(ctx, whole)


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
        "  cnnsearch sweep tune --data path/to/images --dry-run\n"
        "For a folder of images, cnnsearch init path/to/images writes a sweep file that suits it."
    )


def seconds_of(option: str, text: str) -> float:
    """Parse `90s`, `30m`, `2h` or `1d` into seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if not match or float(match[1]) == 0:
        raise RequestError(f"{option} {text}: give a number and s, m, h or d, such as 30m")
    seconds = float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": DAY_SECONDS}[match[2]]
    if seconds > MOST_DAYS * DAY_SECONDS:
        raise RequestError(f"{option} {text}: allowed is up to {MOST_DAYS}d; without {option} there is no limit")
    return seconds


def seeds_of(text: str | None) -> list[int]:
    """Parse `0,1,2` into numbers."""
    try:
        found = [int(part) for part in text.split(",") if part.strip()] if text else []
    except ValueError:
        raise RequestError(f"--seeds {text}: give whole numbers with commas between, such as 0,1,2") from None
    if len(found) == 1 and found[0] > 1 and "," not in (text or ""):
        several = ",".join(map(str, range(min(found[0], 10))))
        raise RequestError(
            f"--seeds {text} could be one seed or {text} of them. {text} seeds: --seeds {several}"
            f"{',...' * (found[0] > 10)}; the one seed {text}: --seeds {text}, (with a comma)"
        )
    return found


def refuse_code(code: int | None, *, is_limited: bool) -> None:
    """Raise RequestError where `--exit-code-when-left` is a code that means something else, or can never be met."""
    if code is None:
        return
    if code not in CODES_LEFT:
        raise RequestError(
            f"--exit-code-when-left {code}: allowed are 0 and 3 to 125; the others mean something else to this command "
            "or to a shell"
        )
    if not is_limited:
        raise RequestError(
            "--exit-code-when-left is for trials that --max-time or --max-trials leave: give one of them"
        )
