"""What every operation that mixes two images must keep, found by its file, alone and between other operations."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_views import PACKAGE, SIZE, cases, options_of
from torch import Tensor

from pipeline import plugins
from pipeline.errors import ConfigError, DataError
from pipeline.views import Views, ViewsConfig, build_views, digest

AMONG = np.array([0, 2, 3, 4, 5, 7, 8, 11, 1_000_003, 1_000_004], np.int64)
ROWS = np.array([5, 0, 2, 3, 4, 8, 6, 1], np.int64)
CHAIN = (
    [{"name": "pad-crop", "padding": 3}, {"name": "resized-crop", "size": [24, 20]}, {"name": "horizontal-flip"}],
    [{"name": "pad-crop", "padding": 2}, {"name": "center-crop", "size": [20, 18]}],
)


@pytest.fixture(params=cases(mixing=True))
def operation(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = request.param
    return found


def views(*operations: dict[str, Any], size: tuple[int, int] | None = SIZE, **changes: Any) -> Views:
    config = ViewsConfig.model_validate({"operations": list(operations), "seed": 3, **changes})
    return build_views(config, size, among=AMONG)


def photographs(channels: int = 3) -> Tensor:
    """One for each position in AMONG."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (len(AMONG), channels, *SIZE), dtype=torch.uint8, generator=generator)


def rendered(chosen: Views, images: Tensor, rows: NDArray[np.int64] = ROWS, view: int = 0) -> tuple[Any, Tensor]:
    """Parameters and pixels of samples. images: of all samples."""
    parameters = chosen.parameters(view, AMONG[rows])
    partners = chosen.partners_in(parameters)
    assert partners is not None
    others = images[torch.from_numpy(np.searchsorted(AMONG, partners))]
    return parameters, chosen.apply(images[torch.from_numpy(rows)], parameters, others)


def test_options_and_identity(operation: dict[str, Any]) -> None:
    options = options_of(operation["name"])
    assert options.model_fields["name"].default == operation["name"]
    identity = views(operation).identity()
    assert set(identity) == {"operations", "seed", "partners"}
    assert set(identity["operations"][0]) == set(options.model_fields)
    other = build_views(views(operation).config, SIZE, among=AMONG[1:]).identity()
    assert other["partners"] != identity["partners"]


@pytest.mark.parametrize("channels", [1, 3])
def test_shape_and_range(operation: dict[str, Any], channels: int) -> None:
    built = plugins.load(PACKAGE, operation["name"], "name").build(options_of(operation["name"])(**operation))
    words = np.random.default_rng(0).integers(0, 2**64, (500, built.words), np.uint64)
    words[0], words[1] = 0, 2**64 - 1
    drawn = built.draw(words, np.tile(np.array([SIZE]), (500, 1)))
    assert len(built.ranges(SIZE)) == drawn.shape[1] == len(set(built.parameter_names))
    for column, (low, high) in enumerate(built.ranges(SIZE)):
        assert low <= drawn[:, column].min()
        assert drawn[:, column].max() <= high
    shares = built.shares(drawn, SIZE)
    assert shares.shape == (500,)
    assert shares.min() >= 0
    assert shares.max() <= 1
    images = photographs(channels)
    before = images.clone()
    parameters, pixels = rendered(views(operation), images)
    assert (parameters.dtype, pixels.dtype) == (np.int32, torch.uint8)
    assert pixels.shape == (len(ROWS), channels, *SIZE)
    assert torch.equal(images, before), "the images were changed in place"


def test_a_view_depends_on_nothing_but_seed_number_sample_and_the_samples_that_there_are(
    operation: dict[str, Any],
) -> None:
    chosen, images = views(*CHAIN[0], operation, *CHAIN[1]), photographs()
    parameters, pixels = rendered(chosen, images)
    order = np.random.default_rng(2).permutation(len(ROWS))
    again, same = rendered(pickle.loads(pickle.dumps(chosen)), images, ROWS[order])
    assert np.array_equal(again, parameters[order])
    assert np.array_equal(digest(same), digest(pixels)[order])
    for i, row in enumerate(ROWS):
        alone, one = rendered(views(*CHAIN[0], operation, *CHAIN[1]), images, np.array([row]))
        assert np.array_equal(alone[0], parameters[i])
        assert torch.equal(one[0], pixels[i])
    wide = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(rendered(chosen, wide)[1], pixels)


def test_both_images_are_the_views_of_this_number_before_they_are_mixed(operation: dict[str, Any]) -> None:
    chosen, images = views(*CHAIN[0], operation, *CHAIN[1]), photographs()
    built = plugins.load(PACKAGE, operation["name"], "name").build(options_of(operation["name"])(**operation))
    parameters, pixels = rendered(chosen, images, np.arange(len(AMONG)), view=2)
    own = len(views(*CHAIN[0]).parameter_names)
    mixed = len(built.parameter_names)
    partners = np.searchsorted(AMONG, parameters[:, own])
    # What is drawn for the partner is what the partner's own view of this number begins with.
    assert np.array_equal(parameters[:, own + 1 + mixed :][:, :own], parameters[partners][:, :own])
    before = views(*CHAIN[0]).apply(images, parameters[:, :own])
    mix = built.mix(before, before[torch.from_numpy(partners)], torch.from_numpy(parameters[:, own + 1 :][:, :mixed]))
    after = views(*CHAIN[1], size=(24, 20)).apply(mix, parameters[:, 2 * own + 1 + mixed :])
    assert torch.equal(after, pixels)
    names = list(chosen.parameter_names)
    assert names[own] == f"{operation['name']}.partner"
    assert [f"partner.{name}" for name in names[:own]] == names[own + 1 + mixed :][:own]


def test_threads_and_generators_make_no_difference(operation: dict[str, Any]) -> None:
    images, chosen, threads = photographs(), views(operation), torch.get_num_threads()
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"]  # noqa: NPY002
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(rendered(chosen, images)[1])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(results[0], result) for result in results)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state(legacy=False)["state"]["key"], numpy_state)  # noqa: NPY002


def test_images_that_differ_in_size_are_refused_before_they_are_mixed(operation: dict[str, Any]) -> None:
    flips = [{"name": "horizontal-flip"}, operation, {"name": "resize", "size": [20, 20]}]
    with pytest.raises(ConfigError, match="mixes images of one size") as error:
        views(*flips, size=None)
    assert [problem.key for problem in error.value.problems] == ["views.operations.1"]
    assert views(*flips[2:], operation, size=None).output_size == (20, 20)


def test_one_mix_is_enough(operation: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="mixed with one other image") as error:
        views(operation, {"name": "horizontal-flip"}, {"name": "cutmix"})
    assert [problem.key for problem in error.value.problems] == ["views.operations.2"]


def test_views_that_know_no_samples_are_refused_when_they_are_drawn(operation: dict[str, Any]) -> None:
    config = ViewsConfig.model_validate({"operations": [operation]})
    with pytest.raises(DataError, match="built without any"):
        build_views(config, SIZE).parameters(0, AMONG)
    with pytest.raises(DataError, match="not one of those that are mixed"):
        views(operation).parameters(0, np.array([1]))
    with pytest.raises(DataError, match="missing"):
        views(operation).apply(photographs(), views(operation).parameters(0, AMONG))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_makes_the_same_pixels(operation: dict[str, Any]) -> None:
    chosen, images = views(*CHAIN[0], operation, *CHAIN[1]), photographs()
    _, pixels = rendered(chosen, images)
    assert torch.equal(rendered(chosen, images.cuda())[1].cpu(), pixels) or not chosen.exact
