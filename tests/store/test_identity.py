"""The identity of a cache: hashes what was written, whoever wrote it, and says what a cache does not provide."""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hostile import few
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.errors import CacheCorrupt
from pipeline.store.format.identity import CacheIdentity
from pipeline.store.format.requirements import CacheRequirement, RequiredSignals, RequiredTeacher

STORED: dict[str, Any] = {
    "schema": 2,
    "data": {"samples": 10, "pixels": "sha256:1", "ids": "sha256:2"},
    "views": {
        "operations": [{"name": "pad-crop", "padding": 4, "fill": [0, 0.5]}, {"name": "horizontal-flip"}],
        "seed": 1,
        "first": 0,
        "count": 8,
        "parameters": ["pad-crop.top", "pad-crop.left", "horizontal-flip.flip"],
    },
    "teacher": {
        "model": "vit",
        "options": {"depth": 6, "heads": 3},
        "num_classes": 5,
        "input_size": 8,
        "mean": [0.5, 0, 1e-07],
        "std": [1, 1.0, 0.25],
        "weights": "sha256:3",
        "precision": "float32",
        "micro_batch": 4,
    },
    "signals": {
        "logits": {"shape": [5], "encoding": {"name": "topk", "k": 3}},
        "embedding": {"shape": [6], "encoding": "float16"},
        "features": {
            "block1": {"shape": [4, 2, 2], "encoding": "float16"},
            "block2": {"shape": [6, 2, 2], "encoding": "int8"},
        },
        "grid": 2,
        "filter": "mean",
        "extras": {"attention-map/block2": {"shape": [2, 2], "encoding": "float32"}},
        "head": {"shape": [5, 6], "linear": True},
    },
    "layout": {"rows_per_block": 4, "compression": None},
}


def stored(**changes: Any) -> dict[str, Any]:
    """The identity with sections changed."""
    values = copy.deepcopy(STORED)
    for section, fields in changes.items():
        values[section] |= fields
    return values


