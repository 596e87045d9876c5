"""What a worker does with a job: run trials one by one, or train many heads on the same features together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import torch
from torch import Tensor, fx, nn

from cnnsearch.execution.context import SharedContext
from cnnsearch.execution.events import Progress
from cnnsearch.execution.record import (
    Attempt,
    CheckpointTimer,
    Evaluations,
    failure,
    finish_trial,
    model_bytes,
    row_before_training,
    stop_due,
)
from cnnsearch.execution.start import arrange, saved_state, starting_model
from cnnsearch.execution.trial import run_trial
from cnnsearch.planning.job import Job, frozen_key, head_key
from cnnsearch.planning.stopping import Orders, Stop
from cnnsearch.planning.trial import EpochRow, Trial
from cnnsearch.results.folder import Results
from cnnsearch.results.record import Record
from cnnsearch.spec.model_names import OWN
from cnnsearch.spec.settings import Settings
from cnnsearch.training.compute.device import derived_seed, reset_process
from cnnsearch.training.features import Features
from cnnsearch.training.head_scores import HeadInputs, evaluate_heads
from cnnsearch.training.heads import HeadState, train_heads
from cnnsearch.training.pixels import Pixels
from cnnsearch.training.train import Weights


def run_job(job: Job, context: SharedContext, orders: Orders) -> Iterator[Progress]:
    """Run a job; yields its progress, one epoch of the trials at a time, and each trial's record last.

    A trial that trains only its head gives the same numbers by itself as together with others. If training them
    together fails, each is trained by itself.

    Args:
        job: trials that have not ended.
        context: what all trials share.
        orders: read after each epoch; they may order that trials end early, or that one or all are saved and left.

    Raises OutOfMemoryError and DiskError, which are the machine's fault, not the trials'.
    """
    if head_key(job.trials[0]) is None:
        _LAST.clear()  # to free its memory
        yield from _one_by_one(job, context, orders)
        return
    started_at, ended = datetime.now(UTC), set()
    try:
        bundle = _bundle(job, context)
        if bundle is None:
            yield from _one_by_one(job, context, orders)
            return
        for part in bundle.parts():
            for events in _train(part, context, orders, started_at) if not orders.pause else ():
                ended |= {trial.id for trial, event in events if isinstance(event, Record)}
                yield events
    except Exception as error:
        cause = failure(error)
        left = [trial for trial in job.trials if trial.id not in ended and trial.id not in orders.waits]
        if len(job.trials) > 1:
            for trial in left:
                yield from run_job(Job((trial,)), context, orders)
        else:
            yield [(t, Results(context.results).trial(t.id).commit_failure(t, cause)) for t in left]


def _one_by_one(job: Job, context: SharedContext, orders: Orders) -> Iterator[Progress]:
    for trial in job.trials:
        for event in run_trial(trial, context, orders) if not orders.pause else ():
            yield [(trial, event)]


@dataclass(frozen=True)
class _Bundle:
    """Heads that are trained together, from a new or a saved state."""

    trials: tuple[Trial, ...]
    features: HeadInputs
    starts: list[tuple[Tensor, Tensor]]
    """Weight and bias that each trial starts from."""
    states: list[HeadState]
    names: tuple[str, str]
    """Keys of the head's weight and bias in the model's state dict."""
    model_bytes: int
    """Bytes of the whole model's weights."""
    begun: frozenset[str]
    """Ids of the trials that continue a state of their own."""

    def parts(self) -> Iterator[_Bundle]:
        """Yield a bundle for each number of epochs already trained: one alone, unless some continue a saved state."""
        for epoch in sorted({state.epoch for state in self.states}):
            chosen = [index for index, state in enumerate(self.states) if state.epoch == epoch]
            yield replace(
                self,
                trials=tuple(self.trials[index] for index in chosen),
                starts=[self.starts[index] for index in chosen],
                states=[self.states[index] for index in chosen],
            )


def _bundle(job: Job, context: SharedContext) -> _Bundle | None:
    """Prepare the heads of a job's trials for training together, continuing saved ones.

    Returns None if more than one linear layer follows the frozen layers.
    """
    reset_process(context.choices.threads)
    frozen = frozen_of(job.trials[0], context)
    if frozen is None:
        return None
    heads, states = [initial_head(trial, frozen) for trial in job.trials], []
    for trial, (weight, bias) in zip(job.trials, heads, strict=True):
        states.append(HeadState(_effective(trial, frozen.own_dropout), weight.clone(), bias.clone()))
        checkpoint = saved_state(trial, context, "head")
        if checkpoint is not None:
            states[-1].load_state_dict(checkpoint)
    names = (f"{frozen.name}.weight", f"{frozen.name}.bias")
    results = Results(context.results)
    begun = frozenset(trial.id for trial in job.trials if results.trial(trial.id).checkpoint_file.exists())
    return _Bundle(job.trials, frozen.features, heads, states, names, frozen.model_bytes, begun)


