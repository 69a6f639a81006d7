"""Estimates what a cache on object storage costs in requests and in memory, before anything is computed."""

from __future__ import annotations

from pipeline.store.backend import RemoteCost
from pipeline.store.format.arrays import ArraySpec
from pipeline.store.format.layout import StoreLayout
from pipeline.store.remote.chunks import held_bytes
from pipeline.store.remote.object_storage import PART_BYTES


def remote_cost(layout: StoreLayout, per_step: int = 1) -> RemoteCost:
    """Return the cost of a cache on object storage. Chunks are assumed not to be compressed.

    Args:
        layout: of the cache.
        per_step: views of each sample in a step.
    """
    units, arrays = layout.views * layout.blocks, layout.arrays.values()
    metadata = layout.files - units * len(arrays) - len(layout.static)
    chunks = units * sum(map(_puts, arrays)) + sum(map(_puts, layout.static.values()))
    read = [spec for spec in arrays if spec.name != "view_digest"]
    return RemoteCost(
        chunks + units + 1 + metadata, layout.blocks * len(read) * per_step, held_bytes(layout, read, per_step)
    )


def _puts(spec: ArraySpec) -> int:
    """Return the requests to put a chunk: one, or one for each part and two that begin and end the upload."""
    parts = -(-spec.chunk_bytes // PART_BYTES)
    return 1 if parts <= 1 else parts + 2
