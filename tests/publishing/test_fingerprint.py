from __future__ import annotations

import hashlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from store_standins import patient

from pipeline.publishing import differences, fingerprint

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
