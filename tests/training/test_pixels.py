"""Images as normalised batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cnnsearch.data.dataset import Dataset
from cnnsearch.training.pixels import Pixels, channel_statistics


def test_normalisation_uses_training_images_only(dataset: Dataset) -> None:
    train_images = dataset.images[dataset.indices["train"]].reshape(-1, 3).astype(np.float64)
    mean, std = channel_statistics(dataset)
    assert mean == pytest.approx(train_images.mean(axis=0).tolist())
    assert std == pytest.approx(train_images.std(axis=0).tolist())
    (images,), labels = Pixels.of(dataset, "cpu").batch(torch.from_numpy(dataset.indices["train"]))
    assert images.shape == (24, 3, 8, 8)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert images.mean().item() == pytest.approx(0, abs=1e-5)
    assert labels.tolist() == dataset.labels[dataset.indices["train"]].tolist()