@dataclass(frozen=True)
class _Frozen:
    """What training heads needs from a model: outputs of its frozen layers, and the head that `trial` starts with."""

    trial: Trial
    features: HeadInputs
    head: nn.Linear
    name: str
    """Name of the head in the model."""
    own_dropout: float | None
    """See `only_head`."""
    model_bytes: int
    """Bytes of the whole model's weights."""


def frozen_of(trial: Trial, context: SharedContext) -> _Frozen | None:
    """Return what all trials that start from the same model share; remember it until another model is needed.

    Returns None if more than one linear layer follows the frozen layers.
    """
    images = context.dataset(trial).images_path
    key = (*frozen_key(trial), images, context.results, context.choices, context.features_bytes)
    if key not in _LAST:
        _LAST.clear()
        _LAST[key] = _make_frozen(trial, context)
    return _LAST[key]


_LAST: dict[tuple[object, ...], _Frozen | None] = {}
"""The last result of `frozen_of` in this process: building a model and reading its weights takes longer than training a
head."""


def _make_frozen(trial: Trial, context: SharedContext) -> _Frozen | None:
    statistics = context.expected_statistics(trial.settings)
    pixels = Pixels.shared(context.dataset(trial), context.choices.device, statistics)
    model = starting_model(trial, context)
    state, examples = arrange(model, trial, context, pixels)
    if not isinstance(examples, Features) or not isinstance(state.trained, fx.GraphModule):
        return None
    found = only_head(state.trained)
    if found is None or len(examples.values) != 1 or examples.values[0].dim() != 2:
        return None
    name, own_dropout = found
    head = model.get_submodule(name)
    assert isinstance(head, nn.Linear)
    features = HeadInputs(examples.values[0].float(), examples.labels, examples.rows)
    return _Frozen(trial, features, head, name, own_dropout, model_bytes(model))


def only_head(suffix: fx.GraphModule) -> tuple[str, float | None] | None:
    """Return the name of a suffix's only linear layer, and the rate of the dropout before it (None: no dropout).

    Returns None if the suffix is anything but a linear layer, with or without dropout.
    """
    modules = dict(suffix.named_modules())
    called = [node for node in suffix.graph.nodes if node.op not in ("placeholder", "output")]
    if any(node.op != "call_module" for node in called):
        return None
    layers = [(str(node.target), modules[str(node.target)]) for node in called]
    name, head = layers[-1]
    if not isinstance(head, nn.Linear) or head.bias is None:
        return None
    before = [layer for _, layer in layers[:-1]]
    if not all(isinstance(layer, nn.Dropout) for layer in before) or len(before) > 1:
        return None
    return name, (float(before[0].p) if before else None)


def _effective(trial: Trial, own_dropout: float | None) -> Settings:
    """Return the trial's settings with the dropout rate that acts on the head's inputs."""
    settings = trial.settings
    if settings.code:
        return settings.model_copy(update={"dropout": own_dropout or 0.0})  # wherever the network puts it
    if settings.model in OWN:
        return settings.model_copy(update={"dropout": 0.0})  # its dropout is among the frozen layers
    if settings.dropout == 0 and own_dropout is not None:
        return settings.model_copy(update={"dropout": own_dropout})
    return settings


def initial_head(trial: Trial, frozen: _Frozen) -> tuple[Tensor, Tensor]:
    """Return weight and bias of the head that a trial starts from, the same as `starting_model` would draw or load."""
    head, other = frozen.head, frozen.trial
    if trial.settings.seed != other.settings.seed and torch.equal(_drawn(other, head).weight, head.weight):
        own = _drawn(trial, head)
        return own.weight.detach(), own.bias.detach()
    return head.weight.detach(), head.bias.detach()


def _drawn(trial: Trial, like: nn.Linear) -> nn.Linear:
    """Draw a new head for a trial as `models.build.reset_head` does."""
    torch.manual_seed(derived_seed("head", trial.settings.seed))
    return nn.Linear(like.in_features, like.out_features).to(like.weight.device)


