"""Fine-tuning: what trains, where models are cut, and that what is computed once changes nothing."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cnnsearch.data.colour import to_rgb
from cnnsearch.data.contents import PixelContent
from cnnsearch.data.dataset import Dataset
from cnnsearch.data.sources import list_source
from cnnsearch.errors import RequestError
from cnnsearch.execution import jobs, serial
from cnnsearch.execution.context import Choices, SharedContext
from cnnsearch.execution.machine.hardware import Layout
from cnnsearch.planning import queue as job_queue
from cnnsearch.planning.queue import Queue
from cnnsearch.planning.trial import Trial
from cnnsearch.prepare import load_forms, named_weights
from cnnsearch.results.folder import Results
from cnnsearch.spec.load import load_sweep
from cnnsearch.spec.settings import Settings
from cnnsearch.spec.sweep import Sweep
from cnnsearch.training.models import weights as weights_module
from cnnsearch.training.models.backbones import DropoutLinear, head_name, make
from cnnsearch.training.models.build import build, initial_model
from cnnsearch.training.models.cut import cut, freeze
from cnnsearch.training.models.pretrained import IMAGENET, Preprocessing, Pretrained, find_weights
from cnnsearch.training.models.weights import load_into, read_state
from cnnsearch.training.pixels import Pixels
from tests.recorded import numbers as recorded_numbers

BACKBONES = {
    "resnet18": 64,
    "resnet50": 32,
    "squeezenet1_1": 64,
    "mobilenet_v3_small": 32,
    "efficientnet_b0": 32,
    "convnext_tiny": 32,
    "vit_b_16": 32,
    "plain": 16,
    "residual": 16,
}
CLASSES = 5


def settings(model: str, **values: Any) -> Settings:
    width = {"width": 0.1} if model in ("plain", "residual") else {}
    return Settings.model_validate({"model": model, "image_size": BACKBONES[model], **width, **values})


def seeded(model: str, **values: Any) -> nn.Module:
    torch.set_num_threads(1)
    return initial_model(settings(model, **values), CLASSES, "cpu")


@pytest.mark.parametrize("name", list(BACKBONES))
def test_every_cut_gives_the_same_logits(name: str) -> None:
    """To the bit in fp32, for images together or alone; with frozen BatchNorm and, after the cut, dropout."""
    torch.manual_seed(1)
    model = seeded(name)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    size = BACKBONES[name]
    images = torch.randn(6, 3, size, size).to(memory_format=torch.channels_last)
    modes = ["head", "last-1-convs"] + (["last-2-convs"] if name != "vit_b_16" else [])
    for mode in modes:
        frozen = freeze(model, mode, CLASSES)
        halves = cut(frozen, size)
        if name == "vit_b_16" and mode != "head":
            assert halves is None  # its one convolution comes first
            continue
        assert halves is not None
        model.eval()
        with torch.no_grad():
            whole = model(images)
            features = halves.prefix(images)
            assert torch.equal(halves.suffix(*features), whole)
            alone = [halves.prefix(image[None].to(memory_format=torch.channels_last)) for image in images]
            together = halves.suffix(*(torch.cat(parts) for parts in zip(*alone, strict=True)))
        assert torch.allclose(together, whole, rtol=1e-4, atol=1e-5)


def test_resnet18_trains_exactly_what_is_asked() -> None:
    model = seeded("resnet18")
    assert freeze(model, "head", CLASSES).trained == {"fc.weight", "fc.bias"}
    two = freeze(model, "last-2-convs", CLASSES)
    assert two.trained == {"layer4.1.conv1.weight", "layer4.1.conv2.weight", "fc.weight", "fc.bias"}
    assert {name for name, p in model.named_parameters() if p.requires_grad} == two.trained
    halves = cut(two, 64)
    assert halves is not None
    assert halves.name == "layer4_0_relu_1"
    everything = {name for name, _ in model.named_parameters()}
    assert freeze(model, "full", CLASSES).trained == everything
    assert cut(freeze(model, "full", CLASSES), 64) is None


def test_convs_are_counted_in_the_order_they_compute() -> None:
    model = seeded("residual")
    one = freeze(model, "last-1-convs", CLASSES).trained
    assert {name for name in one if "head" not in name} == {
        "blocks.4.shortcut.0.weight",
        "blocks.4.shortcut.0.bias",
    }
    three = freeze(model, "last-3-convs", CLASSES).trained
    assert {"blocks.4.conv1.weight", "blocks.4.conv2.weight", "blocks.4.shortcut.0.weight"} <= three
    with pytest.raises(RequestError, match="the model has 16 convolutions"):
        freeze(model, "last-17-convs", CLASSES)


def test_frozen_batchnorm_does_not_move() -> None:
    model = seeded("resnet18")
    frozen = freeze(model, "last-2-convs", CLASSES)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    frozen.train_mode()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(torch.randn(4, 3, 64, 64)).square().sum().backward()
    optimizer.step()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == frozen.trained


@pytest.mark.parametrize("name", [name for name in BACKBONES if name not in ("plain", "residual")])
def test_only_the_last_layer_is_replaced(name: str) -> None:
    from torchvision import models

    replaced = make(name, settings(name), CLASSES)
    options = {"image_size": BACKBONES[name]} if name.startswith("vit") else {}
    original = models.get_model(name, weights=None, **options)
    head = head_name(replaced, CLASSES)
    assert replaced.state_dict().keys() == original.state_dict().keys()
    differing = {key for key, value in replaced.state_dict().items() if value.shape != original.state_dict()[key].shape}
    assert differing == {f"{head}.weight", f"{head}.bias"}
    assert replaced(torch.randn(2, 3, BACKBONES[name], BACKBONES[name])).shape == (2, CLASSES)


def test_dropout_goes_before_the_last_layer() -> None:
    resnet, mobilenet = make("resnet18", settings("resnet18", dropout=0.3), 5), None
    assert isinstance(resnet.fc, DropoutLinear)
    assert resnet.fc.dropout == 0.3
    mobilenet = make("mobilenet_v3_small", settings("mobilenet_v3_small", dropout=0.3), 5)
    assert mobilenet.classifier[2].p == 0.3  # type: ignore[index, union-attr]
    assert mobilenet.classifier[3].dropout == 0.0  # type: ignore[index, union-attr]
    kept = make("mobilenet_v3_small", settings("mobilenet_v3_small"), 5)
    assert kept.classifier[2].p == 0.2  # type: ignore[index, union-attr]
    inputs = torch.ones(4, 512)
    resnet.train()
    assert not torch.equal(resnet.fc(inputs), resnet.fc(inputs))
    resnet.eval()
    assert torch.equal(resnet.fc(inputs), resnet.fc(inputs))


def save_weights(folder: Path, model: str = "resnet18", classes: int = 1000) -> Path:
    """Seeded weights as torchvision publishes them."""
    torch.manual_seed(7)
    file = folder / f"{model}.pth"
    torch.save(build(settings(model), classes).state_dict(), file)
    return file


def test_weights_round_trip_whatever_the_format(tmp_path: Path) -> None:
    torch.manual_seed(7)
    state = build(settings("resnet18"), 1000).state_dict()
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    save_file(state, tmp_path / "b.safetensors")
    for file in (tmp_path / "a.pth", tmp_path / "b.safetensors"):
        model = seeded("resnet18")
        head = model.fc.weight.clone()  # type: ignore[union-attr, operator]
        load_into(model, read_state(file), CLASSES, str(file))
        assert torch.equal(model.state_dict()["layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])
        assert torch.equal(model.fc.weight, head)  # type: ignore[union-attr, arg-type]
    same_classes = seeded("resnet18")
    own = {name: value + 1 for name, value in same_classes.state_dict().items()}
    load_into(same_classes, own, CLASSES, "own")
    assert torch.equal(same_classes.state_dict()["fc.weight"], own["fc.weight"])


def test_weights_that_do_not_fit_are_explained(tmp_path: Path) -> None:
    model = seeded("resnet18")
    state = dict(model.state_dict())
    del state["layer1.0.conv1.weight"]
    with pytest.raises(RequestError, match=r"w\.pth does not fit: it lacks layer1\.0\.conv1\.weight"):
        load_into(model, state, CLASSES, "w.pth")
    with pytest.raises(RequestError, match="besides what the model needs, another"):
        load_into(model, {**model.state_dict(), "another": torch.zeros(1)}, CLASSES, "w.pth")
    with pytest.raises(RequestError, match=r"conv1\.weight is \(1,\), the model needs \(64, 3, 7, 7\)"):
        load_into(model, {**model.state_dict(), "conv1.weight": torch.zeros(1)}, CLASSES, "w.pth")
    with pytest.raises(RequestError, match="there is no file of weights"):
        read_state(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("not weights")
    with pytest.raises(RequestError):
        read_state(tmp_path / "text.pth")


class Malicious:
    """Unpickled, it would leave a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.trace,))


