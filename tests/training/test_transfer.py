"""Fine-tuning: what trains, where models are cut, and that what is computed once changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cnnsearch.data.dataset import Dataset
from cnnsearch.data.examples import PixelContent
from cnnsearch.data.images import to_rgb
from cnnsearch.data.sources import list_source
from cnnsearch.execution import jobs, serial
from cnnsearch.execution.context import Choices, SharedContext
from cnnsearch.execution.machine.hardware import Layout
from cnnsearch.inputs import load_forms, named_weights
from cnnsearch.planning import queue as job_queue
from cnnsearch.planning.queue import Queue
from cnnsearch.planning.trial import Trial
from cnnsearch.results.folder import Results
from cnnsearch.spec.load import load_sweep
from cnnsearch.spec.sweep import Sweep
from cnnsearch.training.models import weights as weights_module
from cnnsearch.training.models.pretrained import IMAGENET, Pretrained, find_weights
from cnnsearch.training.pixels import Pixels
from tests.recorded import numbers as recorded_numbers
from tests.training.models.making import save_weights, settings


def test_images_are_prepared_as_the_weights_expect(tmp_path: Path) -> None:
    """Against torchvision's own transforms: their mean and deviation, and their filter, in the pixels that train."""
    from torchvision import models

    expected = weights_module.expected_preprocessing
    assert expected("resnet18") == IMAGENET
    assert expected("efficientnet_b0").interpolation == "bicubic"
    assert expected("efficientnet_v2_l").mean == (0.5, 0.5, 0.5)
    file = save_weights(tmp_path, "efficientnet_b0")
    sweep = load_sweep(
        "part2",
        values=[f"train.weights={json.dumps(str(file))}", "stages.transfer.space.model={grid: [efficientnet_b0]}"],
    )
    weights = find_weights(named_weights(sweep))
    datasets = load_forms(sweep, weights)
    size = sweep.data.image_size
    assert set(datasets) == {(size, "bilinear"), (size, "bicubic")}
    place = SharedContext(tmp_path, datasets, Choices("cpu", 1, "fp32"), 60, weights)
    mark = datasets[size, "bilinear"].fingerprint
    chosen = settings("efficientnet_b0", weights=str(file), image_size=size)
    of_backbone = Trial("a", chosen, mark)
    pixels = Pixels.of(place.dataset(of_backbone), "cpu", place.expected_statistics(chosen))
    (batch,), _ = pixels.batch(torch.arange(4))
    transform = models.get_model_weights("efficientnet_b0").DEFAULT.transforms(crop_size=size, resize_size=size)
    fashion = list_source("fashion-mini", tmp_path)
    for row, tensor in enumerate(batch):
        content = fashion.examples[row].content
        assert isinstance(content, PixelContent)
        assert torch.allclose(tensor, transform(to_rgb(content.image())), atol=1 / 255 / 0.22)
    own = place.dataset(Trial("a", settings("plain", image_size=size), mark))
    assert own.images_path == datasets[size, "bilinear"].images_path
    assert not np.array_equal(own.images, place.dataset(of_backbone).images)


def transfer_sweep(file: Path, *values: str) -> Sweep:
    return load_sweep(
        "part2",
        values=[
            f"train.weights={json.dumps(str(file))}",
            "data.image_size=8",
            "train.epochs=3",
            "train.batch_size=5",
            *values,
        ],
    )


def run(sweep: Sweep, dataset: Dataset, path: Path, file: Path | None, features_bytes: int) -> dict[str, Any]:
    weights = {}
    if file is not None:
        weights = {("resnet18", str(file)): Pretrained(file, "digest", IMAGENET)}
    place = SharedContext(path, {(8, "bilinear"): dataset}, Choices("cpu", 1, "fp32"), 60, weights, features_bytes)
    queue = Queue(sweep, dataset.fingerprint, {}, {key: found.digest for key, found in weights.items()})
    serial.execute(queue, place, Layout("cpu", 1, 1, 0.0), sweep.run, lambda event: None)
    records = Results(path).records()
    assert {record.status.value for record in records.values()} == {"done"}
    return {
        f"{record.stage} {record.settings.fine_tune} {record.settings.dropout}": [
            {k: v for k, v in row.items() if k != "seconds"} for row in Results(path).trial(trial_id).epochs()
        ]
        for trial_id, record in records.items()
    }