def _train(bundle: _Bundle, context: SharedContext, orders: Orders, started_at: datetime) -> Iterator[Progress]:
    trials, states, results = bundle.trials, bundle.states, Results(context.results)
    zeros: list[list[EpochRow]] = [[] for _ in trials]
    before: list[Evaluations] = [{} for _ in trials]
    if trials[0].parent_id is not None:
        before = evaluate_each(bundle.features, bundle.starts, context.measured)
        zeros = [[row_before_training(trial, measured)] for trial, measured in zip(trials, before, strict=True)]
        yield [(trial, rows[0]) for trial, rows in zip(trials, zeros, strict=True)]

    # What they had shown may be lost but for their checkpoints.
    shown = [
        state.rows if trial.id in bundle.begun and context.compares(trial) else []
        for trial, state in zip(trials, states, strict=True)
    ]
    for place in range(max(map(len, shown))):
        yield [(trial, rows[place]) for trial, rows in zip(trials, shown, strict=True) if len(rows) > place]

    def save(indices: list[int]) -> None:
        for index in indices:
            folder = results.trial(trials[index].id)
            folder.begin(trials[index], states[index].rows)
            folder.save_checkpoint(states[index].state_dict())

    def finish(index: int, best: Evaluations) -> Record:
        trial, state = trials[index], states[index]
        results.trial(trial.id).begin(trial, zeros[index] + state.rows)
        parameters = state.weight.numel() + state.bias.numel()
        attempt = Attempt(trial, context, started_at, parameters, bundle.model_bytes, before[index])
        return finish_trial(attempt, state, stops.get(index), lambda: best, lambda: _best_weights(bundle, state))

    def finish_all(indices: list[int]) -> Iterator[Progress]:
        for index, best in _best(bundle, indices, context.measured):
            yield [(trials[index], finish(index, best))]

    stops: dict[int, Stop] = {}
    ended = {index for index, rows in enumerate(shown) if rows and orders.waits_at(trials[index].id, len(rows))}
    timer = CheckpointTimer(context)
    epochs = train_heads(bundle.features, states, lambda index: index in ended)
    while True:
        left = [index for index in range(len(trials)) if index not in ended]
        found = {index: stop_due(trials[index], states[index].rows, context, orders) for index in left}
        stops |= {index: stop for index, stop in found.items() if stop}
        stopped = stops.keys() - ended
        yield from finish_all(sorted(stopped))
        ended |= stopped
        if (epoch := next(epochs, None)) is None:
            break
        at = [index for index, row in enumerate(epoch) if row is not None]
        number = max(states[index].epoch for index in at)
        is_last = number == trials[0].settings.epochs
        if not is_last and timer.is_due(number):
            save(at)
        yield [(trials[index], row) for index, row in enumerate(epoch) if row is not None]
        if orders.pause and not is_last:
            save(at)
            return
        waiting = [index for index in at if orders.waits_at(trials[index].id, number)] if not is_last else []
        save(waiting)
        ended.update(waiting)
    yield from finish_all([index for index in range(len(trials)) if index not in ended])


def _best_weights(bundle: _Bundle, state: HeadState) -> Weights:
    values = zip(bundle.names, (state.best_weight, state.best_bias), strict=True)
    return {name: value.cpu() for name, value in values}


def _best(bundle: _Bundle, indices: list[int], splits: Sequence[str]) -> Iterator[tuple[int, Evaluations]]:
    """Yield the index of each of these trials with its results at its best epoch.

    A diverged trial without a best epoch is evaluated in its last state, and its results are not used."""
    if indices:
        states = [bundle.states[index] for index in indices]
        heads = [(s.best_weight, s.best_bias) if s.best else (s.weight, s.bias) for s in states]
        found = evaluate_each(bundle.features, heads, splits)
        for index in indices:
            yield index, found.pop(0)  # so that the probabilities of one trial at a time are in memory


def evaluate_each(
    features: HeadInputs, heads: Sequence[tuple[Tensor, Tensor]], splits: Sequence[str]
) -> list[Evaluations]:
    """Evaluate each head, given by weight and bias, on these splits."""
    weight, bias = torch.stack([w for w, _ in heads]), torch.stack([b for _, b in heads])
    by_split = {split: evaluate_heads(features, split, weight, bias) for split in splits}
    return [{split: found[index] for split, found in by_split.items()} for index in range(len(heads))]
