"""Learning curves as small multiples: training solid, validation dashed, best epoch and turning point marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from cnnsearch.evidence.axes import main_stage
from cnnsearch.evidence.configurations import Configuration, distinct
from cnnsearch.evidence.evidence import Evidence, as_evidence
from cnnsearch.evidence.shown import MOST_PANELS, are_many, with_curves
from cnnsearch.plots import style
from cnnsearch.results.tables import Tables
from cnnsearch.spec.axis_words import Value, describe
from cnnsearch.stats import LEAST_EPOCHS

Metric = Literal["loss", "accuracy"]
Values = NDArray[np.float64]

EXPLODED = 2.5
"""A setting whose loss gets this many times as high as that of the median setting has no say in the scale."""
MOST_LINES = 8
"""Most seeds of a configuration that are drawn one by one; if there are more, their median and a band are drawn."""
_COLUMNS = 4
_ROOM = 54  # characters of a suggested configuration's name, in two lines
_PANEL_HEIGHT, _GAP, _ROW_GAP = 1.3, 0.28, 0.34


@dataclass(frozen=True)
class _Panel:
    title: str
    row: str
    configuration: Configuration | None


def learning_curves(source: Tables | Evidence, metric: Metric = "loss", stage: str | None = None) -> Figure | None:
    """Draw a panel for each setting of a stage: models in rows, cells in columns, shared axes.

    Without `stage`, the main one. If there are many settings, those with the best validation accuracy are shown. None
    if no epoch was recorded.
    """
    evidence = as_evidence(source)
    name = stage or main_stage(evidence) or ""
    configurations = [s for s in evidence.stage(name) if len(evidence.curve(s.trial_ids[0], f"val_{metric}")[0])]
    if not configurations:
        return None
    with style.drawing():
        figure = _draw(evidence, _arrange(evidence, name, configurations), metric)
        style.put_title(figure, curves_title(evidence, configurations, metric))
    return figure


def curves_title(evidence: Evidence, configurations: Sequence[Configuration], metric: Metric) -> str:
    """Title of the figure: when validation loss turned, or how far training and validation accuracy end apart."""
    trials = [trial for c in configurations for trial in c.trial_ids]
    unit = "settings" if len(trials) == len(configurations) else "trials"
    if metric == "loss":
        turns = sorted(evidence.turns(trials).values())
        if not turns:
            if risen := len(evidence.risen(trials)):
                where = f" in {risen} of {len(trials)} {unit}" if len(trials) > 1 else ""
                return f"Validation loss ends above its lowest{where}, which noise may explain"
            last = max(int(evidence.curve(trial, "val_loss")[0][-1]) for trial in trials)
            if last < LEAST_EPOCHS:
                return "How does loss change with training?"
            return f"Validation loss does not clearly rise again within {last} epochs"
        span = f"epoch {turns[0]}" if turns[0] == turns[-1] else f"epochs {turns[0]} to {turns[-1]}"
        if len(turns) == len(trials):
            where = f"all {len(trials)} {unit}" if len(trials) > 1 else "the one setting"
        else:
            where = f"{len(turns)} of {len(trials)} {unit}"
        return f"Validation loss starts to rise at {span} in {where}"
    gaps = []
    for trial in trials:
        train, val = evidence.curve(trial, "train_accuracy")[1], evidence.curve(trial, "val_accuracy")[1]
        if len(train) and len(val):
            gaps.append(100 * (train[-1] - val[-1]))
    if not gaps:
        return "How does accuracy change with training?"
    gap = float(np.median(gaps))
    side = "above" if gap >= 0 else "below"
    typical = "" if len(gaps) == 1 else " in the median"
    return f"Training accuracy ends {abs(gap):.0f} points {side} validation accuracy{typical}"


def _arrange(evidence: Evidence, stage: str, configurations: Sequence[Configuration]) -> list[list[_Panel]]:
    """Arrange panels in rows: model by cell if that is a table of reasonable size, else the best settings in a row."""
    if are_many(evidence, configurations):
        panels = [_Panel(_name(evidence, c), "", c) for c in with_curves(evidence, configurations)]
        return [panels[i : i + _COLUMNS - 1] for i in range(0, len(panels), _COLUMNS - 1)]
    axes = [axis for axis in evidence.axes(stage) if axis != "model"]
    groups: dict[tuple[str, str | None], list[Configuration]] = {}
    for configuration in configurations:
        groups.setdefault((configuration.model, configuration.parent), []).append(configuration)
    cells = sorted(
        {_cell(c, axes) for c in configurations},
        key=lambda cell: _cell_order(cell, axes, configurations),
    )
    if len(groups) * len(cells) > MOST_PANELS:
        panels = [_Panel(_name(evidence, c), "", c) for c in configurations]
        return [panels[i : i + _COLUMNS] for i in range(0, len(panels), _COLUMNS)]
    models = [model for model, _ in groups]
    rows = []
    for (model, parent), members in groups.items():
        name = model
        if models.count(model) > 1 and parent in evidence.by_key:
            name = evidence.label(evidence.by_key[parent])
        of_cell = {_cell(c, axes): c for c in members}
        panels = [
            _Panel(" · ".join(describe(a, v) for a, v in zip(axes, cell, strict=True)), name, of_cell.get(cell))
            for cell in cells
        ]
        rows += [panels[i : i + _COLUMNS] for i in range(0, len(panels), _COLUMNS)]
    return rows


def _name(evidence: Evidence, configuration: Configuration) -> str:
    if configuration.key in evidence.attempts:
        model = f"{configuration.model} · " if len(evidence.models) > 1 else ""
        return model + evidence.brief(configuration, _ROOM)
    return evidence.label(configuration, separator=" · ")


def _cell(configuration: Configuration, axes: Sequence[str]) -> tuple[Value, ...]:
    return tuple(configuration.values[axis] for axis in axes)


def _cell_order(
    cell: tuple[Value, ...], axes: Sequence[str], configurations: Sequence[Configuration]
) -> tuple[int, ...]:
    return tuple(distinct(configurations, axis).index(value) for axis, value in zip(axes, cell, strict=True))


def _draw(evidence: Evidence, rows: list[list[_Panel]], metric: Metric) -> Figure:
    columns = max(len(row) for row in rows)
    width = {1: 4.0, 2: 3.3, 3: 2.75}.get(columns, 2.0)
    titles = {panel.title: _title_lines(panel.title, width) for row in rows for panel in row}
    extra = 0.16 * (max(text.count("\n") for text in titles.values()))
    left, top = 0.62, 0.78 + extra
    tall = _PANEL_HEIGHT + _ROW_GAP + extra
    figure = style.new_figure(left + columns * (width + _GAP), top + len(rows) * tall + 0.3)
    limits = _limits(evidence, [panel.configuration for row in rows for panel in row if panel.configuration], metric)
    named = ""
    for i, row in enumerate(rows):
        for j, panel in enumerate(row):
            axes = style.axes_at(figure, left + j * (width + _GAP), top + i * tall, width, _PANEL_HEIGHT)
            axes.set_xlim(*limits[0])
            axes.set_ylim(*limits[1])
            if panel.configuration is None:
                axes.text(0.5, 0.5, "did not finish", transform=axes.transAxes, ha="center", color=style.THEME["muted"])
                axes.axis("off")
                continue
            _draw_panel(axes, evidence, panel.configuration, metric)
            _say_peak(axes, evidence, panel.configuration, metric)
            axes.set_title(titles[panel.title], loc="left", fontsize=9, color=style.THEME["ink"], pad=4)
            axes.tick_params(labelleft=j == 0, labelbottom=i == len(rows) - 1 or len(rows[i + 1]) <= j)
            axes.grid(axis="y")
            if metric == "accuracy":
                style.percent_axis(axes, "y")
            axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
            if i == len(rows) - 1:
                axes.set_xlabel("epoch")
        if row[0].row and row[0].row != named and len(evidence.models) > 1:
            named = row[0].row
            model = next((panel.configuration.model for panel in row if panel.configuration), named)
            colour = style.colour_of(model, evidence.models)
            y = top + i * tall + _PANEL_HEIGHT / 2
            style.put_text(
                figure, 0.0, y, style.shorten(named, 26), rotation=90, ha="left", va="center", fontsize=10,
                fontweight="bold", color=colour, rotation_mode="default",
            )  # fmt: skip
    banded = any(
        panel.configuration and len(panel.configuration.trial_ids) > MOST_LINES for row in rows for panel in row
    )
    trials = [trial for row in rows for panel in row if panel.configuration for trial in panel.configuration.trial_ids]
    turned = any(evidence.turn(trial) is not None for trial in trials)
    _legend(figure, left, metric, evidence.chosen_by, banded=banded, turned=turned)
    return figure


def _title_lines(title: str, width: float) -> str:
    """A panel's title in at most two lines that fit its width in inches."""
    limit = int(width / 0.074)
    lines = [""]
    for part in title.split(" · "):
        joined = f"{lines[-1]} · {part}" if lines[-1] else part
        if len(joined) > limit and lines[-1] and len(lines) < 2:
            lines.append(part)
        else:
            lines[-1] = joined
    return "\n".join(style.shorten(line, limit) for line in lines)


