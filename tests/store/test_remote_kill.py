"""Processes that make one store on object storage at once, or are killed while they do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from faults import Faults
from object_server import Bucket
from store_standins import cache, content

from pipeline.inspection.files import verify_files
from pipeline.store.location import store_path
from pipeline.store.reader import TeacherCache

HERE = Path(__file__).parent

# Forks from a process that has imported everything and used object storage never: a fork would not survive it.
FORK = """
import os, signal, sys
sys.path[:0] = [sys.argv[1], sys.argv[2]]
import obstore, torch
from store_standins import TinySamples, TinyViews, cache
from pipeline.store.location import store_path
from pipeline.store.remote import lease
from pipeline.store.remote.object_storage import ObjectStorage
torch.set_num_threads(1)
lease.POLL_SECONDS = 0.05
mode, url, step, more = sys.argv[3], sys.argv[4], int(sys.argv[5]), {}
if mode == "calls":
    more = {"views": TinyViews(count=2), "samples": TinySamples(9)}

def run(before):
    child = os.fork()
    if child == 0:
        try:
            before()
            cache(store_path(url), **more)
        finally:
            sys.stderr.flush()
        os._exit(0)
    return child

def at_call(number):
    '''The process kills itself at this one of its calls that change what is stored, before it or after it.'''
    left = [number]
    def wrap(name):
        real = getattr(ObjectStorage, name)
        def call(*arguments, **options):
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

def killed(child):
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or status == 0
    return os.WIFSIGNALED(status)

if mode == "two":
    assert [killed(child) for child in [run(lambda: None) for _ in range(3)]] == [False] * 3
else:
    lease.STALE_SECONDS = 0.5  # nobody else is alive
    url, start, kills, number = url, url, 0, 1
    while True:
        url = f"{start}-{number}/cache.zarr"
        if not killed(run(lambda: at_call(number))):
            break
        kills += 1
        if kills % 3 == 0:  # and once more on the way back
            killed(run(lambda: at_call(4)))
        assert not killed(run(lambda: None))
        number += step
    print(kills)
"""


def fork(bucket: Bucket, mode: str, step: int) -> str:
    arguments = [str(HERE.parents[1]), str(HERE), mode, bucket.url(mode), str(step)]
    result = subprocess.run(
        [sys.executable, "-c", FORK, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def kill(bucket: Bucket, tmp_path: Path, step: int, faults: Faults) -> int:
    """How often a run was killed; after each, the rest was computed: every byte is compared."""
    from store_standins import TinySamples, TinyViews

    kills = int(fork(bucket, "calls", step).split()[-1])
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


def test_of_three_processes_one_computes(bucket: Bucket) -> None:
    fork(bucket, "two", 1)
    target = store_path(bucket.url("two"))
    verify_files(target)
    (run,) = TeacherCache.open(target).manifest.provenance["runs"]
    assert run["units_before"] == 0
    assert all(key.startswith("two/") for key in bucket.sizes())
    puts = bucket.requests("PUT", "^two/")
    assert len(set(puts)) == len(puts)
