"""Tables as arrays: a table may have its rows in any order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cnnsearch.evidence.recorded import Recorded
from tests.report import factory


@pytest.mark.parametrize("by", [["epoch", "trial_id"], ["trial_id", "val_loss"], "shuffled"], ids=str)
def test_curves_do_not_depend_on_the_order_of_rows(by: list[str] | str) -> None:
    tables = factory.with_trouble()
    frame = tables.epochs
    other = frame.sample(frac=1, random_state=0) if by == "shuffled" else frame.sort_values(by)
    assert other["epoch"].tolist() != frame["epoch"].tolist()
    known, found = Recorded(tables), Recorded(replace(tables, epochs=other))
    assert all(len(known.curve(trial_id, "val_loss")[0]) for trial_id in frame["trial_id"])
    for trial_id in frame["trial_id"].unique():
        for column in ("val_loss", "train_accuracy"):
            for one, same in zip(known.curve(trial_id, column), found.curve(trial_id, column), strict=True):
                assert np.array_equal(one, same)
    assert not len(known.curve("none", "val_loss")[0])


def test_without_epochs_there_are_no_curves() -> None:
    tables = factory.one_trial()
    empty = Recorded(replace(tables, epochs=tables.epochs.iloc[:0]))
    assert [len(part) for part in empty.curve(tables.trials["trial_id"][0], "val_loss")] == [0, 0]
