"""The lines of epochs.jsonl, read together."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.report_load import write_results
from cnnsearch.errors import ResultsError
from cnnsearch.results import epochs
from cnnsearch.results.epochs import COLUMNS, Epochs, read_epochs
from cnnsearch.results.folder import Results
from cnnsearch.results.shapes import EpochLine, whole_epochs
from cnnsearch.results.tables import load
from cnnsearch.results.trial_folder import TrialFolder
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


ROW = b'{"epoch": 2, "lr": 0.1, "seconds": 1.0}'
ODD = [
    b'{"epoch": 2, "lr": 0.1, "sec',
    b"",
    b"\xff",
    b"{}",
    b"[1]",
    ROW + ROW,
    ROW.replace(b"0.1,", b"0.1,\n"),
    *(
        ROW.replace(b"0.1", lr)
        for lr in (b"NaN", b"-Infinity", b"1e999", b"93000000000000000000", b"true", b'"1"', b"null")
    ),
    *(ROW.replace(b"2,", epoch) for epoch in (b"2.5,", b"2.0,", b"-1,", b"1000001,", b"null,")),
    ROW.replace(b"1.0", b"-1.0"),
    ROW.replace(b"}", b', "val_accuracy": 1.5}'),
    ROW.replace(b"}", b', "val_brier": -0.5}'),
]
FINE = [
    *LINES,
    ROW.replace(b"0.1", b"1234567890123456789012.5"),
    ROW.replace(b"0.1", b"5e-324"),
    ROW.replace(b"}", b', "val_brier": 1.5, "val_ece": 0.123456789012345678901}'),
    ROW.replace(b"}", b', "of_later_versions": [{"x": "{"}]}'),
    ROW.replace(b"}", b', "lr": 0.2}'),
    ROW.replace(b"}", b" }\r"),
]


def folders(root: Path, *files: list[bytes] | None) -> list[TrialFolder]:
    made = [Results(root).trial(f"{number:016}") for number in range(len(files))]
    for folder, lines in zip(made, files, strict=True):
        folder.make()
        if lines is not None:
            folder.epochs_file.write_bytes(b"".join(line + b"\n" for line in lines))
    return made


def test_columns_are_those_of_the_lines() -> None:
    assert set(COLUMNS.names) == set(EpochLine.model_fields)


def test_many_files_read_together_hold_what_they_hold_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epochs, "TOGETHER_BYTES", 300)
    some = folders(tmp_path, LINES, [], [ROW], None, *([line, ROW] for line in FINE), LINES[:1])
    parts = [(read, found) for read, found in read_epochs(some) if isinstance(found, Epochs)]
    assert [folder for read, _ in parts for folder in read] == some
    assert 1 < len(parts) < len(some)
    told = [folder.epochs(strict=True) for folder in some]
    assert [count for _, found in parts for count in found.counts] == [len(rows) for rows in told]
    assert [row for _, found in parts for row in found.rows.to_pylist()] == [
        {name: row.get(name) for name in COLUMNS.names} for rows in told for row in rows
    ]


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_a_file_with_what_is_no_row_costs_no_other(odd: bytes, tmp_path: Path) -> None:
    some = folders(tmp_path, LINES, [ROW, odd, ROW], [ROW])
    found = {folder: of_some for read, of_some in read_epochs(some) for folder in read}
    assert isinstance(found[some[1]], ResultsError)
    assert "line 2, is no row of an epoch" in str(found[some[1]])
    for folder, count in ((some[0], 2), (some[2], 1)):
        whole = found[folder]
        assert isinstance(whole, Epochs)
        assert whole.counts == (count,)


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    some = folders(tmp_path, [ROW], None)
    some[1].epochs_file.mkdir()
    (_, first), (_, second) = read_epochs(some)
    assert isinstance(first, Epochs)
    assert isinstance(second, ResultsError)
    assert "it is a folder" in str(second)


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
