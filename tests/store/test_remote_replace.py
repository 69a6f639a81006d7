"""What `--replace` deletes on object storage: the cache that is there, and nothing that is not of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from intact import verify_files
from object_server import Bucket
from store_standins import TinyNetwork, cache
from test_faults import At, interrupt
from test_remote import NAME, SCRATCH, SMALL, at, whole

from pipeline.errors import CacheError, CacheMismatch

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cache(tmp_path_factory.mktemp("small") / "cache.zarr", **SMALL)


FOREIGN = ("photo.jpg", "other/cache2.zarr/zarr.json", "logits/c/9/0/0", "logits/notes.txt")


def add_foreign(bucket: Bucket) -> None:
    for name in FOREIGN:
        bucket[f"{NAME}/{name}"] = b"mine"


def drop_foreign(bucket: Bucket) -> None:
    for name in FOREIGN:
        del bucket[f"{NAME}/{name}"]


@pytest.mark.parametrize("damaged", [False, True])
def test_a_published_cache_with_other_objects_beside_it_is_not_replaced(
    bucket: Bucket, small: Path, damaged: bool
) -> None:
    bucket.upload(small, NAME)
    if damaged:  # then the ledger says what is the cache's
        bucket[f"{NAME}/zarr.json"] = b"{}"
    add_foreign(bucket)
    before = bucket.below("")
    with pytest.raises(CacheMismatch, match=r"none of its own(.|\n)*4 objects: 'logits/c/9/0/0'(.|\n)*'photo\.jpg'"):
        cache(at(bucket), network=TinyNetwork(seed=1), replace=True, **SMALL)
    assert bucket.below("") == before
    drop_foreign(bucket)
    cache(at(bucket), network=TinyNetwork(seed=1), replace=True, **SMALL)
    verify_files(at(bucket))


def test_an_unfinished_cache_with_other_objects_beside_it_is_not_replaced(bucket: Bucket) -> None:
    with pytest.raises(KeyboardInterrupt):
        cache(at(bucket), progress=At(30, interrupt))
    add_foreign(bucket)
    bucket[f"{SCRATCH}/mine.txt"] = b"mine"
    before = bucket.below("")
    with pytest.raises(CacheMismatch, match=r"none of its own(.|\n)*4 objects: 'logits/c/9/0/0'(.|\n)*'photo\.jpg'"):
        cache(at(bucket), network=TinyNetwork(seed=1), replace=True, **SMALL)
    assert {key for key in bucket.below("") if "claim" not in key} == {key for key in before if "claim" not in key}
    drop_foreign(bucket)
    cache(at(bucket), network=TinyNetwork(seed=1), replace=True, **SMALL)
    verify_files(at(bucket))
    assert [key for key in bucket.sizes() if not key.startswith(NAME)] == [f"{SCRATCH}/mine.txt"]


def test_half_of_a_replaced_cache_with_other_objects_beside_it_is_left_alone(bucket: Bucket, small: Path) -> None:
    bucket.upload(small, NAME)

    def gate(method: str, path: str, environment: dict[str, Any]) -> tuple[str, bytes] | None:
        second = environment["QUERY_STRING"] == "delete" and f"{NAME}/zarr.json" not in bucket.sizes()
        return ("500 gone", b"") if second else None

    bucket.server.gate = gate
    with pytest.raises(CacheError, match="the object storage failed"):
        cache(at(bucket), network=TinyNetwork(seed=1), replace=True, **SMALL)
    bucket.server.gate = lambda *request: None
    del bucket[f"{NAME}/ledger.jsonl"]
    bucket[f"{NAME}/photo.jpg"] = b"mine"
    with pytest.raises(CacheMismatch, match=r"none of its own(.|\n)*1 objects: 'photo\.jpg'"):
        cache(at(bucket), network=TinyNetwork(seed=1), replace=True, **SMALL)
    del bucket[f"{NAME}/photo.jpg"]
    cache(at(bucket), network=TinyNetwork(seed=1), replace=True, **SMALL)
    assert verify_files(at(bucket)) == len(whole(bucket)) + 1
