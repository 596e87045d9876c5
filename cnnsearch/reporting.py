"""The command `report`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from cnnsearch.asking import AsJson
from cnnsearch.ending import answering, one_clear_message
from cnnsearch.errors import RequestError
from cnnsearch.steps import Steps
from cnnsearch.storage.paths import typed_path
from cnnsearch.storage.remote import is_uri, redacted
from cnnsearch.words import labelled, say

if TYPE_CHECKING:
    from cnnsearch.told import Told


def _tools(incomplete: str) -> list[str]:
    """What `--from` may begin with, for a shell that completes it."""
    return [tool for tool in ("optuna:", "mlflow:", "ray:", "wandb:", "csv:") if tool.startswith(incomplete)]


def report(
    results: Annotated[
        list[str] | None,
        typer.Argument(help="Report on these results: folders, or URIs.", metavar="RESULTS_DIR|URI..."),
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Report on trials of another tool instead, by their seeds alone: optuna:sqlite:///study.db, "
            "optuna:journal.log, mlflow:PLACE, a folder of Ray Tune's results, or a .csv or .parquet file.",
            metavar="SOURCE",
            autocompletion=_tools,
        ),
    ] = None,
    map_: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            help="Say what a column is where its name does not: score=val_acc, better=less, seed=rng, stage=phase, "
            "axes=lr,units. May be given again.",
            metavar="ROLE=COLUMN",
        ),
    ] = None,
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
    from cnnsearch.report.beside import Beside, recorded_trials

    with answering(as_json) as answer, one_clear_message(), Steps() as steps, Beside() as second:
        if from_ is not None:
            if results or figures or tables or everything:
                raise RequestError("--from is for trials of other tools: it goes with --out, --map and --json alone")
            _of_another_tool(from_, out, map_ or [], steps, answer)
            return
        if map_:
            raise RequestError("--map says what columns of another tool's trials are: it goes with --from")
        if not results:
            raise RequestError("say what to report on: a folder of results, or trials of another tool with --from")
        steps("reading the results")
        if len(results) == 1 and os.path.isdir(results[0]):
            second.start(recorded_trials(results[0]))  # it imports what draws while this process does
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
            drawing = None if any(also) else second  # other formats are made of figures that are drawn here
            page = write_page(folder, compared, also=also) if compared else write(evidence[0], folder, also, drawing)
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


def _of_another_tool(
    source: str, out: str | None, given: list[str], steps: Steps, answer: Callable[[Told], None]
) -> None:
    """Make the report of trials that another tool ran."""
    from cnnsearch.exchange import foreign_page
    from cnnsearch.exchange.mapping import in_words, parse_map
    from cnnsearch.exchange.sources import foreign_trials
    from cnnsearch.exchange.telling_foreign import of_foreign

    roles = parse_map(given)
    if out is None or is_uri(out):
        raise RequestError("--out: say in which folder the report of --from goes")
    folder = typed_path(out)
    foreign_page.refuse_out(folder)
    steps("reading the trials")
    foreign = foreign_trials(source, roles)
    steps("drawing the figures and writing the report")
    page, stages = foreign_page.assemble(foreign)
    report = foreign_page.write(page, folder)
    steps.end()
    say(f"{page.answer.sentence}")
    say(labelled([("read", in_words(foreign.roles)), ("report", str(report))]))
    answer(of_foreign(foreign, page, stages, str(report)))
