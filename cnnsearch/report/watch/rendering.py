"""The page: a live head made from a look at the folders, then the report; whole, or in parts for updates."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from cnnsearch.planning.labels import setting, varied_axes
from cnnsearch.planning.trial import Status
from cnnsearch.plots import style
from cnnsearch.report import html
from cnnsearch.report.watch.live import Page
from cnnsearch.report.watch.making import Made
from cnnsearch.results.looking import Begun, Look
from cnnsearch.words import percent

MOST_SHOWN = 8
"""Most trials whose curves are drawn; many heads may be trained together."""
MOST_NOTES = 5
_WIDTH, _HEIGHT = 150.0, 56.0
"""Size of a curve's box, in units of its SVG."""


@dataclass(frozen=True)
class Curve:
    """A small chart of a running trial."""

    name: str
    label: str
    """The latest validation value, in words."""
    train: str
    """Points of an SVG polyline."""
    val: str
    last: tuple[float, float] | None
    """The last point of validation."""


@dataclass(frozen=True)
class Card:
    """A trial that was begun and has not ended."""

    name: str
    trial_id: str
    stage: str
    colour: str
    """Name of a CSS variable."""
    epoch: str
    is_compared: bool
    share: float
    """Share of its epochs that are done, in percent."""
    changed_at: float
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class Head:
    """What the page says about one folder."""

    name: str
    title: str
    question: str
    state: str
    """running, finished or stopped: decides its colour."""
    state_words: str
    counts: str
    done: str
    """`5/16`."""
    bars: tuple[tuple[str, float], ...]
    """Kind of trials, such as done or failed -> their share in percent."""
    stages: str
    best: str
    changed_at: float | None
    notes: tuple[str, ...]
    more_notes: int
    cards_title: str
    cards: tuple[Card, ...]
    more_cards: int
    link: str = ""
    """Address of its own page, where the page is about several folders."""


def page(page: Page, looks: Sequence[Look], nonce: str) -> str:
    """The whole page, with the newest report there is."""
    return (
        _templates()
        .get_template("page.html.j2")
        .render(
            **_context(page, looks),
            nonce=nonce,
            report=Markup(report(page, looks)),
            report_style=Markup(html.style()),
            watch_style=Markup(_source("watch.css")),
            scripts=[Markup(_source("watch.js")), Markup(html.table_script())],
        )
    )


def state(page: Page, looks: Sequence[Look]) -> dict[str, Any]:
    """The parts of the page above the report as HTML, the title, and a digest of the report."""
    context = _context(page, looks)
    return {
        "report": context["digest"],
        "title": context["title"],
        "bar": _templates().get_template("bar.html.j2").render(context),
        "head": _templates().get_template("head.html.j2").render(context),
    }


def report(page: Page, looks: Sequence[Look]) -> str:
    """The report as HTML, or a placeholder while there is none."""
    return page.made.content or _templates().get_template("waiting.html.j2").render(_context(page, looks))


@functools.cache
def _templates() -> Environment:
    templates = html.environment("cnnsearch.report.watch")
    templates.filters["iso"] = lambda at: datetime.fromtimestamp(at).astimezone().isoformat(timespec="seconds")
    templates.filters["clock"] = lambda at: datetime.fromtimestamp(at).astimezone().strftime("at %H:%M:%S on %d %b")
    return templates


def _source(name: str) -> str:
    loader = _templates().loader
    return loader.get_source(_templates(), name)[0] if loader else ""


def _context(page: Page, looks: Sequence[Look]) -> dict[str, Any]:
    names = [look.name for look in looks]
    heads = [_head(look, page.made, index, names.count(look.name) > 1) for index, look in enumerate(looks)]
    heads = [replace(head, link=link) for head, link in zip(heads, page.links or [""] * len(heads), strict=True)]
    has_results = any(look.version for look in looks)
    return {
        "heads": heads,
        "title": " · ".join(f"{head.done} {head.name}".strip() for head in heads),
        "problem": page.made.problem,
        "digest": page.digest or f"none, {'with' if has_results else 'without'} results",
        "behind": _behind(page, looks),
        "has_report": bool(page.made.content),
        "has_results": has_results,
        "width": _WIDTH,
        "height": _HEIGHT,
    }


def _behind(page: Page, looks: Sequence[Look]) -> str:
    """Say how much the report covers, if not yet all trials that ended; else empty."""
    if not page.made.content or not page.is_behind(looks):
        return ""
    made = [sum(counts.values()) for counts in page.made.counts]
    ended = [max(look.ended, of) for look, of in zip(looks, made, strict=True)]
    if sum(ended) == sum(made):
        return "The report below is made again in a moment."
    return f"The report below is of {sum(made)} of the {sum(ended)} trials that ended so far; it follows in a moment."


