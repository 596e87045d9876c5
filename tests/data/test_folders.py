"""Folders as sources: layouts, names, litter, links, and what is said about folders that are none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from cnnsearch.data import folders
from cnnsearch.data.examples import Listing
from cnnsearch.data.folders import list_folder
from cnnsearch.errors import DataError
from tests.data.making import fill_folder, picture


def names(listing: Listing) -> list[str]:
    return [example.name for example in listing.examples]


def refusal(path: Path | str, known: tuple[str, ...] = ()) -> str:
    with pytest.raises(DataError) as caught:
        list_folder(str(path), known)
    return str(caught.value)


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


def test_classes_and_files_are_in_code_point_order(tmp_path: Path) -> None:
    for name in ("b/10.png", "b/2.png", "b/a/1.png", "b/a-1.png", "B/é.png", "B/z.png", "ä/x.png"):
        touch(tmp_path / name)
    listing = list_folder(str(tmp_path))
    assert listing.classes == ("B", "b", "ä")
    assert names(listing) == ["B/z.png", "B/é.png", "b/10.png", "b/2.png", "b/a-1.png", "b/a/1.png", "ä/x.png"]
    assert listing.labels().tolist() == [0, 0, 1, 1, 1, 1, 2]
    assert {example.part for example in listing.examples} == {None}
    assert listing.parts == ()
    assert listing.warnings == (
        'Classes whose names look alike: "B" and "b".',
        "1 image lies in a sub-folder of its class, for example b/a/1.png.",
    )


def test_every_extension_in_any_case(tmp_path: Path) -> None:
    wanted = ["a.jpg", "b.JPEG", "c.Png", "d.webp", "e.BMP", "f.gif", "g.tif", "h.TIFF", "i.jfif", "j.jpe", "k.JIF"]
    wanted += ["l.dib"]
    for name in wanted:
        touch(tmp_path / "cat" / name)
    touch(tmp_path / "dog" / "x.png")
    assert names(list_folder(str(tmp_path))) == [*(f"cat/{name}" for name in wanted), "dog/x.png"]


def test_litter_is_ignored_and_counted(tmp_path: Path) -> None:
    for name in (
        "cat/1.png",
        "dog/1.png",
        "cat/notes.txt",
        "cat/.hidden.png",
        "cat/Thumbs.db",
        "dog/desktop.ini",
        "__MACOSX/cat/._1.png",
        ".git/x.png",
        "README.md",
        "cat/__MACOSX/2.png",
    ):
        touch(tmp_path / name)
    listing = list_folder(str(tmp_path))
    assert listing.classes == ("cat", "dog")
    assert names(listing) == ["cat/1.png", "dog/1.png"]
    assert listing.warnings == (
        "Ignored 8 entries that are not images by their names: 6 hidden or left by a system (.git), 1 .md (README.md) "
        "and 1 .txt (cat/notes.txt).",
    )


def test_one_ignored_file_and_one_loose_image(tmp_path: Path) -> None:
    for name in ("cat/1.png", "dog/1.png", "dog/2.psd", "loose.jpg"):
        touch(tmp_path / name)
    assert list_folder(str(tmp_path)).warnings == (
        "Ignored 1 entry that is not an image by its name: dog/2.psd.",
        "Ignored 1 image that lies in no class folder: loose.jpg.",
    )


@pytest.mark.parametrize("val", ["val", "valid", "Validation"])
def test_a_folder_that_brings_its_split(val: str, tmp_path: Path) -> None:
    fill_folder(tmp_path, {f"{part}/{name}": 1 for part in ("Train", val, "TEST") for name in ("dog", "cat")})
    listing = list_folder(str(tmp_path))
    assert listing.classes == ("cat", "dog")
    assert [(example.part, example.label) for example in listing.examples] == [
        (part, label) for part in ("train", "val", "test") for label in (0, 1)
    ]
    assert listing.parts == ("train", "val", "test")
    assert names(listing)[2] == f"{val}/cat/000.png"


def test_train_and_test_without_validation(tmp_path: Path) -> None:
    fill_folder(tmp_path, {"train/cat": 2, "train/dog": 2, "test/cat": 1, "test/dog": 1})
    listing = list_folder(str(tmp_path))
    assert [example.part for example in listing.examples] == ["train"] * 4 + ["test"] * 2
    assert listing.parts == ("train", "test")


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    fill_folder(tmp_path, {"train": 1, "bus": 1, "tram": 1})
    assert list_folder(str(tmp_path)).classes == ("bus", "train", "tram")


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (("train", "val"), "has train/, val/ but no test/."),
        (("test",), "has test/ but no train/."),
        (("train", "test", "more"), "has train/, test/ and also more/."),
        (("train", "val", "bus"), "has train/, val/ and also bus/."),
        (("train", "val", "valid", "test"), "two of them mean the same part"),
    ],
)
def test_half_a_split_is_refused(folders: tuple[str, ...], said: str, tmp_path: Path) -> None:
    fill_folder(tmp_path, {f"{part}/{name}": 1 for part in folders for name in ("dog", "cat")})
    assert said in refusal(tmp_path)


def test_parts_with_other_classes_are_refused(tmp_path: Path) -> None:
    fill_folder(tmp_path, {"train/cat": 1, "train/owl": 1, "test/cat": 1, "test/emu": 1})
    assert refusal(tmp_path).splitlines() == [
        'test/ has no folder for class "owl", which train/ has.',
        'test/ has a folder for class "emu", which train/ has not.',
    ]


def test_no_such_folder_suggests_what_is_near(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    said = refusal(tmp_path / "photo")
    assert said.startswith(f"no folder {tmp_path}/photo. Did you mean {tmp_path}/photos?\nImages come from a folder")
    known = ("fashion-mini", "torchvision:CIFAR10")
    assert "Did you mean fashion-mini?" in refusal("fashion_mini", known)
    assert "Did you mean torchvision:CIFAR10?" in refusal("cifar10", known)
    assert "Did you mean" not in refusal(tmp_path / "entirely different")


@pytest.mark.parametrize("name", ["", " ", "a\0b", "none/none/none", "~nobody-at-all/x"])
def test_impossible_paths_are_refused(name: str) -> None:
    assert refusal(name).startswith("no folder ")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    touch(tmp_path / "photos.zip")
    assert "photos.zip is a file, not a folder; unpack it" in refusal(tmp_path / "photos.zip")


def test_a_folder_without_images_says_what_was_looked_for(tmp_path: Path) -> None:
    assert "looked for one sub-folder per class with files named *.avif, *.bmp, *.dib" in refusal(tmp_path)
    touch(tmp_path / "cat" / "1.psd")
    touch(tmp_path / "2.png")
    lines = refusal(tmp_path).splitlines()
    assert lines[0].startswith(f"no images in {tmp_path}: looked in its 1 sub-folder with files named *.avif")
    assert lines[1:] == [
        "Ignored 1 entry that is not an image by its name: cat/1.psd.",
        "Ignored 1 image that lies in no class folder: 2.png.",
    ]


def test_one_class_is_refused_and_a_folder_too_high_is_noticed(tmp_path: Path) -> None:
    fill_folder(tmp_path, {"photos/cat": 1, "photos/dog": 1})
    assert refusal(tmp_path).splitlines() == [
        f'{tmp_path} has 1 class, "photos"; at least two are needed.',
        f"It holds cat/, dog/: did you mean {tmp_path}/photos?",
    ]


def test_links_inside_are_followed_once_and_links_outside_are_problems(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    fill_folder(root, {"cat": 1, "cat/more": 1, "dog": 1})
    fill_folder(outside, {".": 1})
    (root / "cat" / "same.png").symlink_to(root / "dog" / "000.png")
    (root / "cat" / "dogs").symlink_to(root / "dog")
    (root / "cat" / "dogs again").symlink_to(root / "dog")
    (root / "cat" / "loop").symlink_to(root)
    (root / "cat" / "more" / "self").symlink_to(root / "cat" / "more")
    (root / "cat" / "away.png").symlink_to(outside / "000.png")
    (root / "cat" / "away").symlink_to(outside)
    (root / "cat" / "dangling.png").symlink_to("nothing.png")
    (root / "cat" / "round.png").symlink_to("round.png")
    (root / "cat" / "away.txt").symlink_to("/etc/passwd")
    listing = list_folder(str(root))
    assert names(listing) == ["cat/000.png", "cat/dogs/000.png", "cat/more/000.png", "cat/same.png", "dog/000.png"]
    assert sorted(listing.problems) == [
        ("cat/away", f"is linked to {outside}, outside the data"),
        ("cat/away.png", f"is linked to {outside}/000.png, outside the data"),
        ("cat/dangling.png", "is a link to nothing"),
        ("cat/round.png", "is a link to nothing"),
    ]
    assert listing.warnings[0].startswith("Ignored 4 entries")


def test_many_links_to_each_other_do_not_multiply(tmp_path: Path) -> None:
    fill_folder(tmp_path, {f"cat/{number}": 1 for number in range(12)} | {"dog": 1})
    for one in range(12):
        for other in range(12):
            (tmp_path / "cat" / str(one) / f"to{other}").symlink_to(tmp_path / "cat" / str(other))
    assert len(list_folder(str(tmp_path)).examples) == 13


def test_a_class_folder_that_leads_outside_is_refused_by_name(tmp_path: Path) -> None:
    fill_folder(tmp_path, {"root/dog": 1, "root/emu": 1, "outside": 1})
    (tmp_path / "root" / "cat").symlink_to(tmp_path / "outside")
    assert f"root/cat is linked to {tmp_path}/outside, outside the data.\nIf it belongs" in refusal(tmp_path / "root")


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    fill_folder(tmp_path, {"root/cat": 1, "root/dog": 1})
    (tmp_path / "link").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "cat" / "x.png").symlink_to(tmp_path / "link" / "dog" / "000.png")
    listing = list_folder(str(tmp_path / "link"))
    assert len(listing.examples) == 3
    assert listing.problems == ()


def test_names_may_be_anything(tmp_path: Path) -> None:
    odd = ["日本語", "<b>&amp;", 'quo"te', "new\nline", " ", "\x1b[31mred"]
    for name in odd:
        fill_folder(tmp_path, {name: 1})
    os.mkdir(os.fsencode(tmp_path) + b"/\xff\xfe")
    picture(1).save(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe/\xe9.png"), "PNG")
    listing = list_folder(str(tmp_path))
    assert set(listing.classes) == {*odd, "\\xff\\xfe"}
    assert "\\xff\\xfe/\\xe9.png" in names(listing)
    assert all(name.encode() for name in names(listing))
    assert listing.shown("new\nline/\x1b[31m.png").isprintable()


def test_an_unreadable_folder_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_folder(tmp_path, {"cat": 1, "cat/locked": 1, "dog": 1})
    scandir = os.scandir

    def guarded(path: str) -> Any:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    assert list_folder(str(tmp_path)).problems == (("cat/locked", "cannot be opened (Permission denied)"),)


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_folder(tmp_path / "photos", {"cat": 1, "dog": 1})
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(list_folder("~/photos").examples) == 2


def test_links_out_of_the_folder_are_followed_if_the_sweep_says_so(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    fill_folder(root, {"dog": 1})
    fill_folder(outside, {"emus": 2, "more": 1})
    (root / "emu").symlink_to(outside / "emus")
    (root / "dog" / "more").symlink_to(outside / "more")
    (root / "dog" / "x.png").symlink_to(outside / "emus" / "000.png")
    (outside / "more" / "back").symlink_to(root)
    (outside / "emus" / "back").symlink_to(root)
    listing = list_folder(str(root), follow_links=True)
    assert names(listing) == ["dog/000.png", "dog/more/000.png", "dog/x.png", "emu/000.png", "emu/001.png"]
    assert listing.problems == ()


def test_a_class_folder_may_be_a_link_inside(tmp_path: Path) -> None:
    fill_folder(tmp_path, {".store/cat": 2, "dog": 1})
    (tmp_path / "cat").symlink_to(tmp_path / ".store" / "cat")
    assert names(list_folder(str(tmp_path))) == ["cat/000.png", "cat/001.png", "dog/000.png"]


def test_class_names_that_look_alike_are_noted(tmp_path: Path) -> None:
    fill_folder(tmp_path, {"caf\u00e9": 1, "cafe\u0301": 1, "Cat": 1, "cat": 1, "dog": 1})
    assert list_folder(str(tmp_path)).warnings == (
        'Classes whose names look alike: "Cat" and "cat"; "cafe\\u0301" and "caf\\xe9".',
    )


def test_classes_of_two_parts_that_look_alike_are_told_apart(tmp_path: Path) -> None:
    fill_folder(tmp_path, {"train/caf\u00e9": 1, "train/dog": 1, "test/cafe\u0301": 1, "test/dog": 1})
    assert refusal(tmp_path).splitlines() == [
        'test/ has no folder for class "caf\\xe9", which train/ has.',
        'test/ has a folder for class "cafe\\u0301", which train/ has not.',
    ]


def test_ignored_entries_are_counted_by_extension(tmp_path: Path) -> None:
    fill_folder(tmp_path, {"cat": 1, "dog": 1})
    for number in range(7):
        touch(tmp_path / "cat" / f"x.{number}")
        touch(tmp_path / "dog" / f"{number}.PSD")
    (said,) = list_folder(str(tmp_path)).warnings
    assert said == (
        "Ignored 14 entries that are not images by their names: 7 .psd (dog/0.PSD), 1 .0 (cat/x.0), 1 .1 (cat/x.1), "
        "1 .2 (cat/x.2), 1 .3 (cat/x.3) and 3 more."
    )


@pytest.mark.parametrize(
    ("separator", "path", "folder", "lies"),
    [
        ("/", "/a/b", "/a", True),
        ("/", "/a", "/a", True),
        ("/", "/ab", "/a", False),
        ("/", "/a", "/", True),
        ("/", "/a", folders.ANYWHERE, True),
        ("\\", "D:\\a\\b", "D:\\a", True),
        ("\\", "D:\\ab", "D:\\a", False),
        ("\\", "D:\\a", "D:\\", True),
        ("\\", "D:\\a", folders.ANYWHERE, True),
    ],
)
def test_what_lies_in_a_folder(
    separator: str, path: str, folder: str, lies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sep", separator)
    assert folders.lies_in(path, folder) is lies
