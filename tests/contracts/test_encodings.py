"""What every file of `pipeline/store/encodings` must do; each is found by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from contracts.keeping import require_kept
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from pipeline import plugins
from pipeline.contracts.encodings import (
    LARGEST,
    TRIED_SIGNALS,
    EncodingContract,
    decoded,
    refused,
    require_rows_alone,
    require_undamaged,
    require_within_bound,
)
from pipeline.errors import ConfigError
from pipeline.store.encodings import ENCODINGS, EncodingOverflow, encodings_for, load_encoding, resolved_encoding
from pipeline.store.format.arrays import SignalSpec
from pipeline.store.format.encoded import EncodedSignals

NAMES = plugins.names(ENCODINGS)

common = st.floats(-60000, 60000, width=32)
everything = st.floats(-LARGEST, LARGEST, width=32)


def batches(signal: tuple[str, tuple[int, ...]], elements: st.SearchStrategy[float]) -> Any:
    shapes = st.integers(1, 4).map(lambda rows: (rows, *signal[1]))
    return st.tuples(st.just(signal), arrays.arrays(np.float32, shapes, elements=elements))


def signals_of(elements: st.SearchStrategy[float]) -> Any:
    return st.sampled_from(TRIED_SIGNALS).flatmap(lambda signal: batches(signal, elements))


def test_there_are_encodings() -> None:
    assert {"float16", "float32", "int8", "topk"} <= set(NAMES)
    for name in NAMES:
        assert name in encodings_for("logits") + encodings_for("embedding") + encodings_for("features") + encodings_for(
            "extras"
        )


@pytest.mark.parametrize("name", NAMES)
def test_contract(name: str) -> None:
    """What `pipeline contract` tries."""
    require_kept(EncodingContract({"name": name}), ["a_gpu_reads_the_same_values"])


@settings(deadline=None)
@given(drawn=st.one_of(signals_of(common), signals_of(everything)))
def test_what_comes_back_is_within_the_bound(drawn: tuple[Any, NDArray[np.float32]]) -> None:
    (signal, shape), values = drawn
    for name in encodings_for(signal.partition("/")[0]):
        require_within_bound(load_encoding(name, signal, shape), values)


@settings(deadline=None)
@given(drawn=signals_of(st.one_of(common, st.sampled_from([0.0, -0.0, 1.5]))))
def test_rows_are_encoded_one_by_one(drawn: tuple[Any, NDArray[np.float32]]) -> None:
    (signal, shape), values = drawn
    for name in encodings_for(signal.partition("/")[0]):
        require_rows_alone(load_encoding(name, signal, shape), values)


@settings(deadline=None)
@given(drawn=st.one_of(signals_of(common), signals_of(everything)))
def test_what_is_written_is_never_said_to_be_damaged(drawn: tuple[Any, NDArray[np.float32]]) -> None:
    (signal, shape), values = drawn
    for name in encodings_for(signal.partition("/")[0]):
        encoding = load_encoding(name, signal, shape)
        if not refused(encoding, values):
            require_undamaged(encoding, values)


WRITTEN = [(name, *signal) for signal in TRIED_SIGNALS for name in encodings_for(signal[0].partition("/")[0])]
"""Every encoding with every signal that it can write."""


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
