"""The settings of a sweep: by stage, by the axes in which they differ, and in words."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from cnnsearch.evidence.configurations import Configuration, axes_in, collect
from cnnsearch.evidence.folded import Folded
from cnnsearch.evidence.searches import Attempt, Searched, searches
from cnnsearch.spec.arguments import ARGS
from cnnsearch.spec.axis_words import describe, rounded
from cnnsearch.spec.confirm import CONFIRM
from cnnsearch.spec.values import Values


class Named(Folded):
    """The settings of a sweep, and what people call them."""

    @cached_property
    def configurations(self) -> list[Configuration]:
        """Finished configurations, in the order of the table."""
        return collect(self.rows, self.values)

    @cached_property
    def by_key(self) -> dict[str, Configuration]:
        """Key -> configuration."""
        return {c.key: c for c in self.configurations}

    @cached_property
    def stages(self) -> list[str]:
        """Names of the stages that have finished configurations, in the order of the sweep."""
        planned = [stage.name for stage in self.tables.sweep.stages]
        present = list(dict.fromkeys(c.stage for c in self.configurations))
        return [name for name in planned if name in present] + [name for name in present if name not in planned]

    def stage(self, name: str) -> list[Configuration]:
        """The finished configurations of a stage."""
        return [c for c in self.configurations if c.stage == name]

    def continues(self, name: str) -> bool:
        """Whether the stage carries weights over from another, and is more than a repetition."""
        return name != CONFIRM.name and any(c.parent is not None for c in self.stage(name))

    @cached_property
    def fresh_stages(self) -> list[str]:
        """The stages that train settings of their own from scratch: they neither continue others nor repeat them."""
        return [name for name in self.stages if name != CONFIRM.name and not self.continues(name)]

    def space(self, name: str) -> dict[str, Values]:
        """A stage's space as the sweep file gives it: axis -> values. Empty for a stage that is not in the sweep."""
        return next((stage.space for stage in self.tables.sweep.stages if stage.name == name), {})

    def axes(self, name: str) -> list[str]:
        """The axes a stage itself varies, in the order of its space; never the seed.

        Axes that a stage only inherits from its parents are not its own, though they differ between its configurations.
        """
        configurations = self.stage(name)
        known = axes_in(c.values for c in configurations)
        varying = [a for a in known if len({c.values[a] for c in configurations}) > 1]
        space = list(self.space(name))
        own = [axis for axis in space if axis in varying]
        return own if space else varying

    @cached_property
    def varying(self) -> list[str]:
        """The axes that differ between any two trials, finished or not: what a label has to mention."""
        return [axis for axis in axes_in(self.values) if len({row[axis] for row in self.values}) > 1]

    def label(self, configuration: Configuration, *, omit: Iterable[str] = (), separator: str = ", ") -> str:
        """A configuration in words, by the axes that vary: "residual, lr 0.001, batch 16, no dropout"."""
        omitted = set(omit)
        omitted |= self.without_part.get(configuration.key, set())
        axes = [axis for axis in self.varying if axis not in omitted]
        # If configurations differ in no axis, say what kind this one is.
        axes = axes or [axis for axis in ("model", "lr", "batch_size") if axis not in omitted]
        values = configuration.values
        axes = [axis for axis in axes if values[axis] is not None or not axis.startswith(ARGS)]
        return separator.join(describe(axis, values[axis]) for axis in axes)

    @cached_property
    def without_part(self) -> dict[str, set[str]]:
        """Key -> the axes of its search that do not apply to it, such as the momentum of adam."""
        return {
            id_: {axis.name for axis in search.axes} - set(one.values) for id_, (search, one) in self.attempts.items()
        }

    @cached_property
    def attempts(self) -> dict[str, tuple[Searched, Attempt]]:
        """Id of each trial that a search suggested, or that confirms one -> the search, and the suggested trial."""
        found = {one.trial_id: (search, one) for search in self.searches if search.is_search for one in search.attempts}
        again = {id_: found[c.confirms] for c in self.configurations if c.confirms in found for id_ in c.trial_ids}
        return found | again

    def brief(self, configuration: Configuration, room: int) -> str:
        """Name a suggested configuration in about `room` characters: its number, and rounded values of the axes that
        matter most.
        """
        search, attempt = self.attempts[configuration.key]
        parts = [f"trial {attempt.number:,}"]
        for axis in search.telling:
            if axis.name in attempt.values and axis.name != "model":
                part = describe(axis.name, rounded(attempt.values[axis.name]))
                if len(" · ".join([*parts, part])) <= room:
                    parts.append(part)
        return " · ".join(parts)

    @cached_property
    def searches(self) -> list[Searched]:
        """The stages that were searched, or in which trials were stopped early."""
        return searches(self)
