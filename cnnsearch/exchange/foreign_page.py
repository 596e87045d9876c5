"""The report on trials of another tool: report.html, report.md and plots/, in the form of every report."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cnnsearch.errors import RequestError, RunError
from cnnsearch.evidence.comparisons import LEAST_SEEDS
from cnnsearch.exchange import foreign_figures as figures
from cnnsearch.exchange.foreign import Foreign, State, settings_of
from cnnsearch.exchange.foreign_findings import answer, findings, notes, score_text
from cnnsearch.exchange.judged import Judged, judged
from cnnsearch.exchange.mapping import in_words
from cnnsearch.report import freshness, html, markdown
from cnnsearch.report.claims import Answer, Finding
from cnnsearch.report.page import Fact
from cnnsearch.report.pictures import Drawing, Picture, drawn
from cnnsearch.report.rows import Cell, Column, Row, Table
from cnnsearch.spec.axis_words import format_value
from cnnsearch.storage.durable import write_whole
from cnnsearch.words import counted

MOST_ROWS = 200
"""Most settings in a table."""
MOST_STAGES = 6
"""Most stages that are drawn and listed."""


@dataclass(frozen=True)
class StageSection:
    """What a page shows of one stage."""

    name: str
    dots: Picture | None
    importance: Picture | None
    table: Table
    caption: str


@dataclass(frozen=True)
class ForeignPage:
    """All contents of the page."""

    title: str
    overline: str
    answer: Answer
    facts: list[Fact]
    findings: list[Finding]
    sections: list[StageSection]
    notes: list[tuple[str, str]]

    @property
    def pictures(self) -> list[Picture]:
        """All figures, in order."""
        return [one for section in self.sections for one in (section.dots, section.importance) if one is not None]


def assemble(foreign: Foreign) -> tuple[ForeignPage, list[Judged]]:
    """Judge and draw everything."""
    stages = list(judged(foreign, settings_of(foreign)))
    states = Counter(trial.state for trial in foreign.trials)
    unscored = sum(trial.state is State.DONE and trial.judged_by is None for trial in foreign.trials)
    others = [f"{states[state]:,} {state}" for state in (State.FAILED, State.PRUNED, State.RUNNING) if states[state]]
    others += [f"{unscored:,} without a score"] if unscored else []
    settings = sum(len(one.settings) for one in stages)
    seeds = stages[0].usual_seeds if stages else 0
    best = stages[0].best if stages else None
    facts = [
        Fact("best score", score_text(foreign, best.mean) if best else "–", foreign.roles.judged),
        Fact("trials", f"{len(foreign.trials):,}", ", ".join(others)),
        Fact("settings", f"{settings:,}", f"by {counted(len(foreign.roles.axes), 'axis', 'axes')}"),
        Fact("seeds of a setting", f"{seeds:,}", "" if foreign.roles.seed else "no column is a seed"),
    ]
    page = ForeignPage(
        title=f"Trials of {foreign.raw.tool}" if foreign.raw.tool != "a table" else "Trials of a table",
        overline=f"{foreign.raw.source}: {in_words(foreign.roles)}",
        answer=answer(foreign, stages),
        facts=facts,
        findings=findings(foreign, stages),
        sections=[_section(one, several=len(stages) > 1) for one in stages[:MOST_STAGES]],
        notes=notes(foreign, stages),
    )
    return page, stages


def refuse_out(out: Path) -> None:
    """Raise RequestError where the report would overwrite another, or be written where a link leads."""
    if (out / "sweep.yaml").exists():
        raise RequestError(f"{out} holds the results of a sweep: give this report another folder with --out")
    if out.exists() and not out.is_dir():
        raise RequestError(f"--out {out} is no folder")
    if (plots := out / "plots").is_symlink():
        raise RequestError(f"{plots} is a link, and nothing is written where it leads; put a folder in its place")


def write(page: ForeignPage, out: Path) -> Path:
    """Write the page and its pictures; returns the path of report.html. Raises RunError."""
    plots = out / "plots"
    try:
        plots.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{plots} cannot be written: {error.strerror or error}") from None
    earlier, names = freshness.own_pictures(out), [f"{picture.name}.png" for picture in page.pictures]
    for name, picture in zip(names, page.pictures, strict=True):
        write_whole(plots / name, picture.png)
    write_whole(out / "report.md", markdown.filled("foreign.md.j2", page=page).encode())
    write_whole(out / "report.html", html.filled("foreign.html.j2", page=page).encode())
    for old in earlier:
        if old.name not in names:
            old.unlink(missing_ok=True)
    freshness.note(out, names)
    return out / "report.html"


def _section(one: Judged, *, several: bool) -> StageSection:
    suffix = f"-{one.stage}" if several else ""
    shown = min(len(one.settings), figures.MOST_DOTS)
    of_all = f" of {len(one.settings):,}" if shown < len(one.settings) else ""
    caption = f"The best {counted(shown, 'setting')}{of_all} by {one.foreign.roles.judged}. "
    if one.tells_settings_apart:
        caption += "Lines are 95 % intervals over seeds; hollow dots are worse than another, after Holm's correction."
    elif one.usual_seeds < LEAST_SEEDS:
        caption += f"No setting is marked as worse: that takes {LEAST_SEEDS} seeds of each."
    what = f"Dots: {caption} The numbers are in the table."
    dots = drawn(Drawing(partial(figures.settings_figure, one), f"settings{suffix}", caption, what))
    importance = None
    if (found := one.importances) is not None:
        how = f"From {counted(found.configurations, 'setting')}: the share each axis explains alone, in eight draws."
        draw = partial(figures.importance_figure, one, found)
        importance = drawn(Drawing(draw, f"importance{suffix}", how, f"Bars: {how}"))
    return StageSection(one.stage if several else "", dots, importance, _table(one), _caption(one))


def _table(one: Judged) -> Table:
    sign, foreign = one.foreign.sign, one.foreign
    ranked = sorted(one.settings, key=lambda setting: (setting is not one.best, -sign * setting.mean))[:MOST_ROWS]
    numeric = {axis: all(not isinstance(setting.values[axis], str) for setting in ranked) for axis in one.axes}
    columns = [*(Column(axis, numeric[axis]) for axis in one.axes), Column("seeds", True)]
    columns += [Column(foreign.roles.judged, True), Column("beside others")]
    rows = []
    for setting in ranked:
        cells = [_cell(setting.values[axis]) for axis in one.axes]
        text = score_text(foreign, setting.mean, one.interval(setting))
        said = "worse than another" if setting.index in one.worse else "may be as good"
        if setting is one.best:
            said = f"best by {foreign.roles.score}"
        elif not one.tells_settings_apart:
            said = ""
        cells += [Cell(str(setting.seeds), setting.seeds), Cell(text, setting.mean), Cell(said)]
        rows.append(Row(tuple(cells), is_best=setting is one.best))
    return Table(tuple(columns), tuple(rows))


def _cell(value: object) -> Cell:
    if value is None:
        return Cell("–")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell(format_value(value), float(value) if is_number else None)  # type: ignore[arg-type]  # a Value


def _caption(one: Judged) -> str:
    left = len(one.settings) - MOST_ROWS
    return f"The best {MOST_ROWS} settings; {left:,} more are not listed." if left > 0 else ""
