"""Batches from a cache are the teacher's pixels and outputs, and whatever is not what it saw is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from api_pieces import COUNT, augment, cached, network, opened, photos
from torch.utils.data import DataLoader

from pipeline import CachedViews, cache_teacher, make_views
from pipeline.errors import CacheMismatch, CacheNotFound, ConfigError, DataError, ModelError
from pipeline.training.step import Step
from pipeline.views import digest


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of 24 photos in 3 views. Not to be changed."""
    return cached(tmp_path_factory.mktemp("views"))


@pytest.fixture(scope="module")
def data(path: Path) -> CachedViews:
    return opened(path)


def the_teachers(batch: Step) -> None:
    """Compare a batch's outputs with what the teacher says of its pixels now."""
    with torch.no_grad():
        outputs = network(16).eval()(batch.images)
    assert batch.teacher_outputs is not None
    stored = batch.teacher_outputs.decode()
    torch.testing.assert_close(stored.logits, outputs.logits)
    torch.testing.assert_close(stored.embedding, outputs.embedding)
    pooled = torch.nn.functional.adaptive_avg_pool2d(outputs.features["block1"], 2)
    torch.testing.assert_close(stored.features["block1"], pooled)


def test_batches_have_the_teachers_outputs_for_their_own_pixels(data: CachedViews) -> None:
    for batch in data.loader(10, seed=3):
        the_teachers(batch)
        assert torch.equal(batch.labels, batch.sample % 4)


def test_an_epoch_has_every_sample_once_and_epochs_go_through_the_views(data: CachedViews) -> None:
    loader = data.loader(10)
    assert len(loader) == 3
    for epoch in range(4):
        batches = list(loader)
        assert sorted(torch.cat([batch.sample for batch in batches]).tolist()) == list(range(COUNT))
        assert {int(view) for batch in batches for view in batch.view} == {epoch % 3}
        assert [batch.index for batch in batches] == [3 * epoch + step for step in range(3)]


def test_the_order_is_a_function_of_seed_and_epoch(data: CachedViews) -> None:
    def orders(seed: int) -> list[list[int]]:
        loader = data.loader(COUNT, seed=seed, epoch=0)
        return [next(iter(loader)).sample.tolist() for _ in range(2)]

    assert orders(0) == orders(0)
    assert orders(0) != orders(1)
    assert orders(0)[0] != orders(0)[1]
    again: Any = data.loader(COUNT, epoch=0)
    again.batch_sampler.set_epoch(1)
    assert next(iter(again)).sample.tolist() == orders(0)[1]


def test_workers_give_the_same_batches(data: CachedViews) -> None:
    alone, helped = data.loader(10, seed=1), data.loader(10, seed=1, workers=1)
    for one, other in zip(alone, helped, strict=True):
        assert torch.equal(one.images, other.images)
        assert one.teacher_outputs is not None
        assert other.teacher_outputs is not None
        assert torch.equal(one.teacher_outputs.decode().logits, other.teacher_outputs.decode().logits)


def test_several_views_of_a_sample_are_in_adjacent_rows(data: CachedViews) -> None:
    batch = next(iter(data.loader(8, views=2)))
    assert torch.equal(batch.sample[::2], batch.sample[1::2])
    assert (batch.view[::2].unique().tolist(), batch.view[1::2].unique().tolist()) == ([0], [1])
    the_teachers(batch)
    with pytest.raises(ConfigError, match="at most 3"):
        data.loader(8, views=4)


def test_only_the_signals_that_are_wanted_are_read(data: CachedViews) -> None:
    batch = next(iter(data.loader(8, signals={"logits", "features/block2"})))
    assert batch.teacher_outputs is not None
    stored = batch.teacher_outputs.decode()
    assert (list(stored.features), stored.embedding) == (["block2"], None)


def test_a_loader_of_ones_own_mixes_views(data: CachedViews) -> None:
    assert len(data) == 3 * COUNT
    own = DataLoader(data, batch_size=9, shuffle=True, collate_fn=data.collate)
    seen: list[int] = []
    for batch in own:
        the_teachers(batch)
        seen += (batch.view * COUNT + batch.sample).tolist()
    assert sorted(seen) == list(range(3 * COUNT))
    batch = data[COUNT + 5]
    assert (batch.view.tolist(), batch.sample.tolist()) == ([1], [5])
    with pytest.raises(IndexError):
        data[3 * COUNT]


def test_a_step_moves_to_a_device_by_its_name(data: CachedViews) -> None:
    assert data[0].to("meta").images.device.type == "meta"


def test_pixels_are_those_that_were_cached(data: CachedViews) -> None:
    batch = data[COUNT]
    assert digest(batch.images) == data.cache.view_digests(1, np.array([0]))


def changed() -> list[Any]:
    some = photos()
    some[7] = (some[7][0] ^ 1, some[7][1])
    return some


