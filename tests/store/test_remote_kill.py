"""Processes that make one store on object storage at once, or are killed while they do."""

from __future__ import annotations

import time
from pathlib import Path

import killed_puts
import pytest
from faults import Faults
from intact import verify_files
from object_server import Bucket
from processes import output_of
from store_standins import TinySamples, TinyViews, cache, content

from pipeline.store.location import store_path
from pipeline.store.reader import TeacherCache


def fork(bucket: Bucket, tmp_path: Path, mode: str, step: int) -> str:
    """What the processes of `killed_puts` print."""
    return output_of(killed_puts.run, bucket.url(mode), mode, step, log=tmp_path / "log")


def kill(bucket: Bucket, tmp_path: Path, step: int, faults: Faults) -> int:
    """How often a run was killed; after each, the rest was computed: every byte is compared."""
    begun = time.time()
    bucket.server.clock = lambda: begun + 1000 * (time.time() - begun)  # by which the claims of the killed are old
    kills = int(fork(bucket, tmp_path, "calls", step).split()[-1])
    whole = content(cache(tmp_path / "whole", views=TinyViews(count=2), samples=TinySamples(9)))
    objects = bucket.below("")
    made = {key.split("/")[0] for key in objects}
    assert len(made) == kills + 1
    assert store_of(objects, f"calls-{1 + kills * step}") == whole  # that was not killed
    for number in range(kills):
        with faults("SIGKILL at a request that changes object storage"):
            assert store_of(objects, f"calls-{1 + number * step}") == whole
    return kills


def store_of(objects: dict[str, bytes], name: str) -> dict[str, bytes]:
    """The objects of a finished store, without its manifest, which says when it was made."""
    # Killed behind the manifest, the last object that counts, a run leaves receipts beside the finished store.
    left = {key for key in objects if key.startswith(f"{name}/.cache.zarr.partial/")}
    store = {
        key.removeprefix(f"{name}/cache.zarr/"): content
        for key, content in objects.items()
        if key.startswith(f"{name}/") and key not in left
    }
    assert store.pop("zarr.json")
    return store


def test_killed_at_some_puts_it_ends_with_the_same_bytes(bucket: Bucket, tmp_path: Path, faults: Faults) -> None:
    assert kill(bucket, tmp_path, 13, faults) >= 3


@pytest.mark.long
def test_killed_at_every_put_it_ends_with_the_same_bytes(bucket: Bucket, tmp_path: Path, faults: Faults) -> None:
    assert kill(bucket, tmp_path, 1, faults) >= 45


def test_of_three_processes_one_computes(bucket: Bucket, tmp_path: Path) -> None:
    fork(bucket, tmp_path, "two", 1)
    target = store_path(bucket.url("two"))
    verify_files(target)
    (run,) = TeacherCache.open(target).manifest.provenance["runs"]
    assert run["units_before"] == 0
    assert all(key.startswith("two/") for key in bucket.sizes())
    puts = bucket.requests("PUT", "^two/")
    assert len(set(puts)) == len(puts)
