"""Several sweeps side by side: everything that their page says, before it becomes HTML or Markdown."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote

from cnnsearch.errors import RequestError
from cnnsearch.evidence.comparisons import LEAST_SEEDS
from cnnsearch.evidence.contrasts import Contrast, Entry, contrasts, entries, overall
from cnnsearch.evidence.evidence import Evidence, as_evidence
from cnnsearch.evidence.part import Part
from cnnsearch.evidence.shown import MOST_OF_A_PART, selected
from cnnsearch.evidence.verdicts import CANNOT_TELL, CLEAR, SUGGESTIVE
from cnnsearch.plots import parts as figures
from cnnsearch.report.claims import Answer, Finding
from cnnsearch.report.cost import (
    LONGER,
    machine,
    of_time,
    of_unbeaten,
    timed,
    times,
    total_seconds,
)
from cnnsearch.report.differences import warnings
from cnnsearch.report.method import comparison_notes, date_of
from cnnsearch.report.page import Fact
from cnnsearch.report.pictures import Drawing, Picture, drawn, present
from cnnsearch.report.rows import Cell, Column, Row, Table
from cnnsearch.report.words import chance_text, in_words, points, repeated
from cnnsearch.results.tables import Tables
from cnnsearch.spec.metric import DEFAULT
from cnnsearch.words import duration, listed, number_word


@dataclass(frozen=True)
class Source:
    """One of the sweeps compared, and where its own report is."""

    name: str
    title: str
    question: str
    ran: str
    """When it ran, for how long, and on what machine."""
    link: str
    """Relative URL of its report; empty where there is none."""


@dataclass(frozen=True)
class ComparisonPage:
    """All contents of the comparison's page."""

    title: str
    overline: str
    answer: Answer
    facts: list[Fact]
    warnings: list[str]
    findings: list[Finding]
    seeds_note: str
    dots: Picture | None
    time: Picture | None
    table: Table
    footnote: str
    sources: list[Source]
    notes: tuple[tuple[str, str], ...]

    @property
    def anchors(self) -> set[str]:
        """Ids of the sections that have something to show."""
        return {"table", *(name for name, content in (("best", self.dots), ("time", self.time)) if content)}

    @property
    def pictures(self) -> list[Picture]:
        """All figures, in order."""
        return present([self.dots, self.time])


def refuse_repeats(folders: Sequence[Path]) -> None:
    """Raise RequestError where a folder is given twice, or fewer than two are given."""
    if len(folders) < 2:
        raise RequestError("a comparison needs two results folders or more")
    seen: dict[Path, Path] = {}
    for folder in folders:
        resolved = folder.resolve()
        if resolved in seen:
            raise RequestError(f"{folder} is given twice: a comparison needs different results folders")
        seen[resolved] = folder


def beside(folders: Sequence[Path]) -> Path:
    """The default place of a comparison: `comparison` in the folder that holds all of these."""
    parents = [os.path.abspath(folder.parent if folder.name not in ("", "..") else folder / "..") for folder in folders]
    common = Path(os.path.commonpath(parents)) / "comparison"
    here = Path.cwd()
    return common.relative_to(here) if common.is_relative_to(here) else common


def refuse_out(out: Path) -> None:
    """Raise RequestError where a comparison would overwrite the report of a sweep."""
    if (out / "sweep.yaml").exists():
        raise RequestError(f"{out} holds the results of a sweep: give the comparison another folder with --out")


def assemble(sources: Sequence[Tables | Evidence], out: Path) -> ComparisonPage:
    """Compute and draw everything; links are relative to `out`."""
    evidence = [as_evidence(one, DEFAULT) for one in sources]  # by what all sweeps have measured
    tables = [one.tables for one in evidence]
    refuse_repeats([table.folder for table in tables])
    names = _names(tables)
    parts = [Part(name, one) for name, one in zip(names, evidence, strict=True)]
    ranked = entries(parts)
    found = contrasts(ranked)
    images = [str(part.evidence.tables.data.get("source") or "") for part in parts]
    return ComparisonPage(
        title=f"{listed(names)} compared",
        overline=" · ".join(["comparison", *dict.fromkeys(source for source in images if source)]),
        answer=_answer(parts, ranked, found),
        facts=_facts(ranked, found),
        warnings=warnings(parts),
        findings=_findings(parts, ranked, found),
        seeds_note=_seeds_note(ranked),
        dots=drawn(_dots(parts, ranked, found)),
        time=drawn(_time(parts, ranked)),
        table=_table(parts, ranked),
        footnote=_FOOTNOTE,
        sources=[_source(part, out) for part in parts],
        notes=comparison_notes(parts, found),
    )


def _names(tables: Sequence[Tables]) -> list[str]:
    """Name the sweeps; add their folders if several have the same name."""
    names = [table.sweep.name for table in tables]
    if len(set(names)) == len(names):
        return names
    folders = [table.folder.resolve() for table in tables]
    common = Path(os.path.commonpath(folders))
    return [
        f"{name} ({folder.relative_to(common).as_posix()})" if names.count(name) > 1 else name
        for name, folder in zip(names, folders, strict=True)
    ]


