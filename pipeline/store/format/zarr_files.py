"""The metadata files of a store, made by zarr's own interface: valid for every Zarr v3 reader."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from pipeline.publishing.checksum import crc32c
from pipeline.publishing.fingerprint import canonical
from pipeline.publishing.ledger import ROOT
from pipeline.store.format.arrays import ArraySpec
from pipeline.store.format.chunks import ZSTD_LEVEL, Compression


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
            dimension_names=spec.dimensions,  # without which xarray opens nothing
            filters=None,
            serializer=BytesCodec(endian="little"),
            compressors=[*codecs, Crc32cCodec()],
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        zarr.consolidate_metadata(store)
    files = {name: buffer.to_bytes() for name, buffer in content.items()}
    return files | {ROOT: laid_out(json.loads(files[ROOT]))}


def metadata_names(arrays: Iterable[ArraySpec]) -> set[str]:
    """The path of every `zarr.json` of a store with these arrays: of each, and of the groups that they are in."""
    names = {ROOT}
    for spec in arrays:
        parts = spec.name.split("/")
        names |= {"/".join([*parts[:depth], ROOT]) for depth in range(1, len(parts) + 1)}
    return names


def laid_out(root: Any) -> bytes:
    """The bytes of the root's `zarr.json`, for its value: as zarr writes them, whatever it is told about spaces."""
    return json.dumps(root, indent=2).encode()


def metadata_checksums(files: Mapping[str, bytes]) -> dict[str, str]:
    """CRC-32C of every `zarr.json`, eight hexadecimal digits; the root's without its attributes.

    The manifest holds these, so that nothing in a store goes without a checksum: the root's attributes have one of
    their own, and what it has beside them is hashed here as canonical JSON (`laid_out` fixes its bytes).
    """
    root = {key: value for key, value in json.loads(files[ROOT]).items() if key != "attributes"}
    content = {**files, ROOT: canonical(root).encode()}
    return {name: f"{crc32c(content[name]):08x}" for name in sorted(content)}
