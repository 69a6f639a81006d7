from __future__ import annotations

import functools
import json
import multiprocessing
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from intact import verify_files
from numpy.typing import NDArray
from store_standins import TinyNetwork, TinySamples, TinyViews, cache

from pipeline.errors import CacheCorrupt, CacheMismatch, CacheNotFound, CacheUnfinished
from pipeline.store import reader
from pipeline.store.format.requirements import CacheRequirement, RequiredSignals
from pipeline.store.format.sections import DataIdentity, TeacherIdentity, ViewsIdentity
from pipeline.store.local import chunks
from pipeline.store.reader import TeacherCache


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cache(tmp_path_factory.mktemp("store") / "cache.zarr")


@pytest.fixture
def copied(store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(store, tmp_path / "cache.zarr"))


@functools.cache
def by_zarr(store: Path, name: str) -> NDArray[Any]:
    """An array as zarr reads it, once for all examples."""
    group: Any = zarr.open_group(store, mode="r")
    return np.asarray(group[name][...])


@settings(max_examples=60, deadline=None)
@given(samples=st.lists(st.integers(0, 22), max_size=40), view=st.integers(0, 2), ascending=st.booleans())
def test_any_batch_is_what_zarr_reads(store: Path, samples: list[int], view: int, ascending: bool) -> None:
    rows = np.array(sorted(samples) if ascending else samples, np.int64)
    teacher = TeacherCache.open(store)
    for name, tensor in teacher.read_encoded(view, rows).arrays.items():
        assert tensor.numpy().tobytes() == by_zarr(store, name)[view][rows].tobytes()
    assert np.array_equal(teacher.view_digests(view, rows), by_zarr(store, "view_digest")[view][rows])


def test_what_is_read_may_be_changed(store: Path) -> None:
    teacher, rows = TeacherCache.open(store), np.arange(4)
    first = teacher.read_encoded(0, rows).arrays["logits"]
    before = first.clone()
    first.zero_()
    teacher.labels[:] = 7
    assert torch.equal(teacher.read_encoded(0, rows).arrays["logits"], before)
    assert set(teacher.labels) != {7}
    verify_files(store)


def test_only_what_is_asked_for_is_read(copied: Path) -> None:
    shutil.rmtree(copied / "features")
    signals = TeacherCache.open(copied, signals=["embedding"]).read(0, np.arange(3))
    assert signals.embedding is not None
    assert signals.features == {}
    assert TeacherCache.open(copied, signals=[]).read(0, np.arange(3)).embedding is None


def test_an_open_cache_is_narrowed_without_opening_or_checking_anything_again(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, rows = TeacherCache.open(copied), np.arange(3)
    whole = teacher.read(0, rows)
    assert whole.features
    for module, name in ((chunks, "checked_elements"), (reader, "Manifest")):  # a call would end in another error
        monkeypatch.setattr(module, name, None)
    monkeypatch.setattr(torch, "from_file", None)
    narrowed = teacher.select(["embedding"])
    signals = narrowed.read(0, rows)
    assert signals.embedding is not None
    assert whole.embedding is not None
    assert torch.equal(signals.embedding, whole.embedding)
    assert not signals.features
    assert teacher.read(0, rows).features.keys() == whole.features.keys()  # it still reads all
    with pytest.raises(CacheMismatch, match="the teacher cache lacks embeding") as error:
        teacher.select(["embeding"])
    assert "did you mean 'embedding'?" in str(error.value)


def test_a_signal_that_is_not_there_is_named(store: Path) -> None:
    with pytest.raises(CacheMismatch, match=r"lacks features/block3(.|\n)*did you mean"):
        TeacherCache.open(store, signals=["features/block3"])


def test_views_and_samples_out_of_range(store: Path) -> None:
    teacher = TeacherCache.open(store)
    with pytest.raises(CacheMismatch, match="no view 3"):
        teacher.read(3, np.arange(2))
    for wrong in ([23], [-1]):
        with pytest.raises(IndexError):
            teacher.read(0, np.array(wrong))


def test_a_cache_travels_by_pickle_and_fork(store: Path) -> None:
    teacher, rows = TeacherCache.open(store), np.array([3, 17, 4])
    wanted = teacher.read(1, rows).logits  # files are mapped before both
    copied = pickle.loads(pickle.dumps(teacher))
    assert torch.equal(copied.read(1, rows).logits, wanted)
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sender.send(teacher.read(1, rows).logits.tolist()))
    child.start()
    assert receiver.recv() == wanted.tolist()
    child.join()
    assert child.exitcode == 0


