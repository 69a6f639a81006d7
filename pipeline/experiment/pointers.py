"""What DVC tracks of a store on object storage: a small file here, the pointer, that says which one it is.

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
"""Pointers lie below it, in folders named as the address is: two stores never have one pointer."""

POINTER_FORMAT = "decant-store-pointer"
REWRITE_HINT = "run `pipeline cache-teacher` again, which writes it anew, or delete it to read the store all the same"


def tracked(path: StorePath) -> Path:
    """What DVC tracks of a store: the store, or the pointer to one on object storage."""
    return backend_of(path).folder or FOLDER / f"{str(path).replace('://', '/')}.json"


def stamps(caches: Sequence[StorePath], made: Collection[Path]) -> list[Path]:
    """What stands for caches as dependencies: their fingerprints, or the pointers to those on object storage.

    made: the outputs of `cache-teacher`. A store on object storage that was made elsewhere may have no pointer here:
    then nothing stands for it.

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
    """Write the pointer to a store, if that lies on object storage."""
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


def check_pointer(cache: TeacherCache) -> None:
    """Raise CacheMismatch if there is a pointer in the place of this store's, and it is to another store."""
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
