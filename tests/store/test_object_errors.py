"""What goes wrong with object storage is said in our words, with the way out; what was finished is kept."""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from object_server import Bucket
from store_standins import TinySamples, TinyViews, cache, content
from test_faults import At

from pipeline.errors import CacheError
from pipeline.store.location import RemotePath, store_path
from pipeline.store.reader import TeacherCache
from pipeline.store.remote import object_storage
from pipeline.store.remote.object_storage import ObjectStorage

NAME = "some/cache.zarr"
SMALL: dict[str, Any] = {"samples": TinySamples(3), "views": TinyViews(count=1)}
DENIED = "403 Forbidden", b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_storage, "RETRIES", {"max_retries": 0})


def refused(bucket: Bucket, *said: str) -> None:
    """Reading and writing both end with this message."""
    for attempt in (lambda: TeacherCache.open(bucket.url(NAME)), lambda: cache(store_path(bucket.url(NAME)), **SMALL)):
        with pytest.raises(CacheError) as caught:
            attempt()
        text = str(caught.value)
        assert all(part in text for part in (*said, f"where: {bucket.url('some/')}", "do: ")), text
        assert "Debug source" not in text


def test_a_client_is_opened_once_for_an_address_and_its_credentials(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def client() -> object:
        path = store_path(bucket.url(NAME))
        assert isinstance(path, RemotePath)
        return ObjectStorage(path).open()

    first = client()
    assert client() is first
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    assert client() is not first


def test_no_bucket(bucket: Bucket) -> None:
    bucket.name += "-not"
    refused(bucket, "there is no such bucket", "make the bucket")


def test_access_denied(bucket: Bucket) -> None:
    bucket.server.gate = lambda *request: DENIED
    refused(bucket, "access to object storage is denied", "got: AccessDenied: Access Denied", "PutObject")


def test_no_credentials(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    # The machine's own, asked last, are those of a proxy here: no packet leaves this machine.
    monkeypatch.setenv("AWS_PROXY_URL", "http://127.0.0.1:9")
    refused(bucket, "no credentials", "AWS_ACCESS_KEY_ID")


def test_no_tls(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    refused(bucket, "the endpoint cannot be used", "AWS_ALLOW_HTTP=true")


def test_nobody_answers(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    refused(bucket, "the object storage failed", "check the network", "what is finished is kept")


def test_no_obstore(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    refused(bucket, "need the package obstore", "pip install 'decant-kd[s3]'")


def test_a_server_that_goes_and_comes_back(bucket: Bucket, tmp_path: Path) -> None:
    puts = 0

    def gate(method: str, path: str, environment: dict[str, Any]) -> tuple[str, bytes] | None:
        nonlocal puts
        puts += method == "PUT"
        return ("503 Slow Down", b"") if puts > 30 else None

    bucket.server.gate = gate
    with pytest.raises(CacheError, match=r"the object storage failed(.|\n)*what is finished is kept"):
        cache(store_path(bucket.url(NAME)))
    bucket.server.gate = lambda *request: None
    done = len(bucket.sizes("some/.cache.zarr.partial/units/"))
    assert 1 < done < 10
    bucket[CLAIM] = bucket[CLAIM].replace(b'"token": "', b'"token": null, "was": "')  # as if 90 seconds had passed
    messages: list[str] = []
    cache(store_path(bucket.url(NAME)), notify=messages.append)
    assert messages == []
    objects = bucket.below(f"{NAME}/")
    assert objects.pop("zarr.json")
    assert objects == content(cache(tmp_path / "local"))


CLAIM = "some/.cache.zarr.partial/claim.json"


def test_requests_that_fail_now_and_then_are_made_again(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_storage, "RETRIES", {})
    asked = 0

    def gate(method: str, path: str, environment: dict[str, Any]) -> tuple[str, bytes] | None:
        nonlocal asked
        asked += 1
        return ("503 Slow Down", b"") if asked % 5 == 0 else None

    bucket.server.gate = gate
    path = cache(store_path(bucket.url(NAME)), **SMALL)
    assert TeacherCache.open(path).read(0, np.arange(3)).logits.shape == (3, 5)


def _read(storage: ObjectStorage, answers: Any) -> None:
    try:
        answers.send(str(storage.read("x", 10)))
    except CacheError as error:
        answers.send(str(error))


def test_a_forked_process_is_told_instead_of_hanging(bucket: Bucket) -> None:
    bucket[f"{NAME}/x"] = b"content"
    path = store_path(bucket.url(NAME))
    used = ObjectStorage(path)  # type: ignore[arg-type]
    assert used.read("x", 10) == b"content"
    context = multiprocessing.get_context("fork")
    for storage in (used, ObjectStorage(path)):  # type: ignore[arg-type]
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=_read, args=(storage, sender))
        child.start()
        assert "forked from" in receiver.recv()
        child.join()


def test_interrupted_requests_leave_no_thread(bucket: Bucket) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache(store_path(bucket.url(NAME)), progress=At(1, stop), **SMALL)
    import threading

    assert [thread.name for thread in threading.enumerate() if thread.name in ("lease", "cache-writer")] == []
