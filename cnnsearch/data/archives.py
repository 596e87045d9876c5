"""WebDataset shards: .tar files with key.jpg, or another image, and key.cls or key.json, which says its label.

Nothing is unpacked: headers and labels are read once, an image where it lies. What an archive could do to a machine
that unpacks it is refused by name all the same, because somebody made it to do that.
"""

from __future__ import annotations

import functools
import os
import posixpath
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from cnnsearch.data.examples import InnerContent
from cnnsearch.data.folders import is_image_name
from cnnsearch.data.images import BadImageError
from cnnsearch.data.index import MAX_FILE_BYTES, UnreadableError
from cnnsearch.data.parts import is_litter
from cnnsearch.data.rows import Rows, splits_of
from cnnsearch.errors import DataError
from cnnsearch.storage.contents import HEAD, kind_of
from cnnsearch.storage.reading import opened, parsed
from cnnsearch.words import decoded, plural, printable

_LABEL_BYTES = 1 << 20
"""Most bytes of a file that says a label."""
_LABEL_KEYS = ("label", "cls", "class")
"""Keys of a JSON file that may say the label; the first that is there does."""
_DEVICES = (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)


def archive_rows(source: str, files: Sequence[Path], *, base: str, labelled: bool = True) -> Rows:
    """Read what .tar files say of the images in them.

    The images of a class are in the order of their names by Unicode code point: an archive of a folder per class, with
    a label beside each image, is the same data as the folder.

    Args:
        source: what the user asked for.
        files: the archives. The names of several may say which splits they hold.
        base: the folder of the files, as messages show it.
        labelled: whether a label is needed.

    Raises:
        DataError: a file cannot be read, or holds what no archive of images should.
    """
    found = [(file, *_samples(file, labelled=labelled)) for file in files]
    samples = [(file, sample) for file, some, _ in found for sample in some]
    parts, splits = splits_of(files), [sample.split for _, sample in samples]
    if not any(splits) and parts is not None:
        splits = [part for part, (_, some, _) in zip(parts, found, strict=True) for _ in some]
    whole = {file: str(file) for file in files}
    names = [f"{decoded(file.name)}/{decoded(sample.image or sample.key)}" for file, sample in samples]
    ignored = [f"{decoded(file.name)}/{decoded(name)}" for file, _, names_of_file in found for name in names_of_file]

    def content(row: int) -> InnerContent:
        file, sample = samples[row]
        fetch = functools.partial(_fetch, whole[file], sample.start, sample.size)
        return InnerContent(whole[file], sample.start, fetch, sample.size)

    return Rows(
        source=source,
        base=base,
        names=names,
        order=[sample.image for _, sample in samples],
        labels=[sample.label for _, sample in samples],
        splits=splits if any(splits) else None,
        groups=[sample.group for _, sample in samples],
        where=names.__getitem__,
        content=content,
        problems={row: sample.problem for row, (_, sample) in enumerate(samples) if sample.problem},
        warnings=_ignored(ignored),
    )


@dataclass
class _Sample:
    """The members of an archive that have the same name before the first dot."""

    key: str
    image: str = ""
    """Name of the image; "" if there is none."""
    start: int = 0
    size: int = 0
    labels: dict[str, bytes] = field(default_factory=dict)
    """cls or json -> what the file holds."""
    label: str = ""
    split: str = ""
    group: str = ""
    problem: str = ""

    def settle(self) -> None:
        """Find out the label, or why there is none."""
        if not self.image:
            self.problem = "is a label without an image"
        elif not self.labels:
            self.problem = f"has no label: there is no {decoded(self.key)}.cls or {decoded(self.key)}.json"
        try:
            facts = self._facts()
            if "cls" in self.labels:
                self.label = self.labels["cls"].decode("utf-8-sig").strip()
            else:
                self.label = next((_word(facts[key]) for key in _LABEL_KEYS if key in facts), "")
            self.split, self.group = _word(facts.get("split")), _word(facts.get("group"))
        except UnicodeDecodeError:
            self.problem = self.problem or "has a label that is not text in UTF-8"
        except ValueError as error:
            self.problem = self.problem or f"has a label that cannot be read ({error})"
        self.labels = {}

    def _facts(self) -> dict[str, Any]:
        """What the JSON file says. Raises ValueError."""
        facts = parsed(self.labels["json"]) if "json" in self.labels else {}
        if not isinstance(facts, dict):
            raise ValueError("it is not an object")
        return facts


