"""What every file of `pipeline/store/encodings` must do; each is found by itself."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from pipeline import plugins
from pipeline.store.encodings import ENCODINGS, Encoding, EncodingOverflow, load

SHAPES = [(5,), (64,), (3, 2, 2)]
batches = st.sampled_from(SHAPES).flatmap(
    lambda shape: arrays.arrays(
        np.float32,
        st.integers(1, 4).map(lambda rows: (rows, *shape)),
        elements=st.floats(-60000, 60000, width=32),
    )
)


@pytest.fixture(params=plugins.names(ENCODINGS))
def encoding(request: pytest.FixtureRequest) -> Encoding:
    return load(request.param, "signals.logits.encoding")


def decoded(encoding: Encoding, values: NDArray[np.float32]) -> NDArray[np.float32]:
    parts = {part: torch.from_numpy(array.copy()) for part, array in encoding.encode(values).items()}
    result: NDArray[np.float32] = encoding.decode(parts).numpy()
    return result


def test_there_are_encodings() -> None:
    assert {"float16", "float32"} <= set(plugins.names(ENCODINGS))


@settings(deadline=None)
@given(values=batches)
def test_what_comes_back_is_within_the_tolerance(values: NDArray[np.float32]) -> None:
    for name in plugins.names(ENCODINGS):
        encoding = load(name, "")
        back = decoded(encoding, values)
        assert back.dtype == np.float32
        assert back.shape == values.shape
        relative, absolute = encoding.TOLERANCE
        exact = values.astype(np.float64)
        assert np.all(np.abs(back - exact) <= relative * np.abs(exact) + absolute)


@settings(deadline=None)
@given(values=batches)
def test_rows_are_encoded_one_by_one(values: NDArray[np.float32]) -> None:
    """A unit is filled by micro-batches: what a row becomes must not depend on its neighbours."""
    for name in plugins.names(ENCODINGS):
        encoding = load(name, "")
        together = encoding.encode(values)
        for row in range(len(values)):
            for part, array in encoding.encode(values[row : row + 1].copy()).items():
                assert array.tobytes() == together[part][row : row + 1].tobytes()


@pytest.mark.parametrize("shape", SHAPES)
def test_parts_are_as_declared(encoding: Encoding, shape: tuple[int, ...]) -> None:
    declared = encoding.parts(shape)
    assert "" in declared
    made = encoding.encode(np.ones((7, *shape), np.float32))
    assert {part: (array.dtype, array.shape[1:]) for part, array in made.items()} == declared
    for dtype, part_shape in declared.values():
        assert dtype.str[0] in "<|"
        assert prod(part_shape) > 0


def test_a_batch_may_be_empty(encoding: Encoding) -> None:
    assert decoded(encoding, np.empty((0, 5), np.float32)).shape == (0, 5)


def test_values_are_not_changed(encoding: Encoding) -> None:
    values = np.linspace(-3, 3, 20, dtype=np.float32).reshape(4, 5)
    before = values.copy()
    encoding.encode(values)
    assert np.array_equal(values, before)


def test_a_value_is_kept_or_refused_with_its_row(encoding: Encoding) -> None:
    """No encoding makes a finite value infinite in silence."""
    values = np.ones((4, 5), np.float32)
    values[2, 3] = -3e38
    values[3, 0] = 3e38
    try:
        assert np.all(np.isfinite(decoded(encoding, values)))
    except EncodingOverflow as overflow:
        refused = overflow
        with pytest.raises(EncodingOverflow):
            encoding.encode(values[2:3])
    else:
        return
    assert refused.rows.tolist() == [2, 3]
    assert 0 < refused.limit < 3e38


def test_float16_rounds_to_the_nearest_even() -> None:
    encoding: Any = load("float16", "")
    values = np.array([[1 + 2**-11, 1 + 3 * 2**-11, 65519, 2**-25, 3 * 2**-25, -0.0]], np.float32)
    expected = np.array([[1, 1 + 2**-9, 65504, 0, 2**-23, -0.0]], np.float32)
    assert decoded(encoding, values).tobytes() == expected.tobytes()
    with pytest.raises(EncodingOverflow):
        encoding.encode(np.full((1, 1), 65520, np.float32))
