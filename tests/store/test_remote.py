"""Stores on object storage: what is made there is what is made in a folder, and reads the same."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import obstore.store
import pytest
import zarr
from intact import verify_files
from object_server import Bucket
from store_standins import TinyNetwork, TinySamples, TinyViews, cache, content
from test_faults import At, interrupt

from pipeline.errors import CacheCorrupt, CacheError, CacheMismatch, CacheNotFound, CacheUnfinished
from pipeline.store.backend import backend_of
from pipeline.store.location import RemotePath, store_path
from pipeline.store.reader import TeacherCache
from pipeline.store.remote import lease
from pipeline.store.remote.object_storage import PART_BYTES, ObjectStorage
from pipeline.store.remote.workspace import RemotePlace

NAME = "some/cache.zarr"
SCRATCH = "some/.cache.zarr.partial"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cache(tmp_path_factory.mktemp("local") / "cache.zarr")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three samples of one view, in one row block."""
    return cache(tmp_path_factory.mktemp("small") / "cache.zarr", **SMALL)


pytestmark = pytest.mark.usefixtures("impatient")


SMALL: dict[str, Any] = {"samples": TinySamples(3), "views": TinyViews(count=1)}


def at(bucket: Bucket) -> RemotePath:
    target = store_path(bucket.url(NAME))
    assert isinstance(target, RemotePath)
    return target


def whole(bucket: Bucket) -> dict[str, bytes]:
    """The objects of a store, but for the root's metadata, which says when it was made; nothing else is there."""
    objects = bucket.below("")
    assert objects.pop(f"{NAME}/zarr.json")
    assert all(key.startswith(f"{NAME}/") for key in objects)
    return {key.removeprefix(f"{NAME}/"): value for key, value in objects.items()}


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_what_is_published_is_what_a_folder_would_hold(
    bucket: Bucket, local: Path, tmp_path: Path, compression: Any
) -> None:
    assert cache(at(bucket), compression=compression) == at(bucket)
    folder = cache(tmp_path / "cache.zarr", compression=compression) if compression else local
    assert whole(bucket) == content(folder)
    assert verify_files(at(bucket)) == verify_files(folder)
    one, other = TeacherCache.open(bucket.url(NAME)), TeacherCache.open(folder)
    assert one.manifest.identity == other.manifest.identity
    same_answers(one, other)


def same_answers(one: TeacherCache, other: TeacherCache) -> None:
    rows = np.random.default_rng(0).permutation(other.count)
    assert one.views == other.views
    for view in other.views:
        ours, theirs = one.read_encoded(view, rows).arrays, other.read_encoded(view, rows).arrays
        assert list(ours) == list(theirs)
        assert all(ours[name].numpy().tobytes() == theirs[name].numpy().tobytes() for name in theirs)
        assert np.array_equal(one.view_digests(view, rows), other.view_digests(view, rows))
        assert np.array_equal(one.view_parameters(view, rows), other.view_parameters(view, rows))
    assert np.array_equal(one.labels, other.labels)
    assert one.head is not None
    assert other.head is not None
    assert one.head.weight.equal(other.head.weight)
    assert one.head.bias.equal(other.head.bias)


def test_a_folder_that_was_uploaded_is_a_store(bucket: Bucket, local: Path) -> None:
    bucket.upload(local, NAME)
    remote, here = TeacherCache.open(at(bucket)), TeacherCache.open(local)
    assert (remote.remote, here.remote) == (True, False)
    same_answers(pickle.loads(pickle.dumps(remote)), here)
    assert not bucket.requests("PUT")


def test_zarr_reads_it_too(bucket: Bucket, local: Path) -> None:
    bucket.upload(local, NAME)
    store: Any = zarr.storage.ObjectStore(obstore.store.from_url(bucket.url(NAME)), read_only=True)
    ours: Any = zarr.open_group(store, mode="r")
    theirs: Any = zarr.open_group(local, mode="r")
    for name in TeacherCache.open(local).manifest.arrays:
        assert ours[name][:].tobytes() == theirs[name][:].tobytes()


def test_the_same_again_is_done_and_puts_nothing(bucket: Bucket, small: Path) -> None:
    bucket.upload(small, NAME)
    network, messages = TinyNetwork(), list[str]()
    cache(at(bucket), network=network, notify=messages.append, **SMALL)
    assert network.batches == [1]
    assert "there already" in messages[0]
    assert not bucket.requests("PUT")


