"""The commands that hold results against others: a trial against its own repetition, and a folder against another."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from cnnsearch.asking import AsJson, KeptCode
from cnnsearch.ending import answering, one_clear_message
from cnnsearch.steps import Steps
from cnnsearch.words import say


@contextlib.contextmanager
def _terminated_as_stopped() -> Iterator[None]:
    """Let SIGTERM stop the block as Ctrl-C does, so that it leaves nothing behind."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def reproduce(
    results: Annotated[str, typer.Argument(help="Folder of results.", metavar="RESULTS")],
    trial: Annotated[
        str, typer.Argument(help="Id of a trial, or its beginning; best: the best by validation.", metavar="TRIAL|best")
    ],
    out: Annotated[
        str | None,
        typer.Option(help="Folder of the new training, new or empty; default: one beside RESULTS.", metavar="DIR"),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Where the sweep's images are now, if they have moved.", metavar="SOURCE")
    ] = None,
    code: KeptCode = None,
    as_json: AsJson = False,
) -> None:
    """Train a trial again and compare it with its record.

    The answer is identical, within what chance explains, or different; then the exit code is 1.
    """
    stopped = one_clear_message("stopped; nothing was written")
    with answering(as_json) as answer, stopped, _terminated_as_stopped(), Steps() as steps:
        steps(f"looking at {results}")
        from cnnsearch.use.reproduce import original, reproduce as train_again
        from cnnsearch.use.reproduced import epoch_line, reproduction_text

        one = original(results, trial, out, code or ())
        steps("reading the images")
        names = bool(one.lineage)
        found = train_again(
            one,
            data,
            lambda of, row, then: say(epoch_line(row, of.settings.epochs, then, of.id if names else ""), sys.stderr),
            steps.end,
        )
        say(reproduction_text(found))
        answer(found)
        if found.exit_code:
            raise typer.Exit(found.exit_code)


def diff(
    a: Annotated[str, typer.Argument(help="Folder of results that the other is held against.", metavar="A")],
    b: Annotated[str, typer.Argument(help="Folder of results, such as newer ones.", metavar="B")],
    fail_on_regression: Annotated[
        bool,
        typer.Option("--fail-on-regression", help="Exit with 1 if B is worse beyond what the evidence allows."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare two folders of results. What differs in settings, images and versions, and every setting of both."""
    with answering(as_json) as answer, one_clear_message(), Steps() as steps:
        steps("reading the results")
        from cnnsearch.difference import difference
        from cnnsearch.difference_text import difference_text

        found = difference(a, b, fail_on_regression=fail_on_regression)
        steps.end()
        say(difference_text(found))
        answer(found)
        if found.exit_code:
            raise typer.Exit(found.exit_code)
