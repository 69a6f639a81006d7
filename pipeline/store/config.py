"""The `store` section: where the teacher cache lies and how it is cut into files."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import PositiveInt

from pipeline.config import Section


class StoreConfig(Section):
    """Where the cache lies, and how it is cut into files.

    rows_per_block: samples in a chunk file, None to choose. compression: `zstd` for archives and remote stores; a
    store without is read in place.
    """

    path: Path
    rows_per_block: PositiveInt | None = None
    compression: Literal["zstd"] | None = None
