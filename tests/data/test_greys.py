"""16-bit greys: what is kept of them, and what is said where that is little."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnsearch.data import load
from cnnsearch.data.greys import few_levels
from cnnsearch.data.images import FULL, Reading, decode
from cnnsearch.data.index import Index
from cnnsearch.spec.data import DataSpec
from cnnsearch.spec.load import load_sweep
from tests.conftest import SMALL


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint16)).save(path)


def folder(root: Path, low: int, high: int) -> Path:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        for index in range(12):
            save(root / name / f"{index}.png", rng.integers(low, high + 1, (16, 16)))
    return root


def spec(source: Path, **more: object) -> DataSpec:
    return DataSpec.model_validate({"source": str(source), "split": {"method": "stratified"}, **more})


def test_twelve_bits_keep_what_they_hold(tmp_path: Path) -> None:
    """Stripes of 180 values around a mean that is no stripe's."""
    stripes = np.tile(np.where(np.arange(32) // 4 % 2, 2146, 1966), (32, 1))
    save(tmp_path / "stripes.png", stripes)
    save(tmp_path / "flat.png", np.full((32, 32), 2056))
    found = {
        (name, of): set(np.unique(decode(tmp_path / f"{name}.png", [32], reading=Reading(of))[0]).tolist())
        for name in ("stripes", "flat")
        for of in (FULL, (0, 4095), (1966, 2146))
    }
    assert found["stripes", FULL] == found["flat", FULL] == {8}
    assert found["stripes", (0, 4095)] == {122, 134}
    assert found["flat", (0, 4095)] == {128}
    assert found["stripes", (1966, 2146)] == {0, 255}


def test_few_levels_are_told_with_what_to_type(tmp_path: Path) -> None:
    source = folder(tmp_path / "data", 100, 4000)
    (dataset,) = load(spec(source), [8], cache=tmp_path / "cache").values()
    (warning,) = [one for one in dataset.warnings if "16-bit" in one]
    assert "of 256 levels they use 17" in warning
    assert "--set 'data.grey_range=[0, 4095]'" in warning
    (better,) = load(spec(source, grey_range=[0, 4095]), [8], cache=tmp_path / "cache").values()
    assert not any("16-bit" in one for one in better.warnings)
    assert better.fingerprint != dataset.fingerprint
    assert better.images_path != dataset.images_path
    assert np.ptp(np.load(better.images_path)) > 4 * np.ptp(np.load(dataset.images_path))


def test_files_that_have_not_changed_are_not_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = folder(tmp_path / "data", 100, 4000)
    (first,) = load(spec(source), [8], cache=tmp_path / "cache").values()
    monkeypatch.setattr("cnnsearch.data.examples.greys", lambda path: pytest.fail(f"{path} was read again"))
    (again,) = load(spec(source), [8], cache=tmp_path / "cache").values()
    assert again.warnings == first.warnings


def test_a_narrow_range_is_proposed_where_even_a_power_of_two_is_too_wide(tmp_path: Path) -> None:
    (dataset,) = load(spec(folder(tmp_path / "data", 1966, 2146)), [8], cache=tmp_path / "cache").values()
    assert "data.grey_range=[1966, 2146]" in " ".join(dataset.warnings)


def test_nothing_is_said_of_images_that_use_their_range_or_have_eight_bits(tmp_path: Path) -> None:
    (wide,) = load(spec(folder(tmp_path / "wide", 0, 65535)), [8], cache=tmp_path / "cache").values()
    for name in ("a", "b"):
        for index in range(12):
            (tmp_path / "grey" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((16, 16), 40 + index, np.uint8)).save(tmp_path / "grey" / name / f"{index}.png")
    (eight,) = load(spec(tmp_path / "grey"), [8], cache=tmp_path / "cache").values()
    assert not any("16-bit" in one for one in (*wide.warnings, *eight.warnings))
    assert few_levels([], [], Index(tmp_path / "index.json"), FULL) == ()


@pytest.mark.parametrize("given", ["[5, 5]", "[9, 2]", "[-1, 4]", "[0, 70000]", "narrow"])
def test_an_impossible_range_is_refused(given: str) -> None:
    with pytest.raises(Exception, match="grey_range"):
        load_sweep("part1", values=[*SMALL, f"data.grey_range={given}"])
