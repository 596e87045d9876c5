"""Everything the report says, in order, before it becomes HTML or Markdown."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cnnsearch.data.dataset import SHEET_CLASSES
from cnnsearch.data.splits import in_words
from cnnsearch.evidence.axes import main_stage, map_axes
from cnnsearch.evidence.comparisons import Score
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.evidence.mistakes import Mistake, Wrong, most_confused, most_sure_and_wrong
from cnnsearch.report import rows, search
from cnnsearch.report.advice import Advice, advice
from cnnsearch.report.claims import Answer, Finding
from cnnsearch.report.findings import answer, findings
from cnnsearch.report.labels import Labels, labels
from cnnsearch.report.method import Method, date_of, hardware, method, metrics_note, seeds_note
from cnnsearch.report.networks import Network, networks
from cnnsearch.report.pictures import Draw, Drawing, Picture, draw_all, present
from cnnsearch.report.sketches import Sketches
from cnnsearch.report.using import Using, using
from cnnsearch.spec.axis_words import words
from cnnsearch.spec.data import DataSpec
from cnnsearch.spec.metric import DEFAULT
from cnnsearch.words import capitalised, counted, duration

MOST_ROWS = 1000
"""Rows of a table on the page: a browser lays out so many in an instant, and takes seconds for ten times as many."""
_MOST_LISTED = 400  # trials in report.md, whose tables cannot be filtered
_MOST_NAMED = 8  # damaged trials
_MOST_OF_A_CLASS = 8  # pictures on the contact sheet


@dataclass(frozen=True)
class Fact:
    """One of the four numbers shown under the answer."""

    name: str
    value: str
    note: str


@dataclass(frozen=True)
class Continued:
    """The section on a stage that continues another."""

    stage: str
    heading: str
    picture: Picture | None
    table: rows.Table


@dataclass(frozen=True)
class Page:
    """All contents of the report's page."""

    title: str
    overline: str
    question: str
    answer: Answer
    facts: list[Fact]
    findings: list[Finding]
    seeds_note: str
    advice: list[Advice]
    networks: list[Network]
    settings: Picture | None
    judged: str
    """The split whose images settings are compared on: "test", or "validation" while the test set is sealed."""
    metrics: rows.Table | None
    """Every metric of the best settings."""
    metrics_note: str
    searches: list[search.SearchSection]
    heatmaps_heading: str
    heatmaps: Picture | None
    curves: list[Picture]
    more_curves: list[tuple[str, list[Picture]]]
    continued: list[Continued]
    confusion: Picture | None
    confused: list[Mistake]
    by_class: rows.Table | None
    """Recall of each class by the best setting, the lowest first; the page shows `MOST_ROWS`."""
    wrong: list[Wrong]
    labels: Labels
    """Labels to look at, and copies."""
    more_confusions: list[Picture]
    using: Using | None
    trials: rows.Table
    """The trials, of very many the best."""
    best_trials: rows.Table
    """The same table with fewer of the best."""
    every_trial: Callable[[], rows.Table]
    """Makes the same table with all trials, for a file."""
    total: int
    """Number of all trials."""
    chosen_by: str
    """By what the best are chosen: "validation accuracy"."""
    images: Picture | None
    sheet: list[tuple[str, list[str]]]
    sheet_heading: str
    data_facts: list[tuple[str, str]]
    warnings: list[str]
    method: Method

    @property
    def lowest_recalls(self) -> rows.Table | None:
        """What the page shows of `by_class`."""
        return self.by_class and self.by_class.first(MOST_ROWS)

    @property
    def anchors(self) -> set[str]:
        """Ids of the sections that the page has: a finding may point at one with nothing to show."""
        present = {
            "all-settings": self.settings,
            "metrics": self.metrics,
            "heatmaps": self.heatmaps,
            "curves": self.curves,
            "errors": self.confusion,
        }
        continued = {f"continued-{stage.stage}" for stage in self.continued}
        searched = {f"search-{section.stage}" for section in self.searches}
        return {
            "trials",
            "data",
            "method",
            *continued,
            *searched,
            *(name for name, content in present.items() if content),
        }

    @property
    def contents(self) -> list[tuple[str, str]]:
        """Id and heading of each section, in order."""
        sections = [
            ("found", "What was found", True),
            ("networks", "Networks", self.networks),
            ("all-settings", "All settings", self.settings),
            ("metrics", "All metrics of the best", self.metrics),
            ("searches", "How the search went", self.searches),
            ("heatmaps", self.heatmaps_heading, self.heatmaps),
            ("curves", "Learning curves", self.curves),
            *((f"continued-{stage.stage}", stage.heading, True) for stage in self.continued),
            ("errors", "Mistakes of the best setting", self.confusion),
            ("labels", "Labels to look at", self.labels.doubts),
            ("use", "Using the best network", self.using),
            ("trials", "Trials", True),
            ("data", "Data", True),
            ("method", "How this was done", True),
        ]
        return [(anchor, heading) for anchor, heading, content in sections if content]

    @property
    def pictures(self) -> list[Picture]:
        """All figures, in order."""
        searched = [picture for section in self.searches for picture in section.pictures]
        more = [picture for _, pictures in self.more_curves for picture in pictures]
        continued = [stage.picture for stage in self.continued]
        found = [self.settings, *searched, self.heatmaps, *self.curves, *more, *continued, self.confusion]
        return present([*found, *self.more_confusions, self.images])


