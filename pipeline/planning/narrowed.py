"""The `signals` section with fewer signals, and what is kept by it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pipeline.models import Network
from pipeline.signals import SignalsConfig
from pipeline.store.format.layout import StoreLayout
from pipeline.store.making.layout_for import layout_for
from pipeline.store.making.teacher_pass import chosen_blocks

Read = Mapping[tuple[str, str], frozenset[str]]
"""The teacher's signals that are read, by student and objective set."""


def kept_of(teacher: Network, signals: SignalsConfig) -> StoreLayout:
    """What is kept of one view of one sample."""
    return layout_for(teacher, signals, samples=1, views=1, parameters=0, micro_batch=1)


def keeping_signals(teacher: Network, signals: SignalsConfig, names: Collection[str]) -> SignalsConfig:
    """The section without the signals that are not named; the logits stay, as always."""
    blocks = tuple(tap for tap in chosen_blocks(list(teacher.taps), signals) if f"features/{tap}" in names)
    features = signals.features.model_copy(update={"blocks": blocks}) if signals.features and blocks else None
    extras = tuple(extra for extra in signals.extras if f"extras/{extra.name}" in names)
    embedding = signals.embedding if "embedding" in names else None
    return signals.model_copy(update={"embedding": embedding, "features": features, "extras": extras})


def read_by_any(needs: Read) -> frozenset[str]:
    """Return the teacher's signals that some student reads."""
    return frozenset().union(*needs.values())
