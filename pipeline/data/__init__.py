"""Packed data sets (HDF5), the sources they are packed from, and the samples of them that a run uses."""

from pipeline.data.config import DataConfig, HoldoutConfig
from pipeline.data.origin import Origin
from pipeline.data.pack import PackReport, pack
from pipeline.data.packed import PackedDataset
from pipeline.data.samples import Samples, select
from pipeline.data.source import Item, Source, SourceOptions, Unreadable, open_source
from pipeline.data.split import Images, Split

__all__ = [
    "DataConfig",
    "HoldoutConfig",
    "Images",
    "Item",
    "Origin",
    "PackReport",
    "PackedDataset",
    "Samples",
    "Source",
    "SourceOptions",
    "Split",
    "Unreadable",
    "open_source",
    "pack",
    "select",
]
