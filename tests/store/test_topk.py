from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from store_standins import patient

from pipeline.errors import ConfigError
from pipeline.store.encodings import EncodingOverflow, load_encoding, resolved_encoding

logits = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 3), st.integers(1, 40)),
    elements=st.one_of(st.floats(-40, 40, width=32), st.floats(-60000, 60000, width=32), st.sampled_from([0.0, 1.0])),
)


def coded(values: NDArray[np.float32], k: int = 32) -> tuple[dict[str, NDArray[Any]], NDArray[np.float32]]:
    """The parts, and what is read from them."""
    encoding = load_encoding({"name": "topk", "k": k}, "logits", values.shape[1:])
    parts = encoding.encode(values)
    back: NDArray[np.float32] = encoding.decode({p: torch.from_numpy(a) for p, a in parts.items()}).numpy()
    return parts, back


def oracle(parts: dict[str, NDArray[Any]], classes: int) -> NDArray[np.float32]:
    """`docs/cache-format.md`, row by row."""
    rows, k = parts[""].shape
    values = np.empty((rows, classes), np.float32)
    for row in range(rows):
        if k < classes:
            values[row] = parts["rest"][row] - np.float32(math.log(classes - k))
        for value, place in zip(parts[""][row], parts["indices"][row], strict=True):
            values[row, int(place)] = value
    return values


def mass(values: NDArray[Any]) -> NDArray[np.float64]:
    """Σ exp, with the largest exponent taken out: in units that do not overflow."""
    return np.exp(values.astype(np.float64)).sum(-1)


@patient
@given(values=logits, k=st.integers(1, 45))
def test_the_largest_logits_are_kept_in_place_and_the_others_have_their_mass(
    values: NDArray[np.float32], k: int
) -> None:
    classes = values.shape[1]
    kept = min(k, classes)
    parts, back = coded(values, k)
    assert back.tobytes() == oracle(parts, classes).tobytes()
    for row in range(len(values)):
        order = sorted(range(classes), key=lambda c: (-values[row, c], c))  # the first of equal ones
        assert parts["indices"][row].tolist() == order[:kept]
        np.testing.assert_array_equal(parts[""][row], values[row, order[:kept]].astype(np.float16))
        if kept < classes:
            others = values[row, order[kept:]].astype(np.float64)
            shared = np.full(classes - kept, back[row, order[-1]], np.float64)
            np.testing.assert_array_equal(back[row, order[kept:]], shared)
            top = others.max()
            rest = math.log(mass(others - top)) + top
            # The log of the mass, to float32's last bits.
            assert math.log(mass(shared - top)) + top == pytest.approx(rest, rel=2e-7, abs=1e-6)


def test_by_hand() -> None:
    values = np.log(np.array([[1, 8, 2, 4, 1]], np.float32))
    parts, back = coded(values, k=2)
    assert parts["indices"].tolist() == [[1, 3]]
    assert parts["rest"][0] == pytest.approx(math.log(4), rel=1e-6)
    np.testing.assert_allclose(np.exp(back), [[4 / 3, 8, 4 / 3, 4, 4 / 3]], rtol=1e-3)


def test_the_others_have_their_mass_at_temperature_one_more_above_and_less_below() -> None:
    values = np.random.default_rng(0).normal(0, 4, (50, 100)).astype(np.float32)
    parts, back = coded(values, k=8)
    others = np.ones(values.shape, bool)
    np.put_along_axis(others, parts["indices"].astype(int), False, axis=1)

    def of_others(z: NDArray[np.float32], temperature: float) -> NDArray[np.float64]:
        return mass(np.where(others, z / temperature, -np.inf))

    np.testing.assert_allclose(of_others(back, 1), of_others(values, 1), rtol=2e-6)
    assert np.all(of_others(back, 4) > of_others(values, 4))
    assert np.all(of_others(back, 0.5) < of_others(values, 0.5))