def test_encoded_signals_pickle_small_and_move(store: Path) -> None:
    encoded = TeacherCache.open(store).read_encoded(0, np.arange(2))
    again = pickle.loads(pickle.dumps(encoded))
    assert torch.equal(again.to("cpu").decode().logits, encoded.decode().logits)
    assert encoded.arrays["logits"].dtype == torch.float16
    assert encoded.decode().logits.dtype == torch.float32


def test_mapped_files_are_bounded(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "OPEN_MAPS", 4)
    bounded, everything = TeacherCache.open(store), np.arange(23)
    whole = [TeacherCache.open(store).read(view, everything).logits for view in range(3)]
    for view in (0, 1, 2, 0):
        assert torch.equal(bounded.read(view, everything).logits, whole[view])
        assert len(bounded._chunks._maps) <= 4


def test_reading_keeps_no_files_open_and_changes_nothing(store: Path) -> None:
    before = {file: (file.stat().st_mtime_ns, file.stat().st_size) for file in store.rglob("*")}
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    teacher = TeacherCache.open(store)
    for view in teacher.views:
        teacher.read(view, np.arange(23))
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    assert {file: (file.stat().st_mtime_ns, file.stat().st_size) for file in store.rglob("*")} == before


def flip(path: Path, place: int, bit: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1 << bit
    path.write_bytes(raw)


def read_all(path: Path) -> None:
    teacher = TeacherCache.open(path)
    for view in teacher.views:
        teacher.read(view, np.arange(teacher.count))
        teacher.view_digests(view, np.arange(teacher.count))
        teacher.view_parameters(view, np.arange(teacher.count))
    assert teacher.labels is not None


def test_any_flipped_byte_of_a_chunk_is_noticed_and_named(copied: Path) -> None:
    generator = np.random.default_rng(0)
    chunks = sorted(file for file in copied.rglob("c/**/*") if file.is_file())
    assert len(chunks) == 3 * 3 * 6 + 3
    for number, chunk in enumerate(chunks):
        place, bit = int(generator.integers(chunk.stat().st_size)), int(generator.integers(8))
        flip(chunk, place, bit)
        with pytest.raises(CacheCorrupt) as caught:
            read_all(copied)
        assert str(chunk) in str(caught.value)
        if number % 5 == 0:
            with pytest.raises(CacheCorrupt, match=str(chunk.relative_to(copied))):
                verify_files(copied)
        flip(chunk, place, bit)
    read_all(copied)


def test_any_flipped_byte_of_the_manifest_is_noticed_or_harmless(copied: Path) -> None:
    """Each byte of the root's metadata, in its ASCII bits: refused, or read as the same manifest."""
    root = copied / "zarr.json"
    whole, manifest = root.read_bytes(), TeacherCache.open(copied).manifest
    end = whole.index(b'"consolidated_metadata"')
    harmless = 0
    for place in np.random.default_rng(1).permutation(end)[:400]:
        flip(root, int(place), int(place) % 7)
        try:
            assert TeacherCache.open(copied).manifest == manifest
            harmless += 1
        except (CacheCorrupt, CacheMismatch, CacheNotFound):
            pass
        root.write_bytes(whole)
    assert harmless < 200  # spaces between fields


@pytest.mark.parametrize("name", [".fingerprint", "ledger.jsonl", "logits/zarr.json", "features/zarr.json"])
def test_a_damaged_small_file_is_found_by_verify(copied: Path, name: str) -> None:
    raw = (copied / name).read_bytes()
    (copied / name).write_bytes(raw.replace(b"1", b"2").replace(b"a", b"b"))
    with pytest.raises(CacheCorrupt):
        verify_files(copied)


def test_a_swapped_chunk_is_found_by_verify(copied: Path) -> None:
    """Each chunk is whole in itself; the ledger knows which is which."""
    one, two = copied / "logits/c/0/0/0", copied / "logits/c/0/1/0"
    first = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(first)
    with pytest.raises(CacheCorrupt, match=r"logits/c/0/0/0: not what the ledger lists"):
        verify_files(copied)


def test_absent_short_and_foreign_files(copied: Path) -> None:
    chunk = copied / "embedding/c/1/2/0"
    raw = chunk.read_bytes()
    for damage in (raw[:-1], b"", None):
        if damage is None:
            chunk.unlink()
        else:
            chunk.write_bytes(damage)
        with pytest.raises(CacheCorrupt, match=r"embedding/c/1/2/0"):
            read_all(copied)
        with pytest.raises(CacheCorrupt, match=r"embedding/c/1/2/0"):
            verify_files(copied)
    chunk.write_bytes(raw)
    (copied / "notes.txt").write_text("mine")
    with pytest.raises(CacheCorrupt, match=r"notes\.txt: does not belong there"):
        verify_files(copied)


def test_what_cannot_be_opened(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(CacheNotFound, match="cache-teacher"):
        TeacherCache.open(tmp_path / "nothing")
    (tmp_path / f".half.{'0' * 16}.partial").mkdir()
    with pytest.raises(CacheUnfinished, match="goes on"):
        TeacherCache.open(tmp_path / "half")
    with pytest.raises(CacheNotFound, match=r"no zarr\.json"):
        TeacherCache.open(tmp_path)
    zarr.create_group(tmp_path / "other.zarr")
    with pytest.raises(CacheNotFound, match="decant-teacher-cache"):
        TeacherCache.open(tmp_path / "other.zarr")
    root = json.loads((copied / "zarr.json").read_text())
    root["attributes"]["schema"] = 3
    (copied / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(CacheMismatch, match="another schema"):
        TeacherCache.open(copied)


def test_requirements_are_met_or_named_all_at_once(store: Path) -> None:
    teacher, samples, views, network = TeacherCache.open(store), TinySamples(), TinyViews(), TinyNetwork()
    teachers = TeacherIdentity.of(network, precision="float32", micro_batch=4)  # type: ignore[arg-type]
    ours = CacheRequirement(
        data=DataIdentity.of(samples),  # type: ignore[arg-type]
        views=ViewsIdentity.of(views),  # type: ignore[arg-type]
        numbers=views.numbers,
        teacher=teachers,
        signals=RequiredSignals({"features/block2": "float16", "embedding": "float16"}),
    )
    teacher.require(ours)
    teacher.require(replace(ours, numbers=range(2, 3)))
    wrong = replace(
        ours,
        data=DataIdentity.of(TinySamples(seed=1)),  # type: ignore[arg-type]
        numbers=range(4),
        teacher=teachers.model_copy(update={"weights": "sha256:other"}),
        signals=RequiredSignals({"features/block3": "float16"}),
    )
    with pytest.raises(CacheMismatch) as caught:
        teacher.require(wrong)
    for field in ("data.pixels", "views: expected views 0 to 3, got 0 to 2", "teacher.weights", "block3"):
        assert field in str(caught.value)
    with pytest.raises(CacheMismatch) as caught:
        teacher.require(replace(wrong, unchecked=("teacher.weights", "data")))
    assert "teacher.weights" not in str(caught.value)
    assert "data.pixels" not in str(caught.value)
