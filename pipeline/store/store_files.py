"""The files of a store, wherever it lies."""

from __future__ import annotations

from pipeline.publishing.folder_files import Files, LocalFiles
from pipeline.store.location import RemotePath, StorePath


def files_at(path: StorePath) -> Files:
    """Return the files of the store at `path`."""
    if isinstance(path, RemotePath):
        # Not above: only those who have one need it, and it takes long to import.
        from pipeline.store.remote.object_storage import ObjectStorage

        return ObjectStorage(path)
    return LocalFiles(path)
