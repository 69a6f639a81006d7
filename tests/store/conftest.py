"""Fixtures for tests of the store."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests end processes, never the power: what is written need not reach the disk, which takes longest."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
