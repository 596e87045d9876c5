"""The commands: read the request, call the steps in order, print the outcome, choose the exit code."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import shlex
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnnsearch import __version__
from cnnsearch.asking import SweepCommand
from cnnsearch.ending import INTERRUPTED, as_a_program, command_line, end, how_to_go_on, one_clear_message, stoppable
from cnnsearch.errors import DiskError, RequestError, RunError
from cnnsearch.storage.paths import typed_path
from cnnsearch.storage.remote import is_uri, redacted
from cnnsearch.words import VisibleLines, say

if TYPE_CHECKING:
    from cnnsearch.prepare import Prepared
    from cnnsearch.results.place import ResultsPlace
    from cnnsearch.session import Finished

DAY_SECONDS = 86_400
MOST_DAYS = 3650
"""Longest time that can be asked for: what a system's timers take is limited."""

if logging.lastResort is not None:  # what shows warnings of ours where nobody has set up logging
    logging.lastResort.setFormatter(VisibleLines())


def _version(asked: bool) -> None:
    if asked:
        say(f"cnnsearch {__version__}")
        raise typer.Exit


def _plain_app(**options: Any) -> typer.Typer:
    return typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, **options)


app = _plain_app(help="Hyperparameter sweeps for image classification with CNNs.", no_args_is_help=True)


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Hyperparameter sweeps for image classification with CNNs."""


@app.command(cls=SweepCommand)
def sweep(
    sweep: Annotated[
        str, typer.Argument(help="Run this sweep: a name (part1), or the path of a YAML file.", metavar="SWEEP")
    ],
    data: Annotated[
        str | None,
        typer.Option(
            help="Train on these images: fashion-mini, a folder with a sub-folder per class, or torchvision:NAME.",
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
    out: Annotated[
        str, typer.Option(help="Write results here: a folder, or a URI such as s3://bucket/folder.", metavar="DIR|URI")
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
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object as the last line of standard output.")
    ] = False,
) -> None:
    """Run a sweep, or continue it, and write its tables and report."""
    with one_clear_message("stopped before any trial began"):
        from cnnsearch.spec.load import load_sweep

        seconds = _seconds("--max-time", max_time) if max_time else None
        clear_seconds = _seconds("--until-clear", until_clear) if until_clear else None
        if max_trials is not None and max_trials < 1:
            raise RequestError(f"--max-trials {max_trials}: give a whole number from 1")
        if serial and address:
            raise RequestError("--serial runs in this process and --address on a cluster: give one of them")
        chosen = load_sweep(sweep, profile=profile, values=set_ or (), data=data, seeds=_seeds(seeds), confirm=confirm)
        if until_clear and chosen.confirm is None:
            raise RequestError("--until-clear adds seeds to settings that are confirmed: give --confirm too")

        from cnnsearch.prepare import prepared
        from cnnsearch.session import attached

        with (
            stoppable() as stopper,
            attached(address) as cluster,
            prepared(chosen, out, dry_run=dry_run, cluster=cluster) as ready,
        ):
            stopper.ready = ready
            code, told = _dry(ready) if dry_run else _run(ready, serial, seconds, max_trials, clear_seconds)
    if as_json:
        print(json.dumps(told))
    raise typer.Exit(code)


@app.command()
def report(
    results: Annotated[
        list[str], typer.Argument(help="Report on these results: folders, or URIs.", metavar="RESULTS_DIR|URI...")
    ],
    out: Annotated[
        str | None,
        typer.Option(
            help="Write the report here; default: the results folder, or comparison beside several.", metavar="DIR"
        ),
    ] = None,
) -> None:
    """Make the report again from results alone; of several results folders, one that compares them."""
    with one_clear_message():
        from cnnsearch.report import write, write_comparison
        from cnnsearch.report.comparison import beside, refuse_out, refuse_repeats
        from cnnsearch.results.tables import load

        several = len(results) > 1
        if several and out is None and any(map(is_uri, results)):
            raise RequestError("--out: say in which folder the comparison goes, since not all results are in folders")
        if out is not None and is_uri(out):
            raise RequestError(f"--out {redacted(out)}: give a folder; without it, the report of a URI goes there too")
        with contextlib.ExitStack() as stack:
            places = [_readable(stack, one) for one in results]
            paths = [place.here.path for place in places]
            folder = typed_path(out) if out else (beside(paths) if several else paths[0])
            if several:
                refuse_repeats(paths)
                refuse_out(folder)
            tables = [load(path) for path in paths]
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise RequestError(f"--out {folder} cannot be written: {error.strerror}") from None
            page = write_comparison(tables, folder) if several else write(tables[0], folder)
            if folder == paths[0]:
                places[0].publish()
                say(f"{places[0]}/{page.name}")
            else:
                say(page)


def _readable(stack: contextlib.ExitStack, results: str) -> ResultsPlace:
    """Open results for reading, for the time of the stack."""
    if not is_uri(results):
        from cnnsearch.results.folder import Results

        return Results(typed_path(results))
    from cnnsearch.results.place import reading

    return stack.enter_context(reading(results))


@app.command()
def unseal(
    results: Annotated[str, typer.Argument(help="Test the networks of this folder of results.", metavar="RESULTS_DIR")],
    data: Annotated[
        str | None, typer.Option(help="Read its images here, if they have moved.", metavar="SOURCE")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object as the last line of standard output.")
    ] = False,
) -> None:
    """Open a sealed test set (evidence.test: sealed): test every trial once, and make the report again."""
    with one_clear_message(f"stopped; the same command goes on: cnnsearch unseal {shlex.quote(results)}"):
        from cnnsearch.progress import labelled
        from cnnsearch.unsealing import unseal as test_all

        if is_uri(results):
            raise RequestError(f"{redacted(results)}: unseal works on folders")

        def tell(done: int, total: int) -> None:
            if sys.stdout.isatty() and not as_json:
                print(f"\rtesting {done} of {total} trials", end="\n" if done == total else "", flush=True)

        found = test_all(typed_path(results), data, tell)
        say(f"test set open: {found.tested} trial{'s' * (found.tested != 1)} tested")
        say(labelled([*found.answer, ("report", str(found.report))]))
    if as_json:
        print(json.dumps({"tested": found.tested, "answer": dict(found.answer), "report": str(found.report)}))


@app.command()
def watch(
    results: Annotated[list[str], typer.Argument(help="Show these folders of results.", metavar="RESULTS_DIR...")],
    port: Annotated[
        int | None,
        typer.Option(
            help="Serve on this port of 127.0.0.1; default: 8420, or where that is taken any that is free.",
            metavar="PORT",
        ),
    ] = None,
) -> None:
    """Show the report growing while a sweep runs, on a page for this machine alone. Ctrl-C ends it."""
    with one_clear_message():
        try:
            for number in (signal.SIGINT, signal.SIGTERM):  # a shell ignores SIGINT in what it starts in the background
                signal.signal(number, signal.default_int_handler)
            from cnnsearch.report.watch import serve

            if uris := [redacted(one) for one in results if is_uri(one)]:
                raise RequestError(f"{uris[0]}: watch looks at folders; of a URI, cnnsearch report shows what is done")
            serve([typed_path(one) for one in results], port, say)
        except KeyboardInterrupt:  # the usual way to end it
            raise typer.Exit from None


def main() -> None:
    """Entry point of the console script `cnnsearch`."""
    with as_a_program():
        app()


def run_alone(command: Callable[..., None]) -> None:
    """Run one of the commands above as a program of its own."""
    alone = _plain_app()
    alone.command(cls=SweepCommand if command is sweep else None)(command)
    with as_a_program():
        alone()


def _dry(ready: Prepared) -> tuple[int, dict[str, Any]]:
    from cnnsearch.plan_text import plan_json, plan_text

    say(plan_text(ready))
    return 0, plan_json(ready)


def _run(
    ready: Prepared, serial: bool, seconds: float | None, trials: int | None, until_clear: float | None
) -> tuple[int, dict[str, Any]]:
    from rich.console import Console

    from cnnsearch.plan_text import plan_text
    from cnnsearch.progress import LineView, LiveView, finished_text
    from cnnsearch.session import execute

    console = Console(highlight=False)
    say(plan_text(ready) + "\n")
    view = LiveView(ready, console) if console.is_terminal else LineView(ready, say)
    try:
        with view:
            finished = execute(
                ready,
                serial=serial,
                listen=view,
                max_seconds=seconds,
                max_trials=trials,
                until_clear=until_clear,
                command=command_line(),
            )
    except KeyboardInterrupt:
        say(f"stopped: {view.state.done} of {view.state.plan.total} trials done. {how_to_go_on()}", sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    except RunError as error:
        is_full = isinstance(error, DiskError) and not ready.is_remote
        first = "Free some space, then the same command goes on" if is_full else ""
        done = f"{view.state.done} of {view.state.plan.total} trials done"
        end(f"error: {error}\n{done}. {how_to_go_on(first)}", error.exit_code)
    if finished.left_for_later:
        why = "time is up" if finished.time_is_up else f"{trials} trial{'s' * (trials != 1)} begun, as asked"
        ended = finished.planned - finished.left_for_later
        say(f"{why}: {ended} of {finished.planned} trials done. {how_to_go_on()}")
    say(finished_text(finished, finished.answer))
    return finished.exit_code, _told(ready, finished)


def _told(ready: Prepared, finished: Finished) -> dict[str, Any]:
    """The object that `--json` prints."""
    return {
        "sweep": ready.sweep.name,
        "trials": finished.planned,
        **{status: finished.counts.get(status, 0) for status in ("done", "failed", "diverged", "pruned")},
        "left_for_later": finished.left_for_later,
        "time_is_up": finished.time_is_up,
        "seconds": round(finished.seconds, 1),
        "answer": dict(finished.answer),
        "results": finished.place,
        "report": finished.report_place,
    }


def _seconds(option: str, text: str) -> float:
    """Parse `90s`, `30m`, `2h` or `1d` into seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if not match or float(match[1]) == 0:
        raise RequestError(f"{option} {text}: give a number and s, m, h or d, such as 30m")
    seconds = float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": DAY_SECONDS}[match[2]]
    if seconds > MOST_DAYS * DAY_SECONDS:
        raise RequestError(f"{option} {text}: allowed is up to {MOST_DAYS}d; without {option} there is no limit")
    return seconds


def _seeds(text: str | None) -> list[int]:
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
