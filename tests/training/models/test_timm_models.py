"""timm's models: built, cut, trained and loaded, with seeded random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from cnnsearch.errors import RequestError
from cnnsearch.spec.settings import Settings
from cnnsearch.training.models import pretrained, timm_models, weights
from cnnsearch.training.models.backbones import DropoutLinear, head_names
from cnnsearch.training.models.build import initial_model, reset_head
from cnnsearch.training.models.cut import cut, freeze
from cnnsearch.training.models.timm_check import problem
from cnnsearch.training.models.weights import load_file_into
from cnnsearch.training.pixels import Pixels
from cnnsearch.training.train import TrainingState, train

CLASSES = 5
SMALL = {
    "test_byobnet": 32,
    "test_convnext": 32,
    "test_efficientnet": 32,
    "test_mambaout": 32,
    "test_resnet": 32,
    "test_vit": 32,
}
GCVIT = "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights-morevit/gcvit_tiny_224_nvidia-ac783954.pth"
"""One of the few models whose weights are not on the hub."""
LARGER = {
    "coatnet_pico_rw_224": 32,
    "convnext_atto": 32,
    "crossvit_9_240": 240,
    "levit_128s": 32,
    "maxvit_pico_rw_256": 32,
    "mixer_s32_224": 32,
    "mobilenetv3_small_050": 32,
    "mobilevit_xxs": 32,
    "swin_tiny_patch4_window7_224": 32,
    "vit_small_patch14_dinov2": 28,
}
FAMILIES = [*SMALL, *(pytest.param(name, marks=pytest.mark.after) for name in LARGER)]
WITHOUT_CUT = ("crossvit_9_240",)
"""Cannot be traced, and has two last layers that see different things."""


def chosen(name: str, **values: Any) -> Settings:
    size = {**SMALL, **LARGER}.get(name.partition(".")[0], 32)
    return Settings.model_validate({"model": f"timm:{name}", "image_size": size, **values})


def seeded(name: str, **values: Any) -> nn.Module:
    torch.set_num_threads(1)
    return initial_model(chosen(name, **values), CLASSES, "cpu")


def images(size: int, count: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    made = torch.randn(count, 3, size, size, generator=generator)
    return made.to(memory_format=torch.channels_last)


def pixels(size: int) -> Pixels:
    generator = torch.Generator().manual_seed(2)
    made = torch.randint(0, 256, (8, size, size, 3), dtype=torch.uint8, generator=generator)
    rows = {"train": torch.arange(4), "val": torch.arange(4, 6), "test": torch.arange(6, 8)}
    return Pixels(made, torch.arange(8) % CLASSES, rows, torch.full((3,), 127.5), torch.full((3,), 73.9))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_is_built_cut_and_trained(name: str) -> None:
    """In one test, since building takes longest."""
    model, size = seeded(name), chosen(name).image_size
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        whole = model.eval()(images(size))
    assert whole.shape == (4, CLASSES)
    heads = head_names(model, CLASSES)
    settings = chosen(name, fine_tune="head", lr=0.1, epochs=1, batch_size=2, precision="fp32")
    frozen = freeze(model, "head", CLASSES)
    assert {key.rpartition(".")[0] for key in frozen.trained} == set(heads)
    halves = cut(frozen, size)
    assert (halves is None) == (name in WITHOUT_CUT)
    if halves is not None:
        with torch.no_grad():
            alone = [halves.prefix(image[None]) for image in images(size)]
            together = halves.suffix(*(torch.cat(parts) for parts in zip(*alone, strict=True)))
        assert torch.allclose(together, whole, rtol=1e-3, atol=1e-4)
    state = TrainingState.start(model, settings, model, frozen.train_mode, frozen.trained)
    (row,) = train(state, pixels(size), settings, precision="fp32")
    assert row.is_finite
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == frozen.trained


@pytest.mark.parametrize("name", ["test_convnext", "test_efficientnet"])
def test_all_of_a_model_trains(name: str) -> None:
    settings = chosen(name, epochs=1, batch_size=2, precision="fp32")
    model = seeded(name)
    before = {key: value.clone() for key, value in model.named_parameters()}
    (row,) = train(TrainingState.start(model, settings), pixels(settings.image_size), settings, precision="fp32")
    assert row.is_finite
    still = [key for key, value in model.named_parameters() if torch.equal(value, before[key])]
    assert len(still) < len(before) / 20  # biases before a normalisation have no gradient


@pytest.mark.parametrize("name", ["test_convnext", "test_efficientnet", "test_byobnet"])
def test_the_last_convolutions_train_and_the_rest_is_computed_once(name: str) -> None:
    model = seeded(name)
    with torch.no_grad():
        whole = model.eval()(images(32))
    frozen = freeze(model, "last-2-convs", CLASSES)
    modules = dict(model.named_modules())
    convs = {key.rpartition(".")[0] for key in frozen.trained} - set(head_names(model, CLASSES))
    assert len(convs) == 2
    assert all(isinstance(modules[conv], nn.Conv2d) for conv in convs)
    halves = cut(frozen, 32)
    assert halves is not None
    with torch.no_grad():
        assert torch.allclose(halves.suffix(*halves.prefix(images(32))), whole, rtol=1e-3, atol=1e-4)
    with pytest.raises(RequestError, match="the model has 1 convolutions before its last layer"):
        freeze(seeded("test_vit"), "last-2-convs", CLASSES)


def test_frozen_normalisation_does_not_move() -> None:
    """timm's BatchNorm reads its mode itself: traced, it must not be fixed in one."""
    model = seeded("test_efficientnet")
    frozen = freeze(model, "last-2-convs", CLASSES)
    halves = cut(frozen, 32)
    assert halves is not None
    features = halves.prefix(images(32))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    frozen.train_mode()
    halves.suffix(*features).square().sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_weights_repeat_with_their_seed_and_dropout_is_in_the_last_layer() -> None:
    one, again, other = seeded("test_vit"), seeded("test_vit"), seeded("test_vit", seed=1)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in one.state_dict().items())
    assert not torch.equal(one.state_dict()["head.weight"], other.state_dict()["head.weight"])
    dropping = seeded("test_vit", dropout=0.5)
    assert isinstance(dropping.head, DropoutLinear)
    assert dropping.state_dict().keys() == one.state_dict().keys()
    batch = images(32)
    assert not torch.equal(dropping.train()(batch), dropping(batch))
    assert torch.equal(dropping.eval()(batch), dropping(batch))