def _limits(
    evidence: Evidence, configurations: Sequence[Configuration], metric: Metric
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Limits of x and y for all panels.

    Where the loss explodes, in a few epochs or in a few settings, it is cut off: it would flatten all the rest.
    """
    panels, last = [], 1.0
    for configuration in configurations:
        values = []
        for trial in configuration.trial_ids:
            for side in ("train", "val"):
                epoch, value = evidence.curve(trial, f"{side}_{metric}")
                values.append(value)
                last = max(last, float(epoch.max(initial=1)))
        panels.append(np.concatenate(values))
    flat = np.concatenate(panels)
    if metric == "accuracy":
        low, high = float(flat.min()), float(flat.max())
        pad = 0.05 * max(0.05, high - low)
        return (0, last), (max(0.0, low - pad), min(1.02, high + pad))
    highest = [float(panel.max(initial=0.0)) for panel in panels]
    most = EXPLODED * float(np.median(highest))
    usual = np.concatenate([panel for panel, peak in zip(panels, highest, strict=True) if peak <= most])
    high = min(float(usual.max()), 1.6 * float(np.quantile(usual, 0.98)))
    return (0, last), (0.0, 1.05 * high)


def _draw_panel(axes: Axes, evidence: Evidence, configuration: Configuration, metric: Metric) -> None:
    colour = style.colour_of(configuration.model, evidence.models)
    several = len(configuration.trial_ids) > 1
    if len(configuration.trial_ids) > MOST_LINES:
        for side, dashes in (("train", "-"), ("val", style.VALIDATION_DASHES)):
            _draw_band(axes, [evidence.curve(t, f"{side}_{metric}") for t in configuration.trial_ids], colour, dashes)
        return
    for trial in configuration.trial_ids:
        for side, dashes in (("train", "-"), ("val", style.VALIDATION_DASHES)):
            epoch, value = evidence.curve(trial, f"{side}_{metric}")
            marker = "o" if len(epoch) == 1 else None
            axes.plot(
                epoch, value, color=colour, linestyle=dashes, linewidth=0.9 if several else 1.5, marker=marker,
                alpha=0.6 if several else 1, markersize=3,
            )  # fmt: skip
        _mark(axes, evidence, trial, metric, colour, small=several)


def _say_peak(axes: Axes, evidence: Evidence, configuration: Configuration, metric: Metric) -> None:
    """Say how high the curves go where they leave the panel."""
    peak = max(
        float(evidence.curve(trial, f"{side}_{metric}")[1].max(initial=0.0))
        for trial in configuration.trial_ids
        for side in ("train", "val")
    )
    if peak > axes.get_ylim()[1]:
        axes.text(
            0.98, 0.96, f"↑ up to {peak:,.3g}", transform=axes.transAxes, ha="right", va="top", fontsize=style.SMALL,
            color=style.THEME["ink"], gid="peak",
        )  # fmt: skip


def _draw_band(axes: Axes, curves: Sequence[tuple[Values, Values]], colour: str, dashes: Any) -> None:
    """Median over seeds, and the band that holds the middle 80 % of them."""
    table = pd.DataFrame({index: pd.Series(value, epoch) for index, (epoch, value) in enumerate(curves)})
    low, middle, high = (table.quantile(share, axis=1) for share in (0.1, 0.5, 0.9))
    axes.fill_between(table.index, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(table.index, middle, color=colour, linestyle=dashes, linewidth=1.5)


def _mark(axes: Axes, evidence: Evidence, trial: str, metric: Metric, colour: str, *, small: bool) -> None:
    epoch, value = evidence.curve(trial, f"val_{metric}")
    at = dict(zip(epoch.tolist(), value.tolist(), strict=True))
    best = evidence.best_epoch(trial)
    if best is not None and best in at:
        is_beyond = at[best] > axes.get_ylim()[1]
        axes.plot([best], [at[best]], "o", color=colour, markersize=3.5 if small else 5, clip_on=is_beyond, zorder=3)
    turn = evidence.turn(trial)
    if turn is not None and turn in at:
        axes.plot(
            [turn], [at[turn]], "v", color=colour, markerfacecolor=style.THEME["paper"], markeredgewidth=1.2,
            markersize=4.5 if small else 6, clip_on=at[turn] > axes.get_ylim()[1], zorder=4,
        )  # fmt: skip
        if not small and metric == "loss":
            axes.annotate(
                f"{turn}", (turn, at[turn]), xytext=(0, -5), textcoords="offset points", ha="center", va="top",
                fontsize=style.SMALL, color=style.THEME["ink"],
            )  # fmt: skip


def _legend(figure: Figure, left: float, metric: Metric, chosen_by: str, *, banded: bool, turned: bool) -> None:
    ink = style.THEME["ink"]
    handles = [
        Line2D([], [], color=ink, linestyle="-", label="training"),
        Line2D([], [], color=ink, linestyle=style.VALIDATION_DASHES, label="validation"),
        Line2D([], [], color=ink, marker="o", linestyle="none", markersize=5, label=f"best epoch by {chosen_by}"),
        Line2D(
            [], [], color=ink, marker="v", markerfacecolor=style.THEME["paper"], linestyle="none", markersize=6,
            label="validation loss starts to rise",
        ),
    ]  # fmt: skip
    handles = handles if turned else handles[:-1]
    if banded:  # the marks are those of single seeds
        handles[2:] = [Patch(color=ink, alpha=0.18, linewidth=0, label="middle 80 % of seeds")]  # type: ignore[list-item]
    style.legend(
        figure, handles, left - 0.05, 0.2, 4 if figure.get_size_inches()[0] > 6 else 2, handletextpad=0.5,
        columnspacing=1.6, handlelength=2.2,
    )  # fmt: skip
    style.put_text(figure, 0, 0.08, metric, fontsize=9, color=style.THEME["muted"], va="center")