def test_a_tail_far_below_a_sure_answer_is_kept() -> None:
    """The log-sum-exp of all logits would be 30 to float32's last bit, and the others' share lost in it."""
    values = np.full((1, 100), -25, np.float32)
    values[0, 3], values[0, 50:] = 30, -27
    _, back = coded(values, k=1)
    assert back[0, 3] == 30
    assert back[0, 0] == pytest.approx(math.log((49 * math.exp(-25) + 50 * math.exp(-27)) / 99), rel=1e-6)


@pytest.mark.parametrize("margin", [1e4, 6e4, 3e38])
def test_huge_margins_stay_finite(margin: float) -> None:
    values = np.full((1, 10), -margin, np.float32)
    values[0, 4] = 100
    parts, back = coded(values, k=1)
    assert parts["indices"].tolist() == [[4]]
    np.testing.assert_allclose(back, values, rtol=1e-6, atol=math.log(9) * 1e-6)


def test_equal_logits_stay_equal_and_the_first_classes_are_kept() -> None:
    parts, back = coded(np.full((2, 100), 1.5, np.float32), k=7)
    assert parts["indices"].tolist() == [list(range(7))] * 2
    np.testing.assert_allclose(back, 1.5, rtol=1e-6)
    signed = np.array([[-0.0, 0.0, -0.0, -1.0]], np.float32)
    assert coded(signed, k=2)[0]["indices"].tolist() == [[0, 1]]


def test_denormals_are_ordered_like_others() -> None:
    parts, _ = coded(np.array([[-1e-45, 0, 1e-45, 1e-40, -1e-40]], np.float32), k=5)
    assert parts["indices"].tolist() == [[3, 2, 1, 0, 4]]


@pytest.mark.parametrize("k", [5, 6, 1000])
def test_where_there_are_no_others_all_logits_are_kept_and_the_rest_weighs_nothing(k: int) -> None:
    values = np.array([[1, -2, 3, 0.5, -60000]], np.float32)
    parts, back = coded(values, k)
    assert parts["rest"].tolist() == [-math.inf]
    np.testing.assert_array_equal(back, values.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize(("classes", "dtype"), [(65_535, "<u2"), (65_536, "<u4"), (100_000, "<u4")])
def test_indices_of_very_many_classes(classes: int, dtype: str) -> None:
    values = np.zeros((2, classes), np.float32)
    for row, places in enumerate([[classes - 1, 0, 32_768], [40_000, 65_534, 1]]):
        values[row, places] = [9, 8, 7]
    parts, back = coded(values, k=3)
    assert parts["indices"].dtype == np.dtype(dtype)
    assert parts["indices"].tolist() == [[classes - 1, 0, 32_768], [40_000, 65_534, 1]]
    assert parts["indices"].max() < np.iinfo(dtype).max  # the fill value is no class
    assert back.tobytes() == oracle(parts, classes).tobytes()
    np.testing.assert_allclose(back, values, atol=1e-5)


def test_a_kept_logit_that_overflows_is_refused_and_another_is_not() -> None:
    values = np.zeros((3, 4), np.float32)
    values[0, 0], values[1, 1] = -1e6, 1e6
    with pytest.raises(EncodingOverflow) as caught:
        coded(values, k=2)
    assert caught.value.rows.tolist() == [1]


def test_it_has_its_default_unless_told() -> None:
    assert resolved_encoding("topk", "logits") == {"name": "topk", "k": 32}
    assert resolved_encoding({"name": "topk", "k": 10}, "logits") == {"name": "topk", "k": 10}
    assert load_encoding("topk", "logits", (1000,)).parts[""][1] == (32,)
    assert load_encoding("topk", "logits", (10,)).parts[""][1] == (10,)


@pytest.mark.parametrize("k", [0, -1, 1.5, "many"])
def test_a_k_that_is_no_number_of_logits_is_refused(k: Any) -> None:
    with pytest.raises(ConfigError, match=r"signals\.logits\.encoding\.k"):
        resolved_encoding({"name": "topk", "k": k}, "logits")