def published(name: str, file: Path, size: int) -> nn.Module:
    """Write weights for ImageNet as timm publishes them; return the model they are of."""
    torch.manual_seed(3)
    model = timm.create_model(name, pretrained=False, img_size=size) if "vit" in name else timm.create_model(name)
    save_file(model.state_dict(), file)
    return model


@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet"])
def test_a_file_gives_the_features_that_timm_computes(name: str, tmp_path: Path) -> None:
    original = published(name, tmp_path / "w.safetensors", 32).eval()
    model = seeded(name)
    reset_head(model, CLASSES, 0)
    head = f"{head_names(model, CLASSES)[0]}.weight"
    drawn = model.state_dict()[head].clone()
    load_file_into(model, tmp_path / "w.safetensors", CLASSES)
    with torch.no_grad():
        expected = original.forward_features(images(32))  # type: ignore[operator]
        found = model.eval().forward_features(images(32))  # type: ignore[operator]
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(model.state_dict()[head], drawn)


def test_position_embeddings_are_fitted_to_the_image_size(tmp_path: Path) -> None:
    original = published("test_vit", tmp_path / "w.safetensors", 160)
    model = seeded("test_vit")
    mine, published_ones = model.state_dict(), original.state_dict()
    assert mine["pos_embed"].shape[1] < published_ones["pos_embed"].shape[1]
    load_file_into(model, tmp_path / "w.safetensors", CLASSES)
    assert torch.equal(mine["blocks.0.attn.qkv.weight"], published_ones["blocks.0.attn.qkv.weight"])
    with pytest.raises(RequestError, match="does not fit"):
        load_file_into(seeded("test_convnext"), tmp_path / "w.safetensors", CLASSES)


