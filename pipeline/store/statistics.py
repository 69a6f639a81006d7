"""Computes the mean and the covariance of a cached signal, once, and keeps them beside the cache.

Beside `caches/name.zarr` lies `caches/name.statistics/embedding.safetensors`, and `features.block3.safetensors`:
float64 `mean` [D] and `covariance` [D, D], with the fingerprint of the cache, the name of the signal, the number of
vectors and a checksum as metadata. Of a map each place of each sample is a vector. All samples and views of the cache
count. `pipeline.store.kept` says where that is of a cache on object storage.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import CacheCorrupt
from pipeline.progress import Progress, Silent
from pipeline.signals.moments import Moments
from pipeline.store.kept import DELETE_HINT, keep, read_kept, statistics_folder
from pipeline.store.location import StorePath

if TYPE_CHECKING:  # which loads torch, and what is kept is also listed
    from pipeline.store.reader import TeacherCache

NUMBERS_AT_ONCE = 4 << 20
"""How many numbers of a signal are in memory at once: 32 MiB of them in float64."""


def statistics_file(cache: TeacherCache, signal: str) -> Path | None:
    """Return the file of a signal's statistics; None if there is no place for it: no home folder, of object storage.

    Args:
        cache: that holds the signal.
        signal: `embedding`, or `features/<tap>`.
    """
    folder = statistics_folder(cache.path, cache.manifest.fingerprint)
    return folder and folder / f"{signal.replace('/', '.')}.safetensors"


def kept_statistics(path: StorePath, fingerprint: str) -> list[str]:
    """Return the names of the signals of a cache whose statistics are kept.

    Args:
        path, fingerprint: as of `statistics_folder`.
    """
    folder = statistics_folder(path, fingerprint)
    if folder is None or not os.path.isdir(folder):  # noqa: PTH112 - as of `kept_moments`
        return []
    files = folder.glob("[!.]*.safetensors")
    return sorted(file.name.removesuffix(".safetensors").replace(".", "/", 1) for file in files)


def kept_moments(cache: TeacherCache, signal: str, progress: Progress | None = None) -> Moments:
    """Return the moments of a cached signal: from the file that is kept, which is written if it is not there.

    Args:
        cache: reads the signal.
        signal: as of `statistics_file`.
        progress: counts samples of views; None shows nothing.

    The file appears at once: a process that is killed before leaves none. One of another cache, which was here before,
    is replaced, with a note. Raises CacheCorrupt if it is damaged.
    """
    path = statistics_file(cache, signal)
    if (kept := read_kept(path, ("mean", "covariance"))) is not None:
        facts, tensors = kept
        if all(facts.get(key) == value for key, value in _facts(cache, signal).items()):
            return Moments(_count(facts, path), tensors["mean"], tensors["covariance"])
        print(f"note: {path} is of another cache or signal, and is computed again", file=sys.stderr)
    moments = compute_moments(cache, signal, progress or Silent())
    found = {"mean": moments.mean, "covariance": moments.covariance}
    keep(path, found, _facts(cache, signal) | {"count": str(moments.count)}, beside=isinstance(cache.path, Path))
    return moments


def compute_moments(cache: TeacherCache, signal: str, progress: Progress) -> Moments:
    """Compute the moments of a cached signal over all samples and views, in float64 and a piece at a time.

    Args:
        cache, signal, progress: as of `kept_moments`.

    Raises CacheMismatch for a signal that is not there.
    """
    shape = cache.signal(signal, cache.views.start, np.arange(1)).shape[1:]
    rows = max(1, NUMBERS_AT_ONCE // max(1, int(np.prod(shape))))
    found: Moments | None = None
    progress.begin(f"mean and covariance of {signal} in {cache.path}", cache.count * len(cache.views), "views")
    for view in cache.views:
        for start in range(0, cache.count, rows):
            samples = np.arange(start, min(start + rows, cache.count))
            values = cache.signal(signal, view, samples).numpy()
            piece = Moments.of(np.moveaxis(values, 1, -1).reshape(-1, values.shape[1]))
            found = piece if found is None else found.merged(piece)
            progress.advance(len(samples))
    progress.end()
    assert found is not None  # a cache has samples and views
    return found


def _facts(cache: TeacherCache, signal: str) -> dict[str, str]:
    """What says of which cache and signal statistics are."""
    return {"cache": cache.manifest.fingerprint, "signal": signal}


def _count(facts: dict[str, str], path: Path | None) -> int:
    try:
        return int(facts["count"])
    except (KeyError, ValueError):
        raise CacheCorrupt("these statistics cannot be read", where=path, got="no count", fix=DELETE_HINT) from None
