"""Whatever files of a results folder hold, a report on it ends with a message."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings, strategies as st

from cnnsearch.results.looking import Folder
from tests.faults.damage import flip
from tests.faults.strange import (
    GONE,
    JSON_FILES,
    ODD,
    file_of,
    make_pattern,
    places,
    replaced,
    report,
    vouch,
    write,
)

pytestmark = pytest.mark.usefixtures("figures_left_blank")

FUZZ = settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pattern(tmp_path_factory.mktemp("results") / "part1")


BYTES = (
    "trials.parquet",
    "epochs.parquet",
    "predictions.parquet",
    "predictions.safetensors",
    "data.json",
    "sweep.yaml",
)


@settings(FUZZ, max_examples=5)
@given(
    name=st.sampled_from(BYTES),
    places=st.lists(st.integers(0, 2**20), min_size=1, max_size=20),
    keep=st.booleans(),
)
def test_any_bytes_of_any_file_may_be_odd(
    pattern: Path, tmp_path: Path, name: str, places: list[int], keep: bool
) -> None:
    folder = shutil.copytree(pattern, tmp_path / "part1")
    try:
        file = file_of(folder, name)
        for place in places:
            flip(file, -place)  # the end of a file says what is in it
        vouch(file)
        if not keep:
            shutil.rmtree(folder / "trials")
        assert report(folder)[0] in (0, 1, 2)
    finally:
        shutil.rmtree(folder)


@FUZZ
@given(data=st.data())
def test_any_value_of_any_file_may_be_odd(pattern: Path, tmp_path: Path, data: st.DataObject) -> None:
    folder = shutil.copytree(pattern, tmp_path / "part1", dirs_exist_ok=False)
    try:
        name = data.draw(st.sampled_from([*JSON_FILES, "sweep.yaml"]))
        file = file_of(folder, name)
        lines = [file.read_text()] if not name.endswith("l") and name != "study" else file.read_text().splitlines()
        if name == "sweep.yaml":
            lines = [file.read_text()]
        tree = yaml.safe_load(lines[0]) if name == "sweep.yaml" else json.loads(lines[0])
        odd = replaced(tree, data.draw(st.sampled_from(places(tree))), data.draw(st.sampled_from(ODD)))
        if name == "sweep.yaml":
            file.write_text(yaml.safe_dump(odd) if odd is not GONE else "")
        elif name == "epochs.jsonl":
            file.write_text("\n".join([json.dumps(None if odd is GONE else odd), *lines[1:]]))
            vouch(file)
        else:
            write(file, None if odd is GONE else odd)
        if data.draw(st.booleans()):
            shutil.rmtree(folder / "trials")
        elif data.draw(st.booleans()):
            (folder / "tables.json").unlink()
            for table in folder.glob("*.parquet"):
                table.unlink()
        assert report(folder)[0] in (0, 1, 2)
        Folder(folder).look()
    finally:
        shutil.rmtree(folder)
