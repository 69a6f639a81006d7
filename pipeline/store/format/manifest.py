"""The manifest: what a teacher cache is and how it came about, stored as the attributes of the Zarr group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError

from pipeline.config import problems_of
from pipeline.errors import CacheCorrupt, CacheMismatch, CacheNotFound, CacheUnfinished, ConfigError
from pipeline.publishing.artifacts import FINGERPRINT
from pipeline.publishing.fingerprint import fingerprint
from pipeline.publishing.ledger import ROOT
from pipeline.store.format.identity import SCHEMA
from pipeline.store.format.layout import StoreLayout, layout_of
from pipeline.store.format.provenance import check_provenance
from pipeline.store.format.validation import problems_with
from pipeline.store.format.zarr_files import metadata_checksums
from pipeline.store.location import StorePath
from pipeline.store.published import published_store, unfinished_stores
from pipeline.store.store_files import files_at
from pipeline.untrusted import parse_json

FORMAT: Literal["decant-teacher-cache"] = "decant-teacher-cache"
MANIFEST_MAX_BYTES = 4 << 20


class ArrayInfo(BaseModel):
    """An array for readers that know no encodings: NumPy's data type, shape and chunk shape."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dtype: str
    shape: tuple[StrictInt, ...]
    chunk: tuple[StrictInt, ...]


class Manifest(BaseModel):
    """`identity` is hashed (`fingerprint`); `provenance` is not. `checksum` is of all the other fields.

    metadata: the checksum of each `zarr.json`, by path (`metadata_checksums`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    format: Literal["decant-teacher-cache"] = FORMAT
    schema_number: StrictInt = Field(alias="schema")
    fingerprint: str
    identity: dict[str, Any]
    provenance: dict[str, Any]
    arrays: dict[str, ArrayInfo]
    metadata: dict[str, str]
    checksum: str = ""

    @classmethod
    def of(cls, identity: dict[str, Any], provenance: dict[str, Any], metadata: Mapping[str, bytes]) -> Self:
        """The manifest of a cache with this identity. metadata: its `metadata_files`, with whatever attributes."""
        manifest = cls(
            schema_number=SCHEMA,
            fingerprint=fingerprint(identity),
            identity=identity,
            provenance=provenance,
            arrays=_arrays(layout_of(identity)),
            metadata=metadata_checksums(metadata),
        )
        return manifest.model_copy(update={"checksum": manifest._checksum()})

    @classmethod
    def read(cls, path: StorePath, *, alone: bool = False) -> Self:
        """The manifest of the published cache at `path`. alone: without a look at its file `.fingerprint`.

        Raises CacheNotFound, CacheUnfinished, CacheMismatch (of another version) or CacheCorrupt.
        """
        file, files = path / ROOT, files_at(path)
        if not path.exists():
            if begun := unfinished_stores(path):
                raise CacheUnfinished(
                    "the teacher cache was begun and not finished",
                    where=begun[-1],
                    fix="run `pipeline cache-teacher` again: it goes on where it stopped",
                )
            raise CacheNotFound("there is no teacher cache", where=path, fix="make it with `pipeline cache-teacher`")
        if not files.has(ROOT):
            fix = "name a folder that `pipeline cache-teacher` made, or make one at another path"
            raise CacheNotFound("this is no teacher cache: it has no zarr.json", where=path, fix=fix)
        try:
            attributes = parse_json(files.read(ROOT, MANIFEST_MAX_BYTES))["attributes"]
            kind, schema = attributes.get("format"), attributes.get("schema")
        except (KeyError, TypeError, AttributeError):
            raise _damaged(file, "zarr.json is not the metadata of a group") from None
        except (OSError, ValueError) as error:
            raise _damaged(file, "zarr.json cannot be read", getattr(error, "strerror", None) or error) from None
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
            raise _damaged(file, "the manifest has fields missing or misspelt", got) from None
        manifest._check(path, alone)
        return manifest

    def _check(self, path: StorePath, alone: bool) -> None:
        if self.checksum != self._checksum() or self.fingerprint != fingerprint(self.identity):
            raise _damaged(path / "zarr.json", "the manifest is not what was written")
        if not alone and published_store(path) != self.fingerprint:
            raise _damaged(path / FINGERPRINT, "the fingerprint is not the manifest's")
        try:
            check_provenance(self.provenance)
        except ValueError as error:
            raise _damaged(path / "zarr.json", "the provenance is not that of a cache", error) from None
        if self.arrays != _arrays(sound_layout(self.identity, path / "zarr.json")):
            raise CacheMismatch("the arrays are not those that this version writes", where=path)

    def _checksum(self) -> str:
        return fingerprint(self.model_dump(mode="json", by_alias=True, exclude={"checksum"}))

    def attributes(self) -> dict[str, Any]:
        """Plain values, as stored."""
        return self.model_dump(mode="json", by_alias=True)

    @property
    def layout(self) -> StoreLayout:
        """The layout of the cache."""
        return layout_of(self.identity)


def sound_layout(identity: Any, file: StorePath) -> StoreLayout:
    """The layout of the cache of an identity that was read from a file.

    Raises CacheCorrupt if it is no identity, CacheMismatch if this version cannot read such a cache.
    """
    if wrong := problems_with(identity):
        raise _damaged(file, "the identity is not that of a cache", "; ".join(wrong[:5]))
    try:
        return layout_of(identity)
    except ConfigError as error:
        problems = "; ".join(problem.line for problem in error.problems[:5])
        raise CacheMismatch("this version cannot read the teacher cache", where=file, got=problems) from None


def _arrays(plan: StoreLayout) -> dict[str, ArrayInfo]:
    specs = plan.arrays | plan.static
    return {name: ArrayInfo(dtype=spec.dtype.str, shape=spec.shape, chunk=spec.chunk) for name, spec in specs.items()}


def _damaged(file: StorePath, what: str, got: object = None) -> CacheCorrupt:
    return CacheCorrupt(
        f"the teacher cache is damaged: {what}",
        where=file,
        got=got,
        fix="restore it (`dvc checkout`), or make it again with `pipeline cache-teacher --replace`",
    )