@pytest.mark.parametrize("protocol", ["torch", "pickle"])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, protocol: str) -> None:
    file, trace = tmp_path / "bad.pth", tmp_path / "trace"
    if protocol == "torch":
        torch.save({"weight": Malicious(trace)}, file)
    else:
        file.write_bytes(pickle.dumps(Malicious(trace)))
    with pytest.raises(RequestError, match=r"bad\.pth"):
        read_state(file)
    assert not trace.exists()


def test_without_a_network_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import urllib.error
    import urllib.request

    def unreachable(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    monkeypatch.setattr("torch.hub.urlopen", unreachable)
    with pytest.raises(RequestError) as caught:
        weights_module.imagenet_file("resnet18")
    assert "resnet18-f37072fd.pth" in str(caught.value)
    assert str(tmp_path / "hub" / "checkpoints") in str(caught.value)
    assert "--set train.weights=" in str(caught.value)


def test_published_weights_found_in_place_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path that downloads, without the download: torchvision's file name in torch's hub folder."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    place = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    place.parent.mkdir(parents=True)
    save_weights(tmp_path).rename(place)
    found = find_weights({("resnet18", "imagenet")})["resnet18", "imagenet"]
    assert found.file == place
    assert found.preprocessing == IMAGENET
    again = find_weights({("resnet18", str(place))})["resnet18", str(place)]
    assert again.digest == found.digest


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
    of_backbone = settings("efficientnet_b0", weights=str(file), image_size=size)
    pixels = Pixels.of(place.dataset(of_backbone), "cpu", place.expected_statistics(of_backbone))
    (batch,), _ = pixels.batch(torch.arange(4))
    transform = models.get_model_weights("efficientnet_b0").DEFAULT.transforms(crop_size=size, resize_size=size)
    fashion = list_source("fashion-mini", tmp_path)
    for row, tensor in enumerate(batch):
        content = fashion.examples[row].content
        assert isinstance(content, PixelContent)
        assert torch.allclose(tensor, transform(to_rgb(content.image())), atol=1 / 255 / 0.22)
    own = place.dataset(settings("plain", image_size=size))
    assert own.images_path == datasets[size, "bilinear"].images_path
    assert not np.array_equal(own.images, place.dataset(of_backbone).images)


def test_other_preprocessing_makes_another_trial(tmp_path: Path) -> None:
    """And the usual one the same as ever: trials recorded before filters were told apart keep their ids."""
    usual, other = Pretrained(tmp_path, "d", IMAGENET), Pretrained(tmp_path, "d", Preprocessing((0.5,) * 3, (0.5,) * 3))
    assert usual.identity == "d"
    assert other.identity != "d"
    assert other.identity != Pretrained(tmp_path, "d", Preprocessing((0.5,) * 3, (0.5,) * 3, "bicubic")).identity


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
                record.best and record.best.model_dump(),
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
    monkeypatch.setattr(jobs, "_frozen", make)
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
