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
from pipeline.errors import ConfigError
from pipeline.store.encodings import (
    ENCODINGS,
    Encoding,
    EncodingOverflow,
    encodings_for,
    load_encoding,
    resolved_encoding,
)
from pipeline.store.format.arrays import ArraySpec, SignalSpec
from pipeline.store.format.encoded import EncodedSignals

NAMES = plugins.names(ENCODINGS)
SIGNALS: list[tuple[str, tuple[int, ...]]] = [
    ("logits", (5,)),
    ("logits", (64,)),
    ("embedding", (7,)),
    ("features/block1", (3, 2, 2)),
    ("features/block2", (4, 1, 3)),
    ("extras/gram/block2", (4, 4)),
]
WRITTEN = [(name, *signal) for signal in SIGNALS for name in encodings_for(signal[0].partition("/")[0])]
"""Every encoding with every signal that it can write."""

LARGEST = float(np.finfo(np.float32).max)
common = st.floats(-60000, 60000, width=32)
everything = st.floats(-LARGEST, LARGEST, width=32)


def batches(signal: tuple[str, tuple[int, ...]], elements: st.SearchStrategy[float]) -> Any:
    shapes = st.integers(1, 4).map(lambda rows: (rows, *signal[1]))
    return st.tuples(st.just(signal), arrays.arrays(np.float32, shapes, elements=elements))


def signals_of(elements: st.SearchStrategy[float]) -> Any:
    return st.sampled_from(SIGNALS).flatmap(lambda signal: batches(signal, elements))


@pytest.fixture(params=WRITTEN, ids=lambda case: f"{case[0]} {case[1]} {case[2]}")
def case(request: pytest.FixtureRequest) -> tuple[Encoding, tuple[int, ...]]:
    name, signal, shape = request.param
    return load_encoding(name, signal, shape), shape


def decoded(encoding: Encoding, values: NDArray[np.float32]) -> NDArray[np.float32]:
    parts = {part: torch.from_numpy(array.copy()) for part, array in encoding.encode(values).items()}
    result: NDArray[np.float32] = encoding.decode(parts).numpy()
    return result


def refused(encoding: Encoding, values: NDArray[np.float32]) -> EncodingOverflow | None:
    try:
        encoding.encode(values)
    except EncodingOverflow as overflow:
        return overflow
    return None


def test_there_are_encodings() -> None:
    assert {"float16", "float32", "int8", "topk"} <= set(NAMES)
    for name in NAMES:
        assert name in encodings_for("logits") + encodings_for("embedding") + encodings_for("features") + encodings_for(
            "extras"
        )


@settings(deadline=None)
@given(drawn=st.one_of(signals_of(common), signals_of(everything)))
def test_what_comes_back_is_within_the_bound(drawn: tuple[Any, NDArray[np.float32]]) -> None:
    (signal, shape), values = drawn
    for name in encodings_for(signal.partition("/")[0]):
        encoding = load_encoding(name, signal, shape)
        if overflow := refused(encoding, values):
            largest = np.abs(values).reshape(len(values), -1).max(axis=1)
            assert np.all(largest[overflow.rows] > overflow.limit)
            continue
        back = decoded(encoding, values)
        assert back.dtype == np.float32
        assert back.shape == values.shape
        bound = encoding.error_bound(values)
        assert bound.shape == values.shape
        assert np.all(np.abs(back.astype(np.float64) - values) <= bound)


@settings(deadline=None)
@given(drawn=signals_of(st.one_of(common, st.sampled_from([0.0, -0.0, 1.5]))))
def test_rows_are_encoded_one_by_one(drawn: tuple[Any, NDArray[np.float32]]) -> None:
    """A unit is filled by micro-batches: what a row becomes must not depend on its neighbours."""
    (signal, shape), values = drawn
    for name in encodings_for(signal.partition("/")[0]):
        encoding = load_encoding(name, signal, shape)
        together = encoding.encode(values)
        for row in range(len(values)):
            for part, array in encoding.encode(values[row : row + 1].copy()).items():
                assert array.tobytes() == together[part][row : row + 1].tobytes()


def test_parts_are_as_declared(case: tuple[Encoding, tuple[int, ...]]) -> None:
    encoding, shape = case
    assert "" in encoding.parts
    made = encoding.encode(np.ones((7, *shape), np.float32))
    assert {part: (array.dtype, array.shape[1:]) for part, array in made.items()} == encoding.parts
    for dtype, part_shape in encoding.parts.values():
        assert dtype.str[0] in "<|"
        assert prod(part_shape) > 0


@settings(deadline=None)
@given(drawn=st.one_of(signals_of(common), signals_of(everything)))
def test_what_is_written_is_never_said_to_be_damaged(drawn: tuple[Any, NDArray[np.float32]]) -> None:
    (signal, shape), values = drawn
    for name in encodings_for(signal.partition("/")[0]):
        encoding = load_encoding(name, signal, shape)
        if not refused(encoding, values):
            for part, rows in encoding.encode(values).items():
                found = encoding.impossible_rows(part, rows)
                assert found.shape == (len(values),)
                assert not found.any()


