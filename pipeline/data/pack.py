"""Packs a source into one HDF5 file, in a bounded amount of memory."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Literal

import h5py

from pipeline import own_code
from pipeline.data.decoding import Decoding
from pipeline.data.origin import ORIGIN_ATTRIBUTE, Origin
from pipeline.data.source import DataSource, SourceOptions
from pipeline.data.split_writer import ITEM_NOTE, ImageLayout, SplitWriter, WrongLayoutError
from pipeline.data.treatment import Shape, Shrink, Treatment
from pipeline.errors import DataError, during
from pipeline.files import sync_directory
from pipeline.progress import Progress


@dataclass(frozen=True)
class PackReport:
    """Describes what was packed.

    Args:
        path: the file.
        counts: samples per split.
        class_names: in the order of the labels.
        image_shape: (H, W, C), or None where sizes differ.
        source: the source's description.
        unreadable: `split/id: reason` of every image that was skipped.
        hashes: of every split, 16 bytes for each sample, the same where the pixels are.
        treated: how many images had what done to them, in a few words each: `orientation followed`, `transparency on
            white`.
    """

    path: Path
    counts: Mapping[str, int]
    class_names: tuple[str, ...]
    image_shape: Shape | None
    source: str
    unreadable: tuple[str, ...]
    hashes: Mapping[str, bytes]
    treated: Mapping[str, int] = field(default_factory=dict)


def pack(
    source: DataSource,
    path: Path,
    progress: Progress,
    unreadable: Literal["refuse", "skip"] = "refuse",
    options: SourceOptions | None = None,
    decoding: Decoding | None = None,
    shrink: Shrink | None = None,
) -> PackReport:
    """Write the packed data set `path`, all at once: until it is complete, what was there stays.

    Images of one size become an array uint8 [N, H, W, C] (C is 3 as soon as one image has colours); where sizes differ,
    JPEG and PNG files are stored as they are, HEIC and AVIF as JPEG, others as PNG. Every image is decoded, by the
    rules of `decoding` (by default its own), to check it; if they change pixels of a split, the file records them.

    Args:
        progress: counts images.
        shrink: reduces images for `store: raw`, by which pixels are stored where sizes differ, and no files.

    Images with a larger shorter side than `options.shorter_side` are reduced to it. A few megabytes of images are held
    at a time, for `store: raw` what so many bytes of files are decoded to, and the ids and labels of a split. The file
    remembers the `options` that the source was opened with.

    Raises DataError with the list of all unreadable images (`unreadable="skip"` reports them instead), and
    for labels out of range, labels for some samples only, ids that occur twice, empty splits, a target that
    cannot be written, or another process that is packing it.
    """
    path = Path(path)
    try:
        with _reserved(path) as (partial, handle):
            treatment = _treatment(options, decoding, shrink)
            with during(lambda: f"source {options.name if options else type(source).__name__}"):
                report = _write(source, path, partial, progress, options, treatment, skip=unreadable == "skip")
            os.fsync(handle.fileno())
            partial.replace(path)
            sync_directory(path.parent)
    except (OSError, RuntimeError) as error:
        read = any(note.startswith(ITEM_NOTE) for note in getattr(error, "__notes__", ()))
        if read and own_code.place_in_code_of_users(error):
            raise  # of a source of the user's own, as it was read
        if isinstance(error, RuntimeError) and "errno" not in str(error):
            raise  # h5py raises RuntimeError for what the system refused while a file is closed
        fix = "choose another data.path, or make room there"
        code = getattr(error, "errno", None)
        got = os.strerror(code) if code else str(error)
        raise DataError("the packed data set cannot be written", where=path, got=got, fix=fix) from None
    return report


def _treatment(options: SourceOptions | None, decoding: Decoding | None, shrink: Shrink | None) -> Treatment:
    """How images are stored that a source with these options gives."""
    if options is None:
        return Treatment(decoding)
    if options.store == "raw" and shrink is None:
        raise ValueError("`store: raw` needs a function that reduces images")
    return Treatment(decoding, options.shorter_side, options.quality, shrink if options.store == "raw" else None)


@contextmanager
def _reserved(path: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """The hidden file beside `path` that becomes it, locked against other processes; gone after an error."""
    if path.is_dir():
        raise DataError("the packed data set cannot be written", where=path, expected="a file", got="a folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.new")
    with partial.open("ab") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = os.path.samestat(os.fstat(handle.fileno()), partial.stat())
        except (BlockingIOError, FileNotFoundError):
            mine = False  # held by another process, or just renamed by one
        if not mine:
            raise DataError("another process is packing this data set", where=path, fix="wait for it to end")
        try:
            yield partial, handle
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def _write(
    source: DataSource,
    path: Path,
    partial: Path,
    progress: Progress,
    options: SourceOptions | None,
    treatment: Treatment,
    *,
    skip: bool,
) -> PackReport:
    """Write `partial`, again if the first images gave a wrong idea of the rest."""
    layout = ImageLayout()
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        while True:
            try:
                with h5py.File(partial, "w", locking=False) as file:
                    file.attrs["class_names"] = json.dumps(list(source.class_names))
                    file.attrs["source"] = source.description
                    writer = SplitWriter(file, source, treatment, layout, pool, progress)
                    counts = {split: writer.write(split) for split in source.splits}
                    if options is not None:
                        file.attrs[ORIGIN_ATTRIBUTE] = Origin(options.identity(), _skipped(writer, counts)).to_text()
                _refuse_unfit(source, counts, writer, skip=skip)
            except WrongLayoutError as wrong:
                layout = wrong.better
                continue
            problems = tuple(f"{split}/{name}: {reason}" for split, name, reason in writer.unreadable)
            shape = writer.layout.shape
            names, how = tuple(source.class_names), source.description
            treated = dict(sorted(writer.notes.items()))
            return PackReport(path, counts, names, shape, how, problems, writer.hashes, treated)


def _refuse_unfit(source: DataSource, counts: Mapping[str, int], writer: SplitWriter, *, skip: bool) -> None:
    """Raises DataError for what may not be published, WrongLayoutError if room was taken for unreadables."""
    problems = writer.unreadable
    if problems and not skip:
        raise DataError(
            f"{len(problems)} of {sum(counts.values()) + len(problems)} images cannot be read",
            where=source.description,
            got="".join(f"\n    {split}/{name}: {reason}" for split, name, reason in problems),
            fix="repair or remove them, or set data.unreadable: skip",
        )
    empty = [split for split, count in counts.items() if count == 0]
    if empty or not counts:
        what = f"split {', '.join(empty)} has no images" if empty else "there are no images"
        raise DataError(what, where=source.description, expected="a readable image in every split")
    skipped = _skipped(writer, counts)
    reserved = {split: writer.layout.skipped.get(split, 0) for split in counts}
    if writer.layout.shape is not None and skipped != reserved:
        raise WrongLayoutError(replace(writer.layout, skipped=skipped))


def _skipped(writer: SplitWriter, splits: Collection[str]) -> dict[str, int]:
    """Unreadable images per split."""
    return {split: sum(problem[0] == split for problem in writer.unreadable) for split in splits}
