"""Takes labels, or the images that have none then, from half of the photographs of `grocery.py`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import h5py
import numpy as np
from numpy.typing import NDArray

PACKED = Path("artifacts/data/grocery.h5")
HALF, LABELED = PACKED.with_name("grocery-half.h5"), PACKED.with_name("grocery-labeled.h5")

Values: TypeAlias = Callable[[str, h5py.Dataset, NDArray[np.bool_]], NDArray[Any]]
"""Returns the values of a column of `train`, by its name; the last are the images that keep their labels."""


def labeled_half(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Choose every second image of each class, the first one among them: bool [N].

    Args:
        labels: int64 [N].
    """
    kept = np.zeros(len(labels), np.bool_)
    for label in np.unique(labels):
        kept[np.flatnonzero(labels == label)[::2]] = True
    return kept


def write_halves(packed: Path = PACKED, half: Path = HALF, labeled: Path = LABELED) -> None:
    """Write two files from the packed one, unless they are there: half of the labels gone, or those images too.

    Args:
        packed: the packed data set.
        half: all its images; every second one of `train` has the label -1.
        labeled: in `train`, only the images that have labels in `half`.
    """
    with h5py.File(packed) as data:
        kept = labeled_half(data["train/labels"][:])

    for file, values in ((half, _without_labels), (labeled, _without_images)):
        if not file.exists():
            scratch = file.with_name(f"{file.name}.{os.getpid()}")
            with h5py.File(packed) as data, h5py.File(scratch, "w") as copy:
                _copy(data, copy, kept, values)
            scratch.replace(file)


def _without_labels(name: str, column: h5py.Dataset, kept: NDArray[np.bool_]) -> NDArray[Any]:
    values: NDArray[Any] = column[:]
    return np.where(kept, values, -1) if name == "labels" else values


def _without_images(name: str, column: h5py.Dataset, kept: NDArray[np.bool_]) -> NDArray[Any]:
    values: NDArray[Any] = column[:][kept]
    return values


def _copy(data: h5py.File, copy: h5py.File, kept: NDArray[np.bool_], values: Values) -> None:
    """Copy a packed data set, with other columns in `train`; from what it was packed is no longer said."""
    copy.attrs.update({key: value for key, value in data.attrs.items() if key != "packed_from"})
    for split, group in data.items():
        if split != "train":
            data.copy(group, copy)
            continue
        train = copy.create_group(split)
        train.attrs.update(group.attrs)
        for name, column in group.items():
            train.create_dataset(name, data=values(name, column, kept), dtype=column.dtype)
