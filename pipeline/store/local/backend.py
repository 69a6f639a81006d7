"""Implements the backend of stores in folders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.publishing.artifacts import published, unfinished
from pipeline.publishing.folder_files import LocalFiles
from pipeline.store.backend import RemoteCost, UnfinishedCache
from pipeline.store.format.layout import StoreLayout
from pipeline.store.local.chunks import MappedChunks
from pipeline.store.workspace import Workspace


@dataclass(frozen=True)
class LocalBackend:
    """Holds the store in a folder. `Backend` documents the members."""

    folder: Path
    in_place = False

    @property
    def files(self) -> LocalFiles:
        """Return access to the files in the folder. Links that lead out of it are not followed."""
        return LocalFiles(self.folder)

    def exists(self) -> bool:
        """Tell whether the folder exists: a published store appears as a whole, by renaming."""
        return self.folder.exists()

    def published(self) -> str | None:
        """Return the fingerprint of the published store; None if there is none."""
        return published(self.folder)

    def unfinished(self) -> list[Path]:
        """Return the scratch folders beside the target."""
        return unfinished(self.folder)

    def unfinished_caches(self) -> list[UnfinishedCache]:
        """Return the caches in the scratch folders; for a path that is one itself, the cache in it."""
        # Imported here and below, since only making and inspecting need it: no student depends on this code.
        from pipeline.store.local.unfinished import unfinished_in_folders

        return unfinished_in_folders(self.folder)

    def finished_bytes(self, layout: StoreLayout) -> int:
        """Return the bytes of finished units in a scratch folder with this `layout`; of several the most."""
        from pipeline.store.local.unfinished import finished_bytes

        return finished_bytes(self.folder, layout)

    def cost(self, layout: StoreLayout, views: int = 1) -> RemoteCost | None:
        """Return None: `layout` and `views` cost no requests."""
        return None

    def workspace(
        self, fingerprint: str, layout: StoreLayout, *, wait: bool, notify: Callable[[str], None]
    ) -> Workspace:
        """Return the scratch folder as a workspace. The arguments are those of `Backend.workspace`."""
        from pipeline.store.local.workspace import LocalWorkspace

        return LocalWorkspace(self.folder, fingerprint, layout, wait=wait, notify=notify)

    def chunks(self, layout: StoreLayout, arrays: int) -> MappedChunks:
        """Return a reader that maps the files of a store with this `layout`.

        Args:
            arrays: how many are read in turn.
        """
        return MappedChunks(self.folder, layout, arrays)
