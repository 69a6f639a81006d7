"""prepare-data: packs a data set into one HDF5 file."""

from __future__ import annotations

from pipeline.config import Section
from pipeline.data import DataConfig, PackedDataset, SourceOptions, open_source, pack
from pipeline.errors import DataError
from pipeline.progress import Lines
from stages.inputs import Source


class Inputs(Section):
    """What this stage reads."""

    data: DataConfig


def run(source: Source, *, replace: bool) -> None:
    """Pack `data.source` to `data.path`. A file that is there already, packed from the same, is kept.

    replace: pack again, whatever is there.
    """
    data = source.read(Inputs).data
    if data.path.exists() and not replace:
        dataset = PackedDataset.of(data)
        if data.source is not None:
            refuse_changed(dataset, data.source)
        describe(dataset)
        unknown = dataset.origin is None and data.source is not None
        kept = ", and kept: the file does not say what it was packed from" if unknown else ""
        print(f"  already there{kept}; --replace packs it again")
        return
    if data.source is None:
        fix = "name a source with --set data.source='{name: ...}', or the path of a packed file"
        raise DataError("there is nothing to pack a data set from", where=data.path, fix=fix)
    report = pack(open_source(data.source), data.path, Lines(), data.unreadable, data.source)
    describe(PackedDataset.open(data.path))
    for line in report.unreadable:
        print(f"  skipped {line}")


def refuse_changed(dataset: PackedDataset, options: SourceOptions) -> None:
    """Raise DataError if a file or folder of this machine holds more or fewer images than when it was packed.

    Numbers alone: to look into the images would take as long as to pack them.
    """
    if dataset.origin is None or options.local is None or not options.local.expanduser().exists():
        return
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


def describe(dataset: PackedDataset) -> None:
    """Print what a packed data set holds."""
    print(f"{dataset.path}: {len(dataset.class_names)} classes from {dataset.source or 'an unnamed source'}")
    for name in dataset.splits:
        split = dataset.split(name)
        size = "x".join(map(str, split.image_shape)) if split.image_shape else "encoded, of differing sizes"
        labels = split.labels
        missing = split.count if labels is None else int((labels < 0).sum())
        note = f", {missing:,} of them unlabeled" if 0 < missing < split.count else ", unlabeled" if missing else ""
        print(f"  {name}: {split.count:,} images {size}{note}")
