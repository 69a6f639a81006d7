"""prepare-data: packs a data set into one HDF5 file."""

from __future__ import annotations

from pipeline.config import Section
from pipeline.data import DataConfig, PackedDataset, open_source, pack
from pipeline.errors import DataError
from pipeline.progress import Lines
from stages.inputs import Source


class Inputs(Section):
    """What this stage reads."""

    data: DataConfig


def run(source: Source, *, replace: bool) -> None:
    """Pack `data.source` to `data.path`; a file that is already there is checked and kept unless `replace`."""
    data = source.read(Inputs).data
    if data.path.exists() and not replace:
        describe(PackedDataset.open(data.path))
        print("  already there; --replace packs it again")
        return
    if data.source is None:
        raise DataError(
            "there is no packed data set, and nothing to pack one from",
            where=data.path,
            fix="name a source with --set data.source='{name: ...}', or the path of a packed file",
        )
    report = pack(open_source(data.source), data.path, Lines(), data.unreadable)
    describe(PackedDataset.open(data.path))
    for line in report.unreadable:
        print(f"  skipped {line}")


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
