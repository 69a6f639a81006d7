from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from intact import verify_files
from store_standins import FLOAT32, SIGNALS, TinyNetwork, TinySamples, TinyViews, cache, content

from pipeline.errors import CacheError, CacheMismatch, ConfigError
from pipeline.publishing.artifacts import published
from pipeline.signals import FeaturesConfig, SignalsConfig
from pipeline.signals.lowpass import lowpass
from pipeline.store.format.layout import CacheExtent
from pipeline.store.making.layout_for import layout_for
from pipeline.store.reader import TeacherCache
from pipeline.views import digest


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cache(tmp_path_factory.mktemp("store") / "cache.zarr")


def expected(view: int, samples: TinySamples, views: TinyViews) -> dict[str, torch.Tensor]:
    """What the teacher says of a view of all samples, in one batch, without the store."""
    pixels = views.apply(samples.read(np.arange(samples.count)), views.parameters(view, samples.positions))
    with torch.no_grad():
        said = TinyNetwork().eval()(pixels)
    return {
        "logits": said.logits,
        "embedding": said.embedding,
        "block1": lowpass(said.features["block1"], 2),
        "block2": lowpass(said.features["block2"], 2),
        "digest": torch.from_numpy(digest(pixels).view(np.int64)),
    }


def test_the_cache_holds_what_the_teacher_says(tmp_path: Path) -> None:
    samples, views = TinySamples(), TinyViews(first=5)
    path = cache(tmp_path / "a", samples=samples, views=views, signals=FLOAT32)
    teacher = TeacherCache.open(path)
    everything = np.arange(samples.count)
    assert teacher.views == range(5, 8)
    assert teacher.count == 23
    for view in teacher.views:
        wanted, got = expected(view, samples, views), teacher.read(view, everything)
        torch.testing.assert_close(got.logits, wanted["logits"])
        torch.testing.assert_close(got.embedding, wanted["embedding"])
        assert list(got.features) == ["block1", "block2"]
        for tap in ("block1", "block2"):
            torch.testing.assert_close(got.features[tap], wanted[tap])
        assert np.array_equal(teacher.view_digests(view, everything).view(np.int64), wanted["digest"].numpy())
        drawn = views.parameters(view, samples.positions)
        assert np.array_equal(teacher.view_parameters(view, everything), drawn)
        assert got.head is not None
        assert got.embedding is not None
        torch.testing.assert_close(got.head(got.embedding), got.logits)
    assert np.array_equal(teacher.labels, samples.labels)
    assert teacher.shapes == teacher.read(5, everything).shapes()


def test_zarr_reads_every_array_and_the_padding(store: Path) -> None:
    plan = TeacherCache.open(store).manifest.layout
    group: Any = zarr.open_group(store, mode="r")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        names = {name for name, member in group.members(max_depth=None) if isinstance(member, zarr.Array)}
    assert names == {*plan.arrays, *plan.static}
    teacher, everything = TeacherCache.open(store), np.arange(23)
    for index, view in enumerate(teacher.views):
        encoded = teacher.read_encoded(view, everything).arrays
        for name, tensor in encoded.items():
            assert group[name][index].tobytes() == tensor.numpy().tobytes()
        assert np.array_equal(group["view_parameters"][index], teacher.view_parameters(view, everything))
        assert np.array_equal(group["view_digest"][index], teacher.view_digests(view, everything))
    assert np.array_equal(group["labels"][:], teacher.labels)
    assert teacher.head is not None
    assert np.array_equal(group["head/weight"][:], teacher.head.weight.numpy())
    assert np.array_equal(group["head/bias"][:], teacher.head.bias.numpy())
    # The last of three blocks of eight has seven samples; what follows says that it is not there.
    for name, spec in plan.arrays.items():
        raw = (store / spec.file(list(plan.units)[2])).read_bytes()
        padding = np.frombuffer(raw[:-4], spec.dtype).reshape(spec.chunk)[0, 7:]
        assert np.array_equal(padding, np.full_like(padding, spec.fill), equal_nan=spec.dtype.kind == "f")
        assert np.array_equal(group[name].fill_value, spec.fill, equal_nan=spec.dtype.kind == "f")


