"""Declares the section `store`: where the teacher cache lies and how it is cut into files."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from pipeline.config import Section
from pipeline.store.location import StorePath


class StoreConfig(Section):
    """Configures where the cache lies, and how it is cut into files.

    Args:
        path: a folder, or an address on object storage: `s3://bucket/caches/name.zarr`.
        rows_per_block: samples in a chunk file; null chooses.
        compression: `zstd` for archives and remote stores; null stores files that can be mapped into memory.
    """

    path: StorePath
    rows_per_block: PositiveInt | None = None
    compression: Literal["zstd"] | None = None


class StoreSection(Section):
    """Declares that the section `store` is read."""

    store: StoreConfig
