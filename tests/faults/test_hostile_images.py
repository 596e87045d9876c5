"""Folders of images with files that are no images, and with names that are no names."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import subprocess
import zipfile
import zlib
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from tests.faults.running import assert_refused, call, images, save, sweep_file

CHROMIUM = next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)

CLASSES = (
    "two words",
    "-rf",
    '\'"quotes"',
    "<script>document.title='taken'<",
    "חתול",
    "ネコ_é",
    "c" * 255,
    "$\\frac$ {{7*7}} &amp;",
    "right\u202etxt.exe",
    "\x1b[31mred\nline",
)
PICTURES = (
    "-x.png",
    "<img src=x onerror=document.title='taken'>.png",
    "שלום.png",
    "n" * 251 + ".png",
    "\u202egnp \x1b[2J.png",
    "plain.png",
)


def bomb(side: int = 30_000) -> bytes:
    """A black PNG of 1 bit a pixel, valid to its end: 110 KB, or 900 million pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer, row = zlib.compressobj(9), b"\0" * (side // 8 + 1)
    pixels = b"".join([*(packer.compress(row) for _ in range(side)), packer.flush()])
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def litter(folder: Path) -> None:
    """Put beside the images what is none."""
    (folder / "cat" / "bomb.png").write_bytes(bomb())
    whole = io.BytesIO()
    Image.effect_noise((200, 200), 50).convert("RGB").save(whole, "JPEG")
    (folder / "cat" / "cut.jpg").write_bytes(whole.getvalue()[:1204])
    with zipfile.ZipFile(folder / "dog" / "zip.jpg", "w") as archive:
        archive.writestr("000.png", "no image")
    (folder / "dog" / "drawing.png").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>", encoding="utf-8")
    (folder / "dog" / "drawing.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>", encoding="utf-8")
    for name in (".DS_Store", "._000.png", "Thumbs.db"):
        (folder / "dog" / name).write_bytes(b"\0\5\26\7")


@pytest.mark.row(17)
@pytest.mark.after
def test_what_is_no_image_is_refused_by_name_or_skipped_with_a_count(tmp_path: Path) -> None:
    folder = images(tmp_path / "images")
    litter(folder)
    command = (sweep_file(tmp_path), "--data", folder, "--serial", "--out", tmp_path)
    refused = call(*command)
    assert_refused(refused, "4 of 28 images cannot be used")
    for complaint in (
        "cat/bomb.png has 900,000,000 pixels; the limit is 100,000,000.",
        "cat/cut.jpg is truncated (1,204 bytes",
        "dog/zip.jpg is not an image that can be read (its content is a zip archive).",
        "dog/drawing.png is an SVG drawing",
    ):
        assert complaint in refused.stderr
    assert refused.peak_bytes < 400 * 2**20  # decoded, the bomb alone is more than twice that
    skipped = call(*command, "--set", "data.on_bad_image=skip", module="cnnsearch.sweep")
    assert (skipped.returncode, skipped.stderr) == (0, "")
    assert "12 train / 8 validation / 4 test" in skipped.stdout
    assert "Skipped 4 unreadable images: " in skipped.stdout
    assert "Ignored 4 entries that are not images by their names" in skipped.stdout
    assert skipped.peak_bytes < 1500 * 2**20  # torch itself takes about 1,000
    report = (tmp_path / "tiny" / "report.html").read_text(encoding="utf-8")
    assert "Skipped 4 unreadable images" in report
    assert not list(tmp_path.glob("tiny/trials/*/bomb*"))


class Contents(HTMLParser):
    """Elements of a page, and its text outside style and script."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside not in ("style", "script"):
            self.text += data


@pytest.fixture(scope="module")
def odd_names(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a sweep over images whose classes and files are named oddly."""
    tmp_path = tmp_path_factory.mktemp("odd")
    for label, name in enumerate(CLASSES):
        folder = tmp_path / "images" / name
        folder.mkdir(parents=True)
        for index in range(10):  # the first ones are trained on, and appear nowhere by name
            save(folder / f"!{index}.png", label, index)
        for index, picture in enumerate(PICTURES):
            save(folder / picture, label, 10 + index)
    os.mkdir(os.fsencode(tmp_path / "images") + b"/\xff")
    for index in range(16):
        save(Path(os.fsdecode(os.fsencode(tmp_path / "images") + b"/\xff/%02d\xfe.png" % index)), 9, index)
    arguments = (sweep_file(tmp_path), "--data", tmp_path / "images", "--serial", "--out", tmp_path)
    ended = call(*arguments, module="cnnsearch.sweep")
    assert (ended.returncode, ended.stderr) == (0, ""), ended
    assert "\x1b" not in ended.stdout
    return tmp_path / "tiny"


@pytest.mark.after
@pytest.mark.row(18)
def test_odd_names_round_trip_through_tables(odd_names: Path) -> None:
    data = json.loads((odd_names / "data.json").read_text(encoding="utf-8"))
    assert set(data["classes"]) == {*CLASSES, r"\xff"}
    wanted = {f"{name}/{picture}" for name in CLASSES for picture in PICTURES}
    given = {name for split in ("val", "test") for name in data["examples"][split]["names"]}
    assert wanted <= given
    predictions = pd.read_parquet(odd_names / "predictions.parquet")
    assert set(predictions["label"]) == {*CLASSES, r"\xff"}
    assert set(predictions["example"]) == given
    pairs = zip(predictions["example"], predictions["label"], strict=True)
    assert all(str(example).startswith(f"{label}/") for example, label in pairs)


@pytest.mark.after
@pytest.mark.row(18)
def test_odd_names_are_inert_in_the_report(odd_names: Path) -> None:
    page = (odd_names / "report.html").read_text(encoding="utf-8")
    contents = Contents(page)
    tags = [tag for tag, _ in contents.elements]
    assert tags.count("script") == 1
    assert not [attribute for _, given in contents.elements for attribute in given if attribute.startswith("on")]
    assert all(str(given["src"]).startswith("data:image/png") for tag, given in contents.elements if tag == "img")
    assert not [given for _, given in contents.elements if "javascript:" in str(given.get("href"))]
    shown = [name.replace("\u202e", r"\u202e").replace("\x1b", r"\x1b") for name in CLASSES]
    flat = " ".join(contents.text.split())
    assert all(" ".join(name.split()) in flat for name in shown)
    for name in ("report.html", "report.md"):
        assert not set("\x1b\u202e") & set((odd_names / name).read_text(encoding="utf-8"))
    markdown = (odd_names / "report.md").read_text(encoding="utf-8")
    assert "<script" not in markdown
    assert "<img" not in markdown
    assert {path.suffix for path in (odd_names / "plots").iterdir()} == {".png"}


@pytest.mark.after
@pytest.mark.row(18)
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")
def test_no_name_runs_in_a_browser(odd_names: Path, tmp_path: Path) -> None:
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}",
        "--virtual-time-budget=2000",
    ]
    command = [str(CHROMIUM), *options, "--dump-dom", f"file://{odd_names / 'report.html'}"]
    page = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout
    assert "<title>tiny" in page
    assert "<title>taken" not in page
