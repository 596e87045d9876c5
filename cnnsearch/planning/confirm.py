"""Which settings are trained again on fresh seeds, and as which trials. Pure.

The best of many scores is best partly by luck: its setting would score lower with other seeds. So the settings that may
be best are trained again on seeds that chose nothing, and what is said of them is said from those alone.

Which settings these are is recorded like a searcher's suggestions, in rounds, before their trials run. So a run that
goes on, a table and a report need no second opinion.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cnnsearch.errors import ResultsError
from cnnsearch.planning.setting import SettingKey, setting_key
from cnnsearch.planning.study import Study, Suggestions, confirm_study_id, measure_of
from cnnsearch.planning.trial import Outcome, Status, Trial
from cnnsearch.spec.cells import Cell
from cnnsearch.spec.confirm import CONFIRM, Confirm

LEAST, MOST = 2, 5
"""Contenders that `auto` chooses."""
SEED_LIMIT = 2**31

Setting = tuple[Trial, ...]
"""Trials that differ in nothing but the seeds, theirs and those of the trials they start from."""


@dataclass(frozen=True)
class Contender:
    """A setting that is trained again."""

    setting: Setting
    """The trials whose scores chose it."""
    lines: tuple[tuple[Trial, ...], ...]
    """For each fresh seed the trials it takes: those that the last one descends from, then itself."""

    @property
    def again(self) -> tuple[Trial, ...]:
        """The setting with fresh seeds, one trial for each."""
        return tuple(line[-1] for line in self.lines)

    @property
    def starts(self) -> tuple[str, ...]:
        """Ids of the trials that these start from."""
        return tuple(trial.id for line in self.lines for trial in line[:-1])


@dataclass(frozen=True)
class Confirmation:
    """What the stage that confirms trains again. Known once all trials of the other stages have ended."""

    study: Study
    """Its suggestions are the rounds so far; the first one names the contenders."""
    settings: tuple[Setting, ...]
    """All that may be chosen: those all of whose trials finished."""
    contenders: tuple[Contender, ...]
    """Those that are chosen, best first; empty before the first round. Some may have more seeds than others."""

    @property
    def is_open(self) -> bool:
        """Whether contenders are still to be chosen."""
        return bool(self.settings) and not self.study.suggestions

    @property
    def is_settled(self) -> bool:
        """Whether the last round has ended the comparison of the contenders; see `planning.rounds`."""
        return bool(self.study.suggestions) and "ended" in self.study.suggestions[-1]

    def is_due(self, outcomes: Mapping[str, Outcome]) -> bool:
        """Whether a round can be made now: contenders are to be chosen, or all trials of the last round have ended."""
        if not self.contenders or self.is_settled:
            return self.is_open
        ready, waiting, _ = ready_trials(self.contenders, outcomes)
        return not waiting and all(trial.id in outcomes for trial in ready)

    def of(self, index: int) -> Contender:
        """Return the contender by the number that rounds give it."""
        chosen: list[int] = self.study.suggestions[0]["contenders"]
        return self.contenders[chosen.index(index)]


def confirmation(
    confirm: Confirm, trials: Mapping[str, Trial], outcomes: Mapping[str, Outcome], suggestions: Suggestions
) -> Confirmation:
    """Return what is trained again, as far as it is chosen.

    Args:
        confirm: how many settings, with how many seeds.
        trials: all trials of the other stages: id -> trial.
        outcomes: of every one of them.
        suggestions: as recorded; other studies' do not matter.
    """
    settings = settings_of(trials)
    name = confirm_study_id(
        confirm, [(lineage(trial, trials), outcomes[trial_id]) for trial_id, trial in trials.items()]
    )
    rounds = tuple(suggestions.get(name, ()))
    whole = tuple(setting for setting in settings if all(outcomes[trial.id].is_comparable for trial in setting))
    if rounds and not _can_be(rounds, len(whole)):
        raise ResultsError(f"studies/{name}.jsonl: its rounds do not fit the trials; remove the file")
    several = {
        index: max(confirm.seeds, *(one.get("seeds", 0) for one in rounds if index in one["contenders"]))
        for index in (rounds[0]["contenders"] if rounds else ())
    }
    seeds = fresh_seeds({trial.settings.seed for trial in trials.values()}, max(several.values(), default=0))
    contenders = [
        Contender(whole[index], tuple(repeated(lineage(whole[index][0], trials), seed) for seed in seeds[:count]))
        for index, count in several.items()
    ]
    return Confirmation(Study(name, CONFIRM, (), rounds, ()), whole, tuple(contenders))


def _can_be(rounds: Sequence[Cell], settings: int) -> bool:
    """Whether these can be rounds among so many settings."""
    if not all(isinstance(one.get("contenders"), list) for one in rounds):
        return False
    of_all = rounds[0]["contenders"]
    if len(set(of_all)) != len(of_all) or not all(0 <= index < settings for index in of_all):
        return False
    return all({*one["contenders"], *one.get("lost", ())} <= set(of_all) for one in rounds)


def first_round(found: Confirmation, outcomes: Mapping[str, Outcome], images: int, wanted: int | str) -> Cell:
    """Choose the contenders, best first.

    Args:
        found: whose settings compete.
        outcomes: of their trials.
        images: number of validation images.
        wanted: number of contenders, or `auto`; see `near_best`.
    """
    scores = [_mean(outcomes[trial.id].worth(measure_of(trial)) for trial in setting) for setting in found.settings]
    # Images say in this way how sure an accuracy is; by another metric, those that seem best are taken.
    measures = {measure_of(trial) for setting in found.settings for trial in setting}
    return {"contenders": near_best(scores, images if measures == {"val_accuracy"} else 0, wanted)}


def near_best(scores: Sequence[float], images: int, wanted: int | str = "auto") -> list[int]:
    """Return the indices of the settings that may be best, best first; of equal ones the earlier first.

    With `auto` these are the settings that are not told from the best by the 95 % interval of a difference of two
    proportions (Newcombe 1998), as if each score were from as many images as there are for validation. The interval
    takes the images of two settings for different ones, though they are the same, and so is rather too wide. That is
    meant: it stands in for the luck of the seeds too, which one seed cannot show. At least 2 are chosen, since a winner
    needs something to be better than, and at most 5: with more, chance would again have much to choose from, and time
    is better spent on more seeds.

    Args:
        scores: of each setting, on validation: more is better.
        images: number of validation images; 0 tells nothing apart.
        wanted: number of settings, or `auto`.
    """
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    if isinstance(wanted, int):
        return order[:wanted]
    near = sum(not _is_lower(scores[index], scores[order[0]], images) for index in order)
    return order[: min(MOST, max(LEAST, near))]


def _is_lower(score: float, best: float, images: int) -> bool:
    from cnnsearch import stats  # scipy's import takes a while, and most plans choose no contenders

    if images == 0:
        return False
    low = stats.wilson(min(best, 1.0) * images, images).low
    high = stats.wilson(min(score, 1.0) * images, images).high
    return best - score > math.hypot(best - low, high - score)


def fresh_seeds(used: Collection[int], count: int) -> list[int]:
    """Return seeds that no trial has used: the next ones above the largest, below the limit any others."""
    above = range(max(used, default=-1) + 1, SEED_LIMIT)
    unused = (seed for seed in itertools.chain(above, range(SEED_LIMIT)) if seed not in used)
    return list(itertools.islice(unused, count))


def settings_of(trials: Mapping[str, Trial]) -> list[Setting]:
    """Group trials, given as id -> trial, into settings, in order of appearance."""
    keys: dict[str, SettingKey] = {}
    found: dict[SettingKey, list[Trial]] = {}
    for trial in trials.values():
        found.setdefault(setting_key(trial, trials, keys), []).append(trial)
    return [tuple(members) for members in found.values()]


def lineage(trial: Trial, trials: Mapping[str, Trial]) -> list[Trial]:
    """List the trials that a trial descends from, the first one first, then itself."""
    parent = trials.get(trial.parent_id or "")
    return [*(lineage(parent, trials) if parent else ()), trial]


def repeated(line: Iterable[Trial], seed: int) -> tuple[Trial, ...]:
    """Repeat a trial and those it descends from with another seed."""
    found: list[Trial] = []
    for trial in line:
        parent_id = found[-1].id if found else trial.parent_id
        settings = trial.settings.model_copy(update={"seed": seed})
        found.append(Trial(CONFIRM.name, settings, trial.data, parent_id, trial.weights))
    return tuple(found)


def ready_trials(contenders: Iterable[Contender], outcomes: Mapping[str, Outcome]) -> tuple[list[Trial], int, int]:
    """Return the contenders' trials that have what they start from, how many wait for it, and how many never get it.

    Args:
        contenders: what is trained again.
        outcomes: of trials that need not run.
    """
    ready: dict[str, Trial] = {}
    waiting: set[str] = set()
    lost: set[str] = set()
    for trial in _each(contenders):
        parent = outcomes.get(trial.parent_id or "")
        if trial.parent_id in lost or (parent is not None and parent.status is not Status.DONE):
            lost.add(trial.id)
        elif trial.parent_id is not None and parent is None:
            waiting.add(trial.id)
        else:
            ready[trial.id] = trial
    return list(ready.values()), len(waiting), len(lost)


def _each(contenders: Iterable[Contender]) -> Iterator[Trial]:
    return (trial for contender in contenders for line in contender.lines for trial in line)


def _mean(numbers: Iterable[float]) -> float:
    scores = list(numbers)
    return sum(scores) / len(scores)
