"""What a worker does with a job: one trial by itself, or many heads on the same features as batched products."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import torch
from torch import Tensor, fx, nn

from cnnsearch.errors import DiskError, OutOfMemoryError
from cnnsearch.execution.trial import (
    arrange,
    best_update,
    divergence,
    explain,
    is_out_of_memory,
    keeps_state,
    measures,
    model_bytes,
    new_record,
    pruning,
    run_trial,
    saved_state,
    starting_model,
    stop_due,
)
from cnnsearch.execution.workplace import CheckpointTimes, Workplace
from cnnsearch.planning.queue import Job, frozen_key, head_key
from cnnsearch.planning.stopping import Orders, Stop
from cnnsearch.planning.trial import EpochRow, Trial
from cnnsearch.results.records import Record, Results
from cnnsearch.spec.model_names import OWN
from cnnsearch.spec.settings import Settings
from cnnsearch.training.compute.device import derived_seed, reset_process
from cnnsearch.training.evaluate import MEASURED, Evaluation
from cnnsearch.training.features import Features
from cnnsearch.training.heads import HeadInputs, HeadState, evaluate_heads, train_heads
from cnnsearch.training.pixels import Pixels

Events = list[tuple[Trial, EpochRow | Record]]


def run_job(job: Job, place: Workplace, orders: Orders) -> Iterator[Events]:
    """Run a job; yields what happened, an epoch of every trial at a time, each trial's record last.

    `orders` may change between two steps, and say that trials are to end early or that all are to be saved and left.

    A trial that trains its head only gives the same numbers by itself as in company. Where one breaks, the others of
    its job are trained by themselves.

    Raises OutOfMemoryError and DiskError, which are not the trials' own.
    """
    if head_key(job.trials[0]) is None:
        _LAST.clear()  # other trials are to have the memory
        yield from _one_by_one(job, place, orders)
        return
    started_at, ended = datetime.now(UTC), set()
    try:
        bundle = _bundle(job, place)
        if bundle is None:
            yield from _one_by_one(job, place, orders)
            return
        for part in bundle.parts():
            for events in _train(part, place, orders, started_at) if not orders.pause else ():
                ended |= {trial.id for trial, event in events if isinstance(event, Record)}
                yield events
    except DiskError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise OutOfMemoryError(explain(error)) from None
        left = [trial for trial in job.trials if trial.id not in ended]
        if len(job.trials) > 1:
            for trial in left:
                yield from run_job(Job((trial,)), place, orders)
        else:
            yield [(t, Results(place.results).trial(t.id).commit_failure(t, explain(error))) for t in left]


def _one_by_one(job: Job, place: Workplace, orders: Orders) -> Iterator[Events]:
    for trial in job.trials:
        for event in run_trial(trial, place, orders) if not orders.pause else ():
            yield [(trial, event)]


@dataclass(frozen=True)
class _Bundle:
    """Heads ready to be trained, or trained on."""

    trials: tuple[Trial, ...]
    features: HeadInputs
    starts: list[tuple[Tensor, Tensor]]
    """Weight and bias each trial started from."""
    states: list[HeadState]
    names: tuple[str, str]
    """Of the head's weight and bias in the model's state dict."""
    model_bytes: int
    """Of the whole model's weights."""

    def parts(self) -> Iterator[_Bundle]:
        """Bundles of the trials that have come equally far, which is all of them where none goes on."""
        for epoch in sorted({state.epoch for state in self.states}):
            chosen = [index for index, state in enumerate(self.states) if state.epoch == epoch]
            yield replace(
                self,
                trials=tuple(self.trials[index] for index in chosen),
                starts=[self.starts[index] for index in chosen],
                states=[self.states[index] for index in chosen],
            )


