"""The commands: read the request, call the steps in order, print the outcome, choose the exit code."""

from __future__ import annotations

import functools
import logging
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from cnnsearch import __version__
from cnnsearch.asking import (
    AsJson,
    Code,
    Command,
    KeptCode,
    PlainCommand,
    SweepCommand,
    example,
    refuse_code,
    seconds_of,
    seeds_of,
)
from cnnsearch.beginning import check, init
from cnnsearch.classifying import export, predict
from cnnsearch.comparing import diff, reproduce
from cnnsearch.ending import (
    INTERRUPTED,
    Stopper,
    answering,
    as_a_program,
    command_line,
    end,
    how_to_go_on,
    how_to_see,
    one_clear_message,
    stoppable,
)
from cnnsearch.errors import DiskError, RequestError, RunError
from cnnsearch.exchanging import convert, schema, share
from cnnsearch.looking_on import explain, status, watch
from cnnsearch.reporting import report as report  # and of `python -m cnnsearch.report`
from cnnsearch.steps import Steps
from cnnsearch.storage.paths import typed_path
from cnnsearch.storage.remote import is_uri, redacted
from cnnsearch.words import VisibleLines, labelled, say

if TYPE_CHECKING:
    from cnnsearch.execution.events import Event
    from cnnsearch.prepare import Prepared
    from cnnsearch.told import Plan, Run

if logging.lastResort is not None:  # what shows warnings of ours where nobody has set up logging
    logging.lastResort.setFormatter(VisibleLines())


def _version(asked: bool) -> None:
    if asked:
        say(f"cnnsearch {__version__}")
        raise typer.Exit


def _plain_app(**options: Any) -> typer.Typer:
    return typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, **options)


app = _plain_app(help="Hyperparameter sweeps for image classification with CNNs.", no_args_is_help=True)


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Hyperparameter sweeps for image classification with CNNs."""


@app.command(cls=SweepCommand, epilog=example("sweep"))
def sweep(
    sweep: Annotated[
        str, typer.Argument(help="Run this sweep: a name (part1), or the path of a YAML file.", metavar="SWEEP")
    ],
    data: Annotated[
        str | None,
        typer.Option(
            help="Train on these images: a folder with a sub-folder per class, a table of paths and labels, Parquet or "
            ".tar files with images, fashion-mini, or torchvision:NAME.",
            metavar="SOURCE",
        ),
    ] = None,
    profile: Annotated[str | None, typer.Option(help="Use this profile of the sweep file.", metavar="NAME")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change the sweep: train.epochs=5. May be given again.", metavar="KEY=VALUE"),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Repeat every trial with each of these seeds.", metavar="0,1,2")
    ] = None,
    confirm: Annotated[
        int | None,
        typer.Option(
            help="Train the best settings again with N fresh seeds (5), and judge them by those alone; 0: do not.",
            metavar="[N]",
        ),
    ] = None,
    own_code: Code = None,
    out: Annotated[
        str,
        typer.Option(
            help="Write results here: a folder, or a URI such as s3://bucket/folder. A folder with the sweep's name is "
            "made in it.",
            metavar="DIR|URI",
        ),
    ] = "results",
    address: Annotated[
        str | None, typer.Option(help="Use a running Ray cluster: auto, or host:port.", metavar="RAY_ADDRESS")
    ] = None,
    serial: Annotated[
        bool, typer.Option("--serial", help="Run one trial after another in this process, without Ray.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and the estimate; start nothing.")] = False,
    max_time: Annotated[
        str | None, typer.Option(help="Stop after this long, such as 30m or 2h; report on what is done.", metavar="30m")
    ] = None,
    max_trials: Annotated[
        int | None, typer.Option(help="Start at most so many trials this time; report on what is done.", metavar="N")
    ] = None,
    until_clear: Annotated[
        str | None,
        typer.Option(
            help="Add seeds to the contenders that may be best, for at most this long, until one is clearly better "
            "than the others or they are shown to be as good; with --confirm.",
            metavar="2h",
        ),
    ] = None,
    exit_code_when_left: Annotated[
        int | None,
        typer.Option(
            help="Exit code where --max-time or --max-trials left trials for later and none failed (0).", metavar="N"
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run a sweep, or continue it, and write its tables and report."""
    go_on = command_line()
    stopped = one_clear_message("stopped before any trial began", go_on)
    with answering(as_json) as answer, stopped, Steps() as steps:
        steps(f"looking at {sweep}")
        from cnnsearch.spec.load import load_sweep

        seconds = seconds_of("--max-time", max_time) if max_time else None
        clear_seconds = seconds_of("--until-clear", until_clear) if until_clear else None
        if max_trials is not None and max_trials < 1:
            raise RequestError(f"--max-trials {max_trials}: give a whole number from 1")
        refuse_code(exit_code_when_left, is_limited=max_time is not None or max_trials is not None)
        if serial and address:
            raise RequestError("--serial runs in this process and --address on a cluster: give one of them")
        chosen = load_sweep(
            sweep,
            profile=profile,
            values=set_ or (),
            data=data,
            seeds=seeds_of(seeds),
            confirm=confirm,
            code=own_code or (),
        )
        if until_clear and chosen.confirm is None:
            why = "--confirm 0 turns that off; give --confirm 5" if confirm == 0 else "give --confirm too"
            raise RequestError(f"--until-clear adds seeds to settings that are confirmed: {why}")

        from cnnsearch.prepare import prepared
        from cnnsearch.session import attached

        with (
            stoppable(as_json) as stopper,
            attached(address) as cluster,
            prepared(chosen, out, dry_run=dry_run, cluster=cluster, serial=serial, tell=steps) as ready,
        ):
            stopper.ready = ready
            steps.end()
            told: Callable[[], Plan | Run]
            if dry_run:
                code, told = _dry(ready, seconds, max_trials)
            else:
                code, told = _run(ready, stopper, serial, seconds, max_trials, clear_seconds, exit_code_when_left or 0)
            if as_json:
                answer(told())
        raise typer.Exit(code)