def _word(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError("it is neither text nor a whole number")
    return str(value).strip()


def _samples(file: Path, *, labelled: bool) -> tuple[list[_Sample], list[str]]:
    """Return the samples of an archive in their order, and the names of members that are not taken.

    Where no label is needed, what has none is no problem, and what has no image is no sample.
    """
    samples: dict[str, _Sample] = {}
    ignored = []
    try:
        with opened(file, follow=True) as stream:
            _refuse_compressed(file, stream.peek(HEAD))
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                for member in _members(archive):
                    name = member.name.removeprefix("./")
                    _refuse_unsafe(file, member, name)
                    key, _, ending = os.path.basename(name).partition(".")
                    if member.isdir():
                        continue
                    if is_litter(os.path.basename(name)) or not _is_wanted(ending):
                        ignored.append(name)
                        continue
                    key = posixpath.join(posixpath.dirname(name), key)
                    sample = samples.setdefault(key, _Sample(key))
                    if ending.lower() in ("cls", "json"):
                        if ending.lower() in sample.labels:
                            _refuse(file, f"holds {_shown(name)} twice")
                        if member.size > _LABEL_BYTES:
                            _refuse(file, f"holds {_shown(name)}, a label of {member.size:,} bytes")
                        inner = archive.extractfile(member)
                        assert inner is not None  # it is a regular file
                        sample.labels[ending.lower()] = inner.read()
                    elif sample.image:
                        what = "twice" if sample.image == name else f"and {_shown(name)}, two images of one name"
                        _refuse(file, f"holds {_shown(sample.image)} {what}")
                    else:
                        sample.image, sample.start, sample.size = name, member.offset_data, member.size
    except OSError as error:
        _refuse(file, f"cannot be read ({error.strerror or error})")
    except (tarfile.TarError, ValueError, OverflowError) as error:
        _refuse(file, f"is no .tar archive that can be read ({printable(str(error))[:200]})")
    for sample in samples.values():
        sample.settle()
    if labelled:
        return list(samples.values()), ignored
    return [replace(sample, problem="") for sample in samples.values() if sample.image], ignored


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the members without keeping them, which would take a lot of memory for many.

    A size below zero would lead back to an earlier member, for ever.
    """
    while (member := archive.next()) is not None:
        if member.size < 0:
            raise tarfile.ReadError(f"{_shown(member.name)} has a size of {member.size:,} bytes")
        yield member
        archive.members.clear()  # type: ignore[attr-defined]  # not documented, but long relied on by WebDataset


def _is_wanted(ending: str) -> bool:
    """Whether what follows the first dot of a name is an image's or a label's extension: not `seg.png`."""
    return ending.lower() in ("cls", "json") or ("." not in ending and is_image_name(f"x.{ending}"))


def _refuse_unsafe(file: Path, member: tarfile.TarInfo, name: str) -> None:
    """Raise DataError for links, devices and names that lead out of the folder that somebody would unpack to."""
    if member.issym() or member.islnk():
        _refuse(file, f"holds {_shown(name)}, a link to {_shown(member.linkname)}; links in archives are not followed")
    if name.startswith("/") or ".." in name.split("/"):
        _refuse(file, f"holds {_shown(name)}, a name that leads out of the archive")
    if member.type in _DEVICES:
        _refuse(file, f"holds {_shown(name)}, which is a device, not a file")
    if member.issparse():
        _refuse(file, f"holds {_shown(name)}, a sparse file; only whole files are read")


def _refuse_compressed(file: Path, head: bytes) -> None:
    kind = kind_of(head)
    if kind is not None:
        _refuse(file, f"is {kind}, not a plain .tar archive; unpack it once, so that images can be read where they lie")


def _refuse(file: Path, reason: str) -> NoReturn:
    raise DataError(f"{_shown(str(file))} {reason}.")


def _shown(name: str) -> str:
    return printable(decoded(name))


def _fetch(path: str, start: int, size: int) -> bytes:
    """Read the bytes of a member. Raises BadImageError."""
    if size > MAX_FILE_BYTES:
        raise BadImageError(f"has {size:,} bytes; the limit is {MAX_FILE_BYTES:,}")
    try:
        with opened(Path(path), follow=True) as file:
            file.seek(start)
            content = file.read(size)
    except OSError as error:
        raise UnreadableError(f"cannot be read ({error.strerror or error})") from None
    if len(content) < size:
        raise UnreadableError(f"is cut off ({len(content):,} of {size:,} bytes)")
    return content


def _ignored(names: Sequence[str]) -> list[str]:
    if not names:
        return []
    are = "is not an image or a label by its name" if len(names) == 1 else "are not images or labels by their names"
    return [f"Ignored {plural(len(names), 'file')} that {are}, for example {printable(names[0])}."]