def assemble(evidence: Evidence, draw: Draw = draw_all) -> Page:
    """Compute everything, and have the figures drawn."""
    sketches = Sketches.of(evidence)
    pictures = draw(sketches.all)

    def shown(drawings: Sequence[Drawing]) -> list[Picture]:
        return [pictures[one] for one in drawings if one in pictures]

    def picture(drawing: Drawing | None) -> Picture | None:
        return None if drawing is None else pictures.get(drawing)

    sweep, data = evidence.tables.sweep, evidence.tables.data
    main = main_stage(evidence)
    used, _ = map_axes(evidence, main) if main else ([], [])
    return Page(
        title=sweep.title or sweep.name,
        overline=_overline(evidence),
        question=sweep.question,
        judged=evidence.judged,
        answer=answer(evidence),
        facts=_facts(evidence),
        findings=findings(evidence),
        seeds_note=seeds_note(evidence),
        advice=advice(evidence),
        networks=networks(evidence),
        settings=picture(sketches.settings),
        metrics=rows.metrics(evidence),
        metrics_note=metrics_note(evidence),
        searches=search.sections(evidence, {stage: shown(some) for stage, some in sketches.searches.items()}),
        heatmaps_heading=capitalised(" × ".join(words(axis).full for axis in used)),
        heatmaps=picture(sketches.heatmaps),
        curves=shown(sketches.curves),
        more_curves=[(stage, shown(some)) for stage, some in sketches.more_curves.items()],
        continued=[_continued(evidence, stage, picture(one)) for stage, one in sketches.continued.items()],
        confusion=picture(sketches.confusion),
        confused=most_confused(evidence, evidence.best) if evidence.best else [],
        by_class=rows.by_class(evidence),
        wrong=most_sure_and_wrong(evidence),
        labels=labels(evidence),
        more_confusions=shown(sketches.more_confusions),
        using=using(evidence),
        trials=rows.trials(evidence, MOST_ROWS),
        best_trials=rows.trials(evidence, _MOST_LISTED),
        every_trial=functools.partial(rows.trials, evidence),
        total=len(evidence.rows),
        chosen_by=evidence.chosen_by,
        images=picture(sketches.images),
        sheet=_sheet(evidence),
        sheet_heading=_sheet_heading(evidence),
        data_facts=_data_facts(data, sweep.data),
        warnings=[str(warning) for warning in data.get("warnings") or []]
        + _damage(evidence)
        + _added(evidence)
        + _outside(evidence),
        method=method(evidence),
    )


def _damage(evidence: Evidence) -> list[str]:
    damaged, left_out = evidence.tables.damaged, list(evidence.tables.left_out)
    left_out = left_out[:_MOST_NAMED] + [f"And {len(left_out) - _MOST_NAMED} more."] * (len(left_out) > _MOST_NAMED)
    if not damaged:
        return left_out
    named = ", ".join(damaged[:_MOST_NAMED]) + (", …" if len(damaged) > _MOST_NAMED else "")
    trials = counted(len(damaged), "trial")
    return [f"{trials} with damaged files count as not done ({named}): the same sweep trains them again.", *left_out]


def _added(evidence: Evidence) -> list[str]:
    added, total = len(evidence.added), len(evidence.configurations)
    if not added:
        return []
    were = "was" if added == 1 else "were"
    if evidence.tables.unsealed:
        return [
            f"{counted(added, 'setting')} of {total:,} {were} added after the test set had been unsealed. Whoever "
            "chose them with an eye on test scores has let the test images choose: the test scores are then optimistic."
        ]
    return [
        f"{counted(added, 'setting')} of {total:,} {were} added by a later, changed command, when test scores could "
        "be seen. Whoever chose them with an eye on those has let the test images choose: the test scores are then "
        "optimistic."
    ]


def _outside(evidence: Evidence) -> list[str]:
    """Say that the folder holds trials of other data, or those that the sweep had before it was changed."""
    tables = evidence.tables
    found, others = [], tables.outside - tables.on_other_data
    if tables.on_other_data:
        start = counted(tables.on_other_data, "recorded trial was", "recorded trials were")
        found.append(f"{start} trained on other images, or on another split of them, and cannot be shown beside these.")
    if others:
        start = counted(others, "recorded trial is", "recorded trials are")
        more = f"cnnsearch report {tables.folder} --all shows them too."
        found.append(f"{start} outside of the sweep as it is now and not shown; {more}")
    return found


def _overline(evidence: Evidence) -> str:
    sweep, data = evidence.tables.sweep, evidence.tables.data
    date = date_of(evidence.runs[-1].get("started_at")).split(",")[0] if evidence.runs else ""
    return " · ".join(part for part in (sweep.name, str(data.get("source") or ""), date) if part)


def _facts(evidence: Evidence) -> list[Fact]:
    best = evidence.best
    test = evidence.score(best) if best else None
    validation = evidence.score(best, "val") if best else None
    facts = []
    if best is not None:
        picked = validation is not None and not validation.covers_seeds and len(evidence.configurations) > 1
        optimistic = ", optimistic because it chose the setting" if picked else ""
        by = "" if evidence.metric.name == DEFAULT else f"{evidence.metric.words} "
        note = f"validation {by}{validation.text}{optimistic}" if validation and evidence.judged_on == "test" else ""
        if evidence.folds and not evidence.tables.is_sealed and (tested := evidence.score(best, "test")) is not None:
            note = f"on the {tested.n:,} test images, which are in no fold, {by}{tested.text}"
        facts.append(Fact("Best setting", evidence.label(best), note))
    if test is not None:
        part = "took no part in choosing"
        if evidence.judged_on == "val":
            part = f"chose it{': the test set is sealed' if evidence.tables.is_sealed else ''}"
        facts.append(
            Fact(
                capitalised(evidence.judged_by),
                test.text,
                f"of {test.n:,} images that {part}{_meaning(evidence, test)}",
            )
        )
    statuses = [str(status) for status in evidence.tables.trials["status"]]
    planned = max(evidence.tables.planned, len(statuses))
    others = [f"{statuses.count(status)} {status}" for status in ("failed", "diverged", "pruned") if status in statuses]
    if planned > len(statuses):
        others.append(f"{planned - len(statuses)} not run")
    facts.append(Fact("Trials", f"{statuses.count('done')} of {planned} done", ", ".join(others) or "none failed"))
    seconds = evidence.run_seconds
    if seconds:
        machine = hardware(evidence.runs[-1])
        spread = f" in {len(seconds)} runs" if len(seconds) > 1 else ""
        facts.append(Fact("Time", duration(sum(seconds)) + spread, f"on {machine}" if machine else ""))
    return facts


def _meaning(evidence: Evidence, score: Score) -> str:
    """What the interval covers, and whether the networks were chosen for their luck."""
    covers = f"{score.seeds} {score.unit}s and images" if score.covers_seeds else "other images"
    chosen = len(evidence.contenders) > 1 and not score.covers_seeds
    return f"; the interval covers {covers}" + (", not the luck of having been chosen" if chosen else "")


def _continued(evidence: Evidence, stage: str, picture: Picture | None) -> Continued:
    axes = evidence.axes(stage)
    heading = capitalised(words(axes[0]).full if len(axes) == 1 else stage)
    return Continued(stage, heading, picture, rows.before_after(evidence, stage))


def _sheet(evidence: Evidence) -> list[tuple[str, list[str]]]:
    sheet = evidence.tables.pictures.get("sheet") or {}
    shown = [(str(name), list(images)[:_MOST_OF_A_CLASS]) for name, images in sheet.items() if images]
    return shown[:SHEET_CLASSES]


def _sheet_heading(evidence: Evidence) -> str:
    classes = len(evidence.classes)
    which = "each class" if classes <= SHEET_CLASSES else f"the first {SHEET_CLASSES} of {classes:,} classes"
    return f"Some images of {which}"


def _data_facts(data: dict[str, Any], spec: DataSpec) -> list[tuple[str, str]]:
    facts = [("source", str(data["source"]))] if data.get("source") else []
    facts.append(("resized to", f"{spec.image_size}×{spec.image_size} pixels"))
    facts.append(("split", in_words(spec.split, data.get("parts") or ())))
    if data.get("classes"):
        facts.append(("classes", counted(len(data["classes"]), "class", "classes")))
    if data.get("fingerprint"):
        facts.append(("fingerprint", str(data["fingerprint"])))
    return facts
