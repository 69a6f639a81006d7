"""Fixtures for tests of the store."""

from __future__ import annotations

import os

import pytest

from pipeline.store import lease, object_storage


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests end processes, never the power: what is written need not reach the disk, which takes longest."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked of object storage twice, and who waits for a cache looks often."""
    monkeypatch.setattr(object_storage, "RETRIES", {"max_retries": 0})
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.05)