@app.command(cls=Command, epilog=example("unseal"))
def unseal(
    results: Annotated[str, typer.Argument(help="Test the networks of this folder of results.", metavar="RESULTS_DIR")],
    data: Annotated[
        str | None, typer.Option(help="Read its images here, if they have moved.", metavar="SOURCE")
    ] = None,
    code: KeptCode = None,
    as_json: AsJson = False,
) -> None:
    """Open a sealed test set (evidence.test: sealed): test every trial once, and make the report again."""
    go_on = f"cnnsearch unseal {shlex.quote(results)}"
    stopped = one_clear_message(f"stopped; the same command goes on: {go_on}", go_on)
    with answering(as_json) as answer, stopped, Steps() as steps:
        steps(f"looking at {results}")
        from cnnsearch.unsealing import unseal as test_all

        if is_uri(results):
            raise RequestError(f"{redacted(results)}: unseal works on folders")

        found = test_all(typed_path(results), data, functools.partial(steps, "testing the trials"), code or ())
        steps.end()
        say(f"test set open: {found.tested} trial{'s' * (found.tested != 1)} tested")
        say(labelled([*found.answer, ("report", str(found.report))]))
        if as_json:
            from cnnsearch.telling import of_unsealing

            answer(of_unsealing(found))


app.command(cls=Command, epilog=example("report"))(report)
app.command(cls=Command, epilog=example("status"))(status)
app.command(cls=PlainCommand, epilog=example("watch"))(watch)
app.command(cls=Command, epilog=example("predict"))(predict)
app.command(cls=PlainCommand, epilog=example("export"))(export)
app.command(cls=Command, epilog=example("explain"))(explain)
app.command(cls=Command, epilog=example("reproduce"))(reproduce)
app.command(cls=Command, epilog=example("diff"))(diff)
app.command(cls=PlainCommand, epilog=example("init"))(init)
app.command(cls=Command, epilog=example("check"))(check)
app.command(cls=Command, epilog=example("share"))(share)
app.command(cls=Command, epilog=example("convert"))(convert)
app.command(cls=Command, epilog=example("schema"))(schema)


def main() -> None:
    """Entry point of the console script `cnnsearch`."""
    with as_a_program():
        app()


def run_alone(command: Callable[..., None]) -> None:
    """Run one of the commands above as a program of its own."""
    alone = _plain_app(add_completion=False)
    alone.command(cls=SweepCommand if command is sweep else Command, epilog=example(command.__name__))(command)
    with as_a_program():
        alone()


def _dry(ready: Prepared, seconds: float | None, trials: int | None) -> tuple[int, Callable[[], Plan | Run]]:
    """Print the plan; returns the exit code, and what tells it to programs."""
    from cnnsearch.plan_text import Limits, plan_text

    def told() -> Plan:
        from cnnsearch.telling import of_plan

        return of_plan(ready)

    say(plan_text(ready, Limits(seconds, trials)))
    return 0, told


def _run(
    ready: Prepared,
    stopper: Stopper,
    serial: bool,
    seconds: float | None,
    trials: int | None,
    until_clear: float | None,
    code_when_left: int,
) -> tuple[int, Callable[[], Plan | Run]]:
    """Run the sweep; returns the exit code, and what tells the end to programs."""
    from rich.console import Console

    from cnnsearch.live_view import view_for
    from cnnsearch.plan_text import Limits, ended_text, plan_text
    from cnnsearch.progress import Noting, finished_text
    from cnnsearch.session import execute

    console, limits = Console(highlight=False), Limits(seconds, trials)
    say(plan_text(ready, limits) + "\n")
    view = view_for(ready, console, say, limits)

    def stop(why: str, code: int, first: str = "") -> NoReturn:
        counts, planned = view.state.counts, view.state.plan.total
        see = f"\n{how_to_see(ready.results)}" if counts else ""
        message = f"{why}{ended_text(counts, planned)}. {how_to_go_on(first)}{see}"
        end(message, code, command_line(), view.state.told())

    try:
        with view, Noting(view.state) as note:

            def hear(event: Event) -> None:
                view(event)
                note()

            finished = execute(
                ready,
                serial=serial,
                listen=hear,
                max_seconds=seconds,
                max_trials=trials,
                until_clear=until_clear,
                command=command_line(),
            )
    except KeyboardInterrupt:
        stop("stopped: ", INTERRUPTED)
    except RunError as error:
        is_full = isinstance(error, DiskError) and not ready.is_remote
        first = "Free some space, then the same command goes on" if is_full else ""
        stop(f"error: {error}\n", error.exit_code, first)
    except Exception:
        if stopper.asked:  # a library that was being imported made another error of it
            stop("stopped: ", INTERRUPTED)
        raise
    code = finished.exit_code or (code_when_left if finished.left_for_later else 0)
    if finished.left_for_later:
        why = "time is up" if finished.time_is_up else f"{trials} trial{'s' * (trials != 1)} begun, as asked"
        say(f"{why}: {ended_text(finished.counts, finished.planned)}. {how_to_go_on()}")
    say(finished_text(finished, finished.answer))

    def told() -> Run:
        from cnnsearch.telling import of_run

        return of_run(ready, finished, code, command_line())

    return code, told