@pytest.mark.parametrize("verify", ["full", "bytes"])
def test_a_changed_image_is_refused(path: Path, verify: str) -> None:
    with pytest.raises(CacheMismatch, match=r"data\.pixels"):
        opened(path, changed(), verify=verify)


def test_a_changed_image_is_found_among_views_where_images_are_not_compared(path: Path) -> None:
    with pytest.raises(CacheMismatch, match="not the pixels that the teacher saw\n  where: view 0, samples 7"):
        opened(path, changed(), verify="sample")
    assert opened(path, changed(), verify="none")


def test_another_order_and_another_number_of_images_are_refused(path: Path) -> None:
    with pytest.raises(CacheMismatch, match=r"data\.pixels"):
        opened(path, photos()[::-1])
    with pytest.raises(CacheMismatch, match=r"data\.samples.*24"):
        opened(path, photos(20), verify="sample")


def test_labels_may_change(path: Path) -> None:
    corrected = [(image, 0) for image, _ in photos()]
    assert opened(path, corrected)[0].labels.tolist() == [0]


@pytest.mark.parametrize(
    ("views", "field"),
    [
        (augment(seed=1), r"views\.seed"),
        (augment(count=4), "views: expected views 0 to 3, got 0 to 2"),
        (make_views(["horizontal-flip"], count=3), r"views\.operations"),
    ],
)
def test_other_views_are_refused(path: Path, views: Any, field: str) -> None:
    with pytest.raises(CacheMismatch, match=field):
        opened(path, views=views)


def test_fewer_views_than_there_are_may_be_used(path: Path) -> None:
    assert len(opened(path, views=augment(count=2))) == 2 * COUNT


@pytest.mark.parametrize(
    ("teacher", "field"),
    [({"seed": 1}, r"teacher\.weights"), ({"mean": 0.4}, r"teacher\.mean"), ({"width": 8}, "weights")],
)
def test_another_teacher_is_refused(path: Path, teacher: dict[str, Any], field: str) -> None:
    assert opened(path, teacher=network(16))
    with pytest.raises(CacheMismatch, match=field):
        opened(path, teacher=network(**{"width": 16, **teacher}))


def test_a_path_without_a_cache_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CacheNotFound):
        opened(tmp_path / "none.zarr")


def test_a_cache_is_made_once_and_another_one_is_refused_by_name(tmp_path: Path) -> None:
    path = cached(tmp_path)
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    assert cached(tmp_path) == path
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == before
    with pytest.raises(CacheMismatch, match=r"teacher\.weights"):
        cached(tmp_path, teacher=network(16, seed=1))
    with pytest.raises(CacheMismatch, match=r"data\.pixels"):
        cached(tmp_path, changed())
    with pytest.raises(CacheMismatch, match=r"views\.count"):
        cached(tmp_path, views=augment(count=2))


def test_features_are_named_by_their_paths(tmp_path: Path) -> None:
    arguments: Any = {"device": "cpu", "progress": False}
    path = cache_teacher(network(), photos(), augment(1), tmp_path / "a.zarr", features=["layer2"], grid=3, **arguments)
    shapes = opened(Path(str(path))).source.shapes
    assert shapes.features == {"block2": (16, 3, 3)}
    with pytest.raises(ModelError, match="did you mean 'layer2'"):
        cache_teacher(network(), photos(), augment(1), tmp_path / "b.zarr", features=["layer3"], **arguments)
    with pytest.raises(ConfigError, match="no effect beside"):
        cache_teacher(
            network(), photos(), augment(1), tmp_path / "b.zarr", features=["layer2"], signals={}, **arguments
        )
    with pytest.raises(ConfigError, match="unknown"):
        cache_teacher(network(), photos(), augment(1), tmp_path / "b.zarr", signals={"logit": {}}, **arguments)


def test_a_bare_module_is_told_how_to_become_a_teacher(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="as_network"):
        cache_teacher(network().model, photos(), augment(), tmp_path / "cache.zarr", device="cpu", progress=False)


def test_images_of_differing_sizes_need_an_operation_that_fixes_them(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    some = [random.integers(0, 256, (8 + number, 9, 3), np.uint8) for number in range(5)]
    with pytest.raises(ConfigError, match="differ in size"):
        cached(tmp_path, some)
    views = make_views([{"name": "resized-crop", "size": 8}], count=2)
    data = opened(cached(tmp_path, some, views=views), some)
    assert data[3].images.shape == (1, 3, 8, 8)
    assert data[3].labels.tolist() == [-1]
    some[2][0, 0, 0] ^= 255
    with pytest.raises(CacheMismatch, match=r"data\.pixels"):
        opened(tmp_path / "cache.zarr", some)


def test_views_are_checked_at_once_and_by_name() -> None:
    with pytest.raises(ConfigError, match="did you mean 'pad-crop'"):
        make_views(["padcrop"])
    with pytest.raises(ConfigError, match="2 problems"):
        make_views([{"name": "pad-crop", "paddin": 1}], count=0)
    with pytest.raises(DataError):
        opened(Path("cache.zarr"), [])
