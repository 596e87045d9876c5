"""The figures for people: a table and a plot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.figures import OURS
from cnnsearch.words import duration

NAMES = {
    "notebook": "N   notebook",
    "plain_ray": "R   plain Ray Tune",
    "tuned_ray": "R+  tuned Ray Tune",
    "loop": "S   hand-written loop",
    OURS: "cnnsearch",
    "cnnsearch-first": "cnnsearch, first time",
}


def table(name: str, measured: Mapping[str, Any]) -> str:
    """One workload."""
    lines = ["", f"{name}: {measured['work']}"]
    if "limit_seconds" in measured:
        lines.append(
            f"limit {duration(measured['limit_seconds'])}: {measured['tflop']:.3g} TFLOP at "
            f"{measured['matmul_gflops']:,.0f} GFLOP/s, the best matrix product measured"
        )
    with_efficiency = any("efficiency" in row for row in measured["rows"].values())
    head = f"{'':<24}{'seconds: median (min–max)':<30}{'times as long':>14}{'of the limit':>14}{'peak memory':>13}"
    lines.append(head + (f"{'efficiency':>12}" if with_efficiency else ""))
    for rival, row in measured["rows"].items():
        label = NAMES.get(rival, rival)
        if "failed" in row:
            lines.append(f"{label:<24}failed: {row['failed']}")
            continue
        approximately = "~" if row["sampled"] else ""
        low, high = min(row["seconds"]), max(row["seconds"])
        seconds = f"{approximately}{row['median_seconds']:,.1f} ({low:,.1f}–{high:,.1f})"
        ratio = f"{row['ratio']:,.2f}×" if "ratio" in row else ""
        share = f"{100 * row['share_of_limit']:.2g} %" if "share_of_limit" in row else ""
        memory = f"{row['peak_bytes'] / 1e9:.2f} GB"
        efficiency = f"{100 * row['efficiency']:.0f} %" if "efficiency" in row else ""
        lines.append(f"{label:<24}{seconds:<30}{ratio:>14}{share:>14}{memory:>13}{efficiency:>12}".rstrip())
        if "foretold_seconds" in row:
            lines.append(f"{'  the plan said':<24}{_foretold(row)}")
        if "efficiency_while_trials_run" in row:
            share = f"{100 * row['efficiency_while_trials_run']:.0f} %"
            lines.append(f"{'  while trials ran':<24}{row['trials_wall_seconds']:<71,.1f}{share:>12}")
    return "\n".join(lines)


def _foretold(row: Mapping[str, Any]) -> str:
    """What was foretold, and how far what came lies from it."""
    seconds, peak = row["median_seconds"] / row["foretold_seconds"] - 1, row["peak_bytes"] / row["foretold_bytes"] - 1
    return (
        f"{row['foretold_seconds']:,.1f} s and {row['foretold_bytes'] / 1e9:.2f} GB; "
        f"it was {seconds:+.0%} and {peak:+.0%}"
    )


def head(figures: Mapping[str, Any]) -> str:
    """What all tables have in common."""
    return (
        f"on {figures['hardware']}; {figures['rounds']} rounds in turn; memory of the whole process tree, "
        f"{figures['memory']}; ~: extrapolated from a sample of the work"
    )


def plot(figures: Mapping[str, Any], file: Path) -> None:
    """Times as long as this project, a panel a workload."""
    from matplotlib.figure import Figure

    drawn = {
        name: {r: row["ratio"] for r, row in measured["rows"].items() if "ratio" in row}
        for name, measured in figures["workloads"].items()
    }
    drawn = {name: bars for name, bars in drawn.items() if len(bars) > 1}
    if not drawn:
        return
    figure = Figure(figsize=(9, 0.6 + sum(0.35 * len(bars) + 0.8 for bars in drawn.values())), layout="constrained")
    heights = [len(bars) + 1 for bars in drawn.values()]
    panels = figure.subplots(len(drawn), 1, squeeze=False, height_ratios=heights, sharex=True)[:, 0]
    for panel, (name, bars) in zip(panels, drawn.items(), strict=True):
        labels = [NAMES.get(rival, rival) for rival in bars]
        colours = ["tab:blue" if rival.startswith(OURS) else "0.65" for rival in bars]
        drawn_bars = panel.barh(labels, list(bars.values()), color=colours)
        panel.bar_label(drawn_bars, [f" {value:.3g}×" for value in bars.values()], fontsize=8)
        panel.set_xscale("log")
        panel.invert_yaxis()
        panel.axvline(1, color="black", linewidth=0.8)
        panel.margins(x=0.15)
        panel.set_title(f"{name}: {figures['workloads'][name]['work']}", fontsize=9, loc="left")
        panel.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("times as long as cnnsearch (log scale)")
    figure.savefig(file, dpi=150)
