"""Makes the metadata files of a store with zarr's own interface, so that every Zarr v3 reader can open it."""

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
    """Return the content of every `zarr.json`, by path in the store.

    Args:
        arrays: of the store.
        attributes: of the root group.
        compression: of the chunks.

    The file of the root lists all arrays (zarr's consolidated metadata, which other readers may ignore). So opening
    takes one read, and the store's other files are not regarded as broken arrays.
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


def with_attributes(files: Mapping[str, bytes], attributes: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the same metadata files with other attributes of the root group."""
    return {**files, ROOT: laid_out(json.loads(files[ROOT]) | {"attributes": dict(attributes)})}


def metadata_names(arrays: Iterable[ArraySpec]) -> set[str]:
    """Return the path of every `zarr.json` of a store with these `arrays`: one for each, and one for each group."""
    names = {ROOT}
    for spec in arrays:
        parts = spec.name.split("/")
        names |= {"/".join([*parts[:depth], ROOT]) for depth in range(1, len(parts) + 1)}
    return names


def laid_out(root: Any) -> bytes:
    """Return the bytes of the `zarr.json` of the root for its value, always with the indentation of zarr's default."""
    return json.dumps(root, indent=2).encode()


def metadata_checksums(files: Mapping[str, bytes]) -> dict[str, str]:
    """Return the CRC-32C of every `zarr.json`, eight hexadecimal digits; of the root without its attributes.

    Args:
        files: the content, by path.

    The manifest holds these checksums, so that every byte of a store has one: the attributes of the root have their
    own, and its other fields are hashed here as canonical JSON (`laid_out` fixes their bytes).
    """
    root = {key: value for key, value in json.loads(files[ROOT]).items() if key != "attributes"}
    content = {**files, ROOT: canonical(root).encode()}
    return {name: f"{crc32c(content[name]):08x}" for name in sorted(content)}
