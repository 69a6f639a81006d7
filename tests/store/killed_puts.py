"""Makes tiny caches on object storage in processes that are killed, or three at once.

Run in a process that has used object storage never: a fork would not survive it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

import obstore  # noqa: F401 - before a process is forked, which would import it again
from killed_writers import forked as forked_after
from store_standins import TinySamples, TinyViews, cache

from pipeline.store.location import store_path
from pipeline.store.remote import lease
from pipeline.store.remote.object_storage import ObjectStorage


def run(url: str, mode: str, step: int) -> None:
    """Print how many were killed; after each, another computes the rest.

    mode: `calls`, at every `step`-th call that changes what is stored; `two`, three at once, of which none is killed.
    """
    lease.POLL_SECONDS = 0.05
    if mode == "two":
        assert [killed(child) for child in [forked(list, url) for _ in range(3)]] == [False] * 3
        return
    lease.STALE_SECONDS = 0.5  # nobody else is alive
    more: dict[str, Any] = {"views": TinyViews(count=2), "samples": TinySamples(9)}
    kills, number = 0, 1
    while True:
        place = f"{url}-{number}/cache.zarr"
        if not killed(forked(partial(kill_at, number), place, **more)):
            break
        kills += 1
        if kills % 3 == 0:  # and once more on the way back
            killed(forked(partial(kill_at, 4), place, **more))
        assert not killed(forked(list, place, **more))
        number += step
    print(kills)


def forked(before: Callable[[], object], url: str, **more: Any) -> int:
    """A process that makes the cache; its id."""
    return forked_after(before, lambda: cache(store_path(url), **more))  # type: ignore[arg-type]


def killed(child: int) -> bool:
    """Whether a process was, which must have succeeded if not."""
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or status == 0
    return os.WIFSIGNALED(status)


def kill_at(number: int) -> None:
    """The process kills itself at this one of its calls that change what is stored, before it or after it."""
    left = [number]

    def wrap(name: str) -> None:
        real = getattr(ObjectStorage, name)

        def call(*arguments: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] == 0 and number % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*arguments, **options)
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(ObjectStorage, name, call)

    for name in ("put", "replace", "delete"):
        wrap(name)