def test_training_on_shared_features_gives_the_same_numbers(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CNNSEARCH_CACHE", str(tmp_path / "cache"))
    file = save_weights(tmp_path)
    sweep = transfer_sweep(
        file,
        "stages.transfer.space={fine_tune: {grid: [head, last-1-convs, last-2-convs]}, dropout: {grid: [0.0, 0.4]}}",
    )
    shared = run(sweep, dataset, tmp_path / "shared", file, features_bytes=2**30)
    made = sorted((tmp_path / "cache" / "features").glob("*.pt"))
    assert len(made) == 3  # one a cut, whatever the number of trials
    alone = run(sweep, dataset, tmp_path / "alone", file, features_bytes=0)
    assert sorted((tmp_path / "cache" / "features").glob("*.pt")) == made
    assert shared.keys() == alone.keys()
    assert "transfer head 0.4" in shared
    for name, rows in shared.items():
        if name == "transfer head 0.4":
            continue  # heads draw their dropout for many trials at once; see test_heads
        for row, other in zip(rows, alone[name], strict=True):
            assert row == pytest.approx(other, rel=1e-4), name


def test_heads_in_company_equal_heads_alone(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bundled, each by itself, and the plain way on uncached images: mixed rates, seeds, dropout, some diverge."""
    monkeypatch.setenv("CNNSEARCH_CACHE", str(tmp_path / "cache"))
    file = save_weights(tmp_path)

    def numbers(path: Path) -> dict[str, Any]:
        results = Results(path)
        return {
            trial_id: (
                record.status.value,
                record.best_epoch,
                record.best and record.best.model_dump(exclude_none=True),
                [(row["train_loss"], row["val_accuracy"]) for row in results.trial(trial_id).epochs()],
            )
            for trial_id, record in results.records().items()
        }

    def go(path: Path, *values: str, features_bytes: int = 2**30) -> None:
        sweep = transfer_sweep(file, "train.fine_tune=head", "train.optimizer=sgd", *values)
        found = Pretrained(file, "digest", IMAGENET)
        key = ("resnet18", str(file))
        place = SharedContext(
            path, {(8, "bilinear"): dataset}, Choices("cpu", 1, "fp32"), 60, {key: found}, features_bytes
        )
        queue = Queue(sweep, dataset.fingerprint, {}, {key: found.digest})
        serial.execute(queue, place, Layout("cpu", 1, 1, 0.0), sweep.run, lambda event: None)

    space = "stages.transfer.space={{lr: {lr}, dropout: {dropout}, seed: {seed}}}"
    go(
        tmp_path / "all",
        space.format(lr="{grid: [0.01, 0.1, 100]}", dropout="{grid: [0.0, 0.3]}", seed="{grid: [0, 1]}"),
    )
    together = numbers(tmp_path / "all")
    assert len(together) == 12
    for lr, dropout, seed in ((0.01, 0.0, 0), (0.1, 0.3, 1), (0.1, 0.0, 1)):
        alone = tmp_path / f"{lr}-{dropout}-{seed}"
        go(alone, space.format(lr=lr, dropout=dropout, seed=seed))
        ((trial_id, found),) = numbers(alone).items()
        assert found == together[trial_id]
    # Without shared features the general loop trains the same head; its dropout draws others.
    go(tmp_path / "plain", space.format(lr="{grid: [0.01, 0.1]}", dropout=0.0, seed="{grid: [0, 1]}"), features_bytes=0)
    for trial_id, (status, best_epoch, best, rows) in numbers(tmp_path / "plain").items():
        assert (status, best_epoch) == together[trial_id][:2]
        assert best == pytest.approx(together[trial_id][2], rel=1e-3)
        for mine, other in zip(rows, together[trial_id][3], strict=True):
            assert mine == pytest.approx(other, rel=1e-3)


def test_a_model_is_made_once_for_heads_that_come_one_job_after_another(
    dataset: Dataset, tmp_path: Path, small_sweep: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the frozen layers are drawn by the trial's seed: those of another one must not serve."""
    monkeypatch.setenv("CNNSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(job_queue, "HEADS_AT_ONCE", 1)
    space = "{model: plain, fine_tune: head, seed: {grid: [0, 1]}, lr: {grid: [0.01, 0.1, 1.0]}}"
    sweep = small_sweep(f"stages=[{{name: grid, space: {space}}}]")
    made: list[int] = []
    make = jobs._make_frozen

    def watched(trial: Trial, place: SharedContext) -> Any:
        made.append(trial.settings.seed)
        return make(trial, place)

    monkeypatch.setattr(jobs, "_make_frozen", watched)
    run(sweep, dataset, tmp_path / "kept", None, features_bytes=2**30)
    assert made == [0, 1]
    assert jobs._LAST
    whole = small_sweep("stages=[{name: grid, space: {model: plain}}]")
    run(whole, dataset, tmp_path / "whole", None, features_bytes=2**30)
    assert not jobs._LAST, "trials of another kind are to have the memory"
    monkeypatch.setattr(jobs, "frozen_of", make)
    run(sweep, dataset, tmp_path / "anew", None, features_bytes=2**30)
    assert recorded_numbers(tmp_path / "kept") == recorded_numbers(tmp_path / "anew")
    assert len(recorded_numbers(tmp_path / "kept")) == 6


def test_part_1_models_can_be_fine_tuned_too(
    dataset: Dataset, tmp_path: Path, small_sweep: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CNNSEARCH_CACHE", str(tmp_path / "cache"))
    sweep = small_sweep(
        "stages=[{name: grid, space: {model: {grid: [plain, residual]}}}, {name: tune, start_from: {stage: grid, per: "
        "model}, space: {fine_tune: {grid: [head, last-2-convs]}}}]"
    )
    run(sweep, dataset, tmp_path / "p", None, features_bytes=2**30)
    assert len(list((tmp_path / "cache" / "features").glob("*.pt"))) == 4
    results = Results(tmp_path / "p")
    for record in results.records().values():
        if record.stage == "tune":
            assert record.parent_id is not None
            mine = results.trial(record.trial_id).load_weights()
            parent = results.trial(record.parent_id).load_weights()
            assert len(mine) == (2 if record.settings.fine_tune == "head" else 6)  # only what can change is kept
            assert mine.keys() <= parent.keys()
            assert not torch.equal(mine["head.weight"], parent["head.weight"])


def test_a_chain_of_partly_trained_trials_keeps_every_link(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pretrained, then two convs, then the head with dropout: each file holds its own part, a child needs all."""
    monkeypatch.setenv("CNNSEARCH_CACHE", str(tmp_path / "cache"))
    file = save_weights(tmp_path)
    sweep = transfer_sweep(
        file,
        "stages=[{name: transfer, space: {fine_tune: last-2-convs}}, {name: tune, start_from: {stage: transfer}, "
        "space: {fine_tune: head, dropout: {grid: [0.1]}}}]",
    )
    run(sweep, dataset, tmp_path / "p", file, features_bytes=2**30)
    records = Results(tmp_path / "p").records().values()
    (first,) = [record for record in records if record.stage == "transfer"]
    (second,) = [record for record in records if record.stage == "tune"]
    assert first.best is not None
    assert second.before is not None
    assert second.before.test_loss == pytest.approx(first.best.test_loss, rel=1e-5)
    assert second.before.val_accuracy == first.best.val_accuracy


def test_weights_are_known_by_their_contents(tmp_path: Path) -> None:
    from cnnsearch.planning.plan import make_plan

    one, two = Path("/somewhere/a.pth"), Path("/elsewhere/b.pth")
    plans = [
        make_plan(transfer_sweep(file), "d" * 16, {}, {("resnet18", str(file)): digest})
        for file, digest in ((one, "same"), (two, "same"), (two, "other"))
    ]
    assert plans[0].trials.keys() == plans[1].trials.keys()
    assert plans[1].trials.keys().isdisjoint(plans[2].trials.keys())
