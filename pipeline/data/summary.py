"""Describes what a packed data set holds, as facts and as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pipeline.data.packed import PackedDataset
from pipeline.data.same_pixels import Repeated
from pipeline.data.source import Reading

_MOST_NAMES = 10
_ORDER = ("train", "val", "test", "unlabeled")
_HEAD = ("split", "images", "classes", "least of a class", "most of a class", "unlabeled", "size")


class SplitSummary(NamedTuple):
    """Describes one split.

    Args:
        classes: those that it has images of; least, most: images of a class, and its name.
        missing: the classes that it has no image of, if it has labels at all.
        size: (H, W, C), None where sizes differ.
    """

    split: str
    images: int
    classes: int
    least: tuple[int, str] | None
    most: tuple[int, str] | None
    unlabeled: int
    missing: tuple[str, ...]
    size: tuple[int, int, int] | None


def summarise_splits(dataset: PackedDataset) -> list[SplitSummary]:
    """Describe every split of a packed data set, the training split first.

    Args:
        dataset: the packed file.
    """
    return [_summary(dataset, name) for name in sorted(dataset.splits, key=_place)]


def _place(split: str) -> tuple[int, str]:
    """The usual splits in their usual order, then others by name."""
    return (_ORDER.index(split) if split in _ORDER else len(_ORDER), split)


def _summary(dataset: PackedDataset, name: str) -> SplitSummary:
    split, names = dataset.split(name), dataset.class_names
    if split.labels is None:
        return SplitSummary(name, split.count, 0, None, None, split.count, (), split.image_shape)
    counts = np.bincount(split.labels[split.labels >= 0], minlength=len(names))
    there = np.flatnonzero(counts)
    least, most = there[np.argmin(counts[there])], there[np.argmax(counts[there])]
    return SplitSummary(
        name,
        split.count,
        len(there),
        (int(counts[least]), names[least]),
        (int(counts[most]), names[most]),
        int(np.sum(split.labels < 0)),
        tuple(names[k] for k in np.flatnonzero(counts == 0)),
        split.image_shape,
    )


def split_table(summaries: Sequence[SplitSummary]) -> Iterator[str]:
    """Return the table as lines: one of titles, and one for each of `summaries`."""
    rows = [_HEAD, *map(_row, summaries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    for row in rows:
        cells = [
            cell.rjust(width) if column in (1, 2, 5) else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _row(summary: SplitSummary) -> tuple[str, ...]:
    size = "x".join(map(str, summary.size)) if summary.size else "encoded, of differing sizes"
    of_class = [f"{found[0]:,} ({_short(found[1])})" if found else "-" for found in (summary.least, summary.most)]
    classes = f"{summary.classes:,}" if summary.least else "-"
    return summary.split, f"{summary.images:,}", classes, *of_class, f"{summary.unlabeled:,}", size


def notes(summaries: Sequence[SplitSummary], repeated: Sequence[Repeated]) -> Iterator[str]:
    """Return a line for each thing that may surprise: classes without images, and images that occur more than once.

    Args:
        summaries: of the splits.
        repeated: images that occur more than once.
    """
    labeled = [summary for summary in summaries if summary.least]
    empty = [name for name in labeled[0].missing if all(name in each.missing for each in labeled)] if labeled else []
    if empty:
        yield f"classes without an image: {_some(empty)}"
    for summary in labeled:
        if missing := [name for name in summary.missing if name not in empty]:
            yield f"no image in {summary.split} of {len(missing):,} classes: {_some(missing)}"
    yield from _repetitions(repeated)


def _repetitions(repeated: Sequence[Repeated]) -> Iterator[str]:
    across: dict[tuple[str, ...], list[Repeated]] = {}
    within: dict[str, int] = {}
    for each in repeated:
        if len(each.splits) > 1:
            across.setdefault(each.splits, []).append(each)
        else:
            within[each.splits[0]] = within.get(each.splits[0], 0) + 1
    for splits, found in across.items():
        both = " and ".join(sorted(splits, key=_place))
        yield f"the same pixels in {both}: {len(found):,} images ({_samples(found)})"
    for split, count in within.items():
        yield f"the same pixels more than once in {split}: {count:,} images"
    if wrong := [each for each in repeated if each.contradictory]:
        yield f"the same pixels with different labels: {len(wrong):,} images ({_samples(wrong)})"


def _samples(repeated: Sequence[Repeated]) -> str:
    return _some([" = ".join(f"{name}" for _, name in each.samples[:4]) for each in repeated])


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(_short, names[:_MOST_NAMES])) + (", ..." if len(names) > _MOST_NAMES else "")


def _short(name: str) -> str:
    return name if len(name) <= 100 else name[:97] + "..."


def left_out(reading: Reading) -> str | None:
    """Return what a source of files left out, such as `412 files (.heic 400, .txt 12)`; None for nothing.

    Args:
        reading: what the source says of its files.
    """
    kinds = sorted(reading.left_out.items(), key=lambda kind: (-kind[1], kind[0]))
    if not kinds:
        return None
    listed = ", ".join(f"{suffix or 'no suffix'} {count:,}" for suffix, count in kinds[:_MOST_NAMES])
    more = ", ..." if len(kinds) > _MOST_NAMES else ""
    return f"{sum(reading.left_out.values()):,} files ({listed}{more})"


def treated(counts: Mapping[str, int]) -> str:
    """Return how many images were changed and how: `orientation followed: 12; transparency on white: 3`.

    Args:
        counts: of images, by what was done to them.
    """
    return "; ".join(f"{what}: {count:,}" for what, count in counts.items())


def split_facts(dataset: PackedDataset, reading: Reading | None, repeated: Sequence[Repeated] | None) -> dict[str, Any]:
    """Describe the splits of a data set for programs.

    Args:
        dataset: the packed file.
        reading, repeated: what a source left out, and images that occur more than once; None if that is not known.
    """
    return {
        "path": dataset.path.as_posix(),
        "source": dataset.source,
        "classes": list(dataset.class_names),
        "splits": [summary._asdict() for summary in summarise_splits(dataset)],
        "left_out": None if reading is None else dict(reading.left_out),
        "notes": [] if reading is None else list(reading.notes),
        "same_pixels": None if repeated is None else [each._asdict() for each in repeated],
    }
