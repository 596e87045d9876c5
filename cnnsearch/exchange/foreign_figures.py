"""Figures of a report on trials of another tool: settings as dots with their seeds, and what explains their spread."""

from __future__ import annotations

from matplotlib.figure import Figure

from cnnsearch.evidence.comparisons import LEAST_SEEDS
from cnnsearch.evidence.importance import Importances
from cnnsearch.exchange.judged import Judged
from cnnsearch.plots import style
from cnnsearch.plots.dots import ROW, beside, kinds_legend
from cnnsearch.plots.importances import draw_shares
from cnnsearch.words import listed

MOST_DOTS = 40
_ROOM = 60
_BAR = 0.3


def settings_figure(one: Judged) -> Figure:
    """Draw the best settings, each with its mean, the interval over seeds, and every seed as a small mark."""
    sign, is_share = one.foreign.sign, one.foreign.is_share
    shown = sorted(one.settings, key=lambda setting: (setting is not one.best, -sign * setting.mean))[:MOST_DOTS]
    shown.sort(key=lambda setting: -sign * setting.mean)
    labels = [style.shorten(setting.label(one.axes), _ROOM) for setting in shown]
    with style.drawing():
        left, width = min(4.2, 0.35 + 0.07 * max(map(len, labels))), 3.9
        height = ROW * (len(shown) + 0.5)
        figure = style.new_figure(left + width + 0.9, 0.62 + height + 0.5)
        axes = style.axes_at(figure, left, 0.62, width, height)
        near = {setting.index for setting in one.near_best}
        for y, (setting, label) in enumerate(zip(shown, labels, strict=True)):
            is_best = setting is one.best
            strong = is_best or setting.index in near
            colour = style.THEME["m-blue"]
            if is_best:
                axes.axhspan(y - 0.5, y + 0.5, color=style.THEME["accent"], alpha=0.12, linewidth=0)
            if interval := one.interval(setting):
                axes.plot(
                    [interval.low, interval.high], [y, y], color=colour, linewidth=1.6, alpha=1 if strong else 0.55
                )
            if setting.seeds > 1:
                axes.plot(setting.scores, [y] * setting.seeds, "|", color=style.THEME["muted"], markersize=6)
            axes.plot(
                [setting.mean], [y], "D" if is_best else "o", color=colour, markersize=6 if is_best else 5,
                markerfacecolor=colour if strong else style.THEME["paper"], markeredgewidth=1.3,
            )  # fmt: skip
            ink = style.THEME["ink"] if strong else style.THEME["muted"]
            beside(axes, -0.02, y, label, ha="right", color=ink, fontweight="bold" if is_best else "normal")
            text = f"{100 * setting.mean:.1f} %" if is_share else f"{setting.mean:.4g}"
            beside(axes, 1.03, y, text, ha="left", color=ink)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        if is_share:
            style.percent_axis(axes, "x")
        of_seeds = ", 95 % interval over seeds" if any(one.interval(setting) for setting in shown) else ""
        axes.set_xlabel(f"{one.foreign.roles.judged}{of_seeds}")
        kinds_legend(figure, left - 0.08, f"best by {one.foreign.roles.score}")
        style.put_title(figure, settings_title(one))
    return figure


def settings_title(one: Judged) -> str:
    """Title of the figure: what it shows of the best setting."""
    others, near, name = len(one.settings) - 1, len(one.near_best), style.shorten(one.best.label(one.axes), 80)
    best = f"Best by {one.foreign.roles.score} is {name}"
    if not one.tells_settings_apart and one.usual_seeds >= LEAST_SEEDS:
        return best
    if not one.tells_settings_apart:
        return f"{best}; comparing settings takes {LEAST_SEEDS} seeds of each"
    if near == 0:
        return f"{best}, ahead of every other setting"
    return f"{best}; {near:,} of {others:,} other settings may be as good"


def importance_figure(one: Judged, found: Importances) -> Figure:
    """Draw a bar for each axis, the most important first, beside what random numbers get."""
    names = found.ranked[:MOST_DOTS]
    with style.drawing():
        left, width, height = 2.6, 4.2, _BAR * (len(names) + 0.4)
        figure = style.new_figure(left + width + 1.1, 0.3 + height + 0.5)
        axes = style.axes_at(figure, left, 0.3, width, height)
        texts = {name: (style.shorten(name, 36), f"{100 * found.shares[name].value:.0f} %") for name in names}
        draw_shares(axes, found, texts)
        axes.set_xlabel(f"share of the variance of {one.foreign.roles.judged} between settings")
        style.put_title(figure, importance_title(found))
    return figure


def importance_title(found: Importances) -> str:
    """Title of the figure: which axes stand out, if any."""
    leaders = [name for name in found.ranked if found.stands_out(name)][:3]
    if not leaders:
        return "Which axes matter? None stands out from random numbers"
    share = 100 * sum(found.shares[name].value for name in leaders)
    return f"Of the variance {listed(leaders)} {'explains' if len(leaders) == 1 else 'explain'} about {share:.0f} %"
