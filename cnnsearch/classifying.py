"""The commands that use the networks of a sweep."""

from __future__ import annotations

import functools
from typing import Annotated

import typer

from cnnsearch.asking import AsJson, KeptCode
from cnnsearch.ending import answering, one_clear_message
from cnnsearch.errors import CnnsearchError
from cnnsearch.steps import Steps
from cnnsearch.storage.paths import file_to_write
from cnnsearch.words import labelled, say

Trial = Annotated[
    str | None,
    typer.Option(help="Id of a trial, or its beginning; default: the best by validation.", metavar="ID"),
]


def predict(
    results: Annotated[str, typer.Argument(help="Folder of results.", metavar="RESULTS")],
    images: Annotated[
        list[str], typer.Argument(help="Images, folders, tables and archives of images.", metavar="IMAGE|FOLDER...")
    ],
    trial: Trial = None,
    out: Annotated[
        str | None,
        typer.Option(help="Write the answers to a file that ends in .csv, .parquet or .jsonl.", metavar="FILE"),
    ] = None,
    top: Annotated[
        int | None, typer.Option(help="Also give the K best classes and their confidences.", metavar="K")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Where the sweep's images are now; asked for only by results of older versions.", metavar="SOURCE"
        ),
    ] = None,
    code: KeptCode = None,
    as_json: AsJson = False,
) -> None:
    """Classify images with the best network of a sweep. Exits with 1 if some of them cannot be read."""
    with answering(as_json) as answer, one_clear_message("stopped; nothing was written"), Steps() as steps:
        steps(f"looking at {results}")
        from cnnsearch.use import told
        from cnnsearch.use.choose import choose
        from cnnsearch.use.listing import listed

        chosen = choose(results, trial, code=code or ())
        told.check_top(top, chosen.classes)
        found = listed(images, chosen.classes, follow_links=chosen.sweep.data.follow_links)
        file = file_to_write(out, list(told.WRITERS)) if out is not None else None

        from cnnsearch.use.classifier import classifier
        from cnnsearch.use.predict import predict as classify

        network = classifier(chosen, data)
        answers = classify(network, found.items, top, functools.partial(steps, "classifying"))
        files = told.write(answers, chosen.classes, file) if file is not None else []
        lines = [told.trial_line(chosen), labelled(told.summary(answers, found.ignored, files))]
        if file is None and not as_json:
            lines = [told.as_table(answers), "", *lines]
        if matrix := told.confusion_text(answers, chosen.classes):
            lines += ["", matrix]
        steps.end()
        say("\n".join(lines))
        if as_json:
            answer(told.answer(chosen, answers, files))
        if answers["error"].notna().any():
            raise typer.Exit(CnnsearchError.exit_code)


def export(
    results: Annotated[str, typer.Argument(help="Folder of results.", metavar="RESULTS")],
    dest: Annotated[str, typer.Argument(help="Folder to write, new or empty.", metavar="DEST")],
    trial: Trial = None,
    formats: Annotated[
        str, typer.Option("--format", help="What to write, with commas between.", metavar="NAMES")
    ] = "safetensors,onnx,pt2",
    data: Annotated[
        str | None, typer.Option(help="Where the sweep's images are now, if they have moved.", metavar="SOURCE")
    ] = None,
    code: KeptCode = None,
) -> None:
    """Write the best network of a sweep as a folder that stands alone: weights, programs and a card."""
    with one_clear_message("stopped; nothing was written"), Steps() as steps:
        steps("writing the folder and trying what is in it")
        from cnnsearch.use.choose import choose
        from cnnsearch.use.export import checked_destination, checked_formats, export as write
        from cnnsearch.use.told import trial_line

        asked = checked_formats(formats)
        checked_destination(dest)
        chosen = choose(results, trial, code=code or ())
        written = write(chosen, dest, asked, data)
        agreed = [(name, f"answers as recorded for {found}") for name, found in written.agreements.items()]
        steps.end()
        say(f"{trial_line(chosen)}\n{labelled([*agreed, ('written', str(written.folder))])}")
