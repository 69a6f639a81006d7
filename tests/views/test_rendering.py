"""Views of samples: which images are read for them, and how often."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.data import Samples
from pipeline.errors import DataError
from pipeline.views import SampleViews, Views, ViewsConfig, build_views, sizes_of

POSITIONS = np.array([1, 2, 4, 7, 8, 9, 12], np.int64)
CROP = {"name": "resized-crop", "size": [9, 8]}


class Photos:
    """Thirteen images of differing sizes, or of one; it counts how often each is read."""

    name, count, labels = "train", 13, None
    ids = tuple(map(str, range(13)))

    def __init__(self, differing: bool) -> None:
        self.image_shape = None if differing else (12, 10, 3)
        self.reads = np.zeros(13, np.int64)
        generator = torch.Generator().manual_seed(0)
        sizes = [(12 + i % 3, 10 + i % 2) if differing else (12, 10) for i in range(13)]
        self.images = [torch.randint(0, 256, (3, *s), dtype=torch.uint8, generator=generator) for s in sizes]

    def read(self, positions: NDArray[np.int64]) -> list[Tensor] | Tensor:
        np.add.at(self.reads, positions, 1)
        images = [self.images[position] for position in positions.tolist()]
        return images if self.image_shape is None else torch.stack(images)


def rendering(differing: bool, *operations: dict[str, Any]) -> tuple[Photos, SampleViews, Views]:
    photos: Any = Photos(differing)
    config = ViewsConfig.model_validate({"operations": list(operations)})
    views = build_views(config, None if differing else (12, 10), among=POSITIONS)
    return photos, SampleViews(Samples(photos, POSITIONS), views), views


@pytest.mark.parametrize("differing", [False, True])
def test_each_image_is_read_once_as_itself_and_once_as_a_partner(differing: bool) -> None:
    photos, rendered, views = rendering(differing, CROP, {"name": "mixup"})
    rows = np.array([3, 0, 6])
    drawn = rendered.draw(5, rows)
    partners = views.partners_in(drawn.parameters)
    assert partners is not None
    assert photos.reads.tolist() == np.bincount([*POSITIONS[rows], *partners], minlength=13).tolist()
    others = rendered.mixed_with(drawn.parameters)
    assert others is not None
    assert POSITIONS[others].tolist() == partners.tolist()
    assert torch.equal(rendered.render(rows, drawn.parameters), drawn.pixels)
    assert np.array_equal(rendered.parameters(5, rows), drawn.parameters)
    # By hand: each image by its own crop, then the blend.
    crops = build_views(ViewsConfig.model_validate({"operations": [CROP]}))
    own = crops.apply([photos.images[p] for p in POSITIONS[rows]], drawn.parameters[:, :4])
    theirs = crops.apply([photos.images[p] for p in partners], drawn.parameters[:, 6:])
    share = torch.from_numpy(drawn.parameters[:, 5].astype(np.float64) / 65536)[:, None, None, None]
    assert torch.equal(drawn.pixels, (share * own + (1 - share) * theirs + 0.5).floor().to(torch.uint8))
    sizes = sizes_of([photos.images[p] for p in POSITIONS[rows]])
    of_partners = sizes_of([photos.images[p] for p in partners])
    assert np.array_equal(views.parameters(5, POSITIONS[rows], sizes, of_partners), drawn.parameters)


def test_images_that_were_read_are_not_read_again() -> None:
    photos, rendered, _ = rendering(False, CROP)
    rows = np.array([3, 0])
    images = photos.read(POSITIONS[rows])
    drawn = rendered.draw(0, rows, images)
    assert torch.equal(rendered.render(rows, drawn.parameters, images), drawn.pixels)
    assert photos.reads.sum() == 2
    assert rendered.mixed_with(drawn.parameters) is None


def test_sizes_that_follow_from_an_operation_need_not_be_known() -> None:
    _, rendered, views = rendering(True, {"name": "resize", "size": [20, 22]}, CROP, {"name": "cutmix"})
    assert not views.needs_sizes
    drawn = rendered.draw(1, np.arange(7))
    assert drawn.pixels.shape == (7, 3, 9, 8)
    assert np.array_equal(rendered.parameters(1, np.arange(7)), drawn.parameters)


def test_parameters_of_other_views_and_of_other_samples_are_refused() -> None:
    _, rendered, _ = rendering(False, CROP, {"name": "mixup"})
    drawn = rendered.draw(0, np.arange(7))
    with pytest.raises(DataError, match="not the parameters of these views"):
        rendered.render(np.arange(7), drawn.parameters[:, :-1])
    for position in (0, 3, 13):
        held_out = drawn.parameters.copy()
        held_out[2, 4] = position
        with pytest.raises(DataError, match="not one of the samples that are used") as error:
            rendered.render(np.arange(7), held_out)
        assert f"got: {position}" in str(error.value)
    wrong = drawn.parameters.copy()
    wrong[0, 5] = 65537
    with pytest.raises(DataError, match=r"mixup\.share"):
        rendered.render(np.arange(7), wrong)


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def alone(render: Callable[[], Tensor]) -> Tensor:
    """What one thread renders."""
    torch.set_num_threads(1)
    try:
        return render()
    finally:
        torch.set_num_threads(3)


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("more", [(), ({"name": "mixup-or-cutmix"}, {"name": "horizontal-flip"})])
def test_several_threads_render_the_pixels_of_one(more: tuple[dict[str, Any], ...]) -> None:
    _, rendered, _ = rendering(True, CROP, *more)
    rows = np.array([6, 1, 0, 3, 2, 5, 4, 1])
    expected = alone(lambda: rendered.draw(2, rows).pixels)
    assert torch.equal(rendered.draw(2, rows).pixels, expected)
    with torch.inference_mode():  # which other threads know nothing of
        assert torch.equal(rendered.draw(2, rows).pixels, expected)


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize(
    ("operations", "column"), [([CROP, {"name": "horizontal-flip"}], 4), ([{"name": "resize", "size": 9}], None)]
)
def test_several_threads_say_of_an_error_what_one_says(operations: list[dict[str, Any]], column: int | None) -> None:
    """Of a parameter out of range, and of views that differ in size."""
    _, rendered, _ = rendering(True, *operations)
    rows = np.arange(7)
    parameters = rendered.parameters(0, rows)
    if column is not None:
        parameters[[2, 5], column] = [7, 9]
    with pytest.raises(DataError) as said:
        alone(lambda: rendered.render(rows, parameters))
    with pytest.raises(DataError) as error:
        rendered.render(rows, parameters)
    assert str(error.value) == str(said.value)


@pytest.mark.usefixtures("three_threads")
def test_an_error_of_an_operation_keeps_its_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    _, rendered, _ = rendering(True, CROP)

    def broken(*arguments: Any) -> Tensor:
        raise ValueError("broken")

    monkeypatch.setattr("pipeline.views.operations.resized_crop.resample", broken)
    with pytest.raises(ValueError, match="broken") as error:
        rendered.draw(0, np.arange(7))
    assert error.value.__notes__ == ["operation resized-crop"]
