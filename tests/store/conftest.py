"""Fixtures for tests of the store."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from distributed import Client, LocalCluster
from PIL import Image

from pipeline.data import Item, PackedDataset, Samples, pack
from pipeline.data.source import InMemory
from pipeline.progress import Silent
from pipeline.store.remote import lease, object_storage


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests end processes, never the power: what is written need not reach the disk, which takes longest."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked of object storage twice, and who waits for a cache looks often."""
    monkeypatch.setattr(object_storage, "RETRIES", {"max_retries": 0})
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.05)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Two workers of two threads."""
    options: dict[str, Any] = {"memory_limit": 0, "dashboard_address": "127.0.0.1:0", "silence_logs": 60}
    with LocalCluster(n_workers=2, threads_per_worker=2, processes=False, **options) as cluster:
        yield cluster


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    """Of that cluster."""
    with Client(cluster, set_as_default=False) as client:
        yield client


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """Twenty image files of differing sizes, packed."""
    random, items = np.random.default_rng(0), []
    for number in range(20):
        stream = io.BytesIO()
        pixels = random.integers(0, 256, (9 + number % 3, 12 - number % 4, 3), np.uint8)
        Image.fromarray(pixels).save(stream, "PNG")
        items.append(Item(stream.getvalue(), number % 5, f"photograph-{number}"))
    path = tmp_path_factory.mktemp("photographs") / "x.h5"
    pack(InMemory(tuple("abcde"), "photographs", {"train": items}), path, Silent())
    return Samples(PackedDataset.open(path).split("train"))
