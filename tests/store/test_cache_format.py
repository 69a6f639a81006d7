"""Reads a cache by `docs/cache-format.md` alone: nothing of the library but what made it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from store_standins import TinySamples, cache

from pipeline.store.reader import TeacherCache


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def castagnoli(data: bytes) -> int:
    """CRC-32C bit by bit: polynomial 0x1EDC6F41, reflected."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_the_checksum_is_the_published_one() -> None:
    assert castagnoli(b"123456789") == 0xE3069283


def test_a_cache_is_what_the_documentation_says(tmp_path: Path) -> None:
    path = cache(tmp_path / "cache.zarr")
    manifest = json.loads((path / "zarr.json").read_bytes())["attributes"]
    assert (manifest["format"], manifest["schema"]) == ("decant-teacher-cache", 2)
    identity = manifest["identity"]
    assert set(identity) == {"schema", "data", "views", "teacher", "signals", "layout"}
    assert hashlib.sha256(canonical(identity)).hexdigest() == manifest["fingerprint"]
    assert (path / ".fingerprint").read_text() == manifest["fingerprint"] + "\n"
    checksum = manifest.pop("checksum")
    assert hashlib.sha256(canonical(manifest)).hexdigest() == checksum

    ledger = {}
    for line in (path / "ledger.jsonl").read_text().splitlines():
        record = json.loads(line)
        check = record.pop("check")
        assert castagnoli(canonical(record)) == int(check, 16)
        ledger[record["unit"]] = record["files"]
    assert list(ledger) == ["static", *(f"{view}/{block}" for view in range(3) for block in range(3))]

    recorded = manifest["metadata"]
    root = json.loads((path / "zarr.json").read_bytes())
    assert (path / "zarr.json").read_bytes() == json.dumps(root, indent=2).encode()
    beside = canonical({key: value for key, value in root.items() if key != "attributes"})
    assert castagnoli(beside) == int(recorded.pop("zarr.json"), 16)
    assert {name: f"{castagnoli((path / name).read_bytes()):08x}" for name in recorded} == recorded

    there = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}
    named = {name for files in ledger.values() for name in files}
    metadata = {f"{array}/zarr.json" for array in [*manifest["arrays"], "features", "head"]}
    assert set(recorded) == metadata
    assert there == named | metadata | {"zarr.json", ".fingerprint", "ledger.jsonl"}

    rows, teacher = identity["layout"]["rows_per_block"], TeacherCache.open(path)
    for name, files in ((name, files) for unit in ledger.values() for name, files in unit.items()):
        raw = (path / name).read_bytes()
        assert castagnoli(raw[:-4]) == int.from_bytes(raw[-4:], "little") == int(files, 16)
        array, *index = name.split("/c/")[0], *map(int, name.split("/c/")[1].split("/"))
        info = manifest["arrays"][array]
        elements = np.frombuffer(raw[:-4], info["dtype"]).reshape(info["chunk"])
        if array in teacher.read_encoded(0, np.arange(1)).arrays:
            view, block = index[:2]
            samples = np.arange(block * rows, min((block + 1) * rows, identity["data"]["samples"]))
            got = teacher.read_encoded(view, samples).arrays[array].numpy()
            assert elements[0, : len(samples)].tobytes() == got.tobytes()
            assert np.all(np.isnan(elements[0, len(samples) :]))
    labels = np.frombuffer((path / "labels/c/0").read_bytes()[:-4], "<i8")
    assert np.array_equal(labels, TinySamples().labels)
