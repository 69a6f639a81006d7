"""Teachers that workers open, and a cache that they compute."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distributed import Client
from store_standins import FLOAT32, TinyNetwork, TinySamples, cache, teachers

from pipeline.store.cluster.distribution import runners_on
from pipeline.store.making.teacher_pass import TeacherPass

Opened = Callable[[], dict[str, TeacherPass]]

OPENED: list[str] = []


def counted(network: type[TinyNetwork] = TinyNetwork, count: int = 23) -> dict[str, TeacherPass]:
    """Two caches of one network; notes that somebody opened it."""
    OPENED.append(threading.current_thread().name)
    parts: dict[str, Any] = {"network": network(), "samples": TinySamples(count)}
    return teachers(**parts) | {"exact": teachers(**parts, config=FLOAT32)["tiny"]}


def distributed(client: Client, target: Path, opened: Opened = teachers, **changes: Any) -> Path:
    """The tiny cache, computed by workers that open their teacher by `opened`."""
    with runners_on(client, opened, changes.get("notify", lambda text: None)) as runners:
        return cache(target, runner=runners("tiny"), **changes)
