"""Draws a random sample of a cache, micro-batch by micro-batch, that covers all of it."""

from __future__ import annotations

import numpy as np

from pipeline.store.format.arrays import MicroBatch, Unit
from pipeline.store.format.layout import StoreLayout


def sampled_batches(layout: StoreLayout, micro_batch: int, views: int, seed: int) -> list[MicroBatch]:
    """Draw micro-batches of a cache, in the cache's order.

    The cache is cut into as many stretches of equal length as there will be micro-batches, and one is drawn of
    each: every view and row block of a large cache is near one, and every micro-batch is drawn by some seed.

    Args:
        layout: of the cache.
        micro_batch: how many views the teacher computed at once.
        views: how many to draw in all, about.
        seed: of the drawing.
    """
    full, last = (-(-len(layout.block_of(Unit(0, block))) // micro_batch) for block in (0, layout.blocks - 1))
    per_view = full * (layout.blocks - 1) + last
    total = layout.views * per_view
    wanted = min(-(-views * total // (layout.views * layout.samples)), total)  # those at the end of a block are smaller
    bounds = np.linspace(0, total, wanted + 1).astype(np.int64)
    drawn = np.random.default_rng(seed).integers(bounds[:-1], bounds[1:])

    def at(number: int) -> MicroBatch:
        view, within = divmod(number, per_view)
        unit = Unit(view, within // full)
        block = layout.block_of(unit)
        start = block.start + within % full * micro_batch
        return MicroBatch(unit, range(start, min(start + micro_batch, block.stop)))

    return [at(int(number)) for number in drawn]
