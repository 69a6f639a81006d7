"""The `store` section: where the teacher cache lies and how it is cut into files."""

from __future__ import annotations

from pathlib import Path

from pydantic import PositiveInt

from pipeline.config import Section


class StoreConfig(Section):
    """Path of the cache; rows per chunk file, None to choose; compression, for which there is none yet."""

    path: Path
    rows_per_block: PositiveInt | None = None
    compression: None = None
