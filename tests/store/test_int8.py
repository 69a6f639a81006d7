from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from store_standins import patient

from pipeline.store.encodings import load_encoding

LARGEST = np.finfo(np.float32).max
SMALLEST_NORMAL = np.finfo(np.float32).tiny
maps = arrays.arrays(
    np.float32,
    arrays.array_shapes(min_dims=4, max_dims=4, max_side=4),
    elements=st.floats(-float(LARGEST), float(LARGEST), width=32),
)


def coded(values: NDArray[np.float32]) -> tuple[dict[str, NDArray[Any]], NDArray[np.float32]]:
    """The parts, and what is read from them."""
    kind = "features/block1" if values.ndim > 2 else "logits"
    encoding = load_encoding("int8", kind, values.shape[1:])
    parts = encoding.encode(values)
    back: NDArray[np.float32] = encoding.decode({p: torch.from_numpy(a) for p, a in parts.items()}).numpy()
    return parts, back


def oracle(parts: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    """`docs/cache-format.md`, element by element."""
    steps, scale = parts[""], parts["scale"]
    values = np.empty(steps.shape, np.float32)
    for index in np.ndindex(*steps.shape):
        values[index] = np.float32(steps[index]) * scale[index[: scale.ndim]]
    return values


@patient
@given(values=maps)
def test_values_are_within_half_a_step_of_their_channel(values: NDArray[np.float32]) -> None:
    parts, back = coded(values)
    assert parts["scale"].shape == values.shape[:2]
    assert back.tobytes() == oracle(parts).tobytes()
    assert np.all(np.isfinite(back))
    exact = values.astype(np.float64)
    largest = np.abs(exact).max(axis=(2, 3), keepdims=True)
    assert np.all(np.abs(back - exact) <= largest / 254 * (1 + 2**-14) + 2.0**-119)
    assert np.all(np.abs(parts[""].astype(int)) <= 127)  # -128 is the fill value, never a step
    live = parts["scale"] > 0
    assert np.all(np.abs(parts[""].astype(int)).max(axis=(2, 3))[live] == 127)  # every channel uses its range
    assert np.all(parts["scale"][live] >= SMALLEST_NORMAL)


def test_by_hand() -> None:
    parts, back = coded(np.array([[254, -254, 1, -1, 3, 0, 127]], np.float32))
    assert parts["scale"].tolist() == [2]
    assert parts[""].tolist() == [[127, -127, 0, 0, 2, 0, 64]]  # halves go to the even step
    assert back.tolist() == [[254, -254, 0, 0, 4, 0, 128]]


def test_a_vector_has_one_scale_and_a_map_one_for_each_channel() -> None:
    small, large = np.full((1, 2, 2), 1e-3, np.float32), np.full((1, 2, 2), 1e3, np.float32)
    parts, back = coded(np.stack([small, large], 1).reshape(1, 2, 2, 2))
    assert parts["scale"].shape == (1, 2)
    np.testing.assert_allclose(back[0, 0], 1e-3, rtol=1e-6)
    parts, back = coded(np.array([[1e-3, 1e3]], np.float32))
    assert parts["scale"].shape == (1,)
    assert back[0, 0] == 0


def test_a_dead_channel_is_zero_and_leaves_the_others_alone() -> None:
    values = np.zeros((2, 2, 2, 2), np.float32)
    values[1, 1] = [[1, -2], [3, -4]]
    parts, back = coded(values)
    assert parts["scale"].tolist() == [[0, 0], [0, np.float32(4) / np.float32(127)]]
    assert not back[:, 0].any()
    assert not back[0].any()
    np.testing.assert_allclose(back[1, 1], values[1, 1], atol=2 / 127)


@pytest.mark.parametrize("largest", [1e-45, 1e-40, float(SMALLEST_NORMAL), 1e-36])
def test_what_is_too_small_for_a_scale_is_zero(largest: float) -> None:
    parts, back = coded(np.array([[largest, -largest / 2]], np.float32))
    assert parts["scale"][0] == 0
    assert not back.any()


def test_the_smallest_scale_is_a_normal_number() -> None:
    values = np.array([[127 * SMALLEST_NORMAL, -SMALLEST_NORMAL]], np.float32)
    parts, back = coded(values)
    assert parts["scale"][0] == SMALLEST_NORMAL
    assert np.array_equal(back, values)


@pytest.mark.parametrize("largest", [LARGEST, np.nextafter(LARGEST, np.float32(0)), LARGEST / np.float32(2)])
def test_the_largest_numbers_stay_finite(largest: np.float32) -> None:
    _, back = coded(np.array([[largest, -largest, 1]], np.float32))
    np.testing.assert_allclose(back, [[largest, -largest, 0]], rtol=1e-6)
