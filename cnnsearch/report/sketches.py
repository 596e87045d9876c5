"""All figures of a report, before they are drawn: which there are, and in which order."""

from __future__ import annotations

from dataclasses import dataclass

from cnnsearch.evidence.axes import main_stage
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.evidence.families import families
from cnnsearch.report import figures, search
from cnnsearch.report.pictures import Drawing


@dataclass(frozen=True)
class Sketches:
    """The figures of a report, by the section that shows them."""

    settings: Drawing
    searches: dict[str, list[Drawing]]
    """Stage -> the figures of its search."""
    heatmaps: Drawing | None
    curves: list[Drawing]
    more_curves: dict[str, list[Drawing]]
    """Stage -> its curves, for all but the main one."""
    continued: dict[str, Drawing]
    """Stage that continues another -> before and after."""
    confusion: Drawing | None
    more_confusions: list[Drawing]
    images: Drawing

    @classmethod
    def of(cls, evidence: Evidence) -> Sketches:
        """The figures that the report of this evidence has. Nothing is drawn."""
        main = main_stage(evidence)
        fresh = [stage for stage in evidence.stages if stage != main]
        return cls(
            settings=figures.all_settings(evidence),
            searches={one.stage: search.drawings(one) for one in evidence.searches},
            heatmaps=figures.heatmaps(evidence),
            curves=figures.learning_curves(evidence, main) if main else [],
            more_curves={stage: figures.learning_curves(evidence, stage, f"{stage}-") for stage in fresh},
            continued={
                stage: figures.before_after(evidence, stage) for stage in evidence.stages if families(evidence, stage)
            },
            confusion=figures.best_confusion(evidence),
            more_confusions=figures.other_confusions(evidence),
            images=figures.images_per_class(evidence),
        )

    @property
    def all(self) -> list[Drawing]:
        """All of them, in order."""
        found = [self.settings, *(one for some in self.searches.values() for one in some), self.heatmaps, *self.curves]
        found += [one for some in self.more_curves.values() for one in some]
        found += [*self.continued.values(), self.confusion, *self.more_confusions, self.images]
        return [drawing for drawing in found if drawing is not None]
