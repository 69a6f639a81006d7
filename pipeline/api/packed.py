"""Opens packed data sets from Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.config import problems_of
from pipeline.data import DataConfig, PackedDataset, Samples, select
from pipeline.errors import ArgumentError


def open_packed(
    path: str | Path,
    split: str = "train",
    *,
    limit: int | Mapping[str, Any] | None = None,
    holdout: Mapping[str, Any] | None = None,
) -> Samples:
    """Open the samples of a data set that `pipeline prepare-data` packed, as the commands learn from them.

    A cache that is made of them in Python is the one that `pipeline cache-teacher` makes, and the reverse.

    Args:
        path: the packed file.
        split: the split that is learnt from.
        limit, holdout: as in the section `data` of the configuration. What is held out is no part of the samples.

    Raises:
        DataError: the file or the split cannot be used.
        ConfigError: `limit` or `holdout` are not such sections.

    Example:
        >>> photos = open_packed("data.h5", limit=60, holdout={"count": 12})  # doctest: +SKIP
        >>> photos.count  # doctest: +SKIP
        48
    """
    section = {"path": path, "split": split, "limit": limit, "holdout": holdout}
    try:
        config = DataConfig.model_validate(section)
    except ValidationError as error:
        raise ArgumentError(problems_of(error), "open_packed") from None
    return select(PackedDataset.open(config.path), config)[0]