def test_a_checkpoint_of_dino_gives_its_teachers_backbone(tmp_path: Path) -> None:
    original = published("test_vit", tmp_path / "w.safetensors", 32).state_dict()
    backbone = {f"backbone.{name}": value for name, value in original.items() if not name.startswith("head.")}
    student = {f"module.{name}": value * 0 for name, value in backbone.items()}
    torch.save({"teacher": backbone | {"head.mlp.0.bias": torch.zeros(4)}, "student": student}, tmp_path / "dino.pth")
    model = seeded("test_vit")
    note = load_file_into(model, tmp_path / "dino.pth", CLASSES)
    assert note.startswith("under teacher, without the prefix backbone., without 1 of its ")
    assert note.endswith(", with a new last layer, which it lacks")
    found = model.state_dict()
    assert all(torch.equal(found[name.removeprefix("backbone.")], value) for name, value in backbone.items())


def test_images_are_prepared_as_timm_says() -> None:
    atto = timm_models.preprocessing("timm:convnext_atto.d2_in1k")
    assert atto == pretrained.Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic")
    assert timm_models.preprocessing("timm:vit_tiny_patch16_224.augreg_in21k").mean == (0.5, 0.5, 0.5)
    assert timm_models.preprocessing("timm:resnet18.tv_in1k").interpolation == "bilinear"
    assert timm_models.own_size("timm:vit_small_patch14_dinov2") == 518


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:convnext_ato", r"has no model convnext_ato\. Did you mean timm:convnext_atto or timm:"),
        ("timm:convnext_atto.d2_in22k", r"has no weights d2_in22k of convnext_atto; it has the weights d2_in1k"),
        ("timm:zzzzzzzzz", r"has no model zzzzzzzzz\.$"),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        problem(name, 32)


def test_sizes_that_a_model_takes_are_found_by_shapes() -> None:
    assert problem("timm:test_convnext", 64) == ""
    told = problem("timm:test_vit", 40)
    assert told == ("image_size 40 with model timm:test_vit: it takes no images of this size; it takes 32, 48 and 160")


@pytest.mark.after
def test_a_model_without_classes_is_refused() -> None:
    with pytest.raises(RequestError, match="it has no last layer with an output for each class; choose another"):
        problem("timm:deepseek_vit_412m_enc", 64)


def test_published_weights_are_those_in_the_cache_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "model.safetensors"
    published("test_vit", file, 160)
    asked = []

    def cached(repository: str, name: str) -> str | None:
        asked.append((repository, name))
        return str(file) if name == "model.safetensors" else None

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", cached)
    found = weights.check("timm:test_vit.r160_in1k", "pretrained")
    assert asked == [("timm/test_vit.r160_in1k", "model.safetensors")]
    assert found.file == file
    assert found.preprocessing == timm_models.preprocessing("timm:test_vit.r160_in1k")


def test_without_a_network_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unreachable(*args: object, **kwargs: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *args: None)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", unreachable)
    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name, url in (
        ("convnext_atto.d2_in1k", "https://huggingface.co/timm/convnext_atto.d2_in1k/resolve/main/model.safetensors"),
        ("gcvit_tiny.in1k", GCVIT),
    ):
        with pytest.raises(RequestError) as caught:
            timm_models.published_file(f"timm:{name}")
        assert f"the pretrained weights of timm:{name} cannot be fetched: no route to host" in str(caught.value)
        assert f"Fetch {url} elsewhere" in str(caught.value)
        assert f"--set train.weights=PATH/{url.rpartition('/')[2]}" in str(caught.value)
    with pytest.raises(RequestError, match="timm has no published weights of it"):
        timm_models.published_file("timm:coatnet_0_224")
