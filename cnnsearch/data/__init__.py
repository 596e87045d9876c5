"""Images: where they come from, how each is decoded once, how they are split, and what identifies them."""

from cnnsearch.data.dataset import SPLITS, Dataset
from cnnsearch.data.loading import load

__all__ = ["SPLITS", "Dataset", "load"]
