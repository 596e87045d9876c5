"""WebDataset shards: the same data as the same files in folders, and nothing in them is trusted."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from cnnsearch.data import archives as module
from cnnsearch.data.examples import InnerContent
from cnnsearch.data.images import BadImageError
from cnnsearch.data.sources import list_path
from cnnsearch.data.survey import survey
from tests.data.making import as_members, encoded, fill_folder, picture, settle, write_tar
from tests.data.test_tables import as_listed, read, refused


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return fill_folder(tmp_path / "photos", {"cat": 6, "dog": 7})


@pytest.mark.parametrize(
    "kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT, "json", "folder", "dot"]
)
def test_every_layout_is_the_same_data_as_the_folder(photos: Path, tmp_path: Path, kind: object) -> None:
    members = as_members(photos)
    if kind == "json":
        labels = {name: content for name, content in members.items() if name.endswith(".cls")}
        members = {name: content for name, content in members.items() if name not in labels}
        for name, label in labels.items():
            members[name.replace(".cls", ".json")] = b'{"label": "%s", "width": 12}' % label
    elif kind == "dot":
        members = {f"./{name}": content for name, content in reversed(members.items())}
    if kind == "folder":
        (tmp_path / "shards").mkdir()
        items = list(members.items())
        for at in range(2):
            write_tar(tmp_path / "shards" / f"photos-{at}.tar", dict(items[at * 12 : at * 12 + 12 + at * 2]))
        source = tmp_path / "shards"
    else:
        source = write_tar(tmp_path / "all.tar", members, kind if isinstance(kind, int) else tarfile.PAX_FORMAT)
    data, same = read(source), read(photos)
    assert data.fingerprint == same.fingerprint
    assert data.images_path == same.images_path
    assert data.warnings == same.warnings == ()
    assert data.names[0] == ("photos-0.tar" if kind == "folder" else "all.tar") + "/cat/000.png"


def test_keys_without_folders_and_numbers_as_labels(photos: Path, tmp_path: Path) -> None:
    members = {}
    for row, (name, content) in enumerate(sorted(as_members(photos).items())):
        number = f"{row // 2:06}"
        members[number + Path(name).suffix] = {b"cat": b"3\n", b"dog": b"11"}.get(content, content)
    listing = list_path(str(write_tar(tmp_path / "all.tar", members)))
    assert listing.classes == ("11", "3")
    assert as_listed(listing)[:2] == [("all.tar/000006.png", "11"), ("all.tar/000007.png", "11")]


def test_splits_by_the_names_of_shards_and_by_what_json_says(photos: Path, tmp_path: Path) -> None:
    pictures = [(photos / path).read_bytes() for path, _ in as_listed(list_path(str(photos)))]
    for at, part in enumerate(("train", "val", "test")):
        some = {f"{row}.png": content for row, content in enumerate(pictures[at::3])}
        labels = {f"{row}.cls": b"ab"[row % 2 : row % 2 + 1] for row in range(len(some))}
        write_tar(tmp_path / f"pets-{part}-000.tar", some | labels)
    assert [len(rows) for rows in read(tmp_path / "pets-*.tar").indices.values()] == [5, 4, 4]
    members = {f"{row}.png": content for row, content in enumerate(pictures)}
    for row in range(13):
        said = f'{{"cls": {row % 2}, "split": "{("train", "val", "test")[row % 3]}", "group": {row // 2}}}'
        members[f"{row}.json"] = said.encode()
    data = read(write_tar(tmp_path / "all.tar", members))
    assert [len(rows) for rows in data.indices.values()] == [5, 4, 4]
    assert "6 groups have images in more than one split" in data.warnings[0]


def test_what_lacks_its_other_half_is_named(photos: Path, tmp_path: Path) -> None:
    members = as_members(photos)
    del members["cat/000.cls"], members["dog/001.png"]
    members |= {"cat/003.cls": b"", "cat/004.cls": b"\xff", "cat/001.png": b"", "cat/001.cls": b"cat"}
    del members["dog/002.cls"]
    members["dog/002.json"] = b'{"label": ["dog"]}'
    source = write_tar(tmp_path / "all.tar", members)
    assert list_path(str(source)).problems == (
        ("all.tar/cat/000.png", "has no label: there is no cat/000.cls or cat/000.json"),
        ("all.tar/cat/003.png", "has no label"),
        ("all.tar/cat/004.png", "has a label that is not text in UTF-8"),
        ("all.tar/dog/001", "is a label without an image"),
        ("all.tar/dog/002.png", "has a label that cannot be read (it is neither text nor a whole number)"),
    )
    said = refused(source, split={"method": "fill", "train_per_class": 1, "val_per_class": 1})
    assert "6 of 13 images cannot be used:" in said
    assert f"{tmp_path}/all.tar/cat/000.png has no label: there is no cat/000.cls or cat/000.json." in said


def test_other_files_are_ignored_and_said_to_be(photos: Path, tmp_path: Path) -> None:
    extra = {"cat/000.txt": b"a cat", "cat/._000.png": b"?", "cat/000.seg.png": b"?", "readme": b"?"}
    listing = list_path(str(write_tar(tmp_path / "all.tar", extra | as_members(photos))))
    assert len(listing.examples) == 13
    said = "Ignored 4 files that are not images or labels by their names, for example all.tar/cat/000.txt."
    assert listing.warnings == (said,)


def link(kind: bytes, name: str = "cat/x.png", to: str = "/etc/passwd") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, to
    return member


@pytest.mark.parametrize(
    ("member", "said"),
    [
        (link(tarfile.SYMTYPE), "holds cat/x.png, a link to /etc/passwd; links in archives are not followed."),
        (link(tarfile.LNKTYPE, to="cat/000.png"), "holds cat/x.png, a link to cat/000.png; links in archives"),
        (link(tarfile.REGTYPE, "/etc/x.png"), "holds /etc/x.png, a name that leads out of the archive."),
        (link(tarfile.REGTYPE, "cat/../../x.png"), "holds cat/../../x.png, a name that leads out of the archive."),
        (link(tarfile.DIRTYPE, "../x"), "holds ../x, a name that leads out of the archive."),
        (link(tarfile.FIFOTYPE), "holds cat/x.png, which is a device, not a file."),
        (link(tarfile.CHRTYPE), "holds cat/x.png, which is a device, not a file."),
        (link(tarfile.REGTYPE, "cat/000.png"), "holds cat/000.png twice."),
        (link(tarfile.REGTYPE, "cat/000.jpg"), "holds cat/000.png and cat/000.jpg, two images of one name."),
        (link(tarfile.REGTYPE, "cat/000.cls"), "holds cat/000.cls twice."),
    ],
)
def test_what_no_archive_of_images_should_hold_is_refused(
    photos: Path, tmp_path: Path, member: tarfile.TarInfo, said: str
) -> None:
    source = write_tar(tmp_path / "all.tar", as_members(photos))
    with tarfile.open(source, "a") as archive:
        archive.addfile(member)
    assert f"{tmp_path}/all.tar {said}" in refused(source, follow_links=True, on_bad_image="skip")


def test_sparse_files_and_large_labels_are_refused(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = {"cat/000.cls": b"x" * 100} | as_members(photos)
    monkeypatch.setattr(module, "_LABEL_BYTES", 2)
    assert "holds cat/000.cls, a label of 3 bytes." in refused(write_tar(tmp_path / "all.tar", members))
    sparse = tarfile.TarInfo("cat/x.png")
    sparse.type = tarfile.GNUTYPE_SPARSE
    with tarfile.open(tmp_path / "sparse.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(sparse)
    assert "holds cat/x.png, a sparse file; only whole files are read." in refused(tmp_path / "sparse.tar")


def test_a_size_below_zero_does_not_lead_back_for_ever(photos: Path, tmp_path: Path) -> None:
    evil = tarfile.TarInfo("cat/x.png")
    evil.size = -1024
    header = evil.tobuf(tarfile.GNU_FORMAT)
    source = write_tar(tmp_path / "all.tar", as_members(photos))
    source.write_bytes(header + source.read_bytes())
    said = "all.tar is no .tar archive that can be read (cat/x.png has a size of -1,024 bytes)."
    assert said in refused(source)


def test_archives_that_cannot_be_read(photos: Path, tmp_path: Path) -> None:
    source = write_tar(tmp_path / "all.tar", as_members(photos))
    whole = source.read_bytes()
    for content, said in (
        (gzip.compress(whole), "all.tar is gzip data, not a plain .tar archive; unpack it once"),
        (b"", "all.tar is no .tar archive that can be read (empty file)."),
        (b"?" * 2000, "all.tar is no .tar archive that can be read ("),
        (whole[:700], "all.tar is no .tar archive that can be read (unexpected end of data)."),
        (b"\0" * 10240, "all.tar has no rows: it lists no image."),
    ):
        source.write_bytes(content)
        assert said in refused(source)
    assert f"no file {tmp_path}/none.tar." in refused(tmp_path / "none.tar")


def test_unchanged_archives_are_not_read_again(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_tar(tmp_path / "all.tar", as_members(photos))
    settle()
    first = read(source)
    monkeypatch.setattr(module, "_fetch", lambda path, start, size: pytest.fail(f"{start} was read"))
    assert read(source).fingerprint == first.fingerprint
    changed = as_members(photos) | {"cat/003.png": encoded(picture(999), "PNG")}
    monkeypatch.undo()
    assert read(write_tar(source, changed)).fingerprint != first.fingerprint


def test_an_archive_that_changes_meanwhile_is_no_crash(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_tar(tmp_path / "all.tar", as_members(photos))
    content = list_path(str(source)).examples[-1].content
    assert isinstance(content, InnerContent)
    assert content.length() == len(content.read())
    source.write_bytes(source.read_bytes()[: content.number + 10])
    with pytest.raises(BadImageError, match=r"is cut off \(10 of "):
        content.read()
    source.unlink()
    with pytest.raises(BadImageError, match=r"cannot be read \(No such file"):
        content.read()
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 4)
    with pytest.raises(BadImageError, match="the limit is 4"):
        content.read()


def test_a_survey_of_it(photos: Path, tmp_path: Path) -> None:
    members = as_members(photos)
    members |= {"cat/x.png": members["cat/000.png"], "cat/x.cls": b"cat", "dog/x.png": b"text", "dog/x.cls": b"dog"}
    found = survey(str(write_tar(tmp_path / "all.tar", members)))
    assert (found.sizes, found.side, found.duplicates) == ([7, 8], 12, 1)
    assert found.unreadable == ("all.tar/dog/x.png",)


def test_members_are_not_kept_in_memory(photos: Path, tmp_path: Path) -> None:
    content = write_tar(tmp_path / "all.tar", as_members(photos)).read_bytes()
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        assert [len(archive.getmembers()) for _ in range(1)] == [26]
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        assert [len(archive.members) <= 1 for _ in module._members(archive)] == [True] * 26  # type: ignore[attr-defined]
