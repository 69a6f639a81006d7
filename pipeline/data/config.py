"""The `data` section of a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SerializeAsAny, ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from pipeline import plugins
from pipeline.config import Section
from pipeline.data.source import PACKAGE, SourceOptions


class HoldoutConfig(Section):
    """`count` samples, balanced over the classes, that are kept out of training and caching."""

    count: int = Field(gt=0)
    seed: int = Field(default=0, ge=0, lt=2**63)


class DataConfig(Section):
    """Where the packed data set is, what it is packed from, and which of its samples are used.

    path: the packed data set (HDF5); `prepare-data` writes it.
    source: what it is packed from; null if the file is there already.
    split: the split that teacher and students learn from.
    limit: use only the first `limit` samples of the split; null for all.
    unreadable: what packing does about images that cannot be read: refuse all, or skip and list them.
    """

    path: Path
    source: SerializeAsAny[SourceOptions] | None = None
    split: str = "train"
    holdout: HoldoutConfig | None = None
    limit: int | None = Field(default=None, gt=0)
    unreadable: Literal["refuse", "skip"] = "refuse"

    @field_validator("source", mode="before")
    @classmethod
    def _bind_source(cls, value: object) -> object:
        """The options of the source that is named; only that source's module is imported."""
        if not isinstance(value, Mapping):
            return value
        known = plugins.names(PACKAGE)
        name = value.get("name")
        if name not in known:
            raise ValidationError.from_exception_data("source", [_unknown_name(value, known)])
        options: Any = plugins.load(PACKAGE, str(name), "data.source.name").Options
        return options.model_validate(dict(value))

    @model_validator(mode="after")
    def _source_is_not_target(self) -> Self:
        if self.source is not None and self.source.local == self.path:
            raise ValueError("source.path is path itself: the original would be overwritten")
        return self


def _unknown_name(value: Mapping[Any, Any], known: tuple[str, ...]) -> InitErrorDetails:
    if "name" not in value:
        context = {"known": ", ".join(known), "hint": ""}
        error = PydanticCustomError("missing", "the name of the kind of source is missing", context)
        return InitErrorDetails(type=error, loc=("name",), input=dict(value))
    problem = plugins.unknown("name", str(value["name"]), known)
    context = {"known": ", ".join(known), "hint": problem.fix or ""}
    text = problem.what.replace("{", "(").replace("}", ")")
    error = PydanticCustomError("unknown_name", text, context)
    return InitErrorDetails(type=error, loc=("name",), input=value["name"])
