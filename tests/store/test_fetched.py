"""Chunks that are expected are fetched ahead, once, by a few threads, and no more of them are held than was said."""

from __future__ import annotations

import multiprocessing
import pickle
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from object_server import Bucket
from store_standins import TinySamples, cache

from pipeline.errors import CacheCorrupt, CacheError
from pipeline.store.reader import TeacherCache
from pipeline.store.remote import chunks as fetched
from pipeline.store.remote import object_storage
from pipeline.store.remote.chunks import FETCHES, FetchedChunks
from pipeline.store.remote.cost import remote_cost

NAME = "some/cache.zarr"
ARRAYS = ("view_parameters", "logits", "embedding", "features/block1", "features/block2")
BLOCKS = 6


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three views of 48 samples in six row blocks."""
    return cache(tmp_path_factory.mktemp("local") / "cache.zarr", samples=TinySamples(8 * BLOCKS))


@pytest.fixture
def teacher(bucket: Bucket, local: Path, monkeypatch: pytest.MonkeyPatch) -> TeacherCache:
    monkeypatch.setattr(object_storage, "RETRIES", {"max_retries": 0})
    bucket.upload(local, NAME)
    return TeacherCache.open(bucket.url(NAME))


def chunks(bucket: Bucket) -> list[str]:
    """The chunks that were asked for, in this order."""
    return [key.removeprefix(f"{NAME}/") for key in bucket.requests("GET", "/c/")]


def rows(*blocks: int) -> Any:
    """The samples of row blocks, shuffled."""
    return np.random.default_rng(0).permutation(np.concatenate([np.arange(8 * b, 8 * b + 8) for b in blocks]))


def held(teacher: TeacherCache) -> list[str]:
    assert isinstance(teacher._chunks, FetchedChunks)
    return [spec.file(unit) for spec, unit in teacher._chunks._held]


def settle(teacher: TeacherCache) -> None:
    """Wait until nothing is fetched any more."""
    source = teacher._chunks
    assert isinstance(source, FetchedChunks)
    while source._busy or source._waiting:
        time.sleep(0.005)


def test_what_is_expected_is_there_when_it_is_read(bucket: Bucket, teacher: TeacherCache, local: Path) -> None:
    teacher.expect([(1, rows(4, 2)), (2, rows(0))])
    settle(teacher)
    asked = chunks(bucket)
    assert Counter(asked) == Counter(
        f"{array}/c/{view}/{block}{'/0' * (3 if '/' in array else 1)}"
        for view, block in ((1, 2), (1, 4), (2, 0))
        for array in ARRAYS
    )
    bucket.server.gate = lambda *request: ("500 gone", b"")
    here = TeacherCache.open(local)
    for view, samples in ((1, rows(2, 4)), (2, rows(0))):
        ours, theirs = teacher.read_encoded(view, samples).arrays, here.read_encoded(view, samples).arrays
        assert all(ours[name].equal(theirs[name]) for name in theirs)
        assert np.array_equal(teacher.view_parameters(view, samples), here.view_parameters(view, samples))
    with pytest.raises(CacheError, match="the object storage failed"):
        teacher.view_digests(1, rows(2))


def test_what_is_read_first_is_fetched_first(
    bucket: Bucket, teacher: TeacherCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one request at a time: of several, any may arrive first."""
    monkeypatch.setattr(fetched, "FETCHES", 1)
    teacher.expect([(1, rows(4, 2)), (2, rows(0))])
    settle(teacher)
    assert [name.split("/c/")[1][0] for name in chunks(bucket)] == ["1"] * 2 * len(ARRAYS) + ["2"] * len(ARRAYS)


def test_only_the_signals_that_are_read_are_fetched(bucket: Bucket, teacher: TeacherCache) -> None:
    lean = TeacherCache.open(teacher.path, signals=["embedding"])
    lean.expect([(0, rows(0))])
    settle(lean)
    assert {name.split("/c/")[0] for name in chunks(bucket)} == {"view_parameters", "logits", "embedding"}
    assert lean.held_bytes() < teacher.held_bytes()