def test_zarr_reads_without_the_consolidated_metadata(store: Path) -> None:
    group = zarr.open_group(store, mode="r", use_consolidated=False)
    logits: Any = group["logits"]
    got = TeacherCache.open(store).read_encoded(1, np.arange(23)).arrays["logits"]
    assert logits[1].tobytes() == got.numpy().tobytes()
    assert logits.metadata.codecs[0].to_dict() == {"name": "bytes", "configuration": {"endian": "little"}}
    assert [codec.to_dict()["name"] for codec in logits.metadata.codecs] == ["bytes", "crc32c"]


def test_the_plan_foretold_files_and_bytes(store: Path) -> None:
    plan = TeacherCache.open(store).manifest.layout
    files = [file for file in store.rglob("*") if file.is_file()]
    assert len(files) == plan.files
    assert abs(sum(file.stat().st_size for file in files) - plan.total_bytes) < 40_000
    assert verify_files(store) == plan.files


def test_nothing_but_the_cache_is_left(store: Path) -> None:
    assert [path.name for path in store.parent.iterdir()] == ["cache.zarr"]


def test_the_teacher_sees_fixed_micro_batches(tmp_path: Path) -> None:
    network = TinyNetwork().train()
    network.head.eval()
    cache(tmp_path / "a", network=network)
    assert network.batches[0] == 1  # the probe
    assert set(network.batches[1:]) == {4}
    assert len(network.batches) == 1 + 3 * 6
    assert network.training
    assert not network.head.training


def test_the_same_again_is_done_and_computes_nothing(store: Path) -> None:
    network, messages = TinyNetwork(), list[str]()
    before = {file: file.stat().st_mtime_ns for file in store.rglob("*")}
    assert cache(store, network=network, notify=messages.append) == store
    assert network.batches == [1]
    assert "there already" in messages[0]
    assert {file: file.stat().st_mtime_ns for file in store.rglob("*")} == before


CHANGES: dict[str, dict[str, Any]] = {
    "network": {"network": TinyNetwork(seed=1)},
    "pixels": {"samples": TinySamples(seed=1)},
    "views": {"views": TinyViews(count=2)},
    "first": {"views": TinyViews(first=1)},
    "operations": {"views": TinyViews(plain=True)},
    "precision": {"precision": "bfloat16"},
    "micro_batch": {"micro_batch": 8},
    "rows_per_block": {"rows_per_block": 4},
    "encoding": {"signals": FLOAT32},
    "blocks": {"signals": SignalsConfig(features=FeaturesConfig(blocks=1, grid=2))},
    "grid": {"signals": SignalsConfig(features=FeaturesConfig(grid=1))},
    "embedding": {"signals": SIGNALS.model_copy(update={"embedding": None})},
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_the_cache_changes_its_fingerprint(tmp_path: Path, store: Path, change: str) -> None:
    other = cache(tmp_path / "a", **CHANGES[change])
    assert published(other) != TeacherCache.open(store).manifest.fingerprint
    verify_files(other)


def test_labels_do_not_change_the_fingerprint(tmp_path: Path, store: Path) -> None:
    samples = TinySamples()
    samples.labels = None
    path = cache(tmp_path / "a", samples=samples)
    assert published(path) == TeacherCache.open(store).manifest.fingerprint
    assert TeacherCache.open(path).labels.tolist() == [-1] * 23


def test_a_finished_cache_of_another_identity_needs_replace(tmp_path: Path) -> None:
    path = cache(tmp_path / "a")
    before = content(path)
    network = TinyNetwork(seed=1)
    with pytest.raises(CacheMismatch, match="--replace"):
        cache(path, network=network)
    assert network.batches == [1]  # refused before any work
    assert content(path) == before
    cache(path, network=network, replace=True)
    assert content(path) != before
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("samples", "rows", "micro_batch"), [(1, 8, 4), (23, 5, 4), (23, 100, 64), (8, 8, 8), (9, 4, 3)]
)
def test_any_cut_gives_the_same_answers(tmp_path: Path, samples: int, rows: int, micro_batch: int) -> None:
    tiny = TinySamples(samples)
    path = cache(tmp_path / "a", samples=tiny, signals=FLOAT32, rows_per_block=rows, micro_batch=micro_batch)
    teacher = TeacherCache.open(path)
    for view in teacher.views:
        wanted = expected(view, tiny, TinyViews())["logits"]
        torch.testing.assert_close(teacher.read(view, np.arange(samples)).logits, wanted)


