"""The backend of stores on object storage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.publishing.artifacts import FINGERPRINT, parse_fingerprint
from pipeline.publishing.ledger import ROOT
from pipeline.store.backend import RemoteCost, UnfinishedCache
from pipeline.store.format.layout import StoreLayout
from pipeline.store.location import RemotePath
from pipeline.store.remote.chunks import FetchedChunks
from pipeline.store.remote.lease import CLAIM, scratch_prefix
from pipeline.store.remote.object_storage import ObjectStorage
from pipeline.store.workspace import Workspace


@dataclass(frozen=True)
class RemoteBackend:
    """Holds the store at an address; `Backend` says what everything means."""

    path: RemotePath
    folder = None
    in_place = True

    @property
    def files(self) -> ObjectStorage:
        """As `Backend.files`: objects below the address."""
        return ObjectStorage(self.path)

    def exists(self) -> bool:
        """As `Backend.exists`: objects cannot be renamed, so the manifest is written last."""
        return self.files.has(ROOT)

    def published(self) -> str | None:
        """As `Backend.published`."""
        try:
            found = parse_fingerprint(self.files.read(FINGERPRINT, 100))
        except OSError:
            return None
        return found if found and self.exists() else None

    def unfinished(self) -> list[RemotePath]:
        """As `Backend.unfinished`: the prefix beside the store, if there is a claim."""
        prefix = scratch_prefix(self.path)
        return [prefix] if ObjectStorage(prefix).has(CLAIM) else []

    def unfinished_caches(self) -> list[UnfinishedCache]:
        """As `Backend.unfinished_caches`: one cache at a time is finished or made at an address."""
        from pipeline.store.remote.unfinished import unfinished_cache

        found = None if self.exists() else unfinished_cache(self.path)
        return [] if found is None else [found]

    def finished_bytes(self, layout: StoreLayout) -> int:
        """As `Backend.finished_bytes`."""
        from pipeline.store.remote.unfinished import finished_units

        return sum(map(layout.unit_bytes, finished_units(self.path, layout)))

    def cost(self, layout: StoreLayout, views: int = 1) -> RemoteCost | None:
        """As `Backend.cost`."""
        from pipeline.store.remote.cost import remote_cost

        return remote_cost(layout, views)

    def workspace(
        self, fingerprint: str, layout: StoreLayout, *, wait: bool, notify: Callable[[str], None]
    ) -> Workspace:
        """As `Backend.workspace`: a claim, and receipts of finished units."""
        from pipeline.store.remote.workspace import RemoteWorkspace

        return RemoteWorkspace(self.path, fingerprint, layout, wait=wait, notify=notify)

    def chunks(self, layout: StoreLayout, arrays: int) -> FetchedChunks:
        """As `Backend.chunks`: fetched ahead."""
        return FetchedChunks(self.path, layout)