def text_of(values: Any) -> str:
    """Canonical JSON as docs/cache-format.md has it, written here once more."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def identity(**changes: Any) -> CacheIdentity:
    return CacheIdentity.model_validate(stored(**changes))


def test_it_hashes_what_was_stored() -> None:
    one = identity()
    assert one.layout.total_bytes  # what is computed from it is no part of it
    assert one.canonical() == text_of(STORED)
    assert one.fingerprint == hashlib.sha256(text_of(STORED).encode()).hexdigest()
    assert one.canonical() == text_of(STORED)
    assert one.teacher.fingerprint == hashlib.sha256(text_of(STORED["teacher"]).encode()).hexdigest()
    assert one == pickle.loads(pickle.dumps(one)) == identity()


def test_left_out_and_given_defaults_are_told_apart() -> None:
    given = stored(teacher={"interpolation": "bilinear"}, signals={"blocks": None})
    given["signals"]["head"]["linear_final"] = False
    assert CacheIdentity.model_validate(given).canonical() == text_of(given)
    bare = stored()
    for name in ("options", "num_classes", "input_size", "mean", "std"):
        del bare["teacher"][name]
    one = CacheIdentity.model_validate(bare)
    assert one.canonical() == text_of(bare)
    assert (one.teacher.options, one.teacher.mean, one.teacher.interpolation) == ({}, (), "bilinear")


PLACES = (
    (),
    *(("data",), ("views",), ("teacher",), ("teacher", "options"), ("signals",), ("signals", "logits"), ("layout",)),
    *(("views", "operations", 0), ("signals", "logits", "encoding"), ("signals", "features", "block1")),
    *(("signals", "extras", "attention-map/block2"), ("signals", "head")),
)
OWN = ("chunking", "schema_number", "fingerprint", "plain", "model_config", "__dict__", "é", "")
"""Names of its own that a field of another version could have."""

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@few
@given(place=st.sampled_from(PLACES), name=st.sampled_from(OWN) | st.text("xyz", min_size=2), value=json_values)
def test_fields_of_another_version_hash_as_they_did(place: tuple[Any, ...], name: str, value: Any) -> None:
    values = stored()
    section = values
    for key in place:
        section = section[key]
    section[name] = value
    one = CacheIdentity.model_validate(values)
    assert one.canonical() == text_of(values)
    assert one.fingerprint == hashlib.sha256(text_of(values).encode()).hexdigest()
    if place[-1:] != ("encoding",):  # where it is an option that this version does not have
        assert one.layout == identity().layout


def test_it_is_frozen() -> None:
    one = identity()
    with pytest.raises(ValidationError, match="frozen"):
        one.teacher.micro_batch = 8  # type: ignore[misc]


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("data", "samples", 10.0),
        ("data", "samples", True),
        ("data", "samples", 0),
        ("data", "samples", 2**40),
        ("views", "count", "8"),
        ("views", "first", -1),
        ("views", "parameters", "abc"),
        ("views", "parameters", ["x"] * 1001),
        ("views", "operations", [{"options": 1}]),
        ("teacher", "micro_batch", None),
        ("teacher", "model", 1),
        ("signals", "grid", 0),
        ("signals", "filter", "../evil"),
        ("signals", "logits", {"shape": [5, 1], "encoding": "float16"}),
        ("signals", "logits", {"shape": [5], "encoding": ".hidden"}),
        ("signals", "logits", {"shape": [5.0], "encoding": "float16"}),
        ("signals", "features", {"../block": {"shape": [1, 1, 1], "encoding": "float16"}}),
        ("signals", "extras", {"a/../b": {"shape": [1], "encoding": "float16"}}),
        ("signals", "extras", {"a": {"shape": [1] * 9, "encoding": "float16"}}),
        ("signals", "head", {"shape": [4, 6], "linear": True}),
        ("signals", "head", {"shape": [5, 7], "linear": True}),
        ("signals", "head", {"shape": [5, 6], "linear": 1}),
        ("layout", "rows_per_block", 0),
        ("layout", "compression", "gzip"),
    ],
)
def test_what_cannot_be_a_caches_is_refused_where_it_is_wrong(section: str, field: str, value: Any) -> None:
    with pytest.raises(CacheCorrupt, match=f"identity is not that of a cache(.|\n)*{section}") as caught:
        CacheIdentity.read(stored(**{section: {field: value}}), Path("zarr.json"))
    assert "where: zarr.json" in str(caught.value)


@pytest.mark.parametrize("values", [None, [], {}, "x", {**STORED, "schema": 3}, {**STORED, "schema": True}])
def test_what_is_no_identity_is_refused(values: Any) -> None:
    with pytest.raises(CacheCorrupt, match="identity is not that of a cache"):
        CacheIdentity.read(values, Path("zarr.json"))


def test_it_has_the_layout_and_the_configuration_that_made_it() -> None:
    one = identity()
    layout = one.layout
    assert (layout.samples, layout.views, layout.parameters, layout.rows, layout.blocks) == (10, 8, 3, 4, 3)
    assert layout.head == (5, 6)
    assert [spec.name for spec in layout.signals] == [
        "logits",
        "embedding",
        "features/block1",
        "features/block2",
        "extras/attention-map/block2",
    ]
    assert layout.shapes.features == {"block1": (4, 2, 2), "block2": (6, 2, 2)}
    assert layout is one.layout
    assert one.views.numbers == range(8)
    signals = one.signals.config()
    assert signals.features is not None
    assert (signals.features.blocks, signals.features.grid) == (("block1", "block2"), 2)


# What a cache does not provide.


@pytest.mark.parametrize(
    ("first", "count", "fits"), [(0, 8, True), (2, 3, True), (7, 1, True), (0, 9, False), (7, 2, False)]
)
def test_fewer_views_are_fine(first: int, count: int, fits: bool) -> None:
    lines = identity().unmet(CacheRequirement(numbers=range(first, first + count)))
    assert (lines == []) == fits
    assert lines == [] or lines[0].endswith("got 0 to 7")


def test_of_every_feature_the_encoding_is_required() -> None:
    wanted = CacheRequirement(signals=RequiredSignals({}, every_feature="float16"))
    assert identity().unmet(wanted) == ['signals.features.block2.encoding: expected "float16", got "int8"']


def test_a_network_with_more_options_is_another() -> None:
    one = identity()
    assert one.unmet(CacheRequirement(teacher=RequiredTeacher(model="vit"))) == []
    assert one.unmet(CacheRequirement(teacher=RequiredTeacher(options={"depth": 6, "heads": 3}))) == []
    fewer = CacheRequirement(teacher=RequiredTeacher(options={"depth": 6}))
    assert one.unmet(fewer) == ["teacher.options.heads: expected nothing, got 3"]
    assert one.unmet(replace(fewer, unchecked=("teacher.options",))) == []


def test_an_interpolation_that_is_left_out_is_the_bilinear_one() -> None:
    wanted = CacheRequirement(teacher=RequiredTeacher(interpolation="bicubic"))
    (line,) = identity().unmet(wanted)
    assert line == 'teacher.interpolation: expected "bicubic", got "bilinear"'
    assert identity().keep_cache_hint([line]) == (
        "; to keep the cache, write `interpolation: bilinear` in `teacher` (in Python, give it to the network)"
    )
    bicubic = identity(teacher={"interpolation": "bicubic"})
    assert bicubic.unmet(wanted) == []
    bilinear = CacheRequirement(teacher=identity().teacher)
    assert identity().unmet(bilinear) == []
    assert bicubic.unmet(bilinear) == ['teacher.interpolation: expected "bilinear", got "bicubic"']
