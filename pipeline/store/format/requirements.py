"""Describes what a run needs of a teacher cache, to be compared with the identity of one that is there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from pipeline.signals import EncodingChoice, SignalsConfig
from pipeline.store.format.sections import Count, DataIdentity, IdentitySection, TeacherIdentity, ViewsIdentity
from pipeline.store.format.signal_sections import SignalsIdentity, StoredSignal, encodings_identity

if TYPE_CHECKING:
    from pipeline.data import Samples


class RequiredSamples(IdentitySection):
    """Describes samples by their number and the digest of their ids: pixels are trusted."""

    samples: Count
    ids: str

    @classmethod
    def of(cls, samples: Samples) -> Self:
        """Return the section for `samples`. Their pixels are not read."""
        return cls(samples=int(samples.count), ids=samples.ids_digest())


class RequiredTeacher(IdentitySection):
    """Describes a teacher by as much as is known of it. Any field of `TeacherIdentity` may be given, or left out."""

    model: str | None = None
    options: dict[str, Any] | None = None
    num_classes: int | None = None
    interpolation: str | None = None
    weights: str | None = None


@dataclass(frozen=True)
class RequiredSignals:
    """Describes the signals that a run reads.

    Args:
        entries: the encoding of each, or its encoding and shape; with names as in `SignalShapes`.
        every_feature: the encoding of all features that the cache has; None requires nothing.
        grid, filter: of low-passed features; None does not compare them.
    """

    entries: Mapping[str, EncodingChoice | StoredSignal]
    every_feature: EncodingChoice | None = None
    grid: int | None = None
    filter: str | None = None

    @classmethod
    def of(cls, config: SignalsConfig) -> Self:
        """Return what a section `signals`, `config`, keeps. Raises ConfigError with every problem of encodings."""
        entries = encodings_identity(config)
        every = entries.pop("features", None)
        if config.features is None:
            return cls(entries)
        grid, kind, blocks = config.features.grid, config.features.filter, config.features.blocks
        if every is None or not isinstance(blocks, tuple):
            return cls(entries, every, grid, kind)
        return cls(entries | {f"features/{block}": every for block in blocks}, None, grid, kind)

    @classmethod
    def held_by(cls, signals: SignalsIdentity, names: Collection[str]) -> Self:
        """Return some signals as another cache holds them.

        Args:
            signals: of that cache.
            names: of those to be compared.
        """
        entries = {name: signals.stored[name] for name in names}
        low_passed = any(name.startswith("features/") for name in names)
        return cls(entries, None, *((signals.grid, signals.filter) if low_passed else ()))

    def plain(self, features: Collection[str]) -> dict[str, Any]:
        """Return the section as JSON values.

        Args:
            features: the names of those that the cache has.
        """
        nested: dict[str, Any] = {"features": {}, "extras": {}}
        if self.every_feature is not None:
            nested["features"] = {name: {"encoding": self.every_feature} for name in features}
        for name, entry in self.entries.items():
            kind, _, rest = name.partition("/")
            plain = entry.plain() if isinstance(entry, StoredSignal) else {"encoding": entry}
            nested |= {kind: {**nested[kind], rest: plain} if rest else plain}
        known = {"grid": self.grid, "filter": self.filter}
        return nested | {name: value for name, value in known.items() if value is not None}


@dataclass(frozen=True)
class CacheRequirement:
    """Describes what a cache must be. A cache may have more than is required; a part that is None is not compared.

        cache.require(CacheRequirement(views=ViewsIdentity.of(views), numbers=range(4)))

    Args:
        data: the samples.
        views: how views are drawn.
        numbers: those of the views that must be there.
        teacher, signals: the network, and what is kept of it.
        unchecked: dotted fields that are not compared, since this machine cannot compute them.
    """

    data: DataIdentity | RequiredSamples | None = None
    views: ViewsIdentity | None = None
    numbers: range | None = None
    teacher: TeacherIdentity | RequiredTeacher | None = None
    signals: RequiredSignals | None = None
    unchecked: tuple[str, ...] = ()

    def of_another(self, teacher: TeacherIdentity | RequiredTeacher, signals: RequiredSignals | None) -> Self:
        """Return the same for the cache of another teacher, of which everything that is required is compared.

        Args:
            teacher, signals: what is required of it instead.
        """
        left = tuple(field for field in self.unchecked if not field.startswith("teacher"))
        return replace(self, teacher=teacher, signals=signals, unchecked=left)

    def plain(self, features: Collection[str]) -> dict[str, Any]:
        """Return what is required as JSON values, without the numbers of views.

        Args:
            features: the names of those that the cache has.
        """
        sections: dict[str, Any] = {"data": self.data.plain()} if self.data else {}
        if self.views:
            views = self.views.plain()
            sections["views"] = {key: views[key] for key in views if key not in ("first", "count")}
        if isinstance(self.teacher, TeacherIdentity):
            sections["teacher"] = {"interpolation": self.teacher.interpolation, **self.teacher.plain()}
        elif self.teacher:
            sections["teacher"] = self.teacher.plain()
        return sections | ({"signals": self.signals.plain(features)} if self.signals else {})
