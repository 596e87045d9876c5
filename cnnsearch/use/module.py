"""A trained network as a plain module of torch."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from cnnsearch.storage.paths import typed_path
from cnnsearch.training.pixels import normalised
from cnnsearch.use.choose import Chosen
from cnnsearch.use.classifier import Classifier, classifier


class TrainedModel(nn.Module):
    """A trained network, ready to use: in eval mode, on the CPU, in fp32.

    Shapes: images [B, 3, S, S] float32, as `preprocess` makes them -> logits [B, classes].
    """

    def __init__(self, of: Classifier) -> None:
        super().__init__()
        self.network = of.network.model
        """The layers alone."""
        self.classes = of.classes
        """Names of the classes, in the order of the logits."""
        self.image_size = of.image_size
        """S, the side of the images in pixels."""
        self.trial_id = of.chosen.record.trial_id
        """The trial that trained it."""
        self._of = of
        self.register_buffer("mean", torch.tensor(of.network.inputs.mean), persistent=False)
        self.register_buffer("std", torch.tensor(of.network.inputs.std), persistent=False)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits [B, classes] of images [B, 3, S, S] that `preprocess` has made."""
        return cast(Tensor, self.network(images))

    def preprocess(self, image: str | Path | bytes | Image.Image | NDArray[np.uint8]) -> Tensor:
        """Make the network's input of an image, as in training: turned upright, resized to a square, normalised.

        Args:
            image: path of a file, or its contents; an image of Pillow; or an array of uint8 RGB pixels [H, W, 3].

        Returns:
            [3, S, S] float32; `torch.stack` makes a batch of several.

        Raises BadImageError, whose message says why, where it cannot be read.
        """
        if isinstance(image, np.ndarray):
            image = Image.fromarray(image)
        square = self._of.square(image if isinstance(image, bytes | Image.Image) else str(typed_path(image)))
        mean, std = (cast(Tensor, getattr(self, name)).cpu() for name in ("mean", "std"))
        return normalised(torch.from_numpy(square)[None], mean, std)[0]


def trained_model(chosen: Chosen) -> TrainedModel:
    """Load the network of a trial. Raises RequestError where weights are missing or not those of the sweep."""
    made = TrainedModel(classifier(chosen, device="cpu"))
    return made.requires_grad_(False)
