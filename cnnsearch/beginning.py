"""The commands for images before anything is trained: write a first sweep for them, and look at them."""

from __future__ import annotations

import os
import shlex
from glob import has_magic
from pathlib import Path
from typing import Annotated

import typer

from cnnsearch.asking import AsJson
from cnnsearch.ending import answering, one_clear_message
from cnnsearch.errors import RequestError
from cnnsearch.steps import Steps
from cnnsearch.storage.paths import file_to_write, typed_path, write_new
from cnnsearch.words import labelled, say

FollowLinks = Annotated[
    bool,
    typer.Option("--follow-links", help="Let links, and paths in a table, lead out of the folder: data.follow_links."),
]


def init(
    source: Annotated[
        str,
        typer.Argument(help="Folder with a sub-folder of images per class, or a table of images.", metavar="SOURCE"),
    ],
    out: Annotated[
        str | None,
        typer.Option(help="The sweep file to write; default: SOURCE's name with .yaml, here.", metavar="FILE"),
    ] = None,
    follow_links: FollowLinks = False,
) -> None:
    """Write a sweep that suits some images. Nothing is overwritten."""
    with one_clear_message("stopped; nothing was written"):
        from cnnsearch.data.survey import survey
        from cnnsearch.spec.load import from_yaml
        from cnnsearch.suiting import sweep_name, sweep_text

        if not typed_path(source).exists() and not has_magic(source):
            raise RequestError(
                f"{source}: there is no such folder or file; give a folder with a sub-folder of images per class, a "
                "table of paths and labels, or Parquet or .tar files with images. fashion-mini and torchvision:NAME "
                "are for --data of a sweep that there is: cnnsearch sweep part1 --data fashion-mini"
            )
        file = typed_path(out) if out is not None else Path(f"{sweep_name(source)}.yaml")
        if file.suffix not in (".yaml", ".yml"):
            raise RequestError(f"--out {file}: give a name that ends in .yaml")
        if os.path.lexists(file):
            raise RequestError(f"{file} is there already, and nothing is overwritten; give another name with --out")
        if not source.isprintable():
            raise RequestError(f"{source}: a sweep file cannot name this; rename it to printable text in UTF-8")
        text = sweep_text(survey(source, follow_links=follow_links), source, follow_links=follow_links)
        from_yaml(text, str(file))  # what is written can be run
        write_new(file, text)
        shown = shlex.quote(str(file))
        say(
            labelled(
                [
                    ("written", str(file)),
                    ("how long", f"cnnsearch sweep {shown} --dry-run"),
                    ("next", f"cnnsearch sweep {shown}"),
                ]
            )
        )


def check(
    source: Annotated[
        str,
        typer.Argument(
            help="Folder with a sub-folder of images per class, or another source of a sweep.", metavar="SOURCE"
        ),
    ],
    out: Annotated[
        str | None, typer.Option(help="Write all that was found to a file that ends in .csv.", metavar="FILE")
    ] = None,
    follow_links: FollowLinks = False,
    as_json: AsJson = False,
) -> None:
    """Check images: copies, also mirrored or recompressed ones, wrong labels, images that stand out."""
    with answering(as_json) as answer, one_clear_message("stopped; nothing was written"), Steps() as steps:
        steps(f"looking at {source}")
        from cnnsearch import checking

        file = file_to_write(out, [".csv"]) if out is not None else None
        found = checking.check(source, steps, follow_links=follow_links)
        if file is not None:
            checking.write(found, file)
        steps.end()
        say(checking.text(found, file))
        if as_json:
            answer(checking.answer(found, source, file))
