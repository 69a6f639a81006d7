"""The manifest: what a teacher cache is and how it came about, stored as the attributes of the Zarr group."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import CacheCorrupt, CacheMismatch, CacheNotFound, CacheUnfinished
from pipeline.store.artifacts import FINGERPRINT, published, unfinished
from pipeline.store.fingerprint import fingerprint
from pipeline.store.identity import SCHEMA
from pipeline.store.layout import StorePlan, plan_of
from pipeline.store.zarr_files import metadata_checksums

FORMAT: Literal["decant-teacher-cache"] = "decant-teacher-cache"


class ArrayInfo(BaseModel):
    """An array for readers that know no encodings: NumPy's data type, shape and chunk shape."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dtype: str
    shape: tuple[int, ...]
    chunk: tuple[int, ...]


class Manifest(BaseModel):
    """`identity` is hashed (`fingerprint`); `provenance` is not. `checksum` is of all the other fields.

    metadata: the checksum of each `zarr.json`, by path (`metadata_checksums`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    format: Literal["decant-teacher-cache"] = FORMAT
    schema_number: int = Field(alias="schema")
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
            arrays=_arrays(plan_of(identity)),
            metadata=metadata_checksums(metadata),
        )
        return manifest.model_copy(update={"checksum": manifest._checksum()})

    @classmethod
    def read(cls, path: Path, *, alone: bool = False) -> Self:
        """The manifest of the published cache at `path`. alone: without a look at its file `.fingerprint`.

        Raises CacheNotFound, CacheUnfinished, CacheMismatch (of another version) or CacheCorrupt.
        """
        file = path / "zarr.json"
        if not path.exists():
            if begun := unfinished(path):
                raise CacheUnfinished(
                    "the teacher cache was begun and not finished",
                    where=begun[-1],
                    fix="run `pipeline cache-teacher` again: it goes on where it stopped",
                )
            raise CacheNotFound("there is no teacher cache", where=path, fix="make it with `pipeline cache-teacher`")
        if not file.is_file():
            raise CacheNotFound("this is no teacher cache: it has no zarr.json", where=path)
        try:
            attributes = json.loads(file.read_bytes())["attributes"]
            kind, schema = attributes.get("format"), attributes.get("schema")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise _damaged(file, "zarr.json cannot be read") from None
        if kind != FORMAT and not (path / FINGERPRINT).exists():
            raise CacheNotFound("this Zarr group is no teacher cache", where=path, expected=FORMAT, got=kind)
        if kind == FORMAT and schema != SCHEMA and isinstance(schema, int):
            raise CacheMismatch(
                "the teacher cache has another schema",
                where=path,
                expected=SCHEMA,
                got=schema,
                fix="make it again with this version, or read it with the version that made it",
            )
        try:
            manifest = cls.model_validate(attributes)
        except ValidationError:
            raise _damaged(file, "the manifest has fields missing or misspelt") from None
        manifest._check(path, alone)
        return manifest

    def _check(self, path: Path, alone: bool) -> None:
        if self.checksum != self._checksum() or self.fingerprint != fingerprint(self.identity):
            raise _damaged(path / "zarr.json", "the manifest is not what was written")
        if not alone and published(path) != self.fingerprint:
            raise _damaged(path / FINGERPRINT, "the fingerprint is not the manifest's")
        if self.arrays != _arrays(plan_of(self.identity)):
            raise CacheMismatch("the arrays are not those that this version writes", where=path)

    def _checksum(self) -> str:
        return fingerprint(self.model_dump(mode="json", by_alias=True, exclude={"checksum"}))

    def attributes(self) -> dict[str, Any]:
        """Plain values, as stored."""
        return self.model_dump(mode="json", by_alias=True)

    @property
    def plan(self) -> StorePlan:
        """The layout of the cache."""
        return plan_of(self.identity)


def _arrays(plan: StorePlan) -> dict[str, ArrayInfo]:
    specs = plan.arrays | plan.static
    return {name: ArrayInfo(dtype=spec.dtype.str, shape=spec.shape, chunk=spec.chunk) for name, spec in specs.items()}


def _damaged(file: Path, what: str) -> CacheCorrupt:
    return CacheCorrupt(
        f"the teacher cache is damaged: {what}",
        where=file,
        fix="restore it (`dvc checkout`), or make it again with `pipeline cache-teacher --replace`",
    )
