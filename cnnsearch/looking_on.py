"""The commands that look at sweeps and change nothing: `status`, `watch` and `explain`."""

from __future__ import annotations

import signal
from typing import Annotated

import typer

from cnnsearch.asking import AsJson
from cnnsearch.ending import answering, one_clear_message
from cnnsearch.errors import RequestError
from cnnsearch.storage.paths import typed_path
from cnnsearch.storage.remote import is_uri, redacted
from cnnsearch.words import say


def status(
    folder: Annotated[
        str, typer.Argument(help="Results of a sweep, or a folder that holds those of several.", metavar="[DIR]")
    ] = "results",
    as_json: AsJson = False,
) -> None:
    """Show how far sweeps are, also while they run: what is done, running and left, and the best so far."""
    with answering(as_json) as answer, one_clear_message():
        from cnnsearch.status import looks_at, status_of, status_text

        if is_uri(folder):
            raise RequestError(
                f"{redacted(folder)}: status looks at folders; of a URI, cnnsearch report shows what is done"
            )
        looks = looks_at(typed_path(folder))
        say(status_text(looks) or f"no sweep in {folder}")
        if as_json:
            answer(status_of(looks))


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


def explain(
    results: Annotated[str, typer.Argument(help="Folder of results.", metavar="RESULTS")],
    trial: Annotated[
        str, typer.Argument(help="Id of a trial, or its beginning; best: the best by validation.", metavar="TRIAL")
    ],
    as_json: AsJson = False,
) -> None:
    """Explain one trial: its settings beside its neighbours', curves, scores, why it ended, and what to try."""
    with answering(as_json) as answer, one_clear_message():
        from cnnsearch.explanation import explanation, explanation_text

        found = explanation(results, trial)
        say(explanation_text(found))
        answer(found)
