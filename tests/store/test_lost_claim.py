"""Who lost the claim, or never had it, changes nothing that counts; attempts at one unit may overlap."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from object_server import Bucket
from store_standins import cache, content
from test_faults import At
from test_lease import NAME, SMALL, held_by, scratch
from test_remote import at, whole

from pipeline.errors import CacheError
from pipeline.store.format.arrays import Unit
from pipeline.store.format.layout import StoreLayout
from pipeline.store.location import RemotePath
from pipeline.store.making.filling import compute_units
from pipeline.store.making.teacher_pass import TeacherPass
from pipeline.store.remote import lease
from pipeline.store.remote import workspace as remote
from pipeline.store.remote.lease import read_claim
from pipeline.store.remote.workspace import RemotePlace
from pipeline.store.workspace import Chunks, Workspace

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture
def target(bucket: Bucket) -> RemotePath:
    return at(bucket)


def test_who_lost_the_claim_puts_nothing_more(bucket: Bucket, target: RemotePath) -> None:
    """Lost while the teacher computes: the next unit finds out before it puts objects."""
    with pytest.raises(CacheError, match="another process makes it"):
        cache(target, progress=At(20, lambda: held_by(bucket, "process 9", fingerprint="f" * 64)))
    left_alone(target)
    assert f"{NAME}/zarr.json" not in bucket.sizes()


def test_who_lost_the_claim_commits_nothing_more(
    bucket: Bucket, target: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost between the objects of a unit and its receipt."""
    monkeypatch.setattr(lease, "STALE_SECONDS", 0.0)  # every commit looks
    write = RemotePlace.write

    def stolen_after(place: RemotePlace, chunks: Chunks, attempt: str) -> dict[str, int]:
        files = write(place, chunks, attempt)
        if any("/c/0/1" in name for name in files):
            held_by(bucket, "process 9", fingerprint="f" * 64)
        return files

    monkeypatch.setattr(RemotePlace, "write", stolen_after)
    with pytest.raises(CacheError, match=r"another process has taken(.|\n)*process 9"):
        cache(target)
    left_alone(target)
    receipts = {key.rpartition("/")[2] for key in bucket.sizes() if "/units/" in key}
    assert f"{NAME}/logits/c/0/1/0" in bucket.sizes()
    assert receipts == {"static.json", "0-0.json"}


def test_who_lost_the_claim_publishes_nothing(bucket: Bucket, target: RemotePath) -> None:
    """Lost between the last receipt and the manifest."""

    def gate(method: str, path: str, environment: dict[str, Any]) -> None:
        if method == "PUT" and path.endswith("/ledger.jsonl"):
            held_by(bucket, "process 9", fingerprint="f" * 64)

    bucket.server.gate = gate  # type: ignore[assignment]
    with pytest.raises(CacheError, match=r"another process has taken(.|\n)*process 9"):
        cache(target, **SMALL)
    left_alone(target)
    assert f"{NAME}/ledger.jsonl" in bucket.sizes()
    assert f"{NAME}/zarr.json" not in bucket.sizes()


def left_alone(target: RemotePath) -> None:
    """The other's claim."""
    found = read_claim(scratch(target))
    assert found is not None
    assert (found[0].token, found[0].who) == ("token", "process 9")


def test_who_loses_the_claim_within_a_unit_puts_no_more_of_its_objects(
    bucket: Bucket, target: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "CLAIM_LOOK_SECONDS", 0.0)
    stolen: list[str] = []

    def gate(method: str, path: str, environment: dict[str, Any]) -> None:
        if method == "PUT" and "/c/0/1" in path:
            if not stolen:
                held_by(bucket, "process 9", fingerprint="f" * 64)
            stolen.append(path)

    bucket.server.gate = gate  # type: ignore[assignment]
    with pytest.raises(CacheError, match="another process makes it"):
        cache(target)
    left_alone(target)
    assert len(stolen) == 1
    assert len([key for key in bucket.sizes() if "/c/0/1" in key]) == 1


def test_two_attempts_at_one_unit_at_once_end_with_its_bytes(
    bucket: Bucket, target: RemotePath, tmp_path: Path
) -> None:
    """Each object is put by both before either goes on; the receipt of one counts."""
    both = threading.Barrier(2)

    class Together(dict[str, Any]):
        def items(self) -> Any:
            for item in super().items():
                both.wait(120)
                yield item

    def runner(
        teacher: TeacherPass, workspace: Workspace, layout: StoreLayout, units: Sequence[Unit], progress: Any, run: Any
    ) -> None:
        for unit, chunks in compute_units(teacher, layout, [[unit] for unit in units], progress):
            files: dict[str, dict[str, int]] = {}

            def attempt(name: str, chunks: Chunks = chunks, files: dict[str, dict[str, int]] = files) -> None:
                files[name] = workspace.place.write(Together(chunks), name)

            threads = [threading.Thread(target=attempt, args=(name,)) for name in ("one", "other")]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert files["one"] == files["other"]
            workspace.commit(unit.key, files["other"], "other")

    cache(target, runner=runner)
    assert whole(bucket) == content(cache(tmp_path / "cache.zarr"))
    puts = bucket.requests("PUT", "(?<!weight)/c/[0-9]/[0-9]")
    assert len(puts) == 2 * len(set(puts))
