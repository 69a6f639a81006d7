"""Reads and writes the manifest of a teacher cache: identity and provenance, in the attributes of the Zarr group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, StrictInt, ValidationError

from pipeline.config import problems_of
from pipeline.errors import CACHE_COMMAND, CacheMismatch, CacheNotFound, CacheUnfinished
from pipeline.publishing.artifacts import FINGERPRINT
from pipeline.publishing.fingerprint import fingerprint
from pipeline.publishing.ledger import ROOT
from pipeline.store.backend import Backend, backend_of
from pipeline.store.format.identity import SCHEMA, CacheIdentity, damaged_cache
from pipeline.store.format.layout import StoreLayout
from pipeline.store.format.provenance import require_provenance
from pipeline.store.format.zarr_files import metadata_checksums
from pipeline.store.location import StorePath
from pipeline.untrusted import parse_json

FORMAT: Literal["decant-teacher-cache"] = "decant-teacher-cache"
"""The name of the format, in every manifest."""

MANIFEST_MAX_BYTES = 4 << 20


class ArrayInfo(BaseModel):
    """Describes an array for readers that do not know encodings.

    Args:
        dtype: as NumPy writes it.
        shape, chunk: shapes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dtype: str
    shape: tuple[StrictInt, ...]
    chunk: tuple[StrictInt, ...]


class Manifest(BaseModel):
    """Describes a teacher cache: what it is, and how it was made.

    Args:
        format, schema_number: the name and the version of the format.
        fingerprint: the hash of the identity; provenance is not hashed.
        stored: the plain values of the identity, as they were written.
        provenance: the runs that made the cache.
        arrays: all arrays, for other readers.
        metadata: the checksum of each `zarr.json`, by path (`metadata_checksums`).
        checksum: of all other fields.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["decant-teacher-cache"] = FORMAT
    schema_number: StrictInt = Field(alias="schema")
    fingerprint: str
    stored: dict[str, Any] = Field(alias="identity")
    provenance: dict[str, Any]
    arrays: dict[str, ArrayInfo]
    metadata: dict[str, str]
    checksum: str = ""
    _identity: CacheIdentity = PrivateAttr()

    @classmethod
    def of(cls, identity: CacheIdentity, provenance: dict[str, Any], metadata: Mapping[str, bytes]) -> Self:
        """Make the manifest of a cache.

        Args:
            identity: of the cache.
            provenance: of its runs.
            metadata: its `metadata_files`; attributes do not matter.
        """
        manifest = cls(
            schema=SCHEMA,
            fingerprint=identity.fingerprint,
            identity=identity.plain(),
            provenance=provenance,
            arrays=_arrays(identity.layout),
            metadata=metadata_checksums(metadata),
        )
        manifest._identity = identity
        return manifest.model_copy(update={"checksum": manifest._checksum()})

    @classmethod
    def read(cls, path: StorePath, *, alone: bool = False) -> Self:
        """Read the manifest of the published cache at `path`.

        Args:
            alone: whether its file `.fingerprint` is not compared.

        Raises CacheNotFound, CacheUnfinished, CacheMismatch (of another version) or CacheCorrupt.
        """
        file, backend = path / ROOT, backend_of(path)
        files = backend.files
        if not backend.exists():
            if begun := backend.unfinished():
                raise CacheUnfinished(
                    "the teacher cache was begun and not finished",
                    where=begun[-1],
                    fix=f"run {CACHE_COMMAND} again: it goes on where it stopped",
                )
            raise CacheNotFound("there is no teacher cache", where=path, fix=f"make it with {CACHE_COMMAND}")
        if not files.has(ROOT):
            fix = f"name a folder that {CACHE_COMMAND} made, or make one at another path"
            raise CacheNotFound("this is no teacher cache: it has no zarr.json", where=path, fix=fix)
        try:
            attributes = parse_json(files.read(ROOT, MANIFEST_MAX_BYTES))["attributes"]
            kind, schema = attributes.get("format"), attributes.get("schema")
        except (KeyError, TypeError, AttributeError):
            raise damaged_cache(file, "zarr.json is not the metadata of a group") from None
        except (OSError, ValueError) as error:
            raise damaged_cache(file, "zarr.json cannot be read", getattr(error, "strerror", None) or error) from None
        if kind != FORMAT and not files.has(FINGERPRINT):
            raise CacheNotFound("this Zarr group is no teacher cache", where=path, expected=FORMAT, got=f"{kind!r:.60}")
        if kind == FORMAT and schema != SCHEMA and type(schema) is int:
            raise CacheMismatch(
                "the teacher cache has another schema",
                where=path,
                expected=SCHEMA,
                got=schema,
                fix="make it again with this version, or read it with the version that made it",
            )
        try:
            manifest = cls.model_validate(attributes)
        except ValidationError as error:
            got = "; ".join(problem.line for problem in problems_of(error)[:5])
            raise damaged_cache(file, "the manifest has fields missing or misspelt", got) from None
        manifest._require_intact(path, None if alone else backend)
        return manifest

    def _require_intact(self, path: StorePath, backend: Backend | None) -> None:
        if self.checksum != self._checksum() or self.fingerprint != fingerprint(self.stored):
            raise damaged_cache(path / "zarr.json", "the manifest is not what was written")
        if backend is not None and backend.published() != self.fingerprint:
            raise damaged_cache(path / FINGERPRINT, "the fingerprint is not the manifest's")
        try:
            require_provenance(self.provenance)
        except ValueError as error:
            raise damaged_cache(path / "zarr.json", "the provenance is not that of a cache", error) from None
        self._identity = CacheIdentity.read(self.stored, path / "zarr.json")
        if self.arrays != _arrays(self.layout):
            raise CacheMismatch("the arrays are not those that this version writes", where=path)

    def _checksum(self) -> str:
        return fingerprint(self.model_dump(mode="json", by_alias=True, exclude={"checksum"}))

    def attributes(self) -> dict[str, Any]:
        """Return the manifest as plain values, as they are stored."""
        return self.model_dump(mode="json", by_alias=True)

    @property
    def identity(self) -> CacheIdentity:
        """Return the identity of the cache. It is parsed once, when the manifest is read."""
        return self._identity

    @property
    def layout(self) -> StoreLayout:
        """Return how the cache is cut into arrays, chunk files and units."""
        return self._identity.layout


def _arrays(layout: StoreLayout) -> dict[str, ArrayInfo]:
    specs = layout.arrays | layout.static
    return {name: ArrayInfo(dtype=spec.dtype.str, shape=spec.shape, chunk=spec.chunk) for name, spec in specs.items()}
