from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_standins import patient

from pipeline.errors import ConfigError
from pipeline.store.format.layout import LARGEST_CHUNK, SMALLEST_CHUNK, CacheExtent, choose_rows, make_layout
from pipeline.store.format.signal_sections import SignalsIdentity

MIB = 1 << 20
LOGITS = {"shape": [100], "encoding": "float16"}
SIGNALS = {
    "logits": LOGITS,
    "embedding": {"shape": [64], "encoding": "float32"},
    "features": {"block3": {"shape": [64, 4, 4], "encoding": "float16"}},
    "grid": 4,
    "filter": "mean",
    "extras": {},
    "head": {"shape": [100, 64], "linear": True},
}
SMALL = CacheExtent(samples=10, views=1, parameters=0, micro_batch=4)


@patient
@given(
    largest=st.integers(1, 4 * MIB),
    samples=st.integers(1, 10**7),
    micro_batch=st.integers(1, 1024),
)
def test_chunk_files_are_neither_small_nor_large(largest: int, samples: int, micro_batch: int) -> None:
    rows = choose_rows(largest, samples, micro_batch)
    assert 1 <= rows <= samples
    assert rows == samples or rows % micro_batch == 0
    if rows < samples:
        assert rows * largest >= SMALLEST_CHUNK or rows * largest + micro_batch * largest > LARGEST_CHUNK
    if rows > micro_batch:
        assert rows * largest <= LARGEST_CHUNK


def test_rows_of_known_stores() -> None:
    # CIFAR-100 with a 25.6 kB map: 14 even blocks of 92 MB. Logits alone: one 16 MiB file holds all of it.
    assert choose_rows(25_600, 50_000, 256) == 3584
    assert choose_rows(200, 50_000, 256) == 50_000
    assert choose_rows(2048, 10_000, 256) == 10_000
    # ImageNet, 25.6 kB: as large as allowed, in whole micro-batches.
    assert choose_rows(25_600, 1_281_167, 256) == LARGEST_CHUNK // (25_600 * 256) * 256
    assert choose_rows(200, 50_000, 256, requested=1000) == 1000
    assert choose_rows(200, 50, 256, requested=1000) == 50


def test_a_plan_says_what_a_store_will_take() -> None:
    kept = SignalsIdentity.model_validate(SIGNALS)
    made = make_layout(kept, CacheExtent(samples=1000, views=8, parameters=3, micro_batch=32, rows_per_block=300))
    assert made.bytes_per_view == {"logits": 200, "embedding": 256, "features/block3": 2048}
    assert made.blocks == 4
    assert len(list(made.units)) == 32
    assert sorted(made.arrays) == ["embedding", "features/block3", "logits", "view_digest", "view_parameters"]
    assert made.arrays["features/block3"].shape == (8, 1000, 64, 4, 4)
    assert made.arrays["features/block3"].chunk == (1, 300, 64, 4, 4)
    assert made.arrays["view_digest"].chunk == (1, 300)
    per_view = 200 + 256 + 2048 + 8 + 3 * 4
    assert 0 <= made.total_bytes - (8 * 4 * (300 * per_view + 5 * 4)) < 200_000
    assert [list(made.block_of(unit)) for unit in made.units][3] == list(range(900, 1000))
    assert made.shapes.features == {"block3": (64, 4, 4)}


def test_no_parameters_no_array() -> None:
    made = make_layout(SignalsIdentity.model_validate(SIGNALS), SMALL)
    assert "view_parameters" not in made.arrays


def test_an_unknown_encoding_is_named_with_its_key() -> None:
    signals = SIGNALS | {"logits": LOGITS | {"encoding": "flaot16"}}
    with pytest.raises(ConfigError, match=r"signals\.logits\.encoding") as caught:
        make_layout(SignalsIdentity.model_validate(signals), SMALL)
    assert "float16" in str(caught.value)
