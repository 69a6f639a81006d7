"""Partners: one random cycle through all samples for each view, keyed, and the same whatever is asked for with them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from pipeline.errors import ConfigError, DataError
from pipeline.views import ViewsConfig, build_views
from pipeline.views.mixing import Partners


@given(st.integers(0, 2**63 - 1), st.integers(0, 1000), st.sets(st.integers(0, 5000), min_size=1, max_size=60))
def test_each_is_a_partner_once_in_one_cycle(seed: int, view: int, chosen: set[int]) -> None:
    among = np.array(sorted(chosen), np.int64)
    partners = Partners(seed, among)
    following = dict(zip(among.tolist(), partners.of(view, among).tolist(), strict=True))
    walked, at = [], among[0]
    for _ in among:
        walked.append(int(at))
        at = following[int(at)]
    assert sorted(walked) == among.tolist()
    assert at == among[0]
    some = among[::3][::-1]
    assert Partners(seed, among).of(view, some).tolist() == [following[p] for p in some.tolist()]


def test_every_other_sample_is_equally_likely() -> None:
    among = np.arange(6) * 3
    partners = Partners(5, among)
    counts = np.zeros((6, 6), np.int64)
    for view in range(3000):
        counts[np.arange(6), partners.of(view, among) // 3] += 1
    assert not counts.diagonal().any()
    assert chisquare(counts[~np.eye(6, dtype=bool)]).pvalue > 0.001


def test_views_and_seeds_have_partners_of_their_own() -> None:
    among = np.arange(100)
    first = Partners(1, among).of(0, among)
    assert not np.array_equal(Partners(1, among).of(1, among), first)
    assert not np.array_equal(Partners(2, among).of(0, among), first)
    assert np.array_equal(Partners(1, among).of(0, among), first)


def test_orders_are_kept_for_a_few_views_only() -> None:
    partners = Partners(0, np.arange(10))
    before = [partners.of(view, np.arange(10)).tolist() for view in range(40)]
    assert len(partners._next) == 8
    assert [partners.of(view, np.arange(10)).tolist() for view in range(40)] == before


def test_a_sample_that_is_held_out_has_none() -> None:
    partners = Partners(0, np.array([1, 2, 4]))
    for position in (0, 3, 5):
        with pytest.raises(DataError, match="not one of those"):
            partners.of(0, np.array([1, position]))


def test_one_sample_has_no_partner() -> None:
    config = ViewsConfig.model_validate({"operations": [{"name": "mixup"}]})
    assert build_views(config, (8, 8), among=np.array([3, 5])).mixing == "mixup"
    with pytest.raises(ConfigError, match=r"views\.operations: mixup mixes each image with another one"):
        build_views(config, (8, 8), among=np.array([3]))
