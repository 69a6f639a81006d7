"""Holds the sources that data sets are packed from: one kind per file, named in `data.source.name`."""

from __future__ import annotations

from pipeline.data.source import DataSource, SourceOptions
from pipeline.factories import Factory

FACTORY = Factory("open_source", ("options",), SourceOptions, lambda: (DataSource,), "decant.sources")
"""How sources are made that lie outside of this folder."""
