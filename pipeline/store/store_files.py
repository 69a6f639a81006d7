"""The files of a store, wherever it lies."""

from __future__ import annotations

from pipeline.publishing.folder_files import Files, LocalFiles
from pipeline.store.location import RemotePath, StorePath


def files_at(path: StorePath) -> Files:
    """Return the files of the store at `path`."""
    if isinstance(path, RemotePath):
        from pipeline.store.remote.object_storage import (
            ObjectStorage,  # only for those who have one: it takes long to import
        )

        return ObjectStorage(path)
    return LocalFiles(path)
