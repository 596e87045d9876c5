"""What came of training a trial again, in words."""

from __future__ import annotations

from collections.abc import Mapping

from cnnsearch import told
from cnnsearch.planning.trial import EpochRow
from cnnsearch.words import counted, labelled, listed, percent, printable, signed

_ENDED = {
    "done": "trained to its end",
    "diverged": "up to the epoch in which it diverged",
    "pruned": "up to the epoch after which it was stopped",
}


def epoch_line(row: EpochRow, epochs: int, recorded: Mapping[str, float | None], trial_id: str = "") -> str:
    """One epoch as it is trained, beside what is recorded of it."""
    what = f"trial {trial_id[:8]}, " * bool(trial_id) + f"epoch {row.epoch}/{epochs}"
    accuracy, loss = row.val_accuracy, row.val_loss
    if accuracy is None or loss is None or not row.is_finite:
        return f"{what}: the loss is no number"
    line = f"{what}: validation {percent(accuracy)}, loss {loss:.4g}"
    was, was_loss = recorded.get("val_accuracy"), recorded.get("val_loss")
    if was is None or was_loss is None:
        return line
    if (was, was_loss) == (accuracy, loss):
        return f"{line}, as recorded"
    return f"{line} (recorded: {percent(was)}, {was_loss:.4g})"


def reproduction_text(one: told.Reproduction) -> str:
    """The answer in a few labelled lines."""
    best = ", the best by validation" if one.is_best else ""
    head = f"{one.sweep} · trial {one.trial}{best}: {one.name}"
    of = f"{one.epochs} of {counted(one.epochs_planned, 'epoch')}"
    rows = [("compared", f"{of}, {_ENDED[one.status]}"), (one.verdict, _verdict(one))]
    if one.verdict != "identical":
        rows += [(found.split, _answers(found)) for found in one.answers]
    rows += [("starts from", _start(start)) for start in one.starts_from]
    rows += _conditions(one)
    rows.append(("folder", one.folder))
    return f"{printable(head)}\n{labelled([(label, printable(text)) for label, text in rows])}"


def _verdict(one: told.Reproduction) -> str:
    if one.verdict == "identical":
        images = [f"{found.images:,} {found.split}" for found in one.answers]
        of = f", and all predictions of {listed(images)} images," if images else ""
        return f"every epoch's numbers{of} have the same bits"
    apart = []
    if one.validation_accuracy is not None:
        found = one.validation_accuracy
        apart.append(f"{100 * found.value:.1f} points of validation accuracy (epoch {found.epoch})")
    if one.validation_loss is not None:
        apart.append(f"{one.validation_loss.value:.2g} of validation loss (epoch {one.validation_loss.epoch})")
    largest = f"at most {listed(apart)} apart" if apart else ""
    return "; ".join(filter(None, [one.reason, largest])) or "it diverged again"


def _answers(found: told.Repeated) -> str:
    difference, low, high = (100 * value for value in (found.now - found.then, found.low, found.high))
    return (
        f"{percent(found.same)} of {found.images:,} images have the same prediction; accuracy {percent(found.then)} "
        f"then, {percent(found.now)} now ({signed(difference)} points, {signed(low)} to {signed(high)})"
    )


def _start(start: told.Start) -> str:
    if start.verdict is None:
        return f"trial {start.id}, by the weights it kept"
    return f"trial {start.id}, whose weights are not kept: trained again, {start.verdict}"


def _conditions(one: told.Reproduction) -> list[tuple[str, str]]:
    """What differs between then and now; what is not recorded is named in one line."""
    known = [found for found in one.conditions if found.then is not None]
    texts = [f"{found.name} {found.then} → {found.now or 'not known'}" for found in known]
    if unknown := [found.name for found in one.conditions if found.then is None and found.now is not None]:
        texts.append(f"of then, it is not recorded: {listed(unknown)}")
    texts = texts or ["nothing that is recorded: versions, code, processor, device, threads and precision are the same"]
    return [("" if index else "differs", text) for index, text in enumerate(texts)]
