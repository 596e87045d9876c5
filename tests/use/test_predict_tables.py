"""Tables, Parquet files with images and .tar archives are classified like the same images as files."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import cnnsearch
from tests.asking import ask
from tests.data.making import as_members, as_rows, named, write_shard, write_table, write_tar


def asked(results: Path, *sources: Path, code: int = 0) -> pd.DataFrame:
    out = sources[0].parent / "answers.parquet"
    done = ask(results, *sources, "--out", out, command="predict")
    assert done.returncode == code, done.stderr
    return pd.read_parquet(out)


@pytest.mark.parametrize("kind", ["csv", "parquet", "tar"])
def test_the_answers_are_those_of_the_files(results: Path, images: Path, tmp_path: Path, kind: str) -> None:
    if kind == "csv":
        source = write_table(images / "all.csv", named(images)[::-1])
    elif kind == "parquet":
        source = write_shard(tmp_path / "all.parquet", as_rows(images)[::-1], ["dark", "light", "mixed"])
    else:
        source = write_tar(tmp_path / "all.tar", dict(list(as_members(images).items())[::-1]))
    try:
        found = asked(results, source)
    finally:
        (images / "all.csv").unlink(missing_ok=True)
        (images / "answers.parquet").unlink(missing_ok=True)
    wanted = cnnsearch.load(results).best().predict([images / path for path, _ in named(images)[::-1]])
    assert found["predicted"].tolist() == wanted["predicted"].tolist()
    assert found["confidence"].tolist() == pytest.approx(wanted["confidence"].tolist())
    assert found["label"].tolist() == [label for _, label in named(images)[::-1]]
    first = {"csv": "mixed/14.jpg", "parquet": "all.parquet row 1", "tar": "all.tar/mixed/14.jpg"}[kind]
    assert found["path"][0] == f"{source.parent}/{first}"


def test_labels_are_not_needed(results: Path, images: Path, tmp_path: Path) -> None:
    contents = [row[0] for row in as_rows(images)[:6]]
    for at, content in enumerate(contents):
        assert content is not None
        (tmp_path / f"{at}.png").write_bytes(content)
    table = write_table(tmp_path / "all.csv", [(f"{at}.png",) for at in range(6)], "path")
    shard = tmp_path / "all.parquet"
    pd.DataFrame({"image": contents}).to_parquet(shard)
    archive = write_tar(tmp_path / "all.tar", {f"{at}.png": content or b"" for at, content in enumerate(contents)})
    found = asked(results, table, shard, archive)
    assert len(found) == 18
    assert found["label"].isna().all()
    assert found["predicted"].tolist() == found["predicted"][:6].tolist() * 3


def test_what_cannot_be_read_is_a_row_with_its_reason(results: Path, images: Path, tmp_path: Path) -> None:
    content = as_rows(images)[0][0]
    rows = [(content, "a.png", 0), (b"text", "b.png", 1), (None, "c.png", 1)]
    found = asked(results, write_shard(tmp_path / "all.parquet", rows), code=1)
    assert found["error"].fillna("").tolist() == ["", "is not an image (its content is text)", "holds no image"]
    (tmp_path / "a.png").write_bytes(content or b"")
    away = images / "dark" / "01.png"
    table = write_table(tmp_path / "all.csv", [("a.png", "dark"), ("none.png", "other"), (away, "dark")])
    found = asked(results, table, code=1)
    reasons = ["", "is not there", f"lies in {away.parent}, outside the data"]
    assert found["error"].fillna("").tolist() == reasons
    assert found["label"].fillna("").tolist() == ["dark", "", "dark"]  # other is no class of the network


def test_a_file_of_something_else_is_refused(results: Path, tmp_path: Path) -> None:
    for name, content, said in (
        ("x.csv", b"a,b\n1,2\n", "x.csv has the columns a and b; it lacks path.\nNeeded: path; label, split and group"),
        ("x.parquet", b"?", "x.parquet cannot be read ("),
        ("x.tar", b"?", "x.tar is no .tar archive that can be read"),
    ):
        (tmp_path / name).write_bytes(content)
        done = ask(results, tmp_path / name, command="predict")
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr
