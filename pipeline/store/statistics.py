"""Computes the mean and the covariance of a cached signal, once, and keeps them beside the cache.

Beside `caches/name.zarr` lies `caches/name.statistics/embedding.safetensors`, and `features.block3.safetensors`:
float64 `mean` [D] and `covariance` [D, D], with the fingerprint of the cache, the name of the signal, the number of
vectors and a checksum as metadata. Of a map each place of each sample is a vector. All samples and views of the cache
count. The folder has git ignore it: it follows from the cache, and is no output of a stage.

Of a cache on object storage they are kept on this machine, in `~/.cache/decant/statistics/`, in a folder that is named
by the cache's fingerprint.
"""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from pipeline.errors import CacheCorrupt, first_line
from pipeline.files import durable, let_git_ignore, sync_directory
from pipeline.progress import Progress, Silent
from pipeline.publishing.checksum import crc32c
from pipeline.signals.moments import Moments
from pipeline.store.location import StorePath

if TYPE_CHECKING:  # which loads torch, and what is kept is also listed
    from pipeline.store.reader import TeacherCache

NUMBERS_AT_ONCE = 4 << 20
"""How many numbers of a signal are in memory at once: 32 MiB of them in float64."""

DELETE_HINT = "delete it: it is computed again"


def statistics_file(cache: TeacherCache, signal: str) -> Path | None:
    """Return the file of a signal's statistics; None if there is no place for it: no home folder, of object storage.

    Args:
        cache: that holds the signal.
        signal: `embedding`, or `features/<tap>`.
    """
    folder = statistics_folder(cache.path, cache.manifest.fingerprint)
    return folder and folder / f"{signal.replace('/', '.')}.safetensors"


def statistics_folder(path: StorePath, fingerprint: str) -> Path | None:
    """Return the folder of a cache's statistics; None as of `statistics_file`.

    Args:
        path: of the cache.
        fingerprint: of the cache.
    """
    if isinstance(path, Path):
        return path.with_name(f"{path.stem}.statistics")
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # nobody's home is known
        return None
    return caches / "decant" / "statistics" / fingerprint


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
    # os.path.exists says no where nobody may look: of a home that is another's, `Path.exists` would raise
    if path is not None and os.path.exists(path):  # noqa: PTH110
        if (moments := _read(path, cache, signal)) is not None:
            return moments
        print(f"note: {path} is of another cache or signal, and is computed again", file=sys.stderr)
    moments = compute_moments(cache, signal, progress or Silent())
    if path is not None:
        try:
            _write(path, cache, signal, moments)
        except OSError as error:  # a disk that is full, or read only: what was computed is right all the same
            print(f"note: {path} is not kept, and will be computed again: {first_line(error)}", file=sys.stderr)
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


def _write(path: Path, cache: TeacherCache, signal: str, moments: Moments) -> None:
    """Write the file, all at once, and whatever other processes write at the same time: they find the same."""
    tensors = {"mean": moments.mean, "covariance": np.ascontiguousarray(moments.covariance)}
    facts = {"cache": cache.manifest.fingerprint, "signal": signal, "count": str(moments.count)}
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(cache.path, Path):
        let_git_ignore(path.parent, "the cache")
    new = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.new")
    try:
        with durable(new) as file:
            file.write(save(tensors, {**facts, "checksum": _checksum(moments)}))
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
    sync_directory(path.parent)


def _read(path: Path, cache: TeacherCache, signal: str) -> Moments | None:
    """Return what a file holds; None if it is of another cache or signal. Raises CacheCorrupt."""
    try:
        with safe_open(path, "numpy") as file:
            facts = file.metadata() or {}
            moments = Moments(int(facts["count"]), file.get_tensor("mean"), file.get_tensor("covariance"))
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CacheCorrupt(
            "these statistics cannot be read", where=path, got=first_line(error), fix=DELETE_HINT
        ) from None
    if facts.get("checksum") != _checksum(moments):
        raise CacheCorrupt("these statistics are damaged: their checksum is another", where=path, fix=DELETE_HINT)
    expected = {"cache": cache.manifest.fingerprint, "signal": signal}
    return moments if all(facts.get(key) == value for key, value in expected.items()) else None


def _checksum(moments: Moments) -> str:
    data = np.ascontiguousarray(moments.mean).tobytes() + np.ascontiguousarray(moments.covariance).tobytes()
    return f"{crc32c(data):08x}"
