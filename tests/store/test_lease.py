"""Who makes a store on object storage: one process at a time, and after its death another."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from intact import verify_files
from object_server import Bucket
from store_standins import TinyNetwork, TinySamples, TinyViews, cache
from test_faults import At, interrupt

from pipeline.errors import CacheError
from pipeline.store.location import RemotePath, store_path
from pipeline.store.reader import TeacherCache
from pipeline.store.remote import lease
from pipeline.store.remote.lease import Claim, Lease, read_claim
from pipeline.store.remote.object_storage import ObjectStorage

NAME, CLAIM = "some/cache.zarr", "some/.cache.zarr.partial/claim.json"
SMALL: dict[str, Any] = {"samples": TinySamples(3), "views": TinyViews(count=1)}


pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture
def target(bucket: Bucket) -> RemotePath:
    path = store_path(bucket.url(NAME))
    assert isinstance(path, RemotePath)
    return path


def held_by(bucket: Bucket, who: str = "process 7 on elsewhere", **fields: Any) -> None:
    bucket[CLAIM] = Claim(fields.pop("fingerprint", None), "token", who=who).encode()


def scratch(target: RemotePath) -> ObjectStorage:
    return ObjectStorage(target.with_name(".cache.zarr.partial"))


def test_a_holder_is_named_to_those_who_do_not_wait(bucket: Bucket, target: RemotePath) -> None:
    held_by(bucket)
    with pytest.raises(CacheError, match=r"another process is making this cache(.|\n)*process 7 on elsewhere"):
        cache(target, wait=False, **SMALL)
    assert list(bucket.sizes()) == [CLAIM]
    assert Claim("f", None, 3, "someone") == Claim(**vars(Claim("f", None, 3, "someone")))


def test_who_waits_goes_on_when_the_claim_is_free(bucket: Bucket, target: RemotePath) -> None:
    held_by(bucket)
    messages: list[str] = []

    def let_go(text: str) -> None:
        messages.append(text)
        if len(messages) == 1:
            bucket[CLAIM] = Claim().encode()

    cache(target, notify=let_go, **SMALL)
    assert "waiting for another process" in messages[0]
    assert "process 7 on elsewhere" in messages[0]
    assert not [key for key in bucket.sizes() if "partial" in key]


def test_who_waits_survives_that_the_holder_clears_up(bucket: Bucket, target: RemotePath) -> None:
    """The holder that publishes deletes what lies beside, clocks that others put there just now too."""
    held_by(bucket)
    cleared = 0

    def gate(method: str, path: str, environment: dict[str, Any]) -> None:
        nonlocal cleared
        if method == "HEAD" and "clock-" in path and not cleared:
            cleared += 1
            del bucket[path.split("/", 2)[2]]

    bucket.server.gate = gate  # type: ignore[assignment]
    holder = Lease(target.with_name(".cache.zarr.partial"), wait=True, notify=lambda text: None)
    assert not holder.take(lambda: bool(cleared))
    assert cleared
    assert list(bucket.sizes()) == [CLAIM]


def test_of_two_the_second_waits_and_finds_it_done(bucket: Bucket, target: RemotePath) -> None:
    said: list[list[str]] = [[], []]
    networks = TinyNetwork(), TinyNetwork()
    held = threading.Barrier(2)

    def make(number: int) -> None:
        held.wait()
        cache(target, network=networks[number], notify=said[number].append)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    computed = [len(network.batches) for network in networks]
    assert sorted(computed) == [1, 1 + 3 * 6]
    assert "waiting" in said[computed.index(1)][0]
    verify_files(target)
    assert not [key for key in bucket.sizes() if "partial" in key]


def test_the_claim_of_the_dead_is_taken_over_by_the_servers_clock(
    bucket: Bucket, target: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "STALE_SECONDS", 1.0)  # the server counts whole seconds
    # Local clocks play no part, whatever they say.
    monkeypatch.setattr(lease, "datetime", None)
    monkeypatch.setattr(lease, "_who", lambda: "somebody")
    held_by(bucket)
    holder, start = Lease(target.with_name(".cache.zarr.partial"), wait=True, notify=lambda text: None), time.time()
    assert holder.take(lambda: False)
    assert time.time() - start > 0.9  # not at once
    found = read_claim(scratch(target))
    assert found is not None
    assert found[0].token == holder.claim.token != "token"
    holder.release()
    assert not bucket.sizes()  # nothing was made


def test_a_claim_is_renewed_and_what_lies_there_is_remembered(
    bucket: Bucket, target: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.02)
    holder = Lease(target.with_name(".cache.zarr.partial"), wait=False, notify=print)
    assert holder.take(lambda: False)
    holder.mark("f" * 64)
    while holder.claim.beat < 5:
        time.sleep(0.01)
    assert [thread.name for thread in threading.enumerate() if thread.name == "lease"] == ["lease"]
    holder.release()
    assert [thread.name for thread in threading.enumerate() if thread.name == "lease"] == []
    found = read_claim(scratch(target))
    assert found is not None
    assert (found[0].fingerprint, found[0].token) == ("f" * 64, None)
    assert found[0].beat >= 5
    again = Lease(target.with_name(".cache.zarr.partial"), wait=False, notify=print)
    assert again.take(lambda: False)
    assert again.claim.fingerprint == "f" * 64
    again.release()


def test_of_many_who_try_at_once_one_succeeds(bucket: Bucket, target: RemotePath) -> None:
    bucket[CLAIM] = Claim("f" * 64).encode()  # free
    leases = [Lease(target.with_name(".cache.zarr.partial"), wait=False, notify=print) for _ in range(8)]
    refused: list[CacheError] = []

    def take(one: Lease) -> None:
        try:
            assert one.take(lambda: False)
        except CacheError as error:
            refused.append(error)

    threads = [threading.Thread(target=take, args=(one,)) for one in leases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 7
    found = read_claim(scratch(target))
    assert found is not None
    (holder,) = [one for one in leases if one.claim.token == found[0].token]
    holder.release()


def test_an_answer_that_was_lost_is_no_conflict(bucket: Bucket, target: RemotePath) -> None:
    """The server puts the claim and its answer is lost: asked again, it says that something lies there."""
    lost = 0

    def gate(method: str, path: str, environment: dict[str, Any]) -> tuple[str, bytes] | None:
        nonlocal lost
        if method == "PUT" and path.endswith("claim.json") and not lost:
            lost += 1
            bucket.server.open("PUT", path[1:], environment["wsgi.input"].read(int(environment["CONTENT_LENGTH"])))
            environment["CONTENT_LENGTH"] = "0"
            return "412 Precondition Failed", b"<Error><Code>PreconditionFailed</Code></Error>"
        return None

    bucket.server.gate = gate
    holder = Lease(target.with_name(".cache.zarr.partial"), wait=False, notify=print)
    assert holder.take(lambda: False)
    holder.mark("f" * 64)
    holder.release()


def test_a_renewal_whose_answer_was_lost_does_not_make_the_claim_anothers(bucket: Bucket, target: RemotePath) -> None:
    lost = 0

    def gate(method: str, path: str, environment: dict[str, Any]) -> tuple[str, bytes] | None:
        nonlocal lost
        if method == "PUT" and path.endswith("claim.json") and holder.claim.beat and not lost:
            lost += 1
            bucket[CLAIM] = environment["wsgi.input"].read(int(environment["CONTENT_LENGTH"]))
            environment["CONTENT_LENGTH"] = "0"
            return "500 gone", b""
        return None

    holder = Lease(target.with_name(".cache.zarr.partial"), wait=False, notify=print)
    holder._storage = ObjectStorage(holder._storage.path, {"max_retries": 0})
    assert holder.take(lambda: False)
    try:
        holder.mark(None)
        bucket.server.gate = gate
        with pytest.raises(CacheError, match="the object storage failed"):
            holder.mark(None)  # as a renewal does
        holder.mark("f" * 64)
        assert lost
        holder.mark("a" * 64)
        found = read_claim(scratch(target))
        assert found is not None
        assert (found[0].fingerprint, found[0].token) == ("a" * 64, holder.claim.token)
        bucket[CLAIM] = Claim("a" * 64, "token", 9, "process 9").encode()
        with pytest.raises(CacheError, match="process 9"):
            holder.mark("b" * 64)
    finally:
        holder.release()
    found = read_claim(scratch(target))
    assert found is not None
    assert found[0].token == "token"


def test_without_conditional_puts_it_says_so_and_works(
    bucket: Bucket, target: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONDITIONAL_PUT", "disabled")
    messages: list[str] = []
    cache(target, notify=messages.append, **SMALL)
    assert [message for message in messages if "no conditional puts" in message] == messages
    assert len(messages) == 1
    verify_files(target)


def test_a_maker_that_was_killed_after_it_had_published_is_tidied_up_after(bucket: Bucket, target: RemotePath) -> None:
    cache(target, **SMALL)
    fingerprint = TeacherCache.open(target).manifest.fingerprint
    bucket[CLAIM] = Claim(fingerprint).encode()
    bucket["some/.cache.zarr.partial/units/0-0.json"] = b"{}"
    root = bucket[f"{NAME}/zarr.json"]
    looked = 0

    def gate(method: str, path: str, environment: dict[str, Any]) -> tuple[str, bytes] | None:
        nonlocal looked
        if not path.endswith(".fingerprint") or looked:
            return None
        looked += 1
        return "404 Not Found", b"<Error><Code>NoSuchKey</Code></Error>"

    bucket.server.gate = gate  # as if it were published between the first look and the claim
    network = TinyNetwork()
    cache(target, network=network, **SMALL)
    assert network.batches == [1]
    assert bucket[f"{NAME}/zarr.json"] == root
    assert not [key for key in bucket.sizes() if "partial" in key]


@pytest.mark.parametrize("written", [b"", b"nonsense", b"[]", b'{"fingerprint": 3}', b"\xff", b"[" * 10_000])
def test_a_claim_that_nobody_of_ours_wrote_is_held_by_nobody(
    bucket: Bucket, target: RemotePath, written: bytes
) -> None:
    bucket[CLAIM] = written
    found = read_claim(scratch(target))
    assert found is not None
    assert found[0] == Claim()


def test_what_a_claim_says_is_printed_without_control_characters(bucket: Bucket, target: RemotePath) -> None:
    held_by(bucket, "evil\x1b[2J\nprocess")
    with pytest.raises(CacheError, match=r"evil\\x1b\[2J"):
        cache(target, wait=False, **SMALL)


def test_a_claim_that_was_deleted_is_lost(bucket: Bucket, target: RemotePath) -> None:
    holder = Lease(target.with_name(".cache.zarr.partial"), wait=False, notify=print)
    assert holder.take(lambda: False)
    del bucket[CLAIM]
    with pytest.raises(CacheError, match="the claim is gone"):
        holder.mark("f" * 64)
    holder.release()
    assert not bucket.sizes()


def test_ctrl_c_frees_the_claim(bucket: Bucket, target: RemotePath, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        cache(target, progress=At(1, interrupt), **SMALL)
    found = read_claim(scratch(target))
    assert found is not None
    assert found[0].token is None
    assert found[0].fingerprint is not None
    cache(target, wait=False, **SMALL)
