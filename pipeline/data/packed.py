"""Reads packed data sets: one HDF5 file with a group for each split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pipeline.data import decoding
from pipeline.data.class_names import declared_names
from pipeline.data.config import MOST_CLASSES, DataConfig
from pipeline.data.formats import MOST_PIXELS
from pipeline.data.h5 import LazyFile, attribute, explained, member, open_h5, read_strings
from pipeline.data.h5_claims import refuse_false_claims
from pipeline.data.images import MOST_CHANNELS, has_channels_last
from pipeline.data.origin import ORIGIN_ATTRIBUTE, Origin
from pipeline.data.split import Split
from pipeline.errors import DataError, did_you_mean
from pipeline.untrusted import parse_json

NO_LABEL = -1
"""The label of a sample that has none."""

LAYOUT_HINT = "a group per split, each with images (uint8 [N, H, W, C] or encoded), labels [N] and ids [N]"


class PackedDataset:
    """Reads a packed data set, and checks it when it is opened. Survives pickling and forking.

    Args:
        path: the file.
        splits: by name.
        class_names: K names, in the order of the labels.
        named: whether the file has names, or they are numbers.
        source: what it was packed from, for people; empty if the file does not record it.
        origin: the same in full; None if the file does not record it.
    """

    def __init__(
        self,
        path: Path,
        class_names: tuple[str, ...],
        source: str,
        splits: Mapping[str, Split],
        origin: Origin | None = None,
        *,
        named: bool = True,
    ) -> None:
        self.path = path
        self.class_names = class_names
        self.named = named
        self.source = source
        self.origin = origin
        self._splits = dict(splits)

    @classmethod
    def open(cls, path: Path) -> PackedDataset:
        """Check the file and describe it; images are read later.

        Raises DataError if it is missing, not HDF5, not a packed data set, or has links, labels outside
        -1..K-1 or ids that occur twice. Without class names in the file, K is the largest label plus one.
        """
        path = Path(path)
        with open_h5(path) as file, explained(path):
            lazy = LazyFile(path)
            splits = {}
            for name in file:
                group = member(file, name, path)
                if isinstance(group, h5py.Group) and isinstance(name, str):  # h5py gives bytes where it is not UTF-8
                    splits[name] = _open_split(lazy, name, group)
            if not splits:
                fix = "other layouts can be packed with data.source: {name: hdf5, path: ...}"
                got = ", ".join(map(str, file)) or "an empty file"
                raise DataError("not a packed data set", where=path, expected=LAYOUT_HINT, got=got, fix=fix)
            class_names = stored_class_names(file, path)
            source = attribute(file, "source") or ""
            origin = Origin.read(attribute(file, ORIGIN_ATTRIBUTE) or "")
        named = bool(class_names)
        if class_names is None:
            class_names = numbered_classes([split.labels for split in splits.values()], path)
        for split in splits.values():
            if split.labels is not None:
                refuse_wrong_labels(split.labels, len(class_names), f"{path}, split {split.name!r}", split.ids)
        return cls(path, class_names, source, splits, origin, named=named)

    @classmethod
    def of(cls, config: DataConfig) -> PackedDataset:
        """Open the file that a configuration names, with the classes of `data.classes` if it has no names.

        Args:
            config: the section `data`.

        A file that does not record its source is assumed to be the configured one. Raises DataError as `open` does, for
        another `data.source`, for other rules of `data.decoding` where they change pixels, and for other classes than
        the file has.
        """
        dataset = cls.open(config.path)
        if config.classes is not None:
            stored = dataset.class_names if dataset.named else ()
            largest = -1 if dataset.named else len(dataset.class_names) - 1
            dataset.class_names = declared_names(config.classes, stored, largest, config.path)
        lines: list[str] = []
        # Without a source the file is taken as it is, unless a rule is written down all the same.
        fields = config.decoding.model_fields_set if config.source is None else type(config.decoding).model_fields
        for split in dataset._splits.values():
            lines += decoding.decoding_differences(config.decoding, split.choices, split.name, fields)
        if config.source is not None and dataset.origin is not None:
            lines += dataset.origin.differences(config.source, config.unreadable)
        if lines:
            raise DataError(
                "the data set was packed from something else\n" + "\n".join(f"  - {line}" for line in lines),
                where=config.path,
                fix="pack it again with `pipeline prepare-data --replace`, name another data.path, or set "
                "data.source: null (and leave out data.decoding) to use it as it is",
            )
        return dataset

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits."""
        return tuple(self._splits)

    def split(self, name: str) -> Split:
        """Return the split `name`. Raises DataError, naming the splits there are."""
        if name not in self._splits:
            raise DataError(
                f"there is no split {name!r}",
                where=self.path,
                expected="one of " + ", ".join(self._splits),
                fix=did_you_mean(name, self._splits),
            )
        return self._splits[name]


