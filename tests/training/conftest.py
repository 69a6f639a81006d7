"""Fixtures for tests that train."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from experiment import known_networks, one_thread


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    known_networks(monkeypatch)
    with one_thread():
        yield
