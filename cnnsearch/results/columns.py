"""The three result tables: their columns, building them from records, and reading them.

A table is derived from records and can always be rebuilt from them. Accuracies are fractions in [0, 1], losses are
means over examples, times are seconds. Columns are only ever added.
"""

from __future__ import annotations

import pyarrow as pa

TRIALS = pa.schema(
    [
        ("trial_id", pa.string()),
        ("sweep", pa.string()),
        ("stage", pa.string()),
        ("parent_id", pa.string()),
        ("status", pa.string()),  # done, failed, diverged, pruned
        ("error", pa.string()),
        ("model", pa.string()),
        ("width", pa.float64()),
        ("weights", pa.string()),
        ("fine_tune", pa.string()),
        ("lr", pa.float64()),
        ("batch_size", pa.int64()),
        ("dropout", pa.float64()),
        ("optimizer", pa.string()),
        ("weight_decay", pa.float64()),
        ("momentum", pa.float64()),
        ("lr_schedule", pa.string()),
        ("warmup_epochs", pa.float64()),
        ("label_smoothing", pa.float64()),
        ("augment", pa.string()),
        ("class_weights", pa.string()),
        ("image_size", pa.int64()),
        ("epochs", pa.int64()),  # planned
        ("seed", pa.int64()),
        ("precision", pa.string()),
        ("parameters", pa.int64()),
        ("epochs_done", pa.int64()),
        ("stopped_by", pa.string()),  # what pruned it: asha, hyperband, median, patience, max_seconds
        ("best_epoch", pa.int64()),
        ("train_loss", pa.float64()),
        ("train_accuracy", pa.float64()),
        ("val_loss", pa.float64()),
        ("val_accuracy", pa.float64()),
        ("test_loss", pa.float64()),
        ("test_accuracy", pa.float64()),
        ("val_accuracy_before", pa.float64()),
        ("test_accuracy_before", pa.float64()),
        ("val_loss_before", pa.float64()),
        ("test_loss_before", pa.float64()),
        ("seconds", pa.float64()),
        ("images_per_second", pa.float64()),
        ("peak_memory_bytes", pa.int64()),
        ("model_bytes", pa.int64()),
        ("device", pa.string()),
        ("threads", pa.int64()),
        ("host", pa.string()),
        ("started_at", pa.timestamp("us", tz="UTC")),
        ("schema_version", pa.int64()),
    ]
)

EPOCHS = pa.schema(
    [
        ("trial_id", pa.string()),
        ("epoch", pa.int64()),  # 0 is before training, where that was measured
        ("train_loss", pa.float64()),
        ("train_accuracy", pa.float64()),
        ("val_loss", pa.float64()),
        ("val_accuracy", pa.float64()),
        ("lr", pa.float64()),
        ("seconds", pa.float64()),
    ]
)

PREDICTIONS = pa.schema(
    [
        ("trial_id", pa.string()),
        ("split", pa.string()),  # val, test
        ("moment", pa.string()),  # before (any training of this trial), best (its best epoch)
        ("example", pa.string()),
        ("label", pa.string()),
        ("predicted", pa.string()),
        ("confidence", pa.float32()),
    ]
)

SCHEMAS = {"trials": TRIALS, "epochs": EPOCHS, "predictions": PREDICTIONS}
