"""Implements the backend of stores on object storage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

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
    """Holds the store at the address `path`. `Backend` documents the members."""

    path: RemotePath
    folder = None
    in_place = True

    @cached_property
    def files(self) -> ObjectStorage:
        """Return access to the objects below the address, with one client: to open one takes as long as a request."""
        return ObjectStorage(self.path)

    def exists(self) -> bool:
        """Tell whether the manifest is there: it is written last, since objects cannot be renamed."""
        return self.files.has(ROOT)

    def published(self) -> str | None:
        """Return the fingerprint of the published store; None if there is none."""
        try:
            found = parse_fingerprint(self.files.read(FINGERPRINT, 100))
        except OSError:
            return None
        return found if found and self.exists() else None

    def unfinished(self) -> list[RemotePath]:
        """Return the prefix beside the store, if there is a claim in it."""
        prefix = scratch_prefix(self.path)
        return [prefix] if ObjectStorage(prefix).has(CLAIM) else []

    def unfinished_caches(self) -> list[UnfinishedCache]:
        """Return the unfinished cache at the address, if there is one: it has one cache at a time."""
        from pipeline.store.remote.unfinished import unfinished_cache

        found = None if self.exists() else unfinished_cache(self.path)
        return [] if found is None else [found]

    def finished_bytes(self, layout: StoreLayout) -> int:
        """Return the bytes of finished units of an unfinished store with this `layout`."""
        from pipeline.store.remote.unfinished import finished_units

        return sum(map(layout.unit_bytes, finished_units(self.path, layout)))

    def cost(self, layout: StoreLayout, views: int = 1) -> RemoteCost | None:
        """Return requests and memory of a store with this `layout`.

        Args:
            views: of each sample that an epoch reads.
        """
        from pipeline.store.remote.cost import remote_cost

        return remote_cost(layout, views)

    def workspace(
        self, fingerprint: str, layout: StoreLayout, *, wait: bool, notify: Callable[[str], None]
    ) -> Workspace:
        """Return a workspace with a claim and receipts. The arguments are those of `Backend.workspace`."""
        from pipeline.store.remote.workspace import RemoteWorkspace

        return RemoteWorkspace(self.path, fingerprint, layout, wait=wait, notify=notify)

    def chunks(self, layout: StoreLayout, arrays: int) -> FetchedChunks:
        """Return a reader that fetches the chunks of a store with this `layout`.

        Args:
            arrays: has no effect here.
        """
        return FetchedChunks(self.path, layout)
