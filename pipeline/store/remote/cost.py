"""What a cache on object storage costs in requests and in memory, before anything is computed."""

from __future__ import annotations

from pipeline.store.backend import RemoteCost
from pipeline.store.format.arrays import ArraySpec
from pipeline.store.format.layout import StoreLayout
from pipeline.store.remote.chunks import held_bytes
from pipeline.store.remote.object_storage import PART_BYTES


def remote_cost(plan: StoreLayout, per_step: int = 1) -> RemoteCost:
    """The cost of a cache on object storage. Uncompressed chunks are assumed.

    per_step: views of each sample that an epoch has.
    """
    units, arrays = plan.views * plan.blocks, plan.arrays.values()
    metadata = plan.files - units * len(arrays) - len(plan.static)
    chunks = units * sum(map(_puts, arrays)) + sum(map(_puts, plan.static.values()))
    read = [spec for spec in arrays if spec.name != "view_digest"]
    return RemoteCost(
        chunks + units + 1 + metadata, plan.blocks * len(read) * per_step, held_bytes(plan, read, per_step)
    )


def _puts(spec: ArraySpec) -> int:
    """Requests for a chunk: one, or those that begin and end an upload in parts, too."""
    parts = -(-spec.chunk_bytes // PART_BYTES)
    return 1 if parts <= 1 else parts + 2
