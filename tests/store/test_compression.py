from __future__ import annotations

from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import zarr
from intact import verify_files
from numcodecs import zstd
from store_standins import cache, content

from pipeline.errors import CacheCorrupt
from pipeline.store.format import chunks
from pipeline.store.reader import TeacherCache


@pytest.fixture
def plain(tmp_path: Path) -> TeacherCache:
    return TeacherCache.open(cache(tmp_path / "plain.zarr"))


@pytest.fixture
def compressed(tmp_path: Path) -> TeacherCache:
    return TeacherCache.open(cache(tmp_path / "compressed.zarr", compression="zstd"))


def test_both_hold_the_same(plain: TeacherCache, compressed: TeacherCache) -> None:
    everything = np.arange(plain.count)
    for view in plain.views:
        one, other = plain.read_encoded(view, everything).arrays, compressed.read_encoded(view, everything).arrays
        assert {name: tensor.numpy().tobytes() for name, tensor in one.items()} == {
            name: tensor.numpy().tobytes() for name, tensor in other.items()
        }
    assert np.array_equal(plain.labels, compressed.labels)
    verify_files(compressed.path)


def test_zarr_reads_every_array(plain: TeacherCache, compressed: TeacherCache) -> None:
    groups: list[Any] = [zarr.open_group(path, mode="r") for path in (plain.path, compressed.path)]
    for name in plain.manifest.layout.arrays | plain.manifest.layout.static:
        one, other = (group[name][:] for group in groups)
        assert one.tobytes() == other.tobytes()


def test_a_file_is_a_frame_and_its_checksum(plain: TeacherCache, compressed: TeacherCache) -> None:
    frame = (compressed.path / "logits/c/1/2/0").read_bytes()
    assert int.from_bytes(frame[-4:], "little") == google_crc32c.value(frame[:-4])
    assert zstd.decompress(frame[:-4]) == (plain.path / "logits/c/1/2/0").read_bytes()[:-4]


def test_the_same_bytes_after_damage_to_unfinished_work(tmp_path: Path, compressed: TeacherCache) -> None:
    from test_faults import At, interrupt

    with pytest.raises(KeyboardInterrupt):
        cache(tmp_path / "a", compression="zstd", progress=At(40, interrupt))
    assert content(cache(tmp_path / "a", compression="zstd")) == content(compressed.path)


@pytest.mark.parametrize("size", [8, 1 << 24], ids=["too small", "too large"])
def test_a_file_that_decompresses_to_another_size_is_refused(compressed: TeacherCache, size: int) -> None:
    frame = zstd.compress(bytes(size))
    (compressed.path / "logits/c/1/2/0").write_bytes(frame + google_crc32c.value(frame).to_bytes(4, "little"))
    with pytest.raises(CacheCorrupt, match="logits/c/1/2/0"):
        compressed.read(compressed.views[1], np.array([20]))


def test_memory_is_bounded(compressed: TeacherCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.store.local.chunks.LOADED_BLOCKS", 1)
    cache = TeacherCache.open(compressed.path, signals=[])
    for view in cache.views:
        cache.read(view, np.arange(cache.count))
    assert len(cache._chunks._maps) <= 3


@pytest.mark.parametrize("size", [1, 255, 256, 300, 65_791, 65_792, 1 << 20])
def test_the_size_in_a_frame(size: int) -> None:
    frame = zstd.compress(bytes(size))
    assert chunks._frame_content_size(np.frombuffer(frame, np.uint8)) == size