def _answer(parts: Sequence[Part], ranked: Sequence[Entry], found: Sequence[Contrast]) -> Answer:
    if not ranked:
        finished = any(part.best for part in parts)
        reason = "no test accuracy was measured" if finished else "no trial of these sweeps finished"
        return Answer(f"No answer: {reason}.", CANNOT_TELL)
    first, rest = ranked[0], ranked[1:]
    if not first.part.evidence.beats_chance(first.best):
        each = "; ".join(f"{entry.score.text} for {entry.part.name}" for entry in ranked)
        chance = chance_text(first.part.evidence)
        return Answer(f"No sweep’s best setting can be said to work: {each}, and chance is {chance}.", CANNOT_TELL)
    gets = f"gets {first.score.text} of {first.score.n:,} test images right"
    if not rest:
        return Answer(f"Nothing to compare: only {first.part.name} has a finished setting; its best, "
                      f"{_words(first)}, {gets}.", CANNOT_TELL)  # fmt: skip
    verdict = overall(found)
    start = f"Best is {first.part.name}: its best setting by validation ({_words(first)}) {gets}"
    if verdict == CANNOT_TELL:
        start = (
            f"{first.part.name} is not clearly better than {_untold(found)}{_too_few(found)}: the best setting of "
            f"{first.part.name} by validation ({_words(first)}) {gets}"
        )
    others = [
        f"that of {c.behind.part.name} ({_words(c.behind)}) gets {c.behind.score.text}, a difference of "
        f"{points(c.comparison.difference)}"
        for c in found
    ]
    return Answer(f"{start}; {'; '.join(others)}.", verdict)


def _words(entry: Entry) -> str:
    return in_words(entry.part.evidence, entry.best)


def _untold(found: Sequence[Contrast]) -> str:
    return listed([c.behind.part.name for c in found if c.verdict == CANNOT_TELL], "or")


def _facts(ranked: Sequence[Entry], found: Sequence[Contrast]) -> list[Fact]:
    facts = [Fact(entry.part.name, entry.score.text, f"test accuracy of {_label(entry)}") for entry in ranked[:4]]
    if len(ranked) == 2:
        on = f"on the same {ranked[0].score.n:,} test images" if found[0].is_paired else "on different test images"
        facts.append(Fact("Difference", points(found[0].comparison.difference), on))
        times = [entry.part.seconds(entry.best) for entry in ranked]
        if times[0] is not None and times[1] is not None:
            facts.append(
                Fact("Training time", f"{duration(times[0])} against {duration(times[1])}", "of these two networks")
            )
    return facts


def _label(entry: Entry) -> str:
    return entry.part.evidence.label(entry.best)


def _findings(parts: Sequence[Part], ranked: Sequence[Entry], found: Sequence[Contrast]) -> list[Finding]:
    told = [Finding(_accuracy_sentence(contrast), contrast.verdict, "best") for contrast in found]
    told += of_time(ranked)
    told += of_unbeaten(parts)
    for entry in ranked:
        if not entry.part.evidence.beats_chance(entry.best):
            chance = chance_text(entry.part.evidence)
            told.append(
                Finding(
                    f"The best setting of {entry.part.name} is no better than chance ({chance}).", CANNOT_TELL, "best"
                )
            )
    return told


def _accuracy_sentence(contrast: Contrast) -> str:
    a, b = contrast.ahead, contrast.behind
    by = points(contrast.comparison.difference)
    where = f"on the same {a.score.n:,} test images"
    if not contrast.is_paired:
        where = f"on different test images, {a.score.n:,} and {b.score.n:,}"
    names = f"{a.part.name} and {b.part.name}"
    if not contrast.comparison.can_tell:
        return (
            f"There is no clear difference between the best settings of {names}{_too_few([contrast])}: the networks of "
            f"{a.part.name} are ahead by {by} {where}."
        )
    p = "p < 0.001" if contrast.p_value < 0.001 else f"p = {contrast.p_value:.2g}"
    where += f"{repeated(contrast.comparison)} ({p})"
    if contrast.verdict == CANNOT_TELL:
        start = f"There is no clear difference between the best settings of {names}"
        return f"{start}: {a.part.name} is ahead by {by} {where}."
    verb = "is more accurate" if contrast.verdict == CLEAR else "may be more accurate"
    return f"The best setting of {a.part.name} {verb} than that of {b.part.name} by {by} {where}."


def _too_few(found: Sequence[Contrast]) -> str:
    """That seeds are too few to tell any of these apart; empty where they are not."""
    if not found or any(contrast.comparison.can_tell for contrast in found):
        return ""
    seeds = min(contrast.comparison.seeds for contrast in found)
    return " with one seed" if seeds == 1 else f" with {seeds} seeds"