@pytest.mark.parametrize("views", [1, 20, 50, 69])
def test_what_was_finished_before_ctrl_c_is_kept(bucket: Bucket, local: Path, views: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        cache(at(bucket), progress=At(views, interrupt))
    with pytest.raises(CacheUnfinished, match="goes on where it stopped"):
        TeacherCache.open(at(bucket))
    done = len(bucket.sizes(f"{SCRATCH}/units/"))
    assert done >= views // 8 - 1
    network = TinyNetwork()
    cache(at(bucket), network=network, wait=False)  # the claim is free
    assert whole(bucket) == content(local)
    assert len(network.batches) - 1 == 2 * (9 + 1 - max(done, 1))
    runs = TeacherCache.open(at(bucket)).manifest.provenance["runs"]
    assert [run["units_before"] for run in runs] == [0, done]


def test_damage_to_unfinished_work_is_repaired(bucket: Bucket, local: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        cache(at(bucket), progress=At(60, interrupt))
    del bucket[f"{NAME}/logits/c/0/0/0"]
    bucket[f"{NAME}/embedding/c/0/1/0"] = b"short"
    chunk = bytearray(bucket[f"{NAME}/view_digest/c/0/2"])
    chunk[-1] ^= 1
    bucket[f"{NAME}/view_digest/c/0/2"] = bytes(chunk)
    bucket[f"{SCRATCH}/units/1-0.json"] = b'{"unit":"1/1"}'
    messages: list[str] = []
    cache(at(bucket), notify=messages.append)
    assert sorted(message.split()[1] for message in messages) == ["0/0", "0/1", "0/2"]
    assert whole(bucket) == content(local)


def test_an_object_that_was_overwritten_after_its_receipt_is_not_published(bucket: Bucket, local: Path) -> None:
    """By a worker that was given up and came back, on a device that rounds otherwise."""
    late = np.zeros(8 * 5, np.float16).tobytes()

    def overwrite() -> None:
        bucket[f"{NAME}/logits/c/0/0/0"] = late + google_crc32c.value(late).to_bytes(4, "little")

    with pytest.raises(CacheCorrupt, match=r"logits/c/0/0/0 has not the checksum(.|\n)*run the same command again"):
        cache(at(bucket), progress=At(60, overwrite))
    with pytest.raises(CacheUnfinished):
        TeacherCache.open(at(bucket))
    network = TinyNetwork()
    cache(at(bucket), network=network)
    assert len(network.batches) == 1 + 2
    assert whole(bucket) == content(local)


def test_the_manifest_is_put_last(bucket: Bucket) -> None:
    cache(at(bucket), **SMALL)
    puts = bucket.requests("PUT")
    assert puts[0] == f"{SCRATCH}/claim.json"
    store = [key for key in puts if key.startswith(NAME)]
    assert store[-1] == f"{NAME}/zarr.json"
    assert store[-3:-1] == [f"{NAME}/ledger.jsonl", f"{NAME}/.fingerprint"]
    assert len(set(store)) == len(store)  # nothing is put twice


def test_another_cache_needs_replace_and_goes_manifest_first(bucket: Bucket, small: Path) -> None:
    bucket.upload(small, NAME)
    before, network = bucket.below(""), TinyNetwork(seed=1)
    with pytest.raises(CacheMismatch, match="--replace"):
        cache(at(bucket), network=network, **SMALL)
    assert network.batches == [1]  # refused before any work
    assert bucket.below("") == before
    deleted = 0

    def gate(method: str, path: str, environment: dict[str, Any]) -> tuple[str, bytes] | None:
        nonlocal deleted
        if environment["QUERY_STRING"] != "delete":
            return None
        deleted += 1
        return ("500 gone", b"") if deleted == 2 else None

    bucket.server.gate = gate
    with pytest.raises(CacheError, match="the object storage failed"):
        cache(at(bucket), network=network, replace=True, **SMALL)
    bucket.server.gate = lambda *request: None
    assert f"{NAME}/zarr.json" not in bucket.sizes()
    assert f"{NAME}/logits/c/0/0/0" in bucket.sizes()
    with pytest.raises(CacheUnfinished):
        TeacherCache.open(at(bucket))
    with pytest.raises(CacheMismatch, match="another cache was begun"):
        cache(at(bucket), network=network, **SMALL)
    messages: list[str] = []
    cache(at(bucket), network=network, replace=True, notify=messages.append, **SMALL)
    assert any("deleting another cache" in message for message in messages)
    assert verify_files(at(bucket)) == len(whole(bucket)) + 1
    assert whole(bucket) != content(small)


def test_an_unfinished_cache_of_other_settings_is_kept_unless_told_otherwise(bucket: Bucket, local: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        cache(at(bucket), progress=At(30, interrupt))
    before = bucket.below("")
    with pytest.raises(CacheMismatch, match="another cache was begun"):
        cache(at(bucket), network=TinyNetwork(seed=1))
    assert {key for key in bucket.below("") if "claim" not in key} == {key for key in before if "claim" not in key}
    cache(at(bucket), network=TinyNetwork(seed=1), replace=True)
    verify_files(at(bucket))
    cache(at(bucket), replace=True)
    assert whole(bucket) == content(local)


def test_objects_that_are_not_ours_are_left_alone(bucket: Bucket) -> None:
    bucket[f"{NAME}/photo.jpg"] = b"mine"
    for replace in (False, True):
        with pytest.raises(CacheMismatch, match=r"not something that Decant published(.|\n)*photo\.jpg"):
            cache(at(bucket), replace=replace, **SMALL)
        assert bucket.below("") == {f"{NAME}/photo.jpg": b"mine"}


def test_what_cannot_be_opened(bucket: Bucket, small: Path) -> None:
    with pytest.raises(CacheNotFound, match="cache-teacher"):
        TeacherCache.open(at(bucket))
    assert not backend_of(at(bucket)).exists()
    bucket[f"{NAME}/zarr.json"] = b'{"attributes": {"format": "other"}}'
    assert backend_of(at(bucket)).exists()
    with pytest.raises(CacheNotFound, match="decant-teacher-cache"):
        TeacherCache.open(at(bucket))
    bucket.upload(small, NAME)
    root = bucket[f"{NAME}/zarr.json"]
    bucket[f"{NAME}/zarr.json"] = root.replace(b'"seed":', b'"sead":').replace(b'"seed": ', b'"sead": ')
    with pytest.raises(CacheCorrupt):
        TeacherCache.open(at(bucket))


def test_damage_is_found_by_verify_and_when_it_is_read(bucket: Bucket, local: Path) -> None:
    bucket.upload(local, NAME)
    key, rows = f"{NAME}/logits/c/1/2/0", np.array([20])
    first, other = bucket[key], bucket[f"{NAME}/logits/c/1/1/0"]
    flipped = bytes([first[0] ^ 1]) + first[1:]
    for damage, said in ((flipped, "checksum is not"), (first[:-1], "logits"), (other, "not what the ledger lists")):
        bucket[key] = damage
        with pytest.raises(CacheCorrupt, match=rf"logits/c/1/2/0: .*{said}" if said != "logits" else said):
            verify_files(at(bucket))
        with pytest.raises(CacheCorrupt, match=re.escape(key)):
            TeacherCache.open(at(bucket)).read(1, rows)
    del bucket[key]
    bucket[f"{NAME}/notes.txt"] = b"mine"
    with pytest.raises(CacheCorrupt, match=r"logits/c/1/2/0(.|\n)*notes\.txt: does not belong there"):
        verify_files(at(bucket))
    teacher = TeacherCache.open(at(bucket))
    with pytest.raises(CacheCorrupt, match="logits/c/1/2/0"):
        teacher.read(1, rows)
    bucket[key] = first
    assert np.array_equal(teacher.read(1, rows).logits, TeacherCache.open(local).read(1, rows).logits)


def test_names_that_no_store_has_are_refused_and_folders_of_consoles_ignored(bucket: Bucket, small: Path) -> None:
    bucket.upload(small, NAME)
    bucket[f"{NAME}/"] = b""
    verify_files(at(bucket))
    bucket[f"{NAME}/../../other/zarr.json"] = b"{}"
    with pytest.raises(CacheCorrupt, match="no sensible name"):
        verify_files(at(bucket))
    with pytest.raises(CacheCorrupt, match="no sensible name"):
        ObjectStorage(at(bucket)).read("../cache.zarr/zarr.json", 1000)


def test_large_objects_go_in_parts_and_arrive_whole(bucket: Bucket) -> None:
    data = np.random.default_rng(0).integers(0, 256, 2 * PART_BYTES + 5, np.uint8)
    storage = ObjectStorage(at(bucket))
    storage.put("large", data.data, b"tail")
    assert bucket[f"{NAME}/large"] == data.tobytes() + b"tail"
    assert len(bucket.requests("PUT")) == 3
    assert storage.sizes() == {"large": len(data) + 4}
    with pytest.raises(OSError, match="are the most that is read"):
        storage.read("large", len(data))


def test_a_place_travels_and_writes_only_for_who_holds_the_claim(bucket: Bucket) -> None:
    bucket[f"{SCRATCH}/claim.json"] = lease.Claim("f" * 64, "token").encode()
    target = ObjectStorage(at(bucket))
    place = RemotePlace(target, ObjectStorage(at(bucket).with_name(".cache.zarr.partial")), "token", None)
    written = pickle.loads(pickle.dumps(place)).write({"logits/c/0/0/0": np.arange(4, dtype="<f4")}, "attempt")
    raw = bucket[f"{NAME}/logits/c/0/0/0"]
    assert raw[:-4] == np.arange(4, dtype="<f4").tobytes()
    assert int.from_bytes(raw[-4:], "little") == written["logits/c/0/0/0"]
    bucket[f"{SCRATCH}/claim.json"] = lease.Claim("f" * 64, "another").encode()
    with pytest.raises(CacheError, match="another process makes it"):
        place.write({"logits/c/0/0/0": np.zeros(4, "<f4")}, "attempt")
    assert bucket[f"{NAME}/logits/c/0/0/0"] == raw
