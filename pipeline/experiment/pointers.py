"""Writes and checks the pointer to a store on object storage: a small file here that names the store, for DVC.

DVC keeps no stores there: the pointer is the output of `cache-teacher` and what students depend on in their place.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import CacheMismatch
from pipeline.files import write_atomic
from pipeline.publishing.artifacts import FINGERPRINT
from pipeline.store.backend import backend_of
from pipeline.store.location import StorePath
from pipeline.store.reader import TeacherCache
from pipeline.untrusted import parse_json, read_file

FOLDER = Path("artifacts/caches")
"""The folder of pointers. Folders below it are named as the address is, so two stores never have one pointer."""

POINTER_FORMAT = "decant-store-pointer"
REWRITE_HINT = "run `pipeline cache-teacher` again, which writes it anew, or delete it to read the store all the same"


def tracked(path: StorePath) -> Path:
    """Return what DVC tracks of the store at a path: the store, or the pointer to one on object storage."""
    return backend_of(path).folder or FOLDER / f"{str(path).replace('://', '/')}.json"


def cache_dependencies(caches: Sequence[StorePath], made: Collection[Path]) -> list[Path]:
    """Return the files that a stage depends on in place of caches: fingerprints, or pointers to object storage.

    Args:
        caches: their paths.
        made: the outputs of `cache-teacher`. A store on object storage that was made elsewhere may have no pointer
            here; then the stage does not depend on it.

    DVC looks at every file of a folder once for each stage that depends on it, and hashes those that it does not
    know: minutes for thousands of files and a dozen students, hours for terabytes that somebody else made.
    """
    found = []
    for cache in caches:
        folder, pointer = backend_of(cache).folder, tracked(cache)
        if folder is not None:
            found.append(folder / FINGERPRINT)
        elif pointer in made or pointer.exists():
            found.append(pointer)
    return found


def write_pointer(cache: TeacherCache) -> None:
    """Write the pointer to an open cache, if it lies on object storage."""
    backend = backend_of(cache.path)
    if backend.folder is not None:
        return
    manifest, sizes = cache.manifest, backend.files.sizes()
    value = {
        "format": POINTER_FORMAT,
        "url": str(cache.path),
        "fingerprint": manifest.fingerprint,
        "teacher": manifest.identity.teacher.model,
        "samples": cache.count,
        "views": [cache.views.start, len(cache.views)],
        "signals": [spec.name for spec in manifest.layout.signals],
        "objects": len(sizes),
        "bytes": sum(sizes.values()),
    }
    write_atomic(tracked(cache.path), json.dumps(value, indent=2) + "\n")


def refuse_wrong_pointer(cache: TeacherCache) -> None:
    """Raise CacheMismatch if the pointer to an open cache is there, and names another store."""
    if backend_of(cache.path).folder is not None or not (file := tracked(cache.path)).exists():
        return
    try:
        value: Any = parse_json(read_file(file, 1 << 20, follow=True))
        got = [value["url"], value["fingerprint"]]
    except (OSError, ValueError, KeyError, TypeError):
        raise CacheMismatch("the pointer to a store cannot be read", where=file, fix=REWRITE_HINT) from None
    expected = [str(cache.path), cache.manifest.fingerprint]
    if got != expected:
        raise CacheMismatch(
            "the store is not the one that its pointer names",
            where=file,
            expected=" ".join(map(str, got)),
            got=" ".join(expected),
            fix=REWRITE_HINT,
        )
