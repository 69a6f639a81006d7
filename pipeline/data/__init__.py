"""Reads and packs data sets (HDF5): their sources, and the samples of them that a run uses."""

from pipeline.data.config import DataConfig, DataSection, HoldoutConfig, LimitConfig
from pipeline.data.origin import Origin
from pipeline.data.pack import PackReport, pack
from pipeline.data.packed import PackedDataset
from pipeline.data.samples import Samples
from pipeline.data.selection import HELD_OUT, described, select
from pipeline.data.source import DataSource, FromFiles, Item, Reading, SourceOptions, Unreadable, open_source
from pipeline.data.split import Images, ImageSplit, Split

__all__ = [
    "HELD_OUT",
    "DataConfig",
    "DataSection",
    "DataSource",
    "FromFiles",
    "HoldoutConfig",
    "ImageSplit",
    "Images",
    "Item",
    "LimitConfig",
    "Origin",
    "PackReport",
    "PackedDataset",
    "Reading",
    "Samples",
    "SourceOptions",
    "Split",
    "Unreadable",
    "described",
    "open_source",
    "pack",
    "select",
]
