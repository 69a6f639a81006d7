"""Describes signals: what is kept of networks' outputs, low-pass filters that make maps small, and ensembles."""

from typing import TYPE_CHECKING

from pipeline.late import late_names
from pipeline.signals.config import (
    EmbeddingConfig,
    EncodingChoice,
    ExtraConfig,
    FeaturesConfig,
    LogitsConfig,
    SignalsConfig,
    SignalsSection,
)

if TYPE_CHECKING:
    from pipeline.signals.blocks import block_number, deepest_block
    from pipeline.signals.ensemble import Mean, combine
    from pipeline.signals.extra import extract, maps_read, taps_read
    from pipeline.signals.signals import LinearHead, Signals, SignalShapes
else:
    __getattr__ = late_names(
        __name__,
        blocks="block_number deepest_block",
        ensemble="Mean combine",
        extra="extract maps_read taps_read",
        signals="LinearHead Signals SignalShapes",
    )

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
    "maps_read",
    "taps_read",
]
