"""Computes the layout of a cache before the network runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pipeline.signals import LinearHead, Signals, SignalsConfig, deepest_block, extract
from pipeline.store.format.layout import CacheExtent, StoreLayout, make_layout
from pipeline.store.format.signal_sections import SignalsIdentity
from pipeline.store.making.teacher_pass import chosen_blocks, chosen_extras

if TYPE_CHECKING:
    from pipeline.models import TeacherNetwork


def layout_for(network: TeacherNetwork, config: SignalsConfig, extent: CacheExtent) -> StoreLayout:
    """Return the layout of the cache that `make_cache` would make, without running the network.

    Args:
        network: the teacher.
        config: the signals that are kept of it.
        extent: for how many samples and views, and how they are cut.

    Raises ConfigError for taps, encodings and extra signals that do not exist.
    """
    taps, features = network.taps, {}
    for tap in chosen_blocks(list(taps), config):
        channels, height, width = taps[tap]
        grid = config.features.grid if config.features else height
        features[tap] = _nothing(channels, min(grid, height), min(grid, width))
    extras = {
        name: extract(name, *(torch.empty(1, *taps[tap]) for tap in read))
        for name, read in chosen_extras(list(taps), config).items()
    }
    embedding = head = None
    classes = taps.get("logits", (0,))
    if "embedding" in taps:
        embedding = _nothing(*taps["embedding"])
    if "embedding" in taps and "logits" in taps:
        weight, bias = torch.empty(*classes, *taps["embedding"]), torch.empty(classes)
        head = LinearHead(weight, bias, network.linear, network.linear_final)
    signals = Signals(_nothing(*classes), embedding, features, head, extras)
    return make_layout(SignalsIdentity.of(signals, config, deepest_block(taps)), extent)


def _nothing(*shape: int) -> torch.Tensor:
    return torch.empty(1, *shape, device="meta")
