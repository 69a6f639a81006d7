"""Tests that run commands in this process: what a command changes of it is as before when the test ends."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from experiment import one_thread, quick_rates


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The command sets a handler for SIGTERM, which is not for pytest."""
    quick_rates(monkeypatch)
    handler = signal.getsignal(signal.SIGTERM)
    with one_thread():
        yield
    signal.signal(signal.SIGTERM, handler)
