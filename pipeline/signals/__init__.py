"""Signals: what is kept of what a network said, and the low-pass filters that make maps small."""

from pipeline.signals.config import EmbeddingConfig, EncodingChoice, FeaturesConfig, LogitsConfig, SignalsConfig
from pipeline.signals.lowpass import lowpass, preserves_mean
from pipeline.signals.signals import LinearHead, Signals, SignalShapes

__all__ = [
    "EmbeddingConfig",
    "EncodingChoice",
    "FeaturesConfig",
    "LinearHead",
    "LogitsConfig",
    "SignalShapes",
    "Signals",
    "SignalsConfig",
    "lowpass",
    "preserves_mean",
]
