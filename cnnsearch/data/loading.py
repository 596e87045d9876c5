"""Load the data sets that a DataSpec asks for: list, split, hash, decode what is not cached yet, check."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnnsearch.data import inspection
from cnnsearch.data.alike import SIDE
from cnnsearch.data.dataset import SPLITS, Dataset, contradictions, fingerprint, imbalance, leakage, leakage_between
from cnnsearch.data.examples import Content, FileContent, InnerContent, Listing
from cnnsearch.data.folders import FOLLOW, OUTSIDE
from cnnsearch.data.folds import Folds
from cnnsearch.data.greys import few_levels
from cnnsearch.data.images import FULL, USUAL, Interpolation, Reading
from cnnsearch.data.index import Index
from cnnsearch.data.inspection import Inspection
from cnnsearch.data.looks import Looks
from cnnsearch.data.packs import Draft, Packs, decode_all, hash_all
from cnnsearch.data.sources import identity, list_source
from cnnsearch.data.splits import assign, suited
from cnnsearch.errors import DataError
from cnnsearch.spec.data import AutoSplit, ChosenJpeg, ChosenSplit, DataSpec, FillSplit, FoldsSplit
from cnnsearch.storage.cache import cache_root
from cnnsearch.words import LISTED, decoded, plural, printable, shortened

Rows = NDArray[np.int64]


@contextlib.contextmanager
def _collecting_seldom() -> Iterator[None]:
    """Look for unreachable cycles less often: with 100,000 images, that takes a third of the time of a second call."""
    before = gc.get_threshold()
    gc.set_threshold(*(max(at_least, usual) for at_least, usual in zip((100_000, 20, 100), before, strict=True)))
    try:
        yield
    finally:
        gc.set_threshold(*before)


@_collecting_seldom()
def load(
    data: DataSpec,
    image_sizes: Sequence[int],
    *,
    interpolation: Interpolation = "bilinear",
    threads: int = 1,
    cache: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    before: DataSpec | None = None,
    on_check: Callable[[int, int], None] | None = None,
    everything: bool = False,
) -> dict[int, Dataset]:
    """Load the images that a spec asks for, decoded and resized to each of several sizes.

    The first call decodes every image once; later ones, with unchanged files, decode nothing and read no image file.
    `data.image_size` is ignored: `image_sizes` says which sizes are wanted.

    Args:
        data: source, split, and what to do with unreadable images.
        image_sizes: sides of the square images, pixels; may repeat.
        interpolation: how images are resized.
        threads: images read and decoded at a time, at most 16. The result does not depend on it.
        cache: folder for derived files; `cache_root()` by default.
        on_progress: called with (images decoded, images in all) after each image that had to be decoded.
        before: what earlier runs chose for these images, for what the spec leaves open; None: nothing was chosen yet.
        on_check: if given, the images are looked at as well (`Dataset.looks`), unless they were before; called with
            (images looked at, images in all). More than `inspection.MOST` are not, unless `everything` is wanted.
        everything: take in also images that no split uses, and images that cannot be split, which all train then.

    Returns:
        Size -> data set. All have the same rows, split, fingerprint and warnings. Images that the split does not use
        are left out, unless `everything` is wanted.

    Raises:
        DataError: there is no such source, images cannot be read, or there are too few for the split.
    """
    folder = (cache if cache is not None else cache_root()).absolute()
    group = data.split.group if isinstance(data.split, FoldsSplit) else None
    listing = list_source(data.source, folder, layout=data.layout, follow_links=data.follow_links, group=group)
    reading = reading_of(data, chosen_jpeg(data, before, len(listing.examples)))
    index = Index.of_source(folder / "index", identity(data.source))
    packs = Packs(folder / "images", interpolation, reading)
    looking = Inspection(folder / "looks", threads, on_check) if on_check else None
    split_before = None if before is None or isinstance(before.split, AutoSplit) else before.split
    sizes = sorted(set(image_sizes))
    state = _State(listing, listing.labels(), index, packs, sizes, threads, reading, split_before, looking, everything)
    try:
        state.settle(data, on_progress)
        if data.on_bad_image == "refuse" and state.reasons():
            raise DataError(_refusal(state.reasons(), len(listing.examples) + len(listing.problems)))
        return state.datasets(data)
    finally:
        stored = (example.content for example in listing.examples)
        index.save(content.key for content in stored if isinstance(content, FileContent | InnerContent))


def chosen_jpeg(data: DataSpec, before: DataSpec | None, images: int) -> ChosenJpeg:
    """What `data.jpeg` means for so many images: what earlier runs chose, if there were any."""
    if data.jpeg != "auto":
        return data.jpeg
    if before is not None:  # versions that had no choice wrote none down
        return "exact" if before.jpeg == "auto" else before.jpeg
    return "scaled" if images > inspection.MOST else "exact"


def reading_of(data: DataSpec, jpeg: ChosenJpeg | None = None) -> Reading:
    """How image files become pixels.

    Args:
        data: what the sweep says.
        jpeg: what its `jpeg` means, if it leaves that open.
    """
    greys = FULL if data.grey_range == "full" else data.grey_range
    return Reading(greys, (jpeg or data.jpeg) == "scaled")


@dataclass
class _State:
    """What is known about a list of images while the unusable ones among them are being found."""

    listing: Listing
    labels: Rows
    """[N] label of each example."""
    index: Index
    packs: Packs
    sizes: list[int]
    threads: int
    reading: Reading = USUAL
    split_before: ChosenSplit | None = None
    inspection: Inspection | None = None
    everything: bool = False
    chosen: ChosenSplit = field(default_factory=FillSplit)
    """How the images are split."""
    bad: dict[int, str] = field(default_factory=dict)
    """Row -> why it cannot be used."""
    digests: dict[int, str] = field(default_factory=dict)
    """Row -> SHA-256 of its contents, for rows that were in some split."""
    indices: dict[str, Rows] = field(default_factory=dict)
    """Split -> its rows, bad ones left out."""
    cannot_split: str = ""
    """Why the images cannot be split, where they are taken in all the same."""

    def settle(self, data: DataSpec, on_progress: Callable[[int, int], None] | None) -> None:
        """Split, hash and decode; repeat without the images that turned out bad until none does."""
        earlier: Draft | None = None
        draft: Draft | None = None
        try:
            while True:
                self.indices = self._split(data)
                rows = self.used()
                contents = [self.listing.examples[row].content for row in rows]
                # Hashing tells whether these images have been decoded. Where they cannot have been, it can wait.
                is_new = self._are_new(contents)
                if not is_new and self._hash(rows):
                    continue
                digests = [self.digests.get(row) for row in rows]
                missing = self._new_sizes(len(rows)) if is_new else self._missing([self.digests[row] for row in rows])
                if not missing:
                    return
                draft = self.packs.draft(digests, missing)
                failed = decode_all(contents, draft, self.index, self.threads, earlier, on_progress)
                found = zip(rows, draft.digests, strict=True)
                self.digests.update((row, digest) for row, digest in found if digest is not None)
                if not failed:
                    self.packs.keep(draft)
                    return
                self.bad.update((rows[place], str(error)) for place, error in failed.items())
                if earlier is not None:
                    earlier.discard()
                earlier, draft = draft, None
        finally:
            for unfinished in (earlier, draft):
                if unfinished is not None:
                    unfinished.discard()

    def used(self) -> list[int]:
        """Return the rows that are in some split, ascending."""
        kept = (*SPLITS, "unused") if self.everything else SPLITS
        return sorted(int(row) for split in kept for row in self.indices.get(split, ()))

    def _are_new(self, contents: Sequence[Content]) -> bool:
        """Whether no file of these images was hashed, and no pack here can be of them, wherever they were before."""
        if any(self.packs.may_hold(len(contents), size) for size in self.sizes):
            return False
        return not any(
            not isinstance(content, FileContent | InnerContent) or self.index.knows(content.key) for content in contents
        )

    def _missing(self, digests: Sequence[str]) -> list[int]:
        """Sizes to decode: those asked for, and the one to look at where nobody has yet, unless there are packs."""
        is_known = self.inspection is None or self.inspection.known(digests) is not None
        sizes = self.sizes if is_known else self._new_sizes(len(digests))
        return [size for size in sizes if not self.packs.holds(digests, size)]

    def _new_sizes(self, count: int) -> list[int]:
        """Sizes to decode of so many images that nobody has seen."""
        looks = self.inspection is not None and not self._are_too_many(count)
        return sorted({*self.sizes, SIDE}) if looks else self.sizes

    def _are_too_many(self, count: int) -> bool:
        return not self.everything and count > inspection.MOST

    def _looks(self, rows: Sequence[int], digests: Sequence[str]) -> Looks | None:
        if self.inspection is None or (known := self.inspection.known(digests)) is not None:
            return None if self.inspection is None else known
        if self._are_too_many(len(digests)):
            return None
        images = np.load(self.packs.path(digests, SIDE), mmap_mode="r")
        return self.inspection.look([self.listing.examples[row].content for row in rows], digests, images)

    def reasons(self) -> list[str]:
        """Return one phrase, name and reason, for each image that cannot be used."""
        bad = [(self.listing.examples[row].name, reason) for row, reason in sorted(self.bad.items())]
        return [f"{self.listing.shown(name)} {reason}" for name, reason in (*self.listing.problems, *bad)]

    def datasets(self, data: DataSpec) -> dict[int, Dataset]:
        """Return the result of `load`; call `settle` first."""
        rows = self.used()
        names = tuple(self.listing.examples[row].name for row in rows)
        labels, digests = self.labels[rows], [self.digests[row] for row in rows]
        indices = {split: np.searchsorted(rows, self.indices[split]).astype(np.int64) for split in SPLITS}
        classes = self.listing.classes
        looks = self._looks(rows, digests)
        folds = self._folds(indices["train"], rows)
        warnings = (
            *([self.cannot_split] if self.cannot_split else []),
            *_skipped(self.reasons()),
            *self.listing.warnings,
            *self._unused(data),
            *imbalance(labels, {split: found for split, found in indices.items() if len(found)}, classes),
            *(leakage_between(names, digests, folds, indices["test"]) if folds else leakage(names, digests, indices)),
            *contradictions(names, labels, digests, classes),
            *few_levels([self.listing.examples[row] for row in rows], digests, self.index, self.reading.grey_range),
        )
        mark = fingerprint(classes, labels, digests, indices, read_as=self.reading.mark)
        if folds is not None:
            folds = replace(folds, whole=mark)
            train, val = folds.parts(0)
            indices = {**indices, "train": train, "val": val}
        return {
            size: Dataset(
                source=decoded(data.source),
                image_size=size,
                classes=classes,
                names=names,
                labels=labels,
                indices=indices,
                images_path=self.packs.path(digests, size),
                fingerprint=mark,
                warnings=warnings,
                parts=self.listing.parts,
                split=self.chosen,
                jpeg="scaled" if self.reading.scales_jpeg else "exact",
                looks=looks,
                folds=folds,
            )
            for size in self.sizes
        }

    def _folds(self, dealt: Rows, rows: Sequence[int]) -> Folds | None:
        """Deal the images into folds where they are split so; `dealt` are places among the rows that are used."""
        if not isinstance(self.chosen, FoldsSplit) or self.cannot_split:
            return None
        used = np.asarray(rows, np.int64)[dealt]
        groups = self.listing.groups(range(len(self.labels)))
        folds = Folds(
            self.chosen,
            self.listing.classes,
            dealt,
            self.labels[used],
            None if groups is None else np.unique(groups[used], return_inverse=True)[1].astype(np.int64),
        )
        for repeat in range(self.chosen.repeats):
            folds.dealt(repeat)  # where some class has too few, now is the time to say so
        return folds

    def _split(self, data: DataSpec) -> dict[str, Rows]:
        """Split the examples that are not bad."""
        good = np.array([row for row in range(len(self.labels)) if row not in self.bad], np.int64)
        parts = [self.listing.examples[row].part for row in good]
        pooled = (None, "train", "val") if isinstance(data.split, FoldsSplit) else (None, "train")
        free = [row for row, part in zip(good, parts, strict=True) if part in pooled]
        sizes = np.bincount(self.labels[free], minlength=len(self.listing.classes)).tolist()
        groups = self.listing.groups(good)
        before = self.split_before
        self.chosen = suited(data.split, self.listing.parts, sizes, before, grouped=groups is not None)
        try:
            split = assign(self.listing.parts, parts, self.labels[good], self.listing.classes, self.chosen, groups)
        except DataError as error:
            if self.everything:
                self.cannot_split = str(error)
                return {"train": good, "val": good[:0], "test": good[:0]}
            reasons = self.reasons()
            if not reasons:
                raise DataError("\n".join([str(error), *self.listing.warnings])) from None
            if data.on_bad_image == "refuse":
                raise DataError(_refusal(reasons, len(self.labels) + len(self.listing.problems))) from None
            raise DataError("\n".join([str(error), *_skipped(reasons)])) from None
        return {part: good[rows] for part, rows in split.items()}

    def _hash(self, rows: Sequence[int]) -> bool:
        """Hash the rows that are not hashed yet; return whether any turned out bad."""
        new = [row for row in rows if row not in self.digests]
        results = hash_all([self.listing.examples[row].content for row in new], self.index, self.threads)
        bad = {row: str(result) for row, result in zip(new, results, strict=True) if not isinstance(result, str)}
        self.digests.update((row, result) for row, result in zip(new, results, strict=True) if isinstance(result, str))
        self.bad.update(bad)
        return bool(bad)

    def _unused(self, data: DataSpec) -> tuple[str, ...]:
        """Return warnings about images and settings that were given but are not used."""
        if isinstance(self.chosen, FoldsSplit):
            return ()
        if "val" in self.listing.parts:
            if isinstance(data.split, AutoSplit) or data.split == FillSplit():
                return ()
            return (
                f"data.split is not used: {printable(decoded(data.source))} has its own train, val and test parts.",
            )
        unused = len(self.indices.get("unused", ()))
        if not unused:
            return ()
        verb = "is" if unused == 1 else "are"
        return (f"{plural(unused, 'training image')} {verb} not used: data.split asks for fewer than there are.",)


def _refusal(reasons: Sequence[str], total: int) -> str:
    many = len(reasons) > 1
    lines = shortened([f"{reason}." for reason in reasons], "image")
    if many:
        lines.insert(0, f"{len(reasons):,} of {total:,} images cannot be used:")
    linked = sum(reason.endswith(OUTSIDE) for reason in reasons)
    if linked:
        lines.append(FOLLOW)
    if linked < len(reasons):
        them = "them" if many else "it"
        lines.append(f"Remove {them}, or skip unreadable images with --set data.on_bad_image=skip")
    return "\n".join(lines)


def _skipped(reasons: Sequence[str]) -> tuple[str, ...]:
    if not reasons:
        return ()
    more = f"; and {len(reasons) - LISTED:,} more" if len(reasons) > LISTED else ""
    return (f"Skipped {plural(len(reasons), 'unreadable image')}: {'; '.join(reasons[:LISTED])}{more}.",)