def _bundle(job: Job, place: Workplace) -> _Bundle | None:
    """The features of a job's trials and their heads; None where more than one linear layer follows the cut."""
    reset_process(place.choices.threads)
    frozen = _frozen(job.trials[0], place)
    if frozen is None:
        return None
    heads, states = [_initial_head(trial, frozen) for trial in job.trials], []
    for trial, (weight, bias) in zip(job.trials, heads, strict=True):
        states.append(HeadState(_effective(trial, frozen.own_dropout), weight.clone(), bias.clone()))
        checkpoint = saved_state(trial, place, "head")
        if checkpoint is not None:
            states[-1].load_state_dict(checkpoint)
    names = (f"{frozen.name}.weight", f"{frozen.name}.bias")
    return _Bundle(job.trials, frozen.features, heads, states, names, frozen.model_bytes)


@dataclass(frozen=True)
class _Frozen:
    """What heads need of a model: the outputs of its frozen layers, and the head that a trial starts from."""

    trial: Trial
    features: HeadInputs
    head: nn.Linear
    name: str
    """Of the head in the model."""
    own_dropout: float | None
    """See `only_head`."""
    model_bytes: int
    """Of the whole model's weights."""


def _frozen(trial: Trial, place: Workplace) -> _Frozen | None:
    """What all trials have in common that start from the same model; made anew when another one is asked for.

    None where more than one linear layer follows the cut.
    """
    images = place.dataset(trial.settings).images_path
    key = (*frozen_key(trial), images, place.results, place.choices, place.features_bytes)
    if key not in _LAST:
        _LAST.clear()
        _LAST[key] = _make_frozen(trial, place)
    return _LAST[key]


_LAST: dict[tuple[object, ...], _Frozen | None] = {}
"""Of this process: building a model and reading its weights takes longer than training a head."""


def _make_frozen(trial: Trial, place: Workplace) -> _Frozen | None:
    statistics = place.expected_statistics(trial.settings)
    pixels = Pixels.shared(place.dataset(trial.settings), place.choices.device, statistics)
    model = starting_model(trial, place)
    state, examples = arrange(model, trial, place, pixels)
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
    """Name of the one linear layer of a suffix, and the architecture's dropout before it (None: there is none)."""
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
    """Settings with the dropout that acts before the head."""
    settings = trial.settings
    if settings.model in OWN:
        return settings.model_copy(update={"dropout": 0.0})  # its dropout lies among frozen layers
    if settings.dropout == 0 and own_dropout is not None:
        return settings.model_copy(update={"dropout": own_dropout})
    return settings


def _initial_head(trial: Trial, frozen: _Frozen) -> tuple[Tensor, Tensor]:
    """The head a trial starts from, as `starting_model` would draw or load it."""
    head, other = frozen.head, frozen.trial
    if trial.settings.seed != other.settings.seed and torch.equal(_drawn(other, head).weight, head.weight):
        own = _drawn(trial, head)
        return own.weight.detach(), own.bias.detach()
    return head.weight.detach(), head.bias.detach()


def _drawn(trial: Trial, like: nn.Linear) -> nn.Linear:
    """See `models.build.reset_head`."""
    torch.manual_seed(derived_seed("head", trial.settings.seed))
    return nn.Linear(like.in_features, like.out_features).to(like.weight.device)


