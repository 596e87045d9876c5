"""The command that explains one trial."""

from __future__ import annotations

from typing import Annotated

import typer

from cnnsearch.asking import AsJson
from cnnsearch.ending import answering, one_clear_message
from cnnsearch.words import say


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
