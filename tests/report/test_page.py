"""What a report says of the data."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cnnsearch.evidence.evidence import Evidence
from cnnsearch.report.page import assemble
from tests.report import factory

OFFERED = {
    (): "in order: 50 training, then 20 validation images of each class; the rest is test",
    ("train", "test"): "test as the source has it; of its training images in order: 50 training, then 20 validation "
    "images of each class; the rest is not used",
    ("train", "val", "test"): "training, validation and test as the source has them",
}


@pytest.mark.usefixtures("figures_left_blank")
@pytest.mark.parametrize("parts", OFFERED)
def test_the_split_is_told_as_it_was_made(parts: tuple[str, ...]) -> None:
    tables = factory.one_trial()
    given = replace(tables, data={**tables.data, "parts": list(parts)})
    assert dict(assemble(Evidence(given)).data_facts)["split"] == OFFERED[parts]
