"""What is found of damage, and refused of what is hostile, is the same on object storage as in a folder."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hostile import bounded, corpus
from intact import verify_files
from object_server import Bucket
from store_standins import TinySamples, TinyViews, cache
from test_faults import At, interrupt

from pipeline.errors import CacheCorrupt, CacheError, CacheMismatch, CacheUnfinished
from pipeline.inspection.files import check_files
from pipeline.inspection.summary import describe, summary_text
from pipeline.store.location import RemotePath, store_path
from pipeline.store.reader import TeacherCache
from pipeline.store.remote import object_storage
from pipeline.store.remote.unfinished import unfinished_cache

NAME = "some/cache.zarr"
SCRATCH = "some/.cache.zarr.partial"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two views of five samples in two row blocks."""
    target = tmp_path_factory.mktemp("local") / "cache.zarr"
    return Path(cache(target, samples=TinySamples(5), views=TinyViews(2), rows_per_block=4))


@pytest.fixture
def target(bucket: Bucket, local: Path, monkeypatch: pytest.MonkeyPatch) -> RemotePath:
    monkeypatch.setattr(object_storage, "RETRIES", {"max_retries": 0})
    bucket.upload(local, NAME)
    path = store_path(bucket.url(NAME))
    assert isinstance(path, RemotePath)
    return path


def flip(content: bytes) -> bytes:
    place = random.Random(len(content)).randrange(len(content))
    return content[:place] + bytes([content[place] ^ 64]) + content[place + 1 :]


@pytest.mark.parametrize("damage", [flip, lambda content: content[:-1], lambda content: b"", None])
def test_damage_to_any_object_is_found_as_that_to_a_file_is(
    bucket: Bucket, target: RemotePath, local: Path, tmp_path: Path, damage: Callable[[bytes], bytes] | None
) -> None:
    folder = Path(shutil.copytree(local, tmp_path / "cache.zarr"))
    names = sorted(key.removeprefix(f"{NAME}/") for key in bucket.sizes(NAME))
    for name in ("zarr.json", "ledger.jsonl", ".fingerprint", *names[3::7]):  # test_verify_files.py takes each
        whole = bucket[f"{NAME}/{name}"]
        if damage is None:
            del bucket[f"{NAME}/{name}"]
            (folder / name).unlink()
        else:
            bucket[f"{NAME}/{name}"] = damage(whole)
            (folder / name).write_bytes(damage(whole))
        there, here = check_files(target), check_files(folder)
        assert there.damaged == here.damaged
        assert list(there.damaged) == [name]
        assert (there.files, there.bytes) == (here.files, here.bytes)
        bucket[f"{NAME}/{name}"] = whole
        (folder / name).write_bytes(whole)


def test_the_corpus_of_manifests_is_refused_before_memory_is_taken(bucket: Bucket, target: RemotePath) -> None:
    for file in corpus("manifest")[::7]:  # test_hostile_stores.py takes each
        root = file.read_bytes()
        bucket[f"{NAME}/zarr.json"] = root
        if found := re.search(rb'"fingerprint": "([0-9a-f]{64})"', root):
            bucket[f"{NAME}/.fingerprint"] = found[1] + b"\n"
        for read in (TeacherCache.open, describe, verify_files):
            with bounded(), pytest.raises((CacheCorrupt, CacheMismatch)) as caught:
                read(target)  # type: ignore[operator]
            assert all(line.isprintable() for line in str(caught.value).split("\n")), file


def test_what_lies_beside_an_unfinished_store_is_not_believed(bucket: Bucket, target: RemotePath) -> None:
    """Claim, receipts and notes are put by whoever can put there."""
    for key in bucket.sizes(NAME):
        del bucket[key]
    with pytest.raises(KeyboardInterrupt):
        cache(target, progress=At(30, interrupt))
    units = unfinished_cache(target).units  # type: ignore[union-attr]
    assert units
    (facts,) = describe(target)
    assert facts["progress"]["units"] == len(units) - 1
    with pytest.raises(CacheUnfinished):
        verify_files(target)
    good = bucket.below(f"{SCRATCH}/")
    for name, content in (("identity.json", b"[" * 9999), ("runs.json", b"{}"), ("identity.json", b" " * (5 << 20))):
        bucket[f"{SCRATCH}/{name}"] = content
        with bounded(), pytest.raises(CacheCorrupt):
            describe(target)
        bucket[f"{SCRATCH}/{name}"] = good[name]
    for claim in (b"[]", b'{"fingerprint": 1, "token": "x", "beat": 0, "who": ""}', b"\xff", b"[" * 60000):
        bucket[f"{SCRATCH}/claim.json"] = claim
        (facts,) = describe(target)
        assert (facts["fingerprint"], facts["progress"]["running"]) == (None, False)
        assert "nobody" in summary_text(facts)
    # Without a claim nobody says whose objects these are: they are not deleted.
    with pytest.raises(CacheMismatch, match="not something that Decant published"):
        cache(target, replace=True)
    bucket[f"{SCRATCH}/claim.json"] = good["claim.json"]
    bucket[f"{SCRATCH}/units/0-0.json"] = b" " * (2 << 20)
    bucket[f"{SCRATCH}/units/9-9.json"] = b"{}"
    messages: list[str] = []
    cache(target, notify=messages.append)
    verify_files(target)
    assert not [key for key in bucket.sizes() if key.startswith(SCRATCH)]


def test_a_listing_without_end_is_not_read(bucket: Bucket, target: RemotePath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_storage, "MOST_OBJECTS", 10)
    with pytest.raises(CacheCorrupt, match="more objects than any store has"):
        verify_files(target)


def test_a_server_that_goes_away_is_no_damage(bucket: Bucket, target: RemotePath) -> None:
    asked = 0

    def gate(method: str, path: str, environment: object) -> tuple[str, bytes] | None:
        nonlocal asked
        asked += 1
        return ("503 Slow Down", b"") if asked > 20 else None

    bucket.server.gate = gate
    with pytest.raises(CacheError, match="the object storage failed") as caught:
        check_files(target)
    assert not isinstance(caught.value, CacheCorrupt)
    bucket.server.gate = lambda *request: None
    assert check_files(target).damaged == {}
    assert np.array_equal(TeacherCache.open(target).labels, TinySamples(5).labels)
