"""Asks the best networks of a sweep about its training images, once, and keeps what they doubt."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from cnnsearch.data.dataset import Dataset
from cnnsearch.errors import CnnsearchError
from cnnsearch.execution.context import SharedContext
from cnnsearch.planning.plan import Plan
from cnnsearch.results.place import ResultsPlace

FILE = "training.json"
MOST = 20_000
"""Most training images that networks are asked about at the end of a run."""
_LOG = logging.getLogger(__name__)


def write_training(
    results: ResultsPlace, plan: Plan, context: SharedContext, dataset: Dataset, asked: Sequence[str]
) -> dict[str, Any]:
    """Keep and return the training images whose labels networks doubt most.

    Empty where no network kept its weights, and where there are more than `MOST` images.

    Args:
        results: of the sweep.
        plan: its trials.
        context: what they share.
        dataset: the images, in any form.
        asked: ids of the trials whose networks are asked, as far as they kept their weights.
    """
    # Not where the weights are elsewhere, where it takes long, and where each image is in some fold's validation.
    if results.remote is not None or len(dataset.indices["train"]) > MOST or dataset.folds is not None:
        return {}
    known = results.here.read(FILE)
    kept = [id_ for id_ in asked if id_ in plan.trials and results.has_weights(id_)]
    if known and known["trials"] == kept:
        return known
    try:
        found = _asked(plan, context, dataset, kept) if kept else {}
    except (CnnsearchError, MemoryError) as error:  # the report does without it
        _LOG.warning("no label of a training image is doubted, for the best networks cannot be asked: %s", error)
        return {}
    if found:
        results.write(FILE, found)
    return found


def _asked(plan: Plan, context: SharedContext, dataset: Dataset, kept: Sequence[str]) -> dict[str, Any]:
    import numpy as np

    from cnnsearch.evidence.doubts import most_doubted
    from cnnsearch.execution.saved import evaluate_saved
    from cnnsearch.training.compute.device import lent_process

    with lent_process():
        answers = [evaluate_saved(plan.trials[id_], context, "train")[1]["train"] for id_ in kept]
    rows = dataset.indices["train"]
    predicted, confidence = (np.stack([getattr(one, name) for one in answers]) for name in ("predicted", "confidence"))
    found = most_doubted(dataset.labels[rows], predicted, confidence, len(dataset.classes))
    return {"trials": list(kept), **found.recorded([dataset.names[row] for row in rows])}
