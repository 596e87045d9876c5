"""Settings: trials that differ in nothing but their seeds, and the seeds of the trials they start from. Pure."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

from cnnsearch.planning.trial import Trial
from cnnsearch.spec.arguments import GROUPS, plain_value
from cnnsearch.spec.settings import Settings

_FIELDS = [name for name in Settings.model_fields if name not in ("seed", *GROUPS, "code")]

SettingKey = tuple[object, ...]
"""What trials share if they are of one setting."""


def setting_key(trial: Trial, trials: Mapping[str, Trial], known: MutableMapping[str, SettingKey]) -> SettingKey:
    """Return the key of a trial's setting.

    Args:
        trial: which may start from another.
        trials: id -> trial; those that a trial descends from are looked up here.
        known: trial id -> its key; remembers what was found.
    """
    if trial.id not in known:
        values = vars(trial.settings)
        args = plain_value(trial.settings.optimizer_args) if trial.settings.optimizer_args else ""
        own = (*(values[name] for name in _FIELDS), trial.settings.network, args)
        known[trial.id] = (own, trial.weights, start_key(trial, trials, known))
    return known[trial.id]


def start_key(
    trial: Trial, trials: Mapping[str, Trial], known: MutableMapping[str, SettingKey]
) -> SettingKey | str | None:
    """Return the key of the setting that a trial starts from, the parent's id if it is unknown, None without one."""
    parent = trials.get(trial.parent_id or "")
    return setting_key(parent, trials, known) if parent else trial.parent_id
