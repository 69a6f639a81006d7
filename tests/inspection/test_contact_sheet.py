"""The picture shows the views, at their places, and what the teacher said of them."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.inspection import contact_sheet, strips
from pipeline.inspection.strips import Guess, Strip, Tile
from pipeline.store.reader import TeacherCache

sys.path.insert(0, str(Path(__file__).parents[1] / "store"))
from store_standins import TinySamples, TinyViews, cache, mixing_views

RED = (207, 34, 46)
GUESSES = (Guess("a class with a name that is too long for its place", 0.875, False), Guess("b", 0.125, True))


def noise(height: int, width: int, channels: int, seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def drawn(strips: Sequence[Strip]) -> NDArray[np.uint8]:
    heads = [f"view {number}" for number in range(len(strips[0].tiles))]
    return np.asarray(Image.open(io.BytesIO(contact_sheet.contact_sheet("title", "a note " * 40, heads, strips))))


def place(picture: NDArray[np.uint8], image: NDArray[np.uint8], factor: int) -> tuple[int, int]:
    """Where in the picture the image is, every pixel repeated; fails if it is not there exactly once."""
    block = np.repeat(np.repeat(image, factor, axis=0), factor, axis=1)
    block = np.broadcast_to(block, (*block.shape[:2], 3))
    H, W = block.shape[:2]
    corners = (picture[: -H + 1, : -W + 1] == block[0, 0]) & (picture[H - 1 :, W - 1 :] == block[-1, -1])
    found = [
        (int(y), int(x))
        for y, x in np.argwhere(corners.all(axis=2))
        if np.array_equal(picture[y : y + H, x : x + W], block)
    ]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(
    ("size", "channels", "factor"), [((8, 8), 1, 20), ((32, 32), 3, 5), ((28, 28), 1, 6), ((24, 16), 3, 7)]
)
def test_small_images_are_enlarged_by_whole_numbers_and_stand_in_rows_and_columns(
    size: tuple[int, int], channels: int, factor: int
) -> None:
    views = [[noise(*size, channels, 10 * row + view) for view in range(3)] for row in range(2)]
    images = [noise(*size, channels, 100 + row) for row in range(2)]
    strips = [
        Strip(images[row], f"sample {row}", "b", [Tile(image, GUESSES, True) for image in views[row]])
        for row in range(2)
    ]
    picture = drawn(strips)
    places = np.array([[place(picture, image, factor) for image in (images[r], *views[r])] for r in range(2)])
    assert (places[:, :, 0] == places[:, :1, 0]).all()  # a sample is a row
    assert (places[:, :, 1] == places[:1, :, 1]).all()  # a view is a column
    assert (np.diff(places[0, :, 1]) >= size[1] * factor).all()
    assert not (picture == RED).all(axis=2).any()


def test_large_images_of_any_shape_are_reduced() -> None:
    tiles = [Tile(noise(700, 500, 3, view), GUESSES, True) for view in range(2)]
    picture = drawn([Strip(noise(90, 2000, 3, 9), "id", None, tiles)])
    assert picture.shape[1] < 1200
    assert picture.shape[0] < 700


def test_a_bar_is_as_long_as_its_class_is_probable() -> None:
    picture = drawn([Strip(noise(8, 8, 1, 0), "id", "b", [Tile(noise(8, 8, 1, 1), GUESSES, True)])])
    for colour, share in (((216, 227, 238), 0.875), ((191, 229, 198), 0.125)):
        columns = np.flatnonzero((picture == colour).all(axis=2).any(axis=0))
        assert columns[-1] - columns[0] + 1 == 160 * share


def test_a_view_that_the_teacher_did_not_see_is_marked() -> None:
    tiles = [Tile(noise(8, 8, 1, 1), GUESSES, True), Tile(noise(8, 8, 1, 2), GUESSES, False)]
    picture = drawn([Strip(noise(8, 8, 1, 0), "id", "b", tiles)])
    _, right = place(picture, tiles[0].image, 20)
    red = np.flatnonzero((picture == RED).all(axis=2).any(axis=0))
    assert red.min() > right + 160


def test_both_labels_of_a_mixed_view_are_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, views = TinySamples(), mixing_views()
    stored = TeacherCache.open(cache(tmp_path / "a.zarr", samples=samples, views=views))
    seen: dict[str, Any] = {}
    monkeypatch.setattr(contact_sheet, "contact_sheet", lambda *arguments: seen.update(all=arguments) or b"")
    monkeypatch.setattr(strips, "GUESSES", 5)
    rows, classes, mine = np.arange(23), ["0", "1", "2", "3", "4"], samples
    contact_sheet.cache_sheet(stored, mine, views, classes, [1], rows)  # type: ignore[arg-type]
    assert "green: the label, or that of the sample that mixup-or-cutmix mixes in" in seen["all"][1]
    partners = np.searchsorted(samples.positions, views.partners.of(1, samples.positions))
    for row, strip in enumerate(seen["all"][3]):
        (tile,) = strip.tiles
        right = {int(guess.name) for guess in tile.guesses if guess.right}
        assert right == {int(samples.labels[row]), int(samples.labels[partners[row]])}
        assert tile.same


def test_what_is_drawn_is_what_the_cache_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, views = TinySamples(), TinyViews(first=2)
    teacher_cache = TeacherCache.open(cache(tmp_path / "a.zarr", samples=samples, views=views))
    samples.labels = np.where(np.arange(23) == 4, -1, samples.labels)
    seen: dict[str, Any] = {}
    monkeypatch.setattr(contact_sheet, "contact_sheet", lambda *arguments: seen.update(all=arguments) or b"")
    rows, classes = np.array([1, 4, 20]), ["zero", "one", "two", "three", "four"]
    mine: Any = samples
    others: Any = views
    contact_sheet.cache_sheet(teacher_cache, mine, others, classes, views.numbers[1:], rows)
    title, note, heads, strips = seen["all"]
    assert title == "a.zarr"
    assert "3 of 23 samples, 2 of 3 views" in note
    assert "red" not in note
    assert heads == ["view 3", "view 4"]
    assert [strip.name for strip in strips] == ["image-2", "image-8", "image-40"]
    assert [strip.label for strip in strips] == [classes[samples.labels[1]], None, classes[samples.labels[20]]]
    for strip, row in zip(strips, rows, strict=True):
        original = samples.read(np.array([row]))
        assert np.array_equal(strip.image, original[0].permute(1, 2, 0).numpy())
        for tile, view in zip(strip.tiles, views.numbers[1:], strict=True):
            pixels = views.apply(original, views.parameters(view, samples.positions[[row]]))
            assert np.array_equal(tile.image, pixels[0].permute(1, 2, 0).numpy())
            assert tile.same
            logits = teacher_cache.read(view, np.array([row])).logits.double().numpy()[0]
            chances = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
            best = np.argsort(-chances, kind="stable")[:3]
            assert [guess.name for guess in tile.guesses] == [classes[k] for k in best]
            assert [guess.probability for guess in tile.guesses] == pytest.approx(chances[best], rel=1e-5)
            assert [guess.right for guess in tile.guesses] == [k == samples.labels[row] for k in best]
    mine = TinySamples(seed=1)
    contact_sheet.cache_sheet(teacher_cache, mine, others, classes, views.numbers[:1], rows)
    assert "red: 3 views that are not the pixels that it saw" in seen["all"][1]
    assert not any(tile.same for strip in seen["all"][3] for tile in strip.tiles)
