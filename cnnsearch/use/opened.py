"""For notebooks: the tables of a sweep, from which its networks can be used; and its networks as modules of torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from cnnsearch.results import tables
from cnnsearch.results.tables import Tables
from cnnsearch.use.choose import choose

if TYPE_CHECKING:  # torch takes seconds to import
    from cnnsearch.use.classifier import Classifier
    from cnnsearch.use.module import TrainedModel


@dataclass(frozen=True)
class FoundTrial:
    """A trial whose weights are kept. `OpenedSweep.best()` and `OpenedSweep.trial()` give one.

    Example:
        best = cnnsearch.load("results/part1").best()
        best.id, best.classes
        best.predict(["a.jpg", "folder/of/images"])  # a DataFrame
        model = best.model()  # a torch module
    """

    folder: Path
    id: str
    code: tuple[str | Path, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the network's outputs."""
        return self._classifier.classes

    def predict(self, paths: str | Path | Iterable[str | Path], top: int | None = None) -> pd.DataFrame:
        """Classify image files, as the sweep would have.

        Args:
            paths: a file or a folder, or several. Folders are searched for images, also in their sub-folders.
            top: number of best classes to give with their confidences; None: the best alone.

        Returns:
            One row per image, with the columns

            - path: as given, or below the folder that was given;
            - predicted, confidence: the best class and its probability, 0 to 1;
            - label: the class whose name a folder that the image lies in has; None where there is none;
            - error: why an image cannot be read; None for all others;
            - class_1, confidence_1, class_2, ...: with `top`, the best classes in order.

        Raises RequestError where there are no such files, or no images in them.
        """
        from cnnsearch.use.listing import listed
        from cnnsearch.use.predict import predict
        from cnnsearch.use.told import check_top

        given = [paths] if isinstance(paths, str | Path) else list(paths)
        check_top(top, self.classes)
        follow = self._classifier.chosen.sweep.data.follow_links
        return predict(self._classifier, listed(given, self.classes, follow_links=follow).items, top)

    def model(self) -> TrainedModel:
        """The network as a module of torch: see `cnnsearch.load_model`."""
        return load_model(self.folder, self.id, code=self.code)

    @cached_property
    def _classifier(self) -> Classifier:
        from cnnsearch.use.classifier import classifier

        return classifier(choose(self.folder, self.id, code=self.code))


class OpenedSweep(Tables):
    """The tables of a sweep, and its networks."""

    @classmethod
    def of(cls, found: Tables) -> OpenedSweep:
        """The same tables, with what this class adds."""
        opened = cls.__new__(cls)
        opened.__dict__.update(found.__dict__)  # as they are: predictions may still have to be read
        return opened

    def best(self, *, code: Iterable[str | Path] = ()) -> FoundTrial:
        """The best trial by validation: of the setting that the report calls best, the seed with the best score.

        Args:
            code: of a network of your own, the file with its code as it was, which then may run.

        Raises RequestError where no trial has finished, or its weights were not kept.
        """
        files = tuple(code)
        return FoundTrial(self.folder, choose(self.folder, None, self, files).record.trial_id, files)

    def trial(self, trial_id: str, *, code: Iterable[str | Path] = ()) -> FoundTrial:
        """The trial of this id, of which the beginning is enough.

        Args:
            trial_id: or its beginning.
            code: as for `best`.

        Raises RequestError where there is none or several, or its weights were not kept.
        """
        files = tuple(code)
        return FoundTrial(self.folder, choose(self.folder, trial_id, code=files).record.trial_id, files)


def load(folder: Path | str, *, store: bool = True) -> OpenedSweep:
    """Read the results of a sweep.

    Example:
        found = cnnsearch.load("results/part1")
        found.trials  # a DataFrame; also found.epochs and found.predictions
        found.best().predict("folder/of/images")  # a DataFrame

    Args:
        folder: of one sweep, such as results/part1.
        store: whether tables that have to be built anew are written into the folder.

    Raises ResultsError if the folder holds no sweep, or its sweep or the description of its data cannot be read.
    """
    return OpenedSweep.of(tables.load(folder, store=store))


def load_model(folder: Path | str, trial: str | None = None, *, code: Iterable[str | Path] = ()) -> TrainedModel:
    """Load a trained network as a module of torch, in eval mode, on the CPU, in fp32.

    Example:
        model = cnnsearch.load_model("results/part1")
        images = torch.stack([model.preprocess("a.jpg"), model.preprocess("b.png")])
        with torch.inference_mode():
            logits = model(images)  # [2, classes]
        [model.classes[i] for i in logits.argmax(1)]

    Args:
        folder: results of one sweep, such as results/part1.
        trial: id of a trial, or the beginning of it; None: the best by validation.
        code: of a network of your own, the file with its code as it was, which then may run. Results hold a copy.

    Returns:
        A module that takes float32 images [B, 3, S, S] from `preprocess` and gives logits [B, classes].

    Raises RequestError where there is no such trial, or its weights were not kept.
    """
    from cnnsearch.use.module import trained_model

    return trained_model(choose(folder, trial, code=tuple(code)))
