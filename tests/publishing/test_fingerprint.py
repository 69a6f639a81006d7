from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_standins import patient

from pipeline.publishing import differences, fingerprint
from pipeline.store.format.identity import unmet

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=8,
)
identities = st.dictionaries(st.sampled_from("abcdef"), plain, max_size=4)


def test_the_fingerprint_is_that_of_the_documented_text() -> None:
    text = '{"a":[1,2.5,null],"b":{"c":true,"ä":"x"}}'
    expected = hashlib.sha256(text.encode()).hexdigest()
    assert fingerprint({"b": {"ä": "x", "c": True}, "a": (1, 2.5, None)}) == expected


@patient
@given(identities, identities)
def test_two_identities_differ_exactly_when_a_field_is_named(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert (fingerprint(one) == fingerprint(two)) == (not differences(one, two))


@patient
@given(identities)
def test_anything_provides_a_part_of_itself(identity: dict[str, Any]) -> None:
    for name in identity:
        part = {key: value for key, value in identity.items() if key != name}
        assert differences(part, identity, provides=True) == []


def test_every_field_is_named_at_once() -> None:
    expected = {"a": {"b": 1, "c": [{"d": 2}]}, "e": "x", "only": 1}
    got = {"a": {"b": 2, "c": [{"d": 3}]}, "e": "x", "other": 1}
    assert differences(expected, got) == [
        "a.b: expected 1, got 2",
        "a.c.0.d: expected 2, got 3",
        "only: expected 1, got nothing",
        "other: expected nothing, got 1",
    ]
    assert differences(expected, got, ignore=["a", "only"], provides=True) == []


def test_true_is_not_one() -> None:
    assert differences({"a": True}, {"a": 1})


@pytest.mark.parametrize(
    ("first", "count", "fits"), [(0, 8, True), (2, 3, True), (7, 1, True), (0, 9, False), (7, 2, False)]
)
def test_fewer_views_are_fine(first: int, count: int, fits: bool) -> None:
    identity = {"views": {"seed": 1, "first": 0, "count": 8}}
    lines = unmet({"views": {"seed": 1, "first": first, "count": count}}, identity)
    assert (lines == []) == fits
    assert lines == [] or lines[0].endswith("got 0 to 7")


def test_of_every_feature_the_encoding_is_required() -> None:
    features = {
        "block1": {"shape": [4, 2, 2], "encoding": "float16"},
        "block2": {"shape": [6, 2, 2], "encoding": "int8"},
    }
    wanted = {"signals": {"features": {"*": {"encoding": "float16"}}}}
    identity = {"signals": {"features": features}}
    assert unmet(wanted, identity) == ['signals.features.block2.encoding: expected "float16", got "int8"']
    assert wanted["signals"]["features"] == {"*": {"encoding": "float16"}}


def test_a_network_with_more_options_is_another() -> None:
    identity = {"teacher": {"model": "vit", "options": {"depth": 6, "heads": 3}}}
    assert unmet({"teacher": {"model": "vit"}}, identity) == []
    assert unmet({"teacher": {"options": {"depth": 6, "heads": 3}}}, identity) == []
    assert unmet({"teacher": {"options": {"depth": 6}}}, identity) == ["teacher.options.heads: expected nothing, got 3"]
    assert unmet({"teacher": {"options": {"depth": 6}}}, identity, ("teacher.options",)) == []
