"""Packs a data set into one HDF5 file: the stage `prepare-data`."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext

from pipeline.data import (
    DataSection,
    DataSource,
    FromFiles,
    PackedDataset,
    PackReport,
    SourceOptions,
    open_source,
    pack,
)
from pipeline.data.replacing import refuse_foreign_file
from pipeline.data.same_pixels import repeated_images
from pipeline.data.summary import left_out, notes, split_facts, split_table, summarise_splits, treated
from pipeline.data.treatment import Shrink
from pipeline.errors import DataError, printable
from pipeline.experiment.source import ConfigFile
from pipeline.progress import Lines, waiting_for


class Inputs(DataSection):
    """Declares the sections that this stage reads."""


def run(source: ConfigFile, *, replace: bool, as_json: bool = False) -> None:
    """Pack `data.source` to `data.path`. A file that is there already, packed from the same, is kept.

    Args:
        source: the configuration.
        replace: pack again; a file that was not packed here is never replaced.
        as_json: print facts for programs.
    """
    data = source.read(Inputs).data
    if data.path.exists() and not replace:
        dataset = PackedDataset.of(data)
        now = refuse_changed(dataset, data.source) if data.source is not None else None
        unknown = dataset.origin is None and data.source is not None
        kept = ", and kept: the file does not say what it was packed from" if unknown else ""
        _print(dataset, now, None, as_json, f"already there{kept}; --replace packs it again")
        return
    if data.source is None:
        fix = "name a source with --set data.source='{name: ...}', or the path of a packed file"
        raise DataError("there is nothing to pack a data set from", where=data.path, fix=fix)
    refuse_foreign_file(data.path)
    opened = open_source(data.source)
    with _reducing(data.source) as shrink:
        report = pack(opened, data.path, Lines(), data.unreadable, data.source, data.decoding, shrink)
    dataset = PackedDataset.of(data)
    _print(dataset, opened, report, as_json)


def _reducing(options: SourceOptions) -> AbstractContextManager[Shrink | None]:
    """What reduces pixels, where they are packed. It takes torch, which takes seconds: most data sets do without."""
    if options.store != "raw":
        return nullcontext()
    waiting_for("torch")
    from pipeline.views.shrinking import shrinking

    return shrinking()


def refuse_changed(dataset: PackedDataset, options: SourceOptions) -> DataSource | None:
    """Raise DataError if a file or folder of this machine holds more or fewer images than when it was packed.

    Args:
        dataset: the packed file.
        options: of its source.

    Only numbers are compared: to read the images would take as long as to pack them. Returns the source; None if it is
    not on this machine, or if the file does not record what it was packed from.
    """
    if dataset.origin is None or options.local is None or not options.local.expanduser().exists():
        return None
    source = open_source(options)
    now = {split: source.count(split) for split in source.splits}
    then = {split: dataset.split(split).count + dataset.origin.skipped.get(split, 0) for split in dataset.splits}
    lines = [
        f"\n  - {split}: {now.get(split, 0):,} images, {then.get(split, 0):,} when it was packed"
        for split in {**then, **now}
        if now.get(split) != then.get(split)
    ]
    if lines:
        raise DataError(
            "the source has changed since it was packed" + "".join(lines),
            where=options.local,
            fix="pack it again with --replace, or set data.source: null to go on with the packed file",
        )
    return source


def _print(
    dataset: PackedDataset, source: DataSource | None, report: PackReport | None, as_json: bool, remark: str = ""
) -> None:
    """Print what a packed data set holds, what was left out of it, and what may surprise."""
    reading = source.reading if isinstance(source, FromFiles) else None
    repeated = repeated_images(dataset, report.hashes) if report else None
    skipped, counts = (report.unreadable, report.treated) if report else ((), {})
    if as_json:
        facts = {"treated": dict(counts), "skipped": skipped, "remark": remark}
        print(json.dumps({**split_facts(dataset, reading, repeated), **facts}, indent=2))
        return
    origin = printable(dataset.source) or "an unnamed source"
    print(f"{dataset.path}: {len(dataset.class_names)} classes from {origin}")
    summaries = summarise_splits(dataset)
    lines = [*split_table(summaries)]
    if reading is not None:
        out = left_out(reading)
        lines += [*([f"left out: {out}"] if out else []), *reading.notes]
    lines += [treated(counts)] if counts else []
    lines += [*notes(summaries, repeated or ()), *(f"skipped {line}" for line in skipped)]
    for line in [*lines, *([remark] if remark else [])]:
        print(f"  {printable(line)}")
