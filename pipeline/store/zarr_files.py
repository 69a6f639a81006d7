"""The metadata files of a store, made by zarr's own interface: valid for every Zarr v3 reader."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from pipeline.store.arrays import ArraySpec
from pipeline.store.chunks import ZSTD_LEVEL, Compression


def metadata_files(
    arrays: Iterable[ArraySpec], attributes: Mapping[str, Any], compression: Compression = None
) -> dict[str, bytes]:
    """The content of every `zarr.json`, by path in the store. attributes: of the root group.

    The root's lists all arrays (zarr's consolidated metadata, which other readers may ignore), so that opening
    takes one read and the store's own files are not taken for broken arrays.
    """
    content: dict[str, Buffer] = {}
    store = MemoryStore(content)
    root = zarr.create_group(store, attributes=dict(attributes), zarr_format=3)
    codecs = [ZstdCodec(level=ZSTD_LEVEL, checksum=False)] if compression == "zstd" else []
    for spec in arrays:
        root.create_array(
            spec.name,
            shape=spec.shape,
            chunks=spec.chunk,
            dtype=spec.dtype,
            fill_value=spec.fill.item(),
            filters=None,
            serializer=BytesCodec(endian="little"),
            compressors=[*codecs, Crc32cCodec()],
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        zarr.consolidate_metadata(store)
    return {name: buffer.to_bytes() for name, buffer in content.items()}