def _seeds_note(ranked: Sequence[Entry]) -> str:
    few = [entry.part.name for entry in ranked if len(entry.best.trial_ids) < LEAST_SEEDS]
    if not few or len(ranked) < 2:
        return ""
    which = "These settings were" if len(few) == len(ranked) else f"The best setting of {listed(few)} was"
    return (
        f"{which} trained with fewer than {LEAST_SEEDS} seeds. The intervals say how far other test images could move "
        "a number; how far other seeds could takes more of them."
    )


def _dots(parts: Sequence[Part], ranked: Sequence[Entry], found: Sequence[Contrast]) -> Drawing:
    title = "How accurate is each sweep’s best setting?"
    verdict = overall(found)
    if len(ranked) > 1:
        first, rest = ranked[0].part.name, listed([entry.part.name for entry in ranked[1:]])
        title = f"The best setting of {first} is ahead of that of {rest}"
        if verdict == CANNOT_TELL:
            title = f"{first} is not clearly better than {_untold(found)}{_too_few(found)}"
        elif verdict == SUGGESTIVE:
            title = f"The best setting of {first} may be ahead of that of {rest}"
    caption = (
        f"Up to {number_word(MOST_OF_A_PART)} settings of each sweep, its best by validation first; test "
        "accuracy with 95 % intervals. Worse than another means: in the same sweep, over seeds and test images."
    )
    alt = "Dots with intervals: " + "; ".join(f"{e.part.name}, {_label(e)}: {e.score.text}" for e in ranked) + "."
    draw = partial(figures.best_settings, parts, title)
    return Drawing(draw, "best-settings", caption, alt, partial(draw, narrow=True))


def _time(parts: Sequence[Part], ranked: Sequence[Entry]) -> Drawing:
    known = timed(ranked)
    title = "How accurate is a network after how much training?"
    if len(known) > 1 and known[-1][1] / known[0][1] >= LONGER:
        (fast, least), (slow, most) = known[0], known[-1]
        title = (
            f"The best network of {slow.part.name} took {times(most / least)} as long to train as that of "
            f"{fast.part.name}"
        )
    caption = (
        "Each finished setting at its training time, that of the networks it went on from included. Diamonds are the "
        "best of each sweep by validation, with 95 % intervals; up and left is better."
    )
    largest = max((len(figures.timed_settings(part)) for part in parts), default=0)
    caption += selected(largest, "settings of a sweep", figures.most_of_each(parts))
    alt = "Test accuracy against training time for every finished setting. The numbers of the best are in the table."
    return Drawing(partial(figures.accuracy_by_time, parts, title), "accuracy-by-time", caption, alt)


_FOOTNOTE = (
    "Validation and test accuracy with 95 % intervals; the validation scores are optimistic because they were "
    "picked. Training time is that of this network (of several seeds, their mean), that of the networks it went on "
    "from included. All trials: the training time of every trial of the sweep."
)


def _table(parts: Sequence[Part], ranked: Sequence[Entry]) -> Table:
    columns = (
        Column("sweep"), Column("best setting"), Column("validation accuracy", True), Column("test accuracy", True),
        Column("trainable parameters", True), Column("training time", True), Column("all trials", True),
    )  # fmt: skip
    leader = ranked[0].part if len(ranked) > 1 else None
    return Table(columns, tuple(_row(part, is_best=part is leader) for part in parts))


def _row(part: Part, *, is_best: bool) -> Row:
    nothing, best = Cell("–"), part.best
    total = total_seconds(part)
    whole = Cell(duration(total), total) if total is not None else nothing
    if best is None:
        cells = (Cell(part.name), Cell("no finished trial"), *[nothing] * 4, whole)
        return Row(cells, is_done=False)
    scores = [part.evidence.score(best, split) for split in ("val", "test")]
    parameters, seconds = best.scores.get("parameters"), part.seconds(best)
    return Row(
        (
            Cell(part.name),
            Cell(part.evidence.label(best)),
            *(Cell(score.text, score.value) if score else nothing for score in scores),
            Cell(f"{parameters:,.0f}", parameters) if parameters is not None else nothing,
            Cell(duration(seconds), seconds) if seconds is not None else nothing,
            whole,
        ),
        is_best=is_best,
    )


def _source(part: Part, out: Path) -> Source:
    tables = part.evidence.tables
    runs, seconds = part.evidence.runs, part.evidence.run_seconds
    ran = [
        date_of(runs[-1].get("started_at")) if runs else "",
        duration(sum(seconds)) if seconds else "",
        machine(part),
    ]
    return Source(
        part.name,
        tables.sweep.title,
        tables.sweep.question,
        ", ".join(text for text in ran if text),
        _link(tables.folder / "report.html", out),
    )


def _link(report: Path, out: Path) -> str:
    if not report.is_file():
        return ""
    try:
        return quote(Path(os.path.relpath(report.resolve(), out.resolve())).as_posix())
    except ValueError:  # on another drive
        return ""
