"""Defines the sections of a cache's identity, except its signals: samples, views, teacher, and row blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from pipeline import own_code
from pipeline.config import problems_of
from pipeline.errors import CacheMismatch, ConfigError
from pipeline.publishing.fingerprint import canonical, fingerprint
from pipeline.views import ViewsConfig

if TYPE_CHECKING:
    from pipeline.data import Samples
    from pipeline.models import TeacherNetwork
    from pipeline.views import Views

Count = Annotated[int, Field(ge=1, lt=2**40)]
PositiveSize = Annotated[int, Field(ge=1, lt=2**31)]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]
"""A part of the name of an array, and so of a path: it is never `..`, never hidden, never absolute."""


PluginName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}$")]
"""The name of a plug-in, of Decant's or by `module:name`."""


class IdentitySection(BaseModel):
    """Declares a section of an identity. Types are not converted: `1.0` and `true` are no integers.

    Unknown fields, which another version wrote, are kept, so that the hash of the section stays the same.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")

    def plain(self) -> dict[str, Any]:
        """Return the section as JSON values: the fields that were given, and no defaults."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)

    def canonical(self) -> str:
        """Return the canonical JSON text of the section, with the fields of other versions."""
        return canonical(self.plain())

    @cached_property
    def fingerprint(self) -> str:
        """Return the SHA-256 of the canonical JSON, 64 hexadecimal digits."""
        return fingerprint(self.plain())


class DataIdentity(IdentitySection):
    """Identifies the samples: their number, pixels and ids. Labels are left out: correcting them keeps the cache.

    Args:
        pixels, ids: digests.
    """

    samples: Count
    pixels: str
    ids: str

    @classmethod
    def of(cls, samples: Samples) -> Self:
        """Return the section for `samples`. All their pixels are read for it."""
        return cls(samples=int(samples.count), pixels=samples.pixel_digest(), ids=samples.ids_digest())


class OperationIdentity(IdentitySection):
    """Identifies an operation of views: its name, and all options as further fields."""

    name: str


class ViewsIdentity(IdentitySection):
    """Identifies the views of every sample.

    Args:
        operations: with all their options.
        seed: of the drawn parameters.
        first, count: the number of the first view, and how many views there are.
        parameters: the names of the drawn parameters.
        partners: a digest of the positions of the samples, where views mix them; left out elsewhere.
    """

    operations: Annotated[tuple[OperationIdentity, ...], Field(strict=False)]
    seed: int
    first: Annotated[int, Field(ge=0, lt=2**40)]
    count: PositiveSize
    parameters: Annotated[tuple[str, ...], Field(strict=False, max_length=1000)]
    partners: str | None = None

    @classmethod
    def of(cls, views: Views) -> Self:
        """Return the section for `views`."""
        numbers, names = views.numbers, list(views.parameter_names)
        where = {"first": numbers.start, "count": len(numbers), "parameters": names}
        return cls.model_validate({**views.identity(), **where})

    @property
    def numbers(self) -> range:
        """Return the numbers of the views."""
        return range(self.first, self.first + self.count)

    def config(self) -> ViewsConfig:
        """Return the section `views` that renders these views.

        Raises CacheMismatch if this version cannot, or if an operation is the user's own code that is not imported yet.
        """
        given = self.plain()
        require_imported((operation.name for operation in self.operations), "views", "views.operations")
        with understood("views"):
            return ViewsConfig.model_validate({key: given[key] for key in ("count", "first", "seed", "operations")})


class TeacherIdentity(IdentitySection):
    """Identifies the network with its weights, preprocessing and arithmetic.

    Args:
        model, options: its name, and options that it is built with.
        num_classes: K; 0 without a classifier.
        input_size: in pixels, one number for a square, or height and width.
        mean, std: of the channels, in units of the range [0, 1].
        interpolation: absent for bilinear.
        weights: a digest.
        precision: of the arithmetic.
        micro_batch: views that are computed at once.
    """

    model: str
    options: dict[str, Any] = {}
    num_classes: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    input_size: PositiveSize | Annotated[tuple[PositiveSize, PositiveSize], Field(strict=False)] | None = None
    mean: Annotated[tuple[float | int, ...], Field(strict=False)] = ()
    std: Annotated[tuple[float | int, ...], Field(strict=False)] = ()
    interpolation: str = "bilinear"
    weights: str
    precision: str
    micro_batch: PositiveSize

    @classmethod
    def of(cls, network: TeacherNetwork, *, precision: str, micro_batch: int) -> Self:
        """Return the section for a `network` that computes in `precision`, `micro_batch` views at a time."""
        arithmetic = {"precision": precision, "micro_batch": micro_batch}
        return cls.model_validate({**network.identity(), "weights": network.weights_digest(), **arithmetic})


class ChunkingIdentity(IdentitySection):
    """Identifies how a cache is cut into files.

    Args:
        rows_per_block: samples in a row block.
        compression: of chunk files.
    """

    rows_per_block: Count
    compression: Literal["zstd"] | None


def require_imported(names: Iterable[str], part: str, where: object) -> None:
    """Refuse a cache, which may come from anywhere, that names code of somebody's own which nobody imported.

    Args:
        names: of plug-ins.
        part: what of the cache they make.
        where: for the error.

    Raises CacheMismatch.
    """
    for name in names:
        if own_code.is_own(name) and not own_code.is_imported(name):
            module = name.partition(":")[0]
            raise CacheMismatch(
                f"the {part} of the teacher cache are made by code of its own, which its name alone does not run",
                where=where,
                got=name,
                fix=f"if you trust it: add --code {name} to `pipeline inspect` or `pipeline verify`, or name the "
                f"configuration that has it (in Python, import {module} before)",
            )


@contextmanager
def understood(part: str) -> Iterator[None]:
    """Turn errors of a configuration that is made from an identity into CacheMismatch: another version wrote it.

    Args:
        part: the section of the identity, for the error.
    """
    try:
        yield
    except (ValidationError, ConfigError) as error:
        problems = problems_of(error) if isinstance(error, ValidationError) else error.problems
        got = "; ".join(problem.line for problem in problems[:5])
        raise CacheMismatch(f"this version cannot do what the teacher cache says of its {part}", got=got) from None
