"""Every family of timm's, walked through by one small member: takes a quarter of an hour on two idle cores.

`python tests/models/families.py` writes the table that is compared here.
"""

from __future__ import annotations

import json

import pytest
from families import LIMIT, MEMBERS, PAGE, Found, outcomes, rows_of
from timm.models._registry import _module_to_models

from pipeline.models.pretrained import own_models


def test_the_page_has_every_family_with_its_member() -> None:
    rows = rows_of(PAGE.read_text())
    assert list(rows) == sorted(MEMBERS)
    for family, row in rows.items():
        start = Found("", "", "", "").row(family).split("|")[1:4]
        assert row.split("|")[1:4] == start


@pytest.mark.long
def test_every_family_has_a_member() -> None:
    ours = set(own_models())
    assert {family for family, models in _module_to_models.items() if models - ours} == set(MEMBERS)


@pytest.mark.long
@pytest.mark.timeout(LIMIT + 120)
@pytest.mark.parametrize("family", MEMBERS)
def test_a_member_teaches_and_learns(family: str) -> None:
    ((_, code, said),) = outcomes([family])
    if code is not None and code < 0 and code != -9:  # inside torch's own convolution, on some processors
        pytest.skip(f"signal {-code} ended {MEMBERS[family].model} on this processor: {said[-300:]}")
    assert code == 0, f"exit code {code} (None: more than {LIMIT} s; -9: memory)\n{said}"
    found = Found(**json.loads(said.strip().splitlines()[-1]))
    assert rows_of(PAGE.read_text())[family] == found.row(family)
