"""Describes signals: what is kept of networks' outputs, low-pass filters that make maps small, and ensembles."""

from pipeline.signals.blocks import block_number, deepest_block
from pipeline.signals.config import (
    EmbeddingConfig,
    EncodingChoice,
    ExtraConfig,
    FeaturesConfig,
    LogitsConfig,
    SignalsConfig,
    SignalsSection,
)
from pipeline.signals.ensemble import Mean, combine
from pipeline.signals.extra import extract, maps_read, taps_read
from pipeline.signals.lowpass import lowpass
from pipeline.signals.signals import LinearHead, Signals, SignalShapes
from pipeline.signals.unit import unit

__all__ = [
    "EmbeddingConfig",
    "EncodingChoice",
    "ExtraConfig",
    "FeaturesConfig",
    "LinearHead",
    "LogitsConfig",
    "Mean",
    "SignalShapes",
    "Signals",
    "SignalsConfig",
    "SignalsSection",
    "block_number",
    "combine",
    "deepest_block",
    "extract",
    "lowpass",
    "maps_read",
    "taps_read",
    "unit",
]
