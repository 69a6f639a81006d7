"""Narrows the section `signals` to fewer signals, and finds what a view takes with them."""

from __future__ import annotations

from collections.abc import Collection

from pipeline.models import Network
from pipeline.signals import SignalsConfig
from pipeline.store.format.layout import CacheExtent, StoreLayout
from pipeline.store.making.layout_for import layout_for
from pipeline.store.making.teacher_pass import chosen_blocks


def layout_of_view(teacher: Network, signals: SignalsConfig) -> StoreLayout:
    """Return the layout of a cache of one view of one sample.

    Args:
        teacher: the network.
        signals: which of its signals are kept.

    Raises ConfigError for signals that it does not have.
    """
    return layout_for(teacher, signals, CacheExtent(samples=1, views=1, parameters=0, micro_batch=1))


def keeping_signals(teacher: Network, signals: SignalsConfig, names: Collection[str]) -> SignalsConfig:
    """Return the section without the signals that are not named.

    Args:
        teacher: the network.
        signals: the section.
        names: `embedding`, `features/<tap>`, `extras/<signal>/<tap>`; the logits stay in any case.

    Without logits, and if none of the others is named, nothing is left out: a cache holds something.
    """
    blocks = tuple(tap for tap in chosen_blocks(list(teacher.taps), signals) if f"features/{tap}" in names)
    features = signals.features.model_copy(update={"blocks": blocks}) if signals.features and blocks else None
    extras = tuple(extra for extra in signals.extras if f"extras/{extra.name}" in names)
    embedding = signals.embedding if "embedding" in names else None
    if not (embedding or features or extras) and (signals.logits is None or "logits" not in teacher.taps):
        return signals
    return signals.model_copy(update={"embedding": embedding, "features": features, "extras": extras})
