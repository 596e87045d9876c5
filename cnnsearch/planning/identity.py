"""What makes two trials the same work.

A trial's id is a hash of everything that decides its result and of nothing else: equal ids are never trained twice.
Raise a version here whenever a change makes the same settings give other numbers.
"""

from __future__ import annotations

import hashlib
from typing import Any

from cnnsearch.spec.model_names import is_timm
from cnnsearch.storage.checksums import canonical_json

RECIPE_VERSION = 1
"""Version of the training recipe: loss, initialisation, data order, normalisation, what the seed draws."""

MODEL_VERSIONS = {"plain": 2, "residual": 1}
"""Own model -> version of its definition."""

TORCHVISION_VERSION = 2
"""Version of how torchvision's models are built and computed."""

TIMM_VERSION = 1
"""Version of how timm's models are built and computed."""

OWN_CODE_VERSION = 1
"""Version of how networks of the user's own code are called and computed. What they are, the hash of the code says."""


def model_version(model: str) -> int:
    """Version of a model's definition."""
    return TIMM_VERSION if is_timm(model) else MODEL_VERSIONS.get(model, TORCHVISION_VERSION)


def trial_id(deciding: dict[str, Any], *, data: str, parent_id: str | None, weights: str | None = None) -> str:
    """Return the first 16 hex digits of the SHA-256 of everything that decides a trial's result.

    Args:
        deciding: every resolved hyperparameter that can change the result, seed and model included.
        data: fingerprint of the data's contents and split.
        parent_id: id of the trial whose weights this one starts from.
        weights: digest of the pretrained weights it starts from.
    """
    facts = {
        "settings": deciding,
        "model_version": OWN_CODE_VERSION if "code" in deciding else model_version(deciding["model"]),
        "recipe_version": RECIPE_VERSION,
        "data": data,
        "parent": parent_id,
        "weights": weights,
    }
    return hashlib.sha256(canonical_json(facts).encode()).hexdigest()[:16]
