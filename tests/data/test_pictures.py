"""Pictures for the report."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnsearch.data import load
from cnnsearch.data.pictures import png
from cnnsearch.spec.settings import DataSpec


def test_a_picture_is_the_decoded_image_and_at_most_64_wide(tmp_path: Path) -> None:
    data = load(DataSpec(), [32, 100], cache=tmp_path)
    small = Image.open(io.BytesIO(png(data[32], 7)))
    assert small.format == "PNG"
    assert np.array_equal(np.asarray(small), data[32].images[7])
    assert Image.open(io.BytesIO(png(data[100], 7))).size == (64, 64)


def test_rows_outside_are_refused(tmp_path: Path) -> None:
    data = load(DataSpec(), [8], cache=tmp_path)[8]
    for row in (-1, 1700):
        with pytest.raises(IndexError, match="of 1700"):
            png(data, row)
