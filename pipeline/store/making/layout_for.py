"""Computes the layout of a cache before the network runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pipeline.signals import LinearHead, Signals, SignalsConfig, deepest_block, extract
from pipeline.store.format.chunks import Compression
from pipeline.store.format.layout import StoreLayout, make_layout
from pipeline.store.format.signal_sections import SignalsIdentity
from pipeline.store.making.teacher_pass import chosen_blocks, chosen_extras

if TYPE_CHECKING:
    from pipeline.models import TeacherNetwork


def layout_for(
    network: TeacherNetwork,
    config: SignalsConfig,
    *,
    samples: int,
    views: int,
    parameters: int,
    micro_batch: int,
    rows_per_block: int | None = None,
    compression: Compression = None,
) -> StoreLayout:
    """The plan of the cache that `make_cache` would make. samples, views, parameters: N, V, P.

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
    if "embedding" in taps:
        embedding = _nothing(*taps["embedding"])
        weight, bias = torch.empty(*taps["logits"], *taps["embedding"]), torch.empty(taps["logits"])
        head = LinearHead(weight, bias, network.linear, network.linear_final)
    signals = Signals(_nothing(*taps["logits"]), embedding, features, head, extras)
    return make_layout(
        SignalsIdentity.of(signals, config, deepest_block(taps)),
        samples=samples,
        views=views,
        parameters=parameters,
        micro_batch=micro_batch,
        rows_per_block=rows_per_block,
        compression=compression,
    )


def _nothing(*shape: int) -> torch.Tensor:
    return torch.empty(1, *shape, device="meta")