def test_what_is_expected_no_more_is_let_go(
    bucket: Bucket, teacher: TeacherCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetched, "KEPT_BYTES", 0)
    for number in range(BLOCKS):
        teacher.expect([(0, rows(number)), (0, rows((number + 1) % BLOCKS))])
        settle(teacher)
        teacher.read_encoded(0, rows(number))
        assert len(held(teacher)) == 2 * len(ARRAYS)
        assert {name.split("/")[name.split("/").index("c") + 2] for name in held(teacher)} == {
            str(number),
            str((number + 1) % BLOCKS),
        }
    counts = Counter(chunks(bucket))
    assert max(counts.values()) == 2  # the first block again, at the end
    assert sum(counts.values()) == (BLOCKS + 1) * len(ARRAYS)


def test_of_what_nobody_expects_the_last_used_is_kept(
    bucket: Bucket, teacher: TeacherCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunk = teacher.manifest.layout.arrays["view_digest"].chunk_bytes
    monkeypatch.setattr(fetched, "KEPT_BYTES", 2 * chunk)
    for block in (0, 1, 0, 2, 0, 3):
        teacher.view_digests(0, rows(block))
    assert Counter(chunks(bucket)) == {f"view_digest/c/0/{block}": 1 for block in range(4)}
    teacher.view_digests(0, rows(1))
    assert chunks(bucket)[-1] == "view_digest/c/0/1"
    settle(teacher)
    assert len(held(teacher)) <= 3


def test_small_stores_are_fetched_once(bucket: Bucket, teacher: TeacherCache) -> None:
    for _ in range(2):
        for view in teacher.views:
            teacher.read(view, rows(*range(BLOCKS)))
    assert set(Counter(chunks(bucket)).values()) == {1}
    read = [size - 4 for key, size in bucket.sizes().items() if key.removeprefix(f"{NAME}/").split("/c/")[0] in ARRAYS]
    assert teacher.held_bytes() == sum(read)


def test_a_few_are_fetched_at_once(bucket: Bucket, teacher: TeacherCache) -> None:
    lock, going, most, met = threading.Lock(), 0, 0, threading.Event()

    def gate(method: str, path: str, environment: dict[str, Any]) -> None:
        nonlocal going, most
        with lock:
            going += 1
            most = max(most, going)
            if going > 1:
                met.set()
        met.wait(60)  # the first for the second
        with lock:
            going -= 1

    bucket.server.gate = gate  # type: ignore[assignment]
    teacher.expect([(0, rows(*range(BLOCKS)))])
    settle(teacher)
    assert 1 < most <= FETCHES
    most = 0
    met.clear()
    teacher.read(1, rows(*range(BLOCKS)))  # and without being told before
    assert 1 < most <= FETCHES


def test_what_could_not_be_fetched_is_asked_for_again(bucket: Bucket, teacher: TeacherCache) -> None:
    bucket.server.gate = lambda *request: ("500 gone", b"")
    teacher.expect([(0, rows(0))])
    settle(teacher)
    with pytest.raises(CacheError, match="the object storage failed"):
        teacher.read(0, rows(0))
    bucket.server.gate = lambda *request: None
    settle(teacher)
    for _ in range(len(ARRAYS)):
        try:
            teacher.read(0, rows(0))
            break
        except CacheError:
            continue
    assert teacher.read(0, rows(0)).logits.shape == (8, 5)


def test_a_store_that_was_replaced_meanwhile_is_noticed(bucket: Bucket, teacher: TeacherCache, tmp_path: Path) -> None:
    from store_standins import TinyNetwork

    teacher.read(0, rows(0))
    other = cache(tmp_path / "other", samples=TinySamples(8 * BLOCKS), network=TinyNetwork(seed=1))
    bucket.upload(other, NAME)
    with pytest.raises(CacheCorrupt, match=r"not the one that the teacher cache was published with(.|\n)*replaced"):
        teacher.read(0, rows(1))


def test_a_store_without_its_ledger_is_not_read(bucket: Bucket, teacher: TeacherCache) -> None:
    del bucket[f"{NAME}/ledger.jsonl"]
    with pytest.raises(CacheCorrupt, match="expected: the ledger"):
        teacher.read(0, rows(0))


def test_an_object_that_is_too_large_is_not_fetched(bucket: Bucket, teacher: TeacherCache) -> None:
    bucket[f"{NAME}/logits/c/0/0/0"] = bytes(1 << 20)
    with pytest.raises(CacheCorrupt, match="are the most that is read"):
        teacher.read(0, rows(0))


def test_it_travels_without_what_it_holds(bucket: Bucket, teacher: TeacherCache) -> None:
    teacher.expect([(0, rows(0))])
    settle(teacher)
    copied = pickle.loads(pickle.dumps(teacher))
    assert held(copied) == []
    assert np.array_equal(copied.read(0, rows(0)).logits, teacher.read(0, rows(0)).logits)


def test_the_ledger_is_read_once(bucket: Bucket, teacher: TeacherCache) -> None:
    """By whichever of the threads needs it first (before Python 3.12 `cached_property` saw to that)."""

    def gate(method: str, path: str, environment: dict[str, Any]) -> None:
        if path.endswith("/ledger.jsonl"):
            time.sleep(0.1)

    bucket.server.gate = gate  # type: ignore[assignment]
    bucket.server.requests.clear()
    teacher.expect([(0, rows(*range(BLOCKS)))])
    teacher.read(0, rows(*range(BLOCKS)))
    settle(teacher)
    assert len(bucket.requests("GET", "/ledger.jsonl$")) == 1


@pytest.mark.parametrize("expects", [False, True])
def test_a_process_that_is_forked_while_chunks_are_fetched_is_told_instead_of_hanging(
    bucket: Bucket, teacher: TeacherCache, expects: bool
) -> None:
    going, go_on = threading.Event(), threading.Event()

    def gate(method: str, path: str, environment: dict[str, Any]) -> None:
        if "/c/" in path:
            going.set()
            go_on.wait(60)

    def child(answers: Any) -> None:
        try:
            if expects:
                teacher.expect([(1, rows(1))])
            teacher.read(0, rows(0))
            answers.send("it was read")
        except CacheError as error:
            answers.send(str(error))

    bucket.server.gate = gate  # type: ignore[assignment]
    teacher.expect([(0, rows(0))])
    assert going.wait(60)
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(sender,))
    assert isinstance(teacher._chunks, FetchedChunks)
    with teacher._chunks._lock:  # as one of its threads may hold it
        process.start()
    try:
        assert receiver.poll(120), "the child hangs"
        assert "forked from" in receiver.recv()
    finally:
        process.kill()
        process.join()
        go_on.set()
    assert teacher.read(0, rows(0)).logits.shape == (8, 5)


def test_the_cost_is_foretold(bucket: Bucket, teacher: TeacherCache) -> None:
    plan = teacher.manifest.layout
    cost = remote_cost(plan)
    assert cost.gets == BLOCKS * len(ARRAYS)
    twice = remote_cost(plan, per_step=2)
    assert (twice.puts, twice.gets) == (cost.puts, 2 * cost.gets)
    bucket.server.requests.clear()
    from pipeline.store.location import store_path

    cache(store_path(bucket.url("new/cache.zarr")), samples=TinySamples(8 * BLOCKS))
    notes_and_claims = [key for key in bucket.requests("PUT") if "partial" in key and "units" not in key]
    assert len(bucket.requests("PUT")) - len(notes_and_claims) == cost.puts
    assert len(notes_and_claims) < 10
