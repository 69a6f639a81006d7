"""Declares the section `data`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from pipeline import plugins
from pipeline.config import LocalPath, Section
from pipeline.data.decoding import Decoding
from pipeline.data.source import SOURCE_PACKAGE, SourceOptions

MOST_CLASSES = 1 << 20


class HoldoutConfig(Section):
    """Says what is kept out of training and caching, to choose by: one of these.

    Args:
        count: so many samples of the split that is learnt from, balanced over the classes, drawn by `seed`.
        split: all labeled samples of a split of one's own, such as `val`.
    """

    count: int | None = Field(default=None, gt=0)
    seed: int = Field(default=0, ge=0, lt=2**63)
    split: str | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.count is None) == (self.split is None):
            raise ValueError("needs a count, or else the name of a split: {count: 500} or {split: val}")
        return self


class LimitConfig(Section):
    """Limits a split to a part of it. A plain number N stands for {count: N}.

    Args:
        count: how many samples.
        seed: of a draw that is balanced over the classes; null takes the first ones, if they are a fair part of every
            class, and else draws with seed 0.
    """

    count: int = Field(gt=0)
    seed: int | None = Field(default=None, ge=0, lt=2**63)


class DataConfig(Section):
    """Says where the packed data set is, what it is packed from, and which of its samples are used.

    Args:
        path: the packed data set (HDF5); `prepare-data` writes it.
        source: what it is packed from; null if the file is there already.
        split: the split that teacher and students learn from.
        holdout: what is kept out of training: a number of its samples, or another split.
        limit: use only so many samples of the split, of all classes alike: N, or {count: N, seed: 0}; null for all.
        classes: how many classes there are, N, or the file of their names (one in each line, or a JSON list); needed
            only where the data set has neither labels nor class names.
        unreadable: what packing does about images that cannot be read: refuse all, or skip and list them.
        decoding: how orientation, transparency and colour profiles of image files are read.
    """

    path: LocalPath
    source: SerializeAsAny[SourceOptions] | None = None
    split: str = "train"
    holdout: HoldoutConfig | None = None
    limit: LimitConfig | None = None
    classes: int | Path | None = None
    unreadable: Literal["refuse", "skip"] = "refuse"
    decoding: Decoding = Decoding()

    @field_validator("source", mode="before")
    @classmethod
    def _bind_source(cls, value: object) -> object:
        """The options of the source that is named; only that source's module is imported."""
        if value is None or isinstance(value, SourceOptions):
            return value
        return plugins.choose(SOURCE_PACKAGE, value).options

    @field_validator("classes")
    @classmethod
    def _some_classes(cls, value: object) -> object:
        if isinstance(value, int) and not 0 < value <= MOST_CLASSES:
            raise ValueError(f"the number of classes is between 1 and {MOST_CLASSES:,}")
        return value

    @field_validator("limit", mode="before")
    @classmethod
    def _number_is_a_count(cls, value: object) -> object:
        return {"count": value} if isinstance(value, int | float | str) else value

    @model_validator(mode="after")
    def _holdout_is_not_learnt_from(self) -> Self:
        if self.holdout is not None and self.holdout.split == self.split:
            raise ValueError("holdout.split is the split that is learnt from: name another, or holdout: {count: N}")
        return self

    @model_validator(mode="after")
    def _source_is_not_target(self) -> Self:
        if self.source is not None and self.source.local == self.path:
            raise ValueError("source.path is path itself: the original would be overwritten")
        return self


class DataSection(Section):
    """Declares that the section `data` is read."""

    data: DataConfig
