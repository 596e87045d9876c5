"""Tables to figures: pure functions, usable from a notebook.

Every function takes a `Tables` (or a `Evidence` made of one, to share the work between figures) and returns a
`matplotlib.figure.Figure` with its title, or None where the tables hold nothing to draw:

    tables = cnnsearch.tables.load("results/part1")
    plots.learning_curves(tables, metric="loss")
"""

import os

from cnnsearch.data.cache import matplotlib_environment

os.environ.update(matplotlib_environment())

from cnnsearch.plots.confusion import confusion_matrix
from cnnsearch.plots.continued import before_after
from cnnsearch.plots.curves import learning_curves
from cnnsearch.plots.dots import all_settings
from cnnsearch.plots.evidence import Evidence
from cnnsearch.plots.heatmaps import heatmaps
from cnnsearch.plots.images import images_per_class
from cnnsearch.plots.style import to_png, to_svg

__all__ = [
    "Evidence",
    "all_settings",
    "before_after",
    "confusion_matrix",
    "heatmaps",
    "images_per_class",
    "learning_curves",
    "to_png",
    "to_svg",
]
