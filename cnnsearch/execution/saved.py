"""Evaluates trials that ended, from the weights they kept."""

from __future__ import annotations

from cnnsearch.execution.context import SharedContext
from cnnsearch.execution.jobs import evaluate_each, frozen_of, initial_head
from cnnsearch.execution.record import Evaluations
from cnnsearch.execution.start import arrange, starting_model
from cnnsearch.planning.job import head_key
from cnnsearch.planning.trial import Trial
from cnnsearch.results.folder import Results
from cnnsearch.training.compute.device import reset_process
from cnnsearch.training.evaluate import evaluate
from cnnsearch.training.pixels import Pixels


def evaluate_saved(trial: Trial, context: SharedContext, split: str) -> tuple[Evaluations, Evaluations]:
    """Evaluate a trial that ended on one split, as it would have been when it ended.

    Args:
        trial: whose weights, and those of what it started from, are kept.
        context: what all trials share.
        split: val or test.

    Returns:
        Results before its training, empty for a trial that started from no other, and at its best epoch.

    Raises ResultsError where the weights are missing or not what was recorded.
    """
    reset_process(context.choices.threads)
    weights = Results(context.results).trial(trial.id).load_weights()
    frozen = frozen_of(trial, context) if head_key(trial) is not None else None
    if frozen is not None:
        start, device = initial_head(trial, frozen), frozen.head.weight.device
        weight, bias = (weights[f"{frozen.name}.{part}"].to(device) for part in ("weight", "bias"))
        heads = [start, (weight, bias)] if trial.parent_id is not None else [(weight, bias)]
        # One by one: together they would be one wide product, whose last bits may differ.
        found = [evaluate_each(frozen.features, [head], [split])[0] for head in heads]
        return (found[0] if len(found) > 1 else {}), found[-1]
    settings, precision = trial.settings, context.precision(trial.settings)
    pixels = Pixels.shared(context.dataset(trial), context.choices.device, context.expected_statistics(settings))
    state, examples = arrange(starting_model(trial, context), trial, context, pixels)
    before: Evaluations = {}
    if trial.parent_id is not None:
        before = {split: evaluate(state.trained, examples, split, precision=precision, whole=True)}
    state.model.load_state_dict(weights, strict=False)
    return before, {split: evaluate(state.trained, examples, split, precision=precision, whole=True)}
