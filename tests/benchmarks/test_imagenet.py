"""The stores of the paper exercise are those that `pipeline.store` plans."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from imagenet import FLOAT16, FLOAT32, ONE_K, SMALL, TYPICAL, Store, limits, resnet50

from pipeline.store.cluster.worker import UNITS_AT_ONCE
from pipeline.store.format.layout import CacheExtent, make_layout
from pipeline.store.format.signal_sections import SignalsIdentity
from pipeline.store.making.shared_images import most_at_once


def test_a_float16_store_is_the_real_plan():
    store, real = Store(ONE_K, FLOAT16), resnet50(ONE_K)
    assert (store.rows, store.job.units) == (real.rows, real.views * real.blocks)
    assert store.files == pytest.approx(real.files, abs=40)  # of metadata
    assert store.bytes == pytest.approx(real.total_bytes, rel=1e-4)
    chunks = {name for _, files in real.chunk_files() for name in files if name.count("/c/0/") and name != "labels/c/0"}
    parents = {name.rsplit("/", depth)[0] for name in chunks for depth in range(1, 4)}
    below = [folder for folder in parents if folder.partition("/c/0/")[2]]  # a view's own folder is not a unit's
    assert store.inodes == store.files + real.views * len(below)


def test_bytes_of_a_view_by_hand():
    features = (1024 + 2048) * 16
    more = 5 * 4 + 8
    assert Store(ONE_K, FLOAT32).view == 4 * (1000 + 2048 + features) + more
    assert Store(ONE_K, FLOAT16).view == 2 * (1000 + 2048 + features) + more
    small = (32 * 2 + 32 * 2 + 4) + 2 * 2048 + features + 4 * (1024 + 2048) + more
    assert Store(ONE_K, SMALL).view == small


def test_requested_row_blocks_are_those_of_the_plan():
    signals = {
        "logits": {"shape": [1000], "encoding": "float16"},
        "embedding": {"shape": [2048], "encoding": "float16"},
        "features": {
            tap: {"shape": [c, 4, 4], "encoding": "float16"} for tap, c in (("block3", 1024), ("block4", 2048))
        },
        "extras": {},
        "grid": 4,
        "filter": "mean",
        "head": None,
    }
    kept = SignalsIdentity.model_validate(signals)
    for rows in (None, 1024, 3000, 16_384):
        real = make_layout(kept, CacheExtent(1_281_167, views=50, parameters=5, micro_batch=256, rows_per_block=rows))
        store = Store(ONE_K, FLOAT16, rows)
        assert (store.rows, store.job.units) == (real.rows, 50 * real.blocks)


def test_views_that_are_decoded_together_are_those_of_a_worker():
    files: Any = SimpleNamespace(split=SimpleNamespace(image_shape=None))
    assert Store(ONE_K).job.most == most_at_once(resnet50(ONE_K), files, UNITS_AT_ONCE) == 1
    assert Store(ONE_K, FLOAT16, 1024).job.most == 2**31 // (3 * (1024 * 104_428 + 24)) == 6


def test_limits_by_hand():
    store = Store(ONE_K)
    alone = limits(store, TYPICAL)
    views = store.job.units * store.job.views
    assert alone["teacher"] == pytest.approx(views / 8 / 4000 / 3600)
    assert alone["writing"] == pytest.approx(store.bytes / 6e9 / 3600)
    assert alone["coordinator"] == pytest.approx(15_650 * 0.02 / 3600)
