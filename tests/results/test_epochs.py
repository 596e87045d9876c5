"""The lines of epochs.jsonl, read together."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.report_load import write_results
from cnnsearch.errors import ResultsError
from cnnsearch.results.folder import Results
from cnnsearch.results.shapes import whole_epochs
from cnnsearch.results.tables import load
from cnnsearch.storage.reading import parsed

LINES = [
    b'{"epoch": 0, "val_loss": 2.5, "val_accuracy": 0.1, "lr": 0.001, "seconds": 0.0}',
    b'{"epoch": 1, "train_loss": 1.25e-3, "train_accuracy": null, "lr": 1, "seconds": 0.123456789012345}',
]


def test_read_together_they_are_what_they_are_one_by_one() -> None:
    assert whole_epochs(LINES) == [parsed(line) for line in LINES]
    assert whole_epochs([]) == []


@pytest.mark.parametrize(
    "odd",
    [
        b'{"epoch": 2, "lr": 0.1, "sec',
        b"",
        b'{"epoch": 2, "lr": NaN, "seconds": 1.0}',
        b'{"epoch": 2, "lr": 1e999, "seconds": 1.0}',
        b'{"epoch": 2, "lr": 123456789012345678901, "seconds": 1.0}',
        b'{"epoch": 2.5, "lr": 0.1, "seconds": 1.0}',
        b'{"epoch": 2, "lr": 0.1, "seconds": 1.0, "of_later_versions": 1}',
        b'{"epoch": 2, "lr": 0.1, "seconds": 1.0},{"epoch": 3, "lr": 0.1, "seconds": 1.0}',
        b"\xff",
    ],
)
def test_where_one_has_to_be_looked_at_none_is_taken(odd: bytes, tmp_path: Path) -> None:
    assert whole_epochs([*LINES, odd]) is None
    folder = Results(tmp_path).trial("0" * 16)
    folder.make()
    folder.epochs_file.write_bytes(b"\n".join([*LINES, odd, LINES[0]]))
    assert [row["epoch"] for row in folder.epochs()] in ([0, 1, 0], [0, 1, 2, 0])
    if b"later" not in odd:
        with pytest.raises(ResultsError, match="line 3, is no row of an epoch"):
            folder.epochs(strict=True)


def test_the_table_of_epochs_has_every_number_and_nothing_where_none_was_measured(tmp_path: Path) -> None:
    write_results(tmp_path, 4, 3)
    tables = load(tmp_path, store=False)
    for trial_id, rows in tables.epochs.groupby("trial_id", sort=False):
        told = [
            json.loads(line) for line in Results(tmp_path).trial(str(trial_id)).epochs_file.read_text().splitlines()
        ]
        for row, line in zip(rows.to_dict("records"), told, strict=True):
            assert {name: value for name, value in row.items() if name in line} == line
            assert all(np.isnan(row[name]) for name in row.keys() - line.keys() - {"trial_id"})
    assert str(tables.epochs["epoch"].dtype) == "int64"
    assert list(tables.epochs["trial_id"].unique()) == list(tables.trials["trial_id"])
