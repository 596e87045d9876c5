"""The commands between this and other tools: `schema` for editors."""

from __future__ import annotations

from typing import Annotated

import typer

from cnnsearch.asking import AsJson
from cnnsearch.ending import answering, one_clear_message
from cnnsearch.storage.paths import file_to_write
from cnnsearch.words import labelled, say


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
