"""The command `report`."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from cnnsearch.asking import AsJson
from cnnsearch.ending import answering, one_clear_message
from cnnsearch.errors import RequestError
from cnnsearch.steps import Steps
from cnnsearch.storage.paths import typed_path
from cnnsearch.storage.remote import is_uri, redacted
from cnnsearch.words import say


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
    figures: Annotated[
        str | None, typer.Option(help="Write every figure also as pdf or svg, into figures/.", metavar="pdf,svg")
    ] = None,
    tables: Annotated[
        str | None, typer.Option(help="Write the tables also as tex (LaTeX) or csv, into tables/.", metavar="tex,csv")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Show also the recorded trials that the sweep as it is now does not have.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make the report again from results alone; of several results folders, one that compares them."""
    with answering(as_json) as answer, one_clear_message(), Steps() as steps:
        steps("reading the results")
        from cnnsearch.evidence.evidence import Evidence
        from cnnsearch.report import compare, paper, write, write_page
        from cnnsearch.report.comparison import beside, refuse_out, refuse_repeats
        from cnnsearch.results.place import for_reading
        from cnnsearch.results.tables import load

        also = paper.asked_for(figures, tables)
        several = len(results) > 1
        if any(also) and out is None and any(map(is_uri, results)):
            raise RequestError("--out: say in which folder figures and tables go, since not all results are in folders")
        if several and out is None and any(map(is_uri, results)):
            raise RequestError("--out: say in which folder the comparison goes, since not all results are in folders")
        if out is not None and is_uri(out):
            raise RequestError(f"--out {redacted(out)}: give a folder; without it, the report of a URI goes there too")
        with contextlib.ExitStack() as stack:
            places = [stack.enter_context(for_reading(one)) for one in results]
            paths = [place.here.path for place in places]
            folder = typed_path(out) if out else (beside(paths) if several else paths[0])
            if several:
                refuse_repeats(paths)
                refuse_out(folder)
            evidence = [Evidence(load(path, everything=everything)) for path in paths]
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise RequestError(f"--out {folder} cannot be written: {error.strerror}") from None
            steps("drawing the figures and writing the report")
            compared = compare(evidence, folder) if several else None
            page = write_page(folder, compared, also=also) if compared else write(evidence[0], folder, also)
            if folder == paths[0]:
                places[0].publish()
            steps.end()
            where = f"{places[0]}/{page.name}" if folder == paths[0] else str(page)
            say(where)
            for kind in also.folders:
                say(folder / kind)
            if as_json:
                from cnnsearch.telling import of_comparison, of_report

                told = of_comparison(compared, evidence, places, where) if compared else None
                answer(told or of_report(evidence[0], places[0], where))
