"""What training minimises: the mean over a batch of a loss of each image, which classes may weigh."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from cnnsearch.spec.settings import Settings

Each = Callable[[Tensor, Tensor], Tensor]
"""Logits [B, C] float32 and labels [B] int64 -> loss of each image [B]."""


class Loss:
    """The loss of a batch."""

    def __init__(self, settings: Settings, class_weights: Tensor | None = None) -> None:
        """Args:
        settings: `loss`, `focal_gamma` and `label_smoothing` say which loss.
        class_weights: [C] float32, by which each image counts as its label says; None: all count the same.
        """
        self._settings = settings
        self._weights = class_weights
        self._each: Each = {"cross_entropy": self._cross_entropy, "focal": self._focal, "bce": self._bce}[settings.loss]

    def __call__(self, logits: Tensor, labels: Tensor, mixed: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Return the mean loss of a batch, nats.

        Args:
            logits: [B, C] float32.
            labels: [B] int64, labels of the images.
            mixed: labels [B] of the images that were mixed in, and the part [B] of each image that is its own; None
                where images are not mixed.
        """
        if mixed is None and self._settings.loss == "cross_entropy":
            smoothing = self._settings.label_smoothing
            return F.cross_entropy(logits, labels, weight=self._weights, label_smoothing=smoothing)
        losses, weights = self._weighted(logits, labels)
        if mixed is not None:
            others, share = mixed
            other_losses, other_weights = self._weighted(logits, others)
            losses = share * losses + (1 - share) * other_losses
            weights = share * weights + (1 - share) * other_weights
        return losses.sum() / weights.sum()

    def _weighted(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of each image times its weight, and the weights."""
        weights = logits.new_ones(len(labels)) if self._weights is None else self._weights[labels]
        return weights * self._each(logits, labels), weights

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, reduction="none", label_smoothing=self._settings.label_smoothing)

    def _focal(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Lin et al., Focal Loss for Dense Object Detection, arXiv:1708.02002: easy images count less."""
        logs = logits.log_softmax(dim=1)
        losses = -((1 - logs.exp()) ** self._settings.focal_gamma) * logs
        return (self._targets(logits, labels) * losses).sum(dim=1)

    def _bce(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Binary cross-entropy of each class against all others, the mean over classes."""
        targets = self._targets(logits, labels)
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1)

    def _targets(self, logits: Tensor, labels: Tensor) -> Tensor:
        """What the network should say of each class, [B, C]."""
        smoothing, classes = self._settings.label_smoothing, logits.shape[1]
        # Not one_hot: it waits for a GPU to look at the labels, and such a step cannot be recorded.
        spread = logits.new_full(logits.shape, smoothing / classes)
        return spread.scatter_(1, labels[:, None], 1 - smoothing + smoothing / classes)
