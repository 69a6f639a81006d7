"""Defines the identity of a teacher cache: it is hashed, compared with what a run needs, and determines the layout."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Self

from pydantic import Field, ValidationError

from pipeline.config import problems_of
from pipeline.errors import RESTORE_HINT, CacheCorrupt, CacheMismatch, ConfigError
from pipeline.publishing.fingerprint import canonical, differences
from pipeline.store.format.chunks import Compression
from pipeline.store.format.layout import CacheExtent, StoreLayout, make_layout
from pipeline.store.format.requirements import CacheRequirement
from pipeline.store.format.sections import (
    ChunkingIdentity,
    DataIdentity,
    IdentitySection,
    TeacherIdentity,
    ViewsIdentity,
)
from pipeline.store.format.signal_sections import SignalsIdentity
from pipeline.store.location import StorePath

SCHEMA = 2
"""The version of the format."""

IDENTITY = "identity.json"
"""The file with the identity in the folder of an unfinished cache. A published cache has it in its manifest."""


class CacheIdentity(IdentitySection):
    """Identifies a teacher cache: two caches with one identity hold the same bytes, wherever they were made.

        identity = TeacherCache.open("cache.zarr").manifest.identity
        identity.teacher.model, identity.views.count, identity.layout.total_bytes

    Args:
        schema_number: the version of the format.
        data, views, teacher, signals: what the cache was made of.
        chunking: how it is cut into files.
    """

    schema_number: int = Field(alias="schema", ge=SCHEMA, le=SCHEMA)
    data: DataIdentity
    views: ViewsIdentity
    teacher: TeacherIdentity
    signals: SignalsIdentity
    chunking: ChunkingIdentity = Field(alias="layout")

    @classmethod
    def of(
        cls,
        data: DataIdentity,
        views: ViewsIdentity,
        teacher: TeacherIdentity,
        signals: SignalsIdentity,
        *,
        rows_per_block: int | None = None,
        compression: Compression = None,
    ) -> Self:
        """Return the identity of a cache from its sections.

        Args:
            data, views, teacher, signals: the sections.
            rows_per_block: samples in a row block; None chooses.
            compression: of chunk files; None stores them as they are.

        Raises ConfigError for sizes that are too large for any machine.
        """
        layout = _layout(data, views, teacher, signals, rows_per_block, compression)
        chunking = ChunkingIdentity(rows_per_block=layout.rows, compression=compression)
        sections = {"data": data, "views": views, "teacher": teacher, "signals": signals, "layout": chunking}
        return cls.model_validate({"schema": SCHEMA, **sections})

    @classmethod
    def read(cls, values: Any, file: StorePath) -> Self:
        """Return the identity that was read from a file; the file may come from anywhere.

        Args:
            values: of its JSON.
            file: for errors.

        Raises CacheCorrupt if it is no identity, CacheMismatch if this version cannot read such a cache.
        """
        try:
            identity = cls.model_validate(values)
            identity.signals.require_imported(file)
            identity.layout  # noqa: B018 - computed now, so that every identity has a layout
        except ValidationError as error:
            got = "; ".join(problem.line for problem in problems_of(error)[:5])
            raise damaged_cache(file, "the identity is not that of a cache", got) from None
        except ConfigError as error:
            got = "; ".join(problem.line for problem in error.problems[:5])
            raise CacheMismatch("this version cannot read the teacher cache", where=file, got=got) from None
        return identity

    @cached_property
    def layout(self) -> StoreLayout:
        """Return how the cache is cut into arrays, chunk files and units."""
        chunking = self.chunking
        return _layout(self.data, self.views, self.teacher, self.signals, chunking.rows_per_block, chunking.compression)

    def unmet(self, required: CacheRequirement) -> list[str]:
        """Return a line for every field in which the cache does not provide what is required.

        The cache may have more fields, signals and views than are required, but not more options of the network.
        """
        lines: list[str] = []
        need, have = required.numbers, self.views.numbers
        if need is not None and not (have.start <= need.start and need.stop <= have.stop):
            lines.append(f"views: expected views {_span(need)}, got {_span(have)}")
        wanted = required.plain(self.signals.features)
        lines += differences(wanted, self._with_defaults(), required.unchecked, provides=True)
        options = required.teacher.options if required.teacher else None
        if options is not None and "teacher.options" not in required.unchecked:
            there = {"teacher": {"options": self.teacher.options}}
            exact = differences({"teacher": {"options": options}}, there)
            lines += [line for line in exact if line not in lines]
        return lines

    def keep_cache_hint(self, lines: Sequence[str]) -> str:
        """Return a hint how to change the configuration so that the cache still fits; empty if there is none.

        Args:
            lines: the fields that differ, as `unmet` returns them.

        The hint is about normalisation and interpolation.
        """
        there = self._teacher_with_defaults()
        names = [n for n in ("mean", "std", "interpolation") if any(line.startswith(f"teacher.{n}") for line in lines)]
        named = ", ".join(f"{name}: {canonical(there[name]).strip(chr(34))}" for name in names if name in there)
        return f"; to keep the cache, write `{named}` in `teacher` (in Python, give it to the network)" if named else ""

    def _with_defaults(self) -> dict[str, Any]:
        """Return the plain values, with the teacher's as `_teacher_with_defaults` returns them."""
        return {**self.plain(), "teacher": self._teacher_with_defaults()}

    def _teacher_with_defaults(self) -> dict[str, Any]:
        """Return the teacher's plain values, with the interpolation, which an identity lacks if it is bilinear."""
        return {"interpolation": self.teacher.interpolation, **self.teacher.plain()}


def _layout(
    data: DataIdentity,
    views: ViewsIdentity,
    teacher: TeacherIdentity,
    signals: SignalsIdentity,
    rows_per_block: int | None,
    compression: Compression,
) -> StoreLayout:
    parameters = len(views.parameters)
    extent = CacheExtent(data.samples, views.count, parameters, teacher.micro_batch, rows_per_block, compression)
    return make_layout(signals, extent)


def damaged_cache(file: StorePath, what: str, got: object = None) -> CacheCorrupt:
    """Make the error for a damaged file that describes a cache.

    Args:
        what: is wrong with it.
        got: what was found.
    """
    return CacheCorrupt(
        f"the teacher cache is damaged: {what}",
        where=file,
        got=got,
        fix=RESTORE_HINT,
    )


def _span(numbers: range) -> str:
    return f"{numbers.start} to {numbers.stop - 1}" if len(numbers) > 1 else f"{numbers.start}"
