"""Random changes of training images."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from cnnsearch.training.augment import Augmentation
from tests.training.test_train import settings


def images(n: int, size: int = 8) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def augmented(name: str, n: int, epoch: int = 1, seed: int = 0, size: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Images before and after."""
    chosen = settings(augment=name, seed=seed, image_size=size)
    found = Augmentation.of(chosen, n, "cpu")
    assert found is not None
    found.draw(epoch)
    before = images(n, size)
    return before, found(before, torch.arange(n))


def test_flip_mirrors_half_of_the_images_exactly() -> None:
    before, after = augmented("flip", 400)
    same = (after == before).flatten(1).all(1)
    mirrored = (after == before.flip(-1)).flatten(1).all(1)
    assert bool((same ^ mirrored).all())
    assert 160 < int(mirrored.sum()) < 240


def test_crop_shifts_by_whole_pixels_and_fills_with_the_mean() -> None:
    """Every image is one of the shifts by up to an eighth of its side, mirrored or not."""
    size = 16
    before, after = augmented("flip+crop", 60, size=size)
    shifts = set()
    for image, changed in zip(before, after, strict=True):
        candidates = {
            (flip, dx, dy): shifted(image.flip(-1) if flip else image, dx, dy)
            for flip in (False, True)
            for dx in range(-2, 3)
            for dy in range(-2, 3)
        }
        found = [key for key, one in candidates.items() if torch.allclose(one, changed, atol=1e-4)]
        assert len(found) == 1
        shifts.add(found[0])
    assert len(shifts) > 25


def shifted(image: torch.Tensor, dx: int, dy: int) -> torch.Tensor:
    """[C, S, S]: what lay dx to the right and dy below, zeros from outside."""
    size = image.shape[-1]
    padded = F.pad(image, (4, 4, 4, 4))
    return padded[:, 4 + dy : 4 + dy + size, 4 + dx : 4 + dx + size]


def test_rand_changes_more_the_stronger_it_is() -> None:
    changes = []
    smooth = torch.linspace(-1, 1, 16).expand(200, 3, 16, 16)
    for strength in (1, 4, 10):
        chosen = settings(augment=f"rand-{strength}", image_size=16)
        found = Augmentation.of(chosen, 200, "cpu")
        assert found is not None
        found.draw(1)
        found.flip.zero_()
        changes.append(float((found(smooth, torch.arange(200)) - smooth).abs().mean()))
    assert 0 < changes[0] < changes[1] < changes[2] < 1


@pytest.mark.parametrize("name", ["flip", "flip+crop", "rand-5"])
def test_changes_depend_on_image_seed_and_epoch_alone(name: str) -> None:
    chosen = settings(augment=name)
    found = Augmentation.of(chosen, 30, "cpu")
    assert found is not None
    found.draw(4)
    before = images(30)
    together = found(before, torch.arange(30))
    order = torch.randperm(30)
    assert torch.allclose(found(before[order], order), together[order])
    assert torch.allclose(found(before[7:9], torch.arange(7, 9)), together[7:9])
    assert together.is_contiguous(memory_format=torch.channels_last) or name == "flip"
    for changes in ({"epoch": 5}, {"epoch": 4, "seed": 1}):
        assert not torch.equal(augmented(name, 30, **changes)[1], together)