def _head(look: Look, made: Made, index: int, is_namesake: bool) -> Head:
    counts, planned = dict(look.counts), look.planned
    is_known = bool(counts) or not look.version
    if not is_known and made.counts:  # the folder has no records, but tables
        counts = {Status(name): count for name, count in made.counts[index].items()}
        is_known = True
    if planned is None and made.planned:
        planned = made.planned[index]
    ended = sum(counts.values())
    total = max(planned or 0, ended + len(look.running))
    state, words = _state(look, ended, planned)
    begun = look.running if look.is_held else look.left
    models = sorted({one.settings.model for one in begun})
    axes = varied_axes(look.sweep) if look.sweep else []
    return Head(
        name=f"{look.name} ({look.folder})" if is_namesake else look.name,
        title=(look.sweep.title if look.sweep else "") or look.name,
        question=look.sweep.question if look.sweep else "",
        state=state,
        state_words=words,
        counts=_counts(counts, look, planned) if is_known else "",
        done=f"{ended}/{planned}" if planned and is_known else "",
        bars=_bars(counts, look, total),
        # Once finished, the report says it.
        stages=_stages(look) if state != "finished" and is_known else "",
        best=_best(look, axes) if state != "finished" else "",
        changed_at=look.changed_at,
        notes=look.notes[:MOST_NOTES],
        more_notes=max(0, len(look.notes) - MOST_NOTES),
        cards_title="Running now" if look.is_held else "Begun and not finished",
        cards=tuple(_card(one, axes, models) for one in begun[:MOST_SHOWN]),
        more_cards=max(0, len(begun) - MOST_SHOWN),
    )


def _state(look: Look, ended: int, planned: int | None) -> tuple[str, str]:
    if look.is_held:
        if look.sweep is None or (not ended and not look.running and not look.left):
            return "running", "a run is being prepared"
        return ("running", "running") if ended != planned else ("running", "all trials ended, closing")
    if planned is not None and ended >= planned:
        return "finished", "finished"
    return "stopped", "no run holds this folder at the moment"


def _counts(counts: dict[Status, int], look: Look, planned: int | None) -> str:
    """`5 of 16 done · 1 failed · 2 running · 8 to come`."""
    parts = [f"{counts.get(Status.DONE, 0)}{f' of {planned}' if planned else ''} done"]
    parts += [f"{counts[status]} {status}" for status in Status if status is not Status.DONE and counts.get(status)]
    compared = sum(one.is_compared for one in look.running)
    parts += [f"{len(look.running) - compared} running"] if len(look.running) > compared else []
    parts += [f"{compared} being compared"] if compared else []
    to_come = (planned or 0) - sum(counts.values()) - len(look.running)
    parts += [f"{to_come} {'to come' if look.is_held else 'not run'}"] if to_come > 0 else []
    return " · ".join(parts)


def _bars(counts: dict[Status, int], look: Look, total: int) -> tuple[tuple[str, float], ...]:
    bad = counts.get(Status.FAILED, 0) + counts.get(Status.DIVERGED, 0)
    kinds = {
        "done": counts.get(Status.DONE, 0),
        "pruned": counts.get(Status.PRUNED, 0),
        "failed": bad,
        "running": len(look.running),
    }
    return tuple((kind, round(100 * count / total, 2)) for kind, count in kinds.items() if count)


def _stages(look: Look) -> str:
    """`grid 5/8 · dropout 0/8`; empty where there is but one."""
    return " · ".join(f"{name} {done}/{of}" for name, done, of in look.stages) if len(look.stages) > 1 else ""


def _best(look: Look, axes: Sequence[str]) -> str:
    if look.best is None or look.best.best is None:
        return ""
    return f"{setting(look.best.settings, axes) or look.best.stage}: validation {look.best_shown}"


def _card(begun: Begun, axes: Sequence[str], models: Sequence[str]) -> Card:
    epochs = begun.settings.epochs
    hue = style.colour_of(begun.settings.model, models)
    return Card(
        name=setting(begun.settings, axes) or begun.stage,
        trial_id=begun.trial_id,
        stage=begun.stage,
        colour=next((name for name, (light, _) in style.THEMES.items() if light == hue), "muted"),
        epoch=f"epoch {begun.epoch} of {epochs}" if begun.epoch else "first epoch",
        is_compared=begun.is_compared,
        share=round(100 * min(1.0, begun.epoch / max(1, epochs)), 2),
        changed_at=begun.changed_at,
        curves=(_curve(begun, "loss"), _curve(begun, "accuracy")),
    )


def _curve(begun: Begun, metric: str) -> Curve:
    rows = begun.epochs
    train, val = (_points(rows, f"{split}_{metric}") for split in ("train", "val"))
    top = 1.0 if metric == "accuracy" else max((value for _, value in train + val), default=1.0) or 1.0
    last = max(2, begun.settings.epochs)

    def place(point: tuple[int, float]) -> tuple[float, float]:
        epoch, value = point
        x = _WIDTH * min(1.0, epoch / last)
        return round(x, 1), round(_HEIGHT * (1 - min(1.0, max(0.0, value / top))), 1)

    train_places, val_places = ([place(point) for point in points] for points in (train, val))
    label = "" if not val else percent(val[-1][1]) if metric == "accuracy" else f"{val[-1][1]:.3g}"
    return Curve(metric, label, _line(train_places), _line(val_places), val_places[-1] if val_places else None)


def _points(rows: Sequence[dict[str, Any]], name: str) -> list[tuple[int, float]]:
    """(epoch, value) for the epochs at which the value is a finite number."""
    found = [(int(row["epoch"]), row.get(name)) for row in rows]
    return [(epoch, float(value)) for epoch, value in found if value is not None and math.isfinite(value)]


def _line(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in places)
