"""How often images are decoded for a cache: once for several views."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from store_standins import TinyNetwork, cache, content

from pipeline.data import Samples, split
from pipeline.progress import Silent
from pipeline.store.format.arrays import Unit
from pipeline.store.format.layout import StoreLayout
from pipeline.store.making import shared_images
from pipeline.store.making.shared_images import UnitGroups, most_at_once
from pipeline.store.reader import TeacherCache
from pipeline.training import FromCaches, Steps, TrainConfig, check_views
from pipeline.views import Views, ViewsConfig, build_views

VIEWS, IMAGES = 6, 20  # of `photographs`
OPERATIONS = [{"name": "resized-crop", "size": 8}, {"name": "horizontal-flip"}]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[bytes]:
    """Counts how often each image file is decoded."""
    counts: Counter[bytes] = Counter()
    decode = split.decode_image

    def counting(encoded: Any, *rest: Any) -> Any:
        counts[bytes(encoded)] += 1
        return decode(encoded, *rest)

    monkeypatch.setattr(split, "decode_image", counting)
    return counts


def some_views() -> Views:
    return build_views(ViewsConfig.model_validate({"operations": OPERATIONS, "count": VIEWS}))


def made(target: Path, samples: Samples, **changes: Any) -> Path:
    """Row blocks of 8, 8 and 4 samples; micro-batches of 4."""
    return cache(target, samples=samples, views=some_views(), **changes)


def test_images_are_decoded_once_for_several_views_and_no_byte_changes(
    photographs: Samples, decoded: Counter[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A unit alone, two more before it is finished, then the rest of its row block; the other blocks at once."""
    together = made(tmp_path / "together", photographs)
    probe = 1  # of the first image
    assert sum(decoded.values()) == probe + 4 * 8 + 8 + 4
    assert len(decoded) == IMAGES
    decoded.clear()
    monkeypatch.setattr(shared_images, "VIEWS_AT_ONCE", 1)
    apart = made(tmp_path / "apart", photographs)
    assert sum(decoded.values()) == probe + VIEWS * IMAGES
    assert content(together) == content(apart)
    assert TeacherCache.open(together).manifest.fingerprint == TeacherCache.open(apart).manifest.fingerprint


def test_a_cache_that_was_stopped_amid_several_units_goes_on_to_the_same_bytes(
    photographs: Samples, decoded: Counter[bytes], tmp_path: Path
) -> None:
    class Stopping(TinyNetwork):
        def forward(self, images: Any) -> Any:
            if len(self.batches) == 9:  # the probe, three units of two micro-batches, then a part of three
                raise KeyboardInterrupt
            return super().forward(images)

    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "stopped", photographs, network=Stopping())
    decoded.clear()
    again = TinyNetwork()
    stopped = made(tmp_path / "stopped", photographs, network=again)
    assert len(again.batches) == 1 + (VIEWS - 3) * 2 + VIEWS * 3  # three units are there
    assert content(stopped) == content(made(tmp_path / "whole", photographs))


def test_views_are_compared_with_those_of_the_teacher_by_decoding_once(
    photographs: Samples, decoded: Counter[bytes], tmp_path: Path
) -> None:
    made_of = TeacherCache.open(made(tmp_path / "a", photographs))
    config = TrainConfig(epochs=VIEWS, batch_size=4, device="cpu")
    steps = Steps(photographs, some_views(), FromCaches.of([(made_of, made_of.views)]), made_of.views, config, 0, 8)
    decoded.clear()
    said = check_views(steps, FromCaches.of([(made_of, made_of.views)]), "full", Silent())
    assert said == f"all {VIEWS} views match the teacher's pixels"
    assert list(decoded.values()) == [2] * IMAGES  # to learn how long it takes, and for all views


@pytest.fixture(scope="module")
def layout(photographs: Samples, tmp_path_factory: pytest.TempPathFactory) -> StoreLayout:
    path = made(tmp_path_factory.mktemp("plan") / "a", photographs)
    return TeacherCache.open(path).manifest.layout


def test_as_many_units_are_filled_at_once_as_memory_holds_and_one_where_nothing_is_decoded(
    photographs: Samples, layout: StoreLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = layout.unit_bytes("")
    assert most_at_once(layout, photographs) == 8
    for held, most in [(7.9, 7), (2.0, 2), (1.9, 1), (0.1, 1)]:
        monkeypatch.setattr(shared_images, "BYTES_AT_ONCE", int(held * size))
        assert most_at_once(layout, photographs) == most
    monkeypatch.setattr(photographs.split, "image_shape", (8, 8, 3))
    monkeypatch.setattr(shared_images, "BYTES_AT_ONCE", 2 << 30)
    assert most_at_once(layout, photographs) == 1


def test_groups_are_views_of_a_row_block_and_two_minutes_of_work_at_most() -> None:
    units = [Unit(view, block) for view in range(9) for block in range(2) if (view, block) != (3, 1)]
    clock = itertools.chain([0.0], itertools.repeat(40.0))
    groups = UnitGroups(units, 8, lambda: next(clock))
    found = []
    for group in groups:
        found.append(group)
        if len(found) >= 2:
            groups.finish()
    sizes = [(group[0].block, [unit.view for unit in group]) for group in found]
    # Unknown; one took 40 seconds; two did, so that two minutes are six, of which four are left; three did.
    assert sizes[:3] == [(0, [0]), (0, [1]), (0, [2, 3, 4])]
    assert sizes[3:] == [(0, [5, 6, 7, 8]), (1, [0, 1, 2, 4, 5, 6, 7, 8])]
    assert sorted(unit for group in found for unit in group) == sorted(units)


def test_slow_units_are_computed_one_by_one_and_packed_pixels_in_the_order_of_views() -> None:
    units = [Unit(view, block) for view in range(3) for block in range(2)]
    clock = itertools.count(0.0, 1000.0)
    groups = UnitGroups(units, 8, lambda: next(clock))
    slow = []
    for group in groups:
        slow.append(group)
        groups.finish()
    assert slow == [(unit,) for unit in sorted(units, key=lambda unit: (unit.block, unit.view))]
    assert list(UnitGroups(units, 1)) == [(unit,) for unit in units]