def _train(bundle: _Bundle, place: Workplace, orders: Orders, started_at: datetime) -> Iterator[Events]:
    trials, states, results = bundle.trials, bundle.states, Results(place.results)
    zeros: list[list[EpochRow]] = [[] for _ in trials]
    before: list[dict[str, Evaluation]] = [{} for _ in trials]
    if trials[0].parent_id is not None:
        before = _evaluate(bundle, bundle.starts)
        for trial, rows, measured in zip(trials, zeros, before, strict=True):
            val = measured["val"]
            rows.append(EpochRow(0, None, None, val.loss, val.accuracy, trial.settings.lr, 0.0))
        yield [(trial, rows[0]) for trial, rows in zip(trials, zeros, strict=True)]

    def save(index: int) -> None:
        folder = results.trial(trials[index].id)
        folder.begin(trials[index], states[index].rows)
        folder.save_checkpoint(states[index].state_dict())

    def ends(indices: Iterable[int]) -> Iterator[Events]:
        for index, best in _best(bundle, list(indices)):
            yield [(trials[index], _end(bundle, index, place, started_at, zeros[index], before[index], best, stops))]

    stops: dict[int, Stop] = {}
    ended: set[int] = set()
    due = CheckpointTimes(place)
    epochs = train_heads(bundle.features, states, lambda index: index in ended)
    while True:
        left = [index for index in range(len(trials)) if index not in ended]
        found = {index: stop_due(trials[index], states[index].rows, place, orders) for index in left}
        stops |= {index: stop for index, stop in found.items() if stop}
        stopped = stops.keys() - ended
        yield from ends(sorted(stopped))
        ended |= stopped
        if (epoch := next(epochs, None)) is None:
            break
        at = [index for index, row in enumerate(epoch) if row is not None]
        number = max(states[index].epoch for index in at)
        is_last = number == trials[0].settings.epochs
        if not is_last and due.now(number):
            for index in at:
                save(index)
        yield [(trials[index], row) for index, row in enumerate(epoch) if row is not None]
        if orders.pause and not is_last:
            for index in at:
                save(index)
            return
    yield from ends(index for index in range(len(trials)) if index not in ended)


def _end(
    bundle: _Bundle,
    index: int,
    place: Workplace,
    started_at: datetime,
    zeros: list[EpochRow],
    before: dict[str, Evaluation],
    best: dict[str, Evaluation],
    stops: Mapping[int, Stop],
) -> Record:
    """Write all that is kept of one trial. See `_train`."""
    trial, state, stop = bundle.trials[index], bundle.states[index], stops.get(index)
    folder = Results(place.results).trial(trial.id)
    folder.begin(trial, zeros + state.rows)
    record = _record(trial, place, started_at, bundle, state)
    keep_state = keeps_state(place, stop) and state.rows[-1].is_finite
    if stop:
        record = record.model_copy(update=pruning(stop))
    if before:
        record = record.model_copy(update={"before": measures(before)})
    if state.rows[-1].is_finite:
        assert state.best is not None
        if keep_state:
            folder.save_checkpoint(state.state_dict())
        if record.outcome.is_comparable:
            weights = dict(zip(bundle.names, (state.best_weight, state.best_bias), strict=True))
            folder.save_weights({name: value.cpu() for name, value in weights.items()})
        folder.save_predictions(
            {
                (split, moment): (found.predicted, found.confidence)
                for moment, evaluations in (("before", before), ("best", best))
                for split, found in evaluations.items()
            }
        )
        record = record.model_copy(update=best_update(state.best, best))
    return folder.commit(record, keep_state=keep_state)


def _best(bundle: _Bundle, indices: list[int]) -> Iterator[tuple[int, dict[str, Evaluation]]]:
    """Each of some trials with the results of its best epoch; one without is evaluated as it stands, for nothing."""
    if indices:
        states = [bundle.states[index] for index in indices]
        heads = [(s.best_weight, s.best_bias) if s.best else (s.weight, s.bias) for s in states]
        yield from zip(indices, _evaluate(bundle, heads), strict=True)


def _evaluate(bundle: _Bundle, heads: Sequence[tuple[Tensor, Tensor]]) -> list[dict[str, Evaluation]]:
    """For each head its results on validation and test."""
    weight, bias = torch.stack([w for w, _ in heads]), torch.stack([b for _, b in heads])
    by_split = {split: evaluate_heads(bundle.features, split, weight, bias) for split in MEASURED}
    return [{split: by_split[split][index] for split in MEASURED} for index in range(len(heads))]


def _record(trial: Trial, place: Workplace, started_at: datetime, bundle: _Bundle, state: HeadState) -> Record:
    parameters = state.weight.numel() + state.bias.numel()
    precision = place.precision(trial.settings)
    record = new_record(trial, place, started_at, state.rows, parameters, precision, bundle.model_bytes)
    return record if state.rows[-1].is_finite else record.model_copy(update=divergence(state.rows[-1]))