def test_rows_that_nobody_wrote_are_told(case: tuple[Encoding, tuple[int, ...]]) -> None:
    """Of every part: where a chunk holds its fill value, wholly or in the last place of a row alone."""
    encoding, shape = case
    for part, written in encoding.encode(np.ones((3, *shape), np.float32)).items():
        rows = written.reshape(3, -1).copy()
        rows[0] = rows[1, -1] = ArraySpec(part, rows.dtype, rows.shape, rows.shape, ()).fill
        assert encoding.impossible_rows(part, rows.reshape(written.shape)).tolist() == [True, True, False], part


def test_a_batch_may_be_empty(case: tuple[Encoding, tuple[int, ...]]) -> None:
    encoding, shape = case
    assert decoded(encoding, np.empty((0, *shape), np.float32)).shape == (0, *shape)


def test_values_are_not_changed(case: tuple[Encoding, tuple[int, ...]]) -> None:
    encoding, shape = case
    values = np.linspace(-3, 3, 4 * prod(shape), dtype=np.float32).reshape(4, *shape)
    before = values.copy()
    encoding.encode(values)
    encoding.error_bound(values)
    assert np.array_equal(values, before)


def test_a_value_is_kept_or_refused_with_its_row(case: tuple[Encoding, tuple[int, ...]]) -> None:
    """No encoding makes a finite value infinite in silence."""
    encoding, shape = case
    values = np.ones((4, *shape), np.float32)
    values[2].flat[1] = 3e38
    values[3].flat[0] = LARGEST
    if overflow := refused(encoding, values):
        assert overflow.rows.tolist() == [2, 3]
        assert 0 < overflow.limit < 3e38
        assert refused(encoding, values[2:3]) is not None
    else:
        assert np.all(np.isfinite(decoded(encoding, values)))


@pytest.mark.parametrize(("name", "signal", "shape"), WRITTEN)
def test_decoding_is_not_rounded_by_autocast(name: str, signal: str, shape: tuple[int, ...]) -> None:
    """Students decode inside the autocast of their training step."""
    values = np.random.default_rng(0).normal(0, 3, (6, *shape)).astype(np.float32)
    logits = SignalSpec("logits", "float32", (2,))
    spec = SignalSpec(signal, resolved_encoding(name, signal.partition("/")[0]), shape)
    made = {"logits": np.zeros((6, 2), np.float32)}
    made |= {spec.arrays[part]: array for part, array in spec.codec.encode(values).items()}
    specs = (spec,) if signal == "logits" else (logits, spec)
    encoded = EncodedSignals(
        specs, {array: torch.from_numpy(made[array]) for s in specs for array in s.arrays.values()}
    )
    plain = encoded.decode()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        within = encoded.decode()
        assert torch.is_autocast_enabled("cpu")
    for one, other in zip(tensors(plain), tensors(within), strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)


def tensors(signals: Any) -> list[torch.Tensor]:
    embedding = [] if signals.embedding is None else [signals.embedding]
    return [signals.logits, *embedding, *signals.features.values(), *signals.extras.values()]


@pytest.mark.parametrize("kind", ["logits", "embedding", "features", "extras"])
@pytest.mark.parametrize("name", NAMES)
def test_an_identity_names_an_encoding_that_can_write_the_signal_with_all_options(name: str, kind: str) -> None:
    if name not in encodings_for(kind):
        with pytest.raises(ConfigError, match=rf"signals\.{kind}\.encoding: '{name}' writes .* only") as caught:
            resolved_encoding(name, kind)
        assert f"one of {', '.join(encodings_for(kind))}" in str(caught.value)
        return
    identity = resolved_encoding(name, kind)
    assert resolved_encoding(identity, kind) == identity == resolved_encoding({"name": name}, kind)
    options = getattr(plugins.load(ENCODINGS, name, ""), "Options", None)
    if options is None:
        assert identity == name  # as caches have it that were made before encodings had options
    else:
        assert isinstance(identity, dict)
        assert set(identity) == {"name", *options.model_fields}


@pytest.mark.parametrize("name", NAMES)
def test_unknown_options_are_refused_at_their_key(name: str) -> None:
    with pytest.raises(ConfigError, match=r"signals\.logits\.encoding\.unheard: unknown key"):
        resolved_encoding({"name": name, "unheard": 1}, "logits")


def test_an_unknown_encoding_names_the_nearest_that_can_write_the_signal() -> None:
    for unknown, kind in (("topc", "embedding"), ("topc", "logits"), ({"name": "in8"}, "features")):
        with pytest.raises(ConfigError, match=rf"signals\.{kind}\.encoding(\.name)?: unknown name") as caught:
            resolved_encoding(unknown, kind)  # type: ignore[arg-type]
        wanted = {"features": "int8", "logits": "topk"}.get(kind)
        assert ("did you mean" in str(caught.value)) == (wanted is not None)
        assert wanted is None or f"did you mean {wanted!r}?" in str(caught.value)


def test_float16_rounds_to_the_nearest_even() -> None:
    encoding = load_encoding("float16", "logits", (6,))
    values = np.array([[1 + 2**-11, 1 + 3 * 2**-11, 65519, 2**-25, 3 * 2**-25, -0.0]], np.float32)
    expected = np.array([[1, 1 + 2**-9, 65504, 0, 2**-23, -0.0]], np.float32)
    assert decoded(encoding, values).tobytes() == expected.tobytes()
    with pytest.raises(EncodingOverflow):
        encoding.encode(np.full((1, 6), 65520, np.float32))
