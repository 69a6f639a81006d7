"""Finds images that are in a data set more than once: their pixels are hashed while they are packed."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.data.packed import PackedDataset

HASH_BYTES = 16


def hash_pixels(pixels: NDArray[np.uint8]) -> bytes:
    """Hash an image [H, W, C] to 16 bytes: the same for the same size and pixels, of any file."""
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=HASH_BYTES)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


class Repeated(NamedTuple):
    """Names an image that is there more than once: the (split, id) and labels (-1 for none) of its samples."""

    samples: tuple[tuple[str, str], ...]
    labels: tuple[int, ...]

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the splits that it is in, each once, in the order of the file."""
        return tuple(dict.fromkeys(split for split, _ in self.samples))

    @property
    def contradictory(self) -> bool:
        """Tell whether it has different labels in different places."""
        return len({label for label in self.labels if label >= 0}) > 1


def repeated_images(dataset: PackedDataset, hashes: Mapping[str, bytes]) -> list[Repeated]:
    """Find the images of a data set that occur more than once.

    Args:
        dataset: the packed file.
        hashes: of every split, 16 bytes for each sample, in order.
    """
    splits = list(hashes)
    counts = [len(value) // HASH_BYTES for value in hashes.values()]
    starts = np.concatenate(([0], np.cumsum(counts)))
    words = np.frombuffer(b"".join(hashes.values()), np.uint64).reshape(-1, 2)
    order = np.lexsort((words[:, 1], words[:, 0]))
    words = words[order]
    new = np.ones(len(order), np.bool_)
    new[1:] = np.any(words[1:] != words[:-1], axis=1)
    edges = [*np.flatnonzero(new).tolist(), len(order)]
    groups = [sorted(order[a:b].tolist()) for a, b in itertools.pairwise(edges) if b - a > 1]
    return sorted((_repeated(dataset, splits, starts, group) for group in groups), key=lambda each: each.samples)


def _repeated(dataset: PackedDataset, splits: list[str], starts: NDArray[Any], group: list[int]) -> Repeated:
    samples, labels = [], []
    for number in group:
        which = int(np.searchsorted(starts, number, side="right")) - 1
        split, position = dataset.split(splits[which]), number - int(starts[which])
        samples.append((split.name, split.ids[position]))
        labels.append(-1 if split.labels is None else int(split.labels[position]))
    return Repeated(tuple(samples), tuple(labels))
