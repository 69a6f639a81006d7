"""The backend of stores in folders."""

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
    """Holds the store in a folder; `Backend` says what everything means."""

    folder: Path
    in_place = False

    @property
    def files(self) -> LocalFiles:
        """As `Backend.files`; links that would lead out of the folder are not followed."""
        return LocalFiles(self.folder)

    def exists(self) -> bool:
        """As `Backend.exists`: a store in a folder appears whole, by renaming."""
        return self.folder.exists()

    def published(self) -> str | None:
        """As `Backend.published`."""
        return published(self.folder)

    def unfinished(self) -> list[Path]:
        """As `Backend.unfinished`: the scratch folders beside the target."""
        return unfinished(self.folder)

    def unfinished_caches(self) -> list[UnfinishedCache]:
        """As `Backend.unfinished_caches`; of a scratch folder, what is in it."""
        # Here and below, what only making or inspecting needs: no student depends on it.
        from pipeline.store.local.unfinished import unfinished_in_folders

        return unfinished_in_folders(self.folder)

    def finished_bytes(self, layout: StoreLayout) -> int:
        """As `Backend.finished_bytes`."""
        from pipeline.store.local.unfinished import finished_bytes

        return finished_bytes(self.folder, layout)

    def cost(self, layout: StoreLayout, views: int = 1) -> RemoteCost | None:
        """As `Backend.cost`: no requests."""
        return None

    def workspace(
        self, fingerprint: str, layout: StoreLayout, *, wait: bool, notify: Callable[[str], None]
    ) -> Workspace:
        """As `Backend.workspace`: the scratch folder."""
        from pipeline.store.local.workspace import LocalWorkspace

        return LocalWorkspace(self.folder, fingerprint, layout, wait=wait, notify=notify)

    def chunks(self, layout: StoreLayout, arrays: int) -> MappedChunks:
        """As `Backend.chunks`: mapped files."""
        return MappedChunks(self.folder, layout, arrays)