def _open_split(lazy: LazyFile, name: str, group: h5py.Group) -> Split:
    path = lazy.path
    parts = {part: member(group, part, path) for part in ("images", "labels", "ids")}
    missing = [f"{name}/{part}" for part in ("images", "ids") if parts[part] is None]
    if missing:
        what = f"not a packed data set: {' and '.join(missing)} missing"
        raise DataError(what, where=path, expected=LAYOUT_HINT, got=", ".join(group) or "an empty group")
    for part, value in parts.items():
        if value is not None and not isinstance(value, h5py.Dataset):
            raise DataError(f"{name}/{part} is not an array", where=path, expected=LAYOUT_HINT)
        if value is not None:
            refuse_false_claims(value, path, at_once=part != "images")
    images, labels = parts["images"], parts["labels"]
    ids = read_strings(parts["ids"], path)
    shape = _image_shape(images, path)
    if len(ids) != len(images):
        raise DataError(f"{name}/ids does not fit the images", where=path, expected=len(images), got=len(ids))
    refuse_repeated_ids(ids, f"{path}, split {name!r}")
    numbers = None
    if labels is not None:
        if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) != len(images):
            expected = f"integers [{len(images)}]"
            got = f"{labels.dtype} {list(labels.shape)}"
            raise DataError(f"{name}/labels does not fit the images", where=path, expected=expected, got=got)
        numbers = as_labels(labels[:], f"{path}, split {name!r}")
        if np.all(numbers == NO_LABEL):
            numbers = None
    return Split(lazy, name, ids, numbers, shape, _choices(group, path))


def _choices(group: h5py.Group, path: Path) -> dict[str, Any]:
    text = attribute(group, decoding.DECODING_ATTRIBUTE)
    if text is None:
        return {}
    try:
        return decoding.read_choices(text)
    except ValueError as error:
        what = f"{group.name} says how its images are to be read, which cannot be used"
        fix = "a newer version of Decant may know: or pack it again with `pipeline prepare-data --replace`"
        raise DataError(what, where=path, got=str(error), fix=fix) from None


def _image_shape(images: h5py.Dataset, path: Path) -> tuple[int, int, int] | None:
    if images.ndim == 1 and h5py.check_vlen_dtype(images.dtype) == np.uint8:
        return None
    wrong = images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape[1:]
    if wrong or not has_channels_last(*images.shape[1:]):
        expected = f"uint8 [N, H, W, C], C at most {MOST_CHANNELS}, or JPEG and PNG files as variable-length uint8 [N]"
        got = f"{images.dtype} {list(images.shape)}"
        raise DataError(f"{images.name} does not hold images", where=path, expected=expected, got=got)
    height, width, channels = (int(length) for length in images.shape[1:])
    if height * width > MOST_PIXELS:
        what = f"{images.name} holds images of more than {MOST_PIXELS:,} pixels"
        raise DataError(what, where=path, got=f"{height} x {width}")
    return height, width, channels


def stored_class_names(file: h5py.File, path: Path) -> tuple[str, ...] | None:
    """Read the attribute `class_names`, or None if there is none. Raises DataError if it is not a JSON list.

    Args:
        file, path: the open file, and where it lies.
    """
    text = attribute(file, "class_names")
    if text is None:
        return None
    try:
        names = parse_json(text.encode())
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        expected = "a JSON list of strings"
        raise DataError("the attribute class_names cannot be used", where=path, expected=expected, got=text[:200])
    return tuple(names)


def as_labels(stored: NDArray[Any], where: str) -> NDArray[np.int64]:
    """Turn stored integers into labels, int64.

    Args:
        where: for errors.

    Raises DataError for numbers beyond int64.
    """
    if stored.dtype.kind == "u" and stored.max(initial=0) > np.iinfo(np.int64).max:
        raise DataError("a label has more than 63 bits", where=where, got=stored.max())
    return stored.astype(np.int64)


def numbered_classes(labels: Iterable[NDArray[np.int64] | None], path: Path) -> tuple[str, ...]:
    """Return the numbers 0 to the largest label as names of classes. Raises DataError for absurd labels in `path`."""
    largest = max((int(some.max(initial=-1)) for some in labels if some is not None), default=-1)
    if largest >= MOST_CLASSES:
        expected = f"labels below {MOST_CLASSES:,}, or the attribute class_names"
        raise DataError("classes cannot be numbered by the labels", where=path, expected=expected, got=largest)
    return tuple(str(k) for k in range(largest + 1))


def refuse_wrong_labels(labels: NDArray[np.int64], classes: int, where: str, ids: tuple[str, ...] | list[str]) -> None:
    """Raise DataError unless every label is in 0..classes-1, or -1 for none.

    Args:
        where, ids: for the error.
        labels: int64 [N].
    """
    wrong = np.flatnonzero((labels < NO_LABEL) | (labels >= classes))
    if len(wrong):
        examples = ", ".join(f"{labels[i]} of {ids[i]!r}" for i in wrong[:5])
        expected = f"0..{classes - 1} ({classes} classes), or {NO_LABEL} for a sample without a label"
        what = f"{len(wrong)} of {len(labels)} labels are out of range"
        got = examples + (", ..." if len(wrong) > 5 else "")
        fix = "correct the labels, or the attribute class_names of the file"
        raise DataError(what, where=where, expected=expected, got=got, fix=fix)


def refuse_repeated_ids(ids: list[str], where: str) -> None:
    """Raise DataError unless every id occurs once.

    Args:
        where: for the error.
        ids: of all samples of a split.
    """
    if len(set(ids)) != len(ids):
        twice = [name for name, times in Counter(ids).items() if times > 1]
        got = ", ".join(repr(name) for name in twice[:5]) + (", ..." if len(twice) > 5 else "")
        raise DataError(f"{len(twice)} ids occur more than once", where=where, expected="unique ids", got=got)
