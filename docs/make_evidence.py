"""Draw the pictures of docs/evidence.md from made data: `python docs/make_evidence.py`."""

from __future__ import annotations

import sys
from pathlib import Path

from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from cnnsearch import plots  # noqa: E402
from cnnsearch.evidence.evidence import Evidence  # noqa: E402
from tests.report import factory  # noqa: E402
from tests.report.searched import searched  # noqa: E402


def pictures() -> dict[str, Figure | None]:
    """File name -> figure, for each kind of sentence that has a figure."""
    once, three = Evidence(factory.part1()), Evidence(factory.part1(seeds=(0, 1, 2)))
    found = Evidence(searched(120)).searches[0]
    return {
        "one-seed": plots.all_settings(once),
        "several-seeds": plots.all_settings(three),
        "confirmed": plots.all_settings(factory.confirmed()),
        "pairs": plots.heatmaps(once),
        "later-stage": plots.before_after(once),
        "overfitting": plots.learning_curves(once, metric="loss"),
        "mistakes": plots.confusion_matrix(once),
        "search": plots.importance_bars(found),
    }


def main() -> None:
    folder = ROOT / "docs" / "evidence"
    folder.mkdir(exist_ok=True)
    for name, figure in pictures().items():
        assert figure is not None, name
        (folder / f"{name}.png").write_bytes(plots.to_png(figure, dpi=100))


if __name__ == "__main__":
    main()
