"""The examples on docs/data.md work, and make the same data in every form."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from cnnsearch.data.images import MAX_PIXELS
from cnnsearch.data.loading import load
from cnnsearch.data.sources import list_path
from cnnsearch.data.tables import NEEDED, OPTIONAL
from cnnsearch.spec.data import DataSpec
from tests import pages
from tests.asking import ask
from tests.data.making import as_rows, encoded, picture, write_shard, write_table

PAGE = pages.text("data.md")
COMMANDS = [(name, line) for name in ("init", "check", "sweep") for line in pages.take("data.md", name)]
CODE = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all that the page names; what its code makes is made by its code."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scans").mkdir()
    (tmp_path / "chosen").mkdir()
    for at in range(40):
        name, content = ("cat", "dog")[at % 2], encoded(picture(at), "JPEG")
        (tmp_path / "photos" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name / f"{at:03}.jpg").write_bytes(content)
        (tmp_path / "scans" / f"{at:03}.png").write_bytes(encoded(picture(100 + at), "PNG"))
    for name in ("cat", "dog"):
        (tmp_path / "chosen" / name).symlink_to(tmp_path / "photos" / name)
    header = re.findall(r"^    (path,.*)$", PAGE, flags=re.MULTILINE)[0]
    rows = [(f"scans/{at:03}.png", "ab"[at % 2], ("train", "test")[at > 29], f"patient-{at // 2}") for at in range(40)]
    write_table(tmp_path / "scans.csv", rows, header)
    (tmp_path / "pets").mkdir()
    for name, part in (("train", slice(0, None, 2)), ("test", slice(1, None, 2))):
        write_shard(
            tmp_path / "pets" / f"{name}-00000-of-00001.parquet", as_rows(tmp_path / "photos")[part], ["cat", "dog"]
        )
    for code in CODE:
        exec(code, {})
    return tmp_path


def test_the_page_shows_an_example_of_each() -> None:
    assert {command for command, _ in COMMANDS} == {"sweep", "check", "init"}
    sources = " ".join(arguments for _, arguments in COMMANDS)
    assert all(name in sources for name in ("photos ", "chosen", "scans.csv", "pets", "photos.tar"))
    assert len(CODE) == 3


def test_commands(place: Path) -> None:
    for command, arguments in COMMANDS:
        done = ask(*shlex.split(arguments), *(["--serial"] if command == "sweep" else []), command=command)
        assert done.returncode == 0, f"{command} {arguments}: {done.stderr}"
    refused = ask("chosen", command="check")
    assert (refused.returncode, "data.follow_links=true" in refused.stderr) == (2, True)


def test_every_form_is_the_same_data(place: Path) -> None:
    prints = [
        load(DataSpec(source=source), [8], cache=place / "cache")[8].fingerprint
        for source in ("photos", "photos.parquet", "photos.tar")
    ]
    assert len(set(prints)) == 1
    assert as_told(place / "scans.csv") == as_told(place / "scans.parquet")
    assert list_path("pets").parts == ("train", "test")


def as_told(file: Path) -> list[tuple[str, int, str | None, str | None]]:
    return [(one.name, one.label, one.part, one.group) for one in list_path(str(file)).examples]


def test_columns_and_numbers() -> None:
    table = PAGE.split("| column | |")[1].split("\n\n")[0]
    assert tuple(re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)) == (*NEEDED, *OPTIONAL)
    assert f"more than {MAX_PIXELS:,} pixels" in PAGE
