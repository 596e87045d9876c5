"""What a trial starts with: its model and weights, the features of its frozen layers, and saved training state."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn

from cnnsearch.execution.context import SharedContext
from cnnsearch.planning.identity import model_version
from cnnsearch.planning.trial import Trial
from cnnsearch.results.continuation import can_go_on, shorter
from cnnsearch.results.folder import Results
from cnnsearch.spec.settings import Settings
from cnnsearch.training.features import Examples, Features, bytes_needed, compute, shared
from cnnsearch.training.models.build import heads_apart, initial_model, reset_head
from cnnsearch.training.pixels import Pixels
from cnnsearch.training.train import TrainingState


def saved_state(trial: Trial, context: SharedContext, kind: str) -> dict[str, Any] | None:
    """Return the training state that a trial continues from: its own, or that of the longest shorter trial like it.

    Args:
        trial: about to run.
        context: what all trials share.
        kind: `model` or `head`; state of the other kind does not count.
    """
    results = Results(context.results)
    if (own := results.trial(trial.id).load_checkpoint(kind)) is not None:
        return own
    for other in shorter(trial, context.known_epochs):
        folder = results.trial(other.id)
        record = folder.record()
        if record and can_go_on(record) and record.precision == context.precision(trial.settings):
            state = folder.load_checkpoint(kind)
            if state is not None:
                return state
    return None


def starting_model(trial: Trial, context: SharedContext) -> nn.Module:
    """Return the trial's model before training: with its parent's weights, pretrained ones, or random ones."""
    settings = trial.settings
    model = initial_model(settings, context.classes, context.choices.device)
    _load_start(model, settings, trial.parent_id, context)
    return model


def _load_start(model: nn.Module, settings: Settings, parent_id: str | None, context: SharedContext) -> None:
    """Load the weights that a trial of these settings starts from.

    A trial's file holds only what its training changed, so its own start is loaded first.
    """
    if parent_id is not None:
        folder = Results(context.results).trial(parent_id)
        weights, parent = folder.load_weights(), folder.record()
        assert parent is not None  # load_weights has read it
        if len(weights) < len(model.state_dict()):
            _load_start(model, parent.settings, parent.parent_id, context)
        model.load_state_dict(weights, strict=False)
    elif settings.weights != "none":
        from cnnsearch.training.models.weights import load_file_into

        classes = context.classes
        file = context.weights[settings.model, settings.weights].file
        reset_head(model, classes, settings.seed)
        load_file_into(model, file, classes)


def arrange(model: nn.Module, trial: Trial, context: SharedContext, pixels: Pixels) -> tuple[TrainingState, Examples]:
    """Return the state to train and its inputs: the images, or the outputs of frozen layers.

    These outputs are computed once for all trials.

    Args:
        model: as the trial starts; its frozen layers stop requiring gradients.
        trial: says what is frozen.
        context: what all trials share.
        pixels: the images.
    """
    settings = trial.settings
    classes = context.classes
    heads = heads_apart(model, settings, classes)
    if settings.fine_tune == "full":
        return TrainingState.start(model, settings, heads=heads), pixels
    from cnnsearch.training.models.cut import cut_for, freeze

    frozen = freeze(model, settings.fine_tune, classes)
    halves = cut_for(settings, frozen)
    precision = context.precision(settings)
    if halves is None or bytes_needed(halves.prefix, pixels, precision) > context.features_bytes:
        return TrainingState.start(model, settings, model, frozen.train_mode, frozen.trained, heads), pixels
    start = trial.parent_id or trial.weights or f"seed {settings.seed}"
    dataset = context.dataset(trial)
    # Where what the weights expect normalises the images, all folds have the same inputs.
    shares = dataset.contents and context.expected_statistics(settings)
    images = dataset.contents if shares else dataset.fingerprint
    model_is: tuple[object, ...] = (settings.model, model_version(settings.model), settings.width)
    model_is = (*model_is, settings.network) if settings.code else model_is
    facts = (*model_is, start, halves.name, images, settings.image_size)
    key = f"{facts} {context.preprocessing(settings)} {precision} {context.choices} {torch.__version__}"
    make = functools.partial(compute, halves.prefix, pixels, precision)
    values = shared(key, make, len(pixels.labels), pixels.device)
    features = Features(values, pixels.labels, pixels.rows)
    return TrainingState.start(model, settings, halves.suffix, frozen.train_mode, frozen.trained, heads), features