def test_identity_views_have_no_parameters(tmp_path: Path) -> None:
    path = cache(tmp_path / "a", views=TinyViews(count=1, plain=True))
    assert not (path / "view_parameters").exists()
    assert TeacherCache.open(path).view_parameters(0, np.arange(3)).shape == (3, 0)


def test_a_signal_that_is_not_finite_stops_with_its_samples(tmp_path: Path) -> None:
    network = TinyNetwork()
    network.head.bias.data[2] = float("nan")
    with pytest.raises(CacheError, match=r"logits is not finite") as caught:
        cache(tmp_path / "a", network=network)
    assert "view 0 of samples image-0, image-2, image-4, image-6" in str(caught.value)


def test_a_signal_that_overflows_stops_with_its_samples_and_the_way_out(tmp_path: Path) -> None:
    network = TinyNetwork()
    network.head.bias.data[2] = 1e6
    with pytest.raises(CacheError, match=r"exceeds 65504, the most that float16 holds") as caught:
        cache(tmp_path / "a", network=network)
    assert "image-0" in str(caught.value)
    assert "signals.logits.encoding: float32" in str(caught.value)
    cache(tmp_path / "a", network=network, signals=FLOAT32)


def test_unknown_blocks_are_named_with_the_nearest(tmp_path: Path) -> None:
    signals = SignalsConfig(features=FeaturesConfig(blocks=("blok2",)))
    with pytest.raises(ConfigError, match="did you mean 'block2'"):
        cache(tmp_path / "a", signals=signals)
    with pytest.raises(ConfigError, match="at most 2"):
        cache(tmp_path / "a", signals=SignalsConfig(features=FeaturesConfig(blocks=3)))
    assert list(tmp_path.iterdir()) == []


def test_provenance_is_recorded_and_not_hashed(store: Path) -> None:
    manifest = TeacherCache.open(store).manifest
    (run,) = manifest.provenance["runs"]
    assert run["views"] == 3 * 23
    assert run["seconds"] > 0
    assert manifest.provenance["views_per_second"] > 0
    assert run["versions"]["torch"] == torch.__version__
    assert not re.search(r"second|version", manifest.identity.canonical())


@pytest.mark.parametrize(
    ("kept", "written"),
    [
        ({"features": {"blocks": ["block1"]}}, True),
        ({"features": {"blocks": ["final"]}}, False),  # of no block
        ({"features": {"blocks": ["block2"]}}, False),
        ({"extras": ["attention-map/block1"]}, True),
        ({"extras": ["fsp-matrix/block1"]}, False),  # of the last block, too
        ({}, False),
    ],
)
def test_how_many_blocks_the_teacher_has_is_written_where_those_kept_do_not_tell(
    tmp_path: Path, kept: dict[str, Any], written: bool
) -> None:
    signals = SignalsConfig.model_validate(kept)
    opened = TeacherCache.open(cache(tmp_path / "cache.zarr", signals=signals))
    said = opened.manifest.identity.signals.plain()
    assert ("blocks" in said) == written  # else the identity is what it was in earlier versions
    assert opened.shapes.depth == (0 if not kept or "final" in str(kept) else 2)
    extent = CacheExtent(samples=23, views=3, parameters=1, micro_batch=4, rows_per_block=8)
    assert opened.shapes == layout_for(TinyNetwork(), signals, extent).shapes
