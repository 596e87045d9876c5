"""Leaves the tests of this folder out where their machines cannot be made."""

from __future__ import annotations

import shutil

import pytest

from tests.cluster.machines import UnavailableError, network


@pytest.fixture(scope="session", autouse=True)
def _can_be_made() -> None:
    for program in ("unshare", "nsenter", "ip"):
        if shutil.which(program) is None:
            pytest.skip(f"needs the program {program}, of util-linux and iproute2")
    try:
        with network() as made:
            made.add({}, kept=[], bound={}, hidden=[], token="")
    except UnavailableError as error:
        pytest.skip(f"machines cannot be made of namespaces here: {error}")
