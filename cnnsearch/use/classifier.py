"""A trained network with all that it takes to classify image files as the sweep would have."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnnsearch.data.images import decode, resized, upright
from cnnsearch.data.index import read_regular
from cnnsearch.data.loading import reading_of
from cnnsearch.errors import DataError, RequestError
from cnnsearch.execution.machine.hardware import detect
from cnnsearch.inputs import recorded_weights
from cnnsearch.results.record import Inputs, Record
from cnnsearch.training.models.pretrained import Key, Pretrained
from cnnsearch.use.choose import Chosen

if TYPE_CHECKING:  # torch takes seconds to import
    from cnnsearch.execution.network import Network


@dataclass(frozen=True)
class Classifier:
    """The network of a trial, and its images as they are made of files."""

    chosen: Chosen
    network: Network
    _at_once: threading.Semaphore = field(init=False, repr=False)

    def __post_init__(self) -> None:
        choices = self.network.choices
        at_once = 1 if choices.device != "cpu" else max(1, detect().cores // choices.threads)
        object.__setattr__(self, "_at_once", threading.Semaphore(at_once))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the network's outputs."""
        return self.chosen.classes

    @property
    def image_size(self) -> int:
        """Side of the squares that images are resized to, pixels."""
        return self.chosen.record.settings.image_size

    def square(self, source: str | bytes | Image.Image) -> NDArray[np.uint8]:
        """Make a square of an image as of the sweep's images: uint8 [S, S, 3].

        Args:
            source: path of a file, or its contents; or an image of Pillow.

        Raises BadImageError where it cannot be read.
        """
        way, reading, sizes = self.network.inputs.interpolation, reading_of(self.chosen.sweep.data), [self.image_size]
        if isinstance(source, Image.Image):
            return resized(upright(source, reading.grey_range), sizes, way)[0]
        content = read_regular(source) if isinstance(source, str) else source
        return decode(content, sizes, interpolation=way, reading=reading)[0]

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the probability of each class: images [B, S, S, 3] -> [B, classes].

        Threads that call it take turns, so that together they use no more cores than there are.
        """
        with self._at_once:
            return self.network.probabilities(images)

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Have this process compute as the trial's did, and as before when the block ends."""
        from cnnsearch.training.compute.device import lent_process, reset_process

        with lent_process():
            reset_process(self.network.choices.threads)
            yield

    def begin_thread(self) -> None:
        """Have this thread, a new one, compute as the trial's process did."""
        import torch

        torch.set_num_threads(self.network.choices.threads)


def classifier(chosen: Chosen, data: str | None = None, device: str | None = None) -> Classifier:
    """Build the classifier of a trial.

    Args:
        chosen: the trial.
        data: where the images of its sweep are now. They are looked at only for trials of older versions, which have
            not recorded how images were normalised; None: where they were.
        device: cpu, cuda, xpu or mps; None: that of the trial, where there is one.

    Raises RequestError where weights, or images that are needed, are missing or not those of the sweep.
    """
    from cnnsearch.execution.network import trained_network
    from cnnsearch.training.compute.device import lent_process
    from cnnsearch.training.compute.device_kinds import available

    record = chosen.record
    if device is None:
        device = next((one.name for one in available() if one.name == record.device), "cpu")
    with lent_process():
        inputs = record.inputs or _looked_up(chosen, data)
        weights = _weights(chosen, record)
        return Classifier(chosen, trained_network(chosen.results.path, record, chosen.classes, inputs, device, weights))


def _weights(chosen: Chosen, record: Record) -> dict[Key, Pretrained]:
    """Find the pretrained weights of the trial's frozen layers. Raises ResultsError where they are others now."""
    from cnnsearch.execution.network import weights_below

    key = weights_below(chosen.results, record)
    if key is None:
        return {}
    return recorded_weights(chosen.results, {key}, record.trial_id)


def _looked_up(chosen: Chosen, data: str | None) -> Inputs:
    """Find out from the images of the sweep how they were normalised."""
    from cnnsearch.execution.record import inputs_of
    from cnnsearch.inputs import recorded_context
    from cnnsearch.planning.trial import Trial

    record, sweep = chosen.record, chosen.sweep
    if data is not None:
        sweep = sweep.with_values({"data.source": data})
    try:
        context = recorded_context(chosen.results, sweep)
    except DataError as error:
        raise RequestError(
            f"trial {record.trial_id} is of an older version: how its images were normalised has to be computed from "
            f"them again, and they are not where they were.\n{error}"
        ) from None
    return inputs_of(Trial(record.stage, record.settings, record.data), context)
