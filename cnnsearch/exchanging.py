"""The commands between this and other tools: `schema` for editors, `share` for what shows trials, `convert` for search
spaces."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path
from typing import Annotated

import typer

from cnnsearch.asking import AsJson
from cnnsearch.ending import answering, one_clear_message
from cnnsearch.errors import RequestError, SpecError
from cnnsearch.steps import Steps
from cnnsearch.storage.paths import file_to_write, typed_path, write_new
from cnnsearch.storage.remote import is_uri
from cnnsearch.words import labelled, plural, printable, say


def _tools(incomplete: str) -> list[str]:
    """What `--to` may begin with, for a shell that completes it."""
    return [tool for tool in ("optuna:", "tensorboard:", "mlflow:", "csv:") if tool.startswith(incomplete)]


def schema(
    out: Annotated[
        str | None, typer.Option(help="Write the schema to this file, which ends in .json.", metavar="FILE")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the line by which an editor completes and checks a sweep file, or write the JSON Schema behind it."""
    with answering(as_json) as answer, one_clear_message("stopped; nothing was written"):
        from cnnsearch.spec.schema import FILE, first_line, schema_text, sweep_schema
        from cnnsearch.storage.durable import write_whole
        from cnnsearch.told_exchange import SweepSchema

        file = file_to_write(out, [".json"]) if out is not None else FILE
        line = first_line(None if out is None else file.name)
        if out is None:
            say(line)
        else:
            write_whole(file, schema_text().encode(), synced=False)
            say(labelled([("written", str(file)), ("line", line)]))
        answer(SweepSchema(line=line, file=str(file), sweep_schema=sweep_schema()))


def share(
    results: Annotated[str, typer.Argument(help="Folder of results, or a URI.", metavar="RESULTS")],
    to: Annotated[
        str,
        typer.Option(
            help="Write there: optuna:journal.log, optuna:sqlite:///study.db, tensorboard:DIR, mlflow:URI or csv:DIR.",
            metavar="TOOL:PLACE",
            autocompletion=_tools,
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Write the trials of a sweep for another tool. Again, also while the sweep runs, it writes what is new."""
    stopped = one_clear_message("stopped; the same command goes on")
    with answering(as_json) as answer, stopped, contextlib.ExitStack() as stack, Steps() as steps:
        steps("reading the results")
        from cnnsearch.exchange.going import RUNNING, gathered
        from cnnsearch.exchange.writing import writer_of
        from cnnsearch.results.place import for_reading
        from cnnsearch.storage.cache import cache_root
        from cnnsearch.storage.durable import alone_in
        from cnnsearch.told_exchange import Shared

        write = writer_of(to)
        place = stack.enter_context(for_reading(results))
        sweep = gathered(place.here.path, results if is_uri(results) else None)
        steps("writing the trials")
        stack.enter_context(alone_in(cache_root() / "share"))  # two at a time would write the same trial twice
        found = write(sweep)
        steps.end()
        running = sum(trial.status == RUNNING for trial in sweep.trials)
        new = f"{plural(found.added, 'trial')} new, {found.updated} updated, {found.same} there already"
        say(labelled([("written", found.place), ("trials", new), ("epochs", f"{found.epochs:,} new")]))
        if running:
            say(f"{plural(running, 'trial')} being trained: the same command again adds the rest")
        answer(
            Shared(
                sweep=sweep.sweep.name,
                results=sweep.results,
                to=found.place,
                report=sweep.report,
                trials=len(sweep.trials),
                running=running,
                added=found.added,
                updated=found.updated,
                same=found.same,
                epochs=found.epochs,
            )
        )


def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="Read this: a sweep of W&B, a space of Ray Tune or KerasTuner as JSON, or Hydra's configuration.",
            metavar="FILE",
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option(help="The sweep file to write; default: the sweep's name with .yaml, here.", metavar="FILE"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a sweep file from another tool's search space. What has no match is said; nothing is overwritten."""
    with answering(as_json) as answer, one_clear_message("stopped; nothing was written"):
        from cnnsearch.exchange.converting import convert as made
        from cnnsearch.exchange.space_readers import read_space
        from cnnsearch.spec.load import from_yaml
        from cnnsearch.told_exchange import ConvertedSweep, LostPart

        path = typed_path(source)
        if not path.is_file():
            raise RequestError(f"{source}: there is no such file")
        space = read_space(path, source)
        found = made(space, path.name)
        try:
            sweep = from_yaml(found.text, "the sweep file")
        except SpecError as error:
            raise RequestError(f"{source} cannot be made a sweep that runs: {error}") from None
        file = typed_path(out) if out is not None else Path(f"{sweep.name}.yaml")
        if file.suffix not in (".yaml", ".yml"):
            raise RequestError(f"--out {file}: give a name that ends in .yaml")
        write_new(file, found.text)
        lost = [f"{printable(one.what)}: {printable(one.why)}" for one in found.lost]
        rows = [("written", str(file)), ("varies", ", ".join(found.axes) or "nothing")]
        rows += [("no match" if index == 0 else "", line) for index, line in enumerate(lost)]
        say(labelled([*rows, ("next", f"cnnsearch sweep {shlex.quote(str(file))} --dry-run")]))
        answer(
            ConvertedSweep(
                source=source,
                tool=space.tool,
                out=str(file),
                axes=list(found.axes),
                lost=[LostPart(what=one.what, why=one.why) for one in found.lost],
            )
        )
