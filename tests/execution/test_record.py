"""What is recorded of a trial that ended: every metric, and the probabilities of all classes where weights are kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as reference

from cnnsearch import run
from cnnsearch.errors import ResultsError
from cnnsearch.results.folder import Results
from cnnsearch.results.record import Measures
from cnnsearch.results.tables import load
from cnnsearch.scores import Predicted, scores
from cnnsearch.spec.sweep import Sweep

STAGES = (
    "stages=[{name: grid, space: {lr: {grid: [0.001, 0.01, 0.1]}, model: plain}}, "
    "{name: heads, start_from: {stage: grid, best: val_accuracy}, space: {fine_tune: head, lr: {grid: [0.01, 0.1]}}}]"
)


def test_tables_hold_every_metric_of_the_recorded_predictions(
    tmp_path: Path, small_sweep: Callable[..., Sweep]
) -> None:
    folder = Path(run(small_sweep(STAGES), tmp_path, serial=True).folder)
    tables = load(folder)
    results, classes = Results(folder), tables.data["classes"]
    assert len(tables.trials) == 5
    kept = 0
    for row in tables.trials.to_dict("records"):
        trial = results.trial(row["trial_id"])
        found = trial.probabilities()
        assert bool(found) == trial.weights_file.exists() == trial.has_weights()
        kept += bool(found)
        mine = tables.predictions[
            (tables.predictions["trial_id"] == row["trial_id"]) & (tables.predictions["moment"] == "best")
        ]
        for split in ("val", "test"):
            told = mine[mine["split"] == split]
            labels, predicted = (told[name].cat.codes.to_numpy().astype(int) for name in ("label", "predicted"))
            f1 = reference.f1_score(labels, predicted, average="macro")
            recall = reference.balanced_accuracy_score(labels, predicted)
            assert row[f"{split}_macro_f1"] == pytest.approx(f1)
            assert row[f"{split}_balanced_accuracy"] == pytest.approx(recall)
            if not found:
                continue
            chances = found[split]
            assert np.array_equal(chances.argmax(axis=1), predicted)
            assert np.array_equal(chances.max(axis=1), told["confidence"].to_numpy())
            auroc = reference.roc_auc_score(labels, chances, multi_class="ovr", labels=range(len(classes)))
            assert row[f"{split}_auroc"] == pytest.approx(auroc)
            recorded = {name: row[f"{split}_{name}"] for name in scores(_predicted(labels, chances))}
            assert recorded == scores(_predicted(labels, chances))
    assert 0 < kept < 5


def _predicted(labels: np.ndarray, chances: np.ndarray) -> Predicted:
    return Predicted(labels, chances.shape[1], chances.argmax(axis=1), chances.max(axis=1), chances)


def test_records_of_before_have_no_such_metrics() -> None:
    old = Measures.model_validate({"val_loss": 1.0, "val_accuracy": 0.5, "test_loss": 2.0, "test_accuracy": 0.25})
    assert old.val_macro_f1 is None
    assert old.test_auroc is None


@pytest.mark.parametrize("content", [b"nothing", b""])
def test_damaged_probabilities_are_named(tmp_path: Path, content: bytes) -> None:
    trial = Results(tmp_path).trial("0" * 16)
    trial.make()
    assert trial.probabilities() == {}
    trial.probabilities_file.write_bytes(content)
    with pytest.raises(ResultsError, match=r"probabilities.safetensors is not what was written"):
        trial.probabilities()


def test_only_probabilities_are_read_as_such(tmp_path: Path) -> None:
    trial = Results(tmp_path).trial("0" * 16)
    trial.make()
    trial.save_probabilities({"val": np.full((3, 2), 0.5, np.float32)})
    assert trial.probabilities()["val"].tolist() == [[0.5, 0.5]] * 3
    for odd in ({"train": np.zeros((1, 2), np.float32)}, {"val": np.full((1, 2), 7, np.float32)}):
        trial.save_probabilities(odd)
        with pytest.raises(ResultsError, match="no probabilities of classes"):
            trial.probabilities()
