"""Tables to figures: pure functions, usable from a notebook.

Every function takes a `Tables` (or an `Evidence` made of one, to share the work between figures) and returns a
`matplotlib.figure.Figure` with its title, or None where the tables hold nothing to draw. Those that take a `search`
want one of `Evidence(tables).searches`.

Example:
    tables = cnnsearch.load("results/part1")
    cnnsearch.plots.learning_curves(tables, metric="loss")
"""

import os

from cnnsearch.storage.cache import matplotlib_environment

os.environ.update(matplotlib_environment())

from cnnsearch.evidence.evidence import Evidence
from cnnsearch.evidence.searches import Searched
from cnnsearch.plots.budgets import rungs, trials_by_budget
from cnnsearch.plots.confusion import confusion_matrix
from cnnsearch.plots.continued import before_after
from cnnsearch.plots.contour import contour
from cnnsearch.plots.curves import learning_curves
from cnnsearch.plots.dots import all_settings
from cnnsearch.plots.heatmaps import heatmaps
from cnnsearch.plots.history import optimisation_history
from cnnsearch.plots.images import images_per_class
from cnnsearch.plots.importances import importance_bars
from cnnsearch.plots.parallel import parallel_coordinates
from cnnsearch.plots.pareto import pareto_front
from cnnsearch.plots.slices import slices
from cnnsearch.plots.style import to_png, to_svg

__all__ = [
    "Evidence",
    "Searched",
    "all_settings",
    "before_after",
    "confusion_matrix",
    "contour",
    "heatmaps",
    "images_per_class",
    "importance_bars",
    "learning_curves",
    "optimisation_history",
    "parallel_coordinates",
    "pareto_front",
    "rungs",
    "slices",
    "to_png",
    "to_svg",
    "trials_by_budget",
]
