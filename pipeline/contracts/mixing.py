"""Tries what every operation that mixes two images must keep, on one operation, alone and between others."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline import plugins
from pipeline.config import Section, bind
from pipeline.contracts.checks import NotTried
from pipeline.contracts.operations import TRIED_SIZE
from pipeline.errors import ConfigError
from pipeline.views import Views, ViewsConfig, build_views, digest
from pipeline.views.config import OPERATIONS

TRIED_AMONG = np.array([0, 2, 3, 4, 5, 7, 8, 11, 1_000_003, 1_000_004], np.int64)
"""Positions of the samples that are mixed with each other."""

TRIED_ROWS = np.array([5, 0, 2, 3, 4, 8, 6, 1], np.int64)
"""Which of them make a batch."""

TRIED_CHAIN: tuple[list[dict[str, Any]], list[dict[str, Any]]] = (
    [{"name": "pad-crop", "padding": 3}, {"name": "resized-crop", "size": [24, 20]}, {"name": "horizontal-flip"}],
    [{"name": "pad-crop", "padding": 2}, {"name": "center-crop", "size": [20, 18]}],
)
"""Operations before and after the mix."""


class _Experiment(Section):
    views: ViewsConfig


class MixingContract:
    """Holds the checks of one operation.

    Args:
        operation: `{name, **options}`.
    """

    def __init__(self, operation: Mapping[str, Any]) -> None:
        self._operation = dict(operation)
        self._chosen = plugins.choose_at("NAME", OPERATIONS, self._operation)
        self._built = self._chosen.module.build(self._chosen.options)

    def _among(self, *, chained: bool = False) -> Views:
        before, after = TRIED_CHAIN if chained else ([], [])
        return mixed_views(*before, self._operation, *after)

    def _drawn(self, count: int) -> NDArray[np.int32]:
        """Parameters from random words, the least and the greatest too."""
        words = np.random.default_rng(0).integers(0, 2**64, (count, self._built.words), np.uint64)
        words[0], words[1] = 0, 2**64 - 1
        drawn: NDArray[np.int32] = self._built.draw(words, np.tile(np.array([TRIED_SIZE]), (count, 1)))
        return drawn

    def identity_has_every_option_and_the_samples(self) -> None:
        """Compare the identity of other samples."""
        views = self._among()
        identity = views.identity()
        written = set(identity["operations"][0])
        assert written == {"name", *type(self._chosen.options).model_fields}, "an option is missing in the identity"
        other = build_views(views.config, TRIED_SIZE, among=TRIED_AMONG[1:]).identity()
        assert other["partners"] != identity["partners"], "other samples have the same identity"

    def unknown_options_are_refused(self) -> None:
        """Set an option that does not exist."""
        keys = list[str]()
        try:
            bind({"views": {"operations": [{**self._operation, "no_such_option": 1}]}}, _Experiment, ["views"])
        except ConfigError as error:
            keys = [problem.key for problem in error.problems]
        assert keys == ["views.operations.0.no_such_option"], "an unknown option is not refused"

    def parameters_and_shares_are_within_their_ranges(self) -> None:
        """Draw from many random words, the least and the greatest too."""
        drawn, ranges = self._drawn(500), self._built.ranges(TRIED_SIZE)
        assert len(set(self._built.parameter_names)) == len(ranges), "there is not a range for each name"
        for name, column, (low, high) in zip(self._built.parameter_names, drawn.T, ranges, strict=True):
            within = low <= column.min() and column.max() <= high
            assert within, f"{name} is {column.min()} to {column.max()}, and its range {low} to {high}"
        shares = self._built.shares(drawn, TRIED_SIZE)
        assert shares.shape == (500,), f"shares are {list(shares.shape)}, not [500]"
        assert 0 <= shares.min() <= shares.max() <= 1, f"shares are {shares.min():g} to {shares.max():g}"

    def shape_and_dtype_are_as_declared(self) -> None:
        """Mix images of one and of three channels."""
        for channels in (1, 3):
            images = mixed_images(channels)
            parameters, pixels = mixed(self._among(), images)
            assert parameters.dtype == np.int32, f"parameters are {parameters.dtype}, not int32"
            assert pixels.dtype == torch.uint8, f"pixels are {pixels.dtype}, not uint8"
            expected = [len(TRIED_ROWS), channels, *TRIED_SIZE]
            assert list(pixels.shape) == expected, f"pixels are {list(pixels.shape)}, not {expected}"
            partners = images.flip(0)
            before, drawn = torch.stack([images, partners]), self._drawn(len(images))
            self._built.mix(images, partners, torch.from_numpy(drawn))
            assert torch.equal(torch.stack([images, partners]), before), "the images were changed in place"

    def a_view_does_not_depend_on_the_batch(self) -> None:
        """Render samples in another order, by a copy, and alone; and images whose channels are last."""
        views, images = self._among(chained=True), mixed_images()
        parameters, pixels = mixed(views, images)
        order = np.random.default_rng(2).permutation(len(TRIED_ROWS))
        again, same = mixed(pickle.loads(pickle.dumps(views)), images, TRIED_ROWS[order])
        assert np.array_equal(again, parameters[order]), "parameters depend on the order of the batch"
        assert np.array_equal(digest(same), digest(pixels)[order]), "pixels depend on the order of the batch"
        for i, row in enumerate(TRIED_ROWS):
            alone, one = mixed(self._among(chained=True), images, np.array([row]))
            assert np.array_equal(alone[0], parameters[i]), "parameters of a sample alone are others"
            assert torch.equal(one[0], pixels[i]), "pixels of one alone are others"
        wide = images.contiguous(memory_format=torch.channels_last)
        assert torch.equal(mixed(views, wide)[1], pixels), "with the channels last, pixels are others"

    def both_images_are_views_of_this_number_before_they_are_mixed(self) -> None:
        """Render the partners' own views, mix them, and go on."""
        images, (before, after), rows = mixed_images(), TRIED_CHAIN, np.arange(len(TRIED_AMONG))
        parameters, pixels = mixed(self._among(chained=True), images, rows, view=2)
        own, count = len(mixed_views(*before).parameter_names), len(self._built.parameter_names)
        partners = np.searchsorted(TRIED_AMONG, parameters[:, own])
        drawn = parameters[:, own + 1 + count :][:, :own]
        assert np.array_equal(drawn, parameters[partners][:, :own]), (
            "the partner has other parameters than its own view"
        )
        viewed = mixed_views(*before).apply(images, parameters[:, :own])
        of_mix = torch.from_numpy(parameters[:, own + 1 :][:, :count])
        mix = self._built.mix(viewed, viewed[torch.from_numpy(partners)], of_mix)
        ended = mixed_views(*after, size=(24, 20)).apply(mix, parameters[:, 2 * own + 1 + count :])
        assert torch.equal(ended, pixels), "between other operations, pixels are others"

    def threads_make_no_difference(self) -> None:
        """Mix with one, two and three threads."""
        images, views, threads, results = mixed_images(), self._among(), torch.get_num_threads(), []
        try:
            for count in (1, 2, 3):
                torch.set_num_threads(count)
                results.append(mixed(views, images)[1])
        finally:
            torch.set_num_threads(threads)
        assert all(torch.equal(results[0], each) for each in results), "pixels depend on the number of threads"

    def random_generators_are_left_alone(self) -> None:
        """Compare the states of torch's and NumPy's generators before and after."""
        before = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"]  # noqa: NPY002
        mixed(self._among(), mixed_images())
        assert torch.equal(torch.get_rng_state(), before[0]), "torch's random generator was used"
        after = np.random.get_state(legacy=False)["state"]["key"]  # noqa: NPY002
        assert np.array_equal(after, before[1]), "NumPy's random generator was used"

    def a_gpu_makes_the_same_pixels(self) -> None:
        """Mix on the GPU, if there is one."""
        if not torch.cuda.is_available():
            raise NotTried("there is no GPU")
        views, images = self._among(chained=True), mixed_images()
        same = torch.equal(mixed(views, images.cuda())[1].cpu(), mixed(views, images)[1])
        assert same or not views.exact, "the GPU makes other pixels: it is not exact"


def mixed_views(*operations: Mapping[str, Any], size: tuple[int, int] | None = TRIED_SIZE, **changes: Any) -> Views:
    """Return views of the samples `TRIED_AMONG`.

    Args:
        operations: each `{name, **options}`.
        size: of the images; None if they differ.
        changes: other keys of the section `views`.
    """
    config = ViewsConfig.model_validate({"operations": list(operations), "seed": 3, **changes})
    return build_views(config, size, among=TRIED_AMONG)


def mixed_images(channels: int = 3) -> Tensor:
    """Return a random image for each of `TRIED_AMONG`: uint8 [10, C, H, W].

    Args:
        channels: C.
    """
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (len(TRIED_AMONG), channels, *TRIED_SIZE), dtype=torch.uint8, generator=generator)


def mixed(
    views: Views, images: Tensor, rows: NDArray[np.int64] = TRIED_ROWS, view: int = 0
) -> tuple[NDArray[np.int32], Tensor]:
    """Return parameters and pixels of samples.

    Args:
        views: that mix.
        images: of all samples.
        rows: of the samples to render, among `TRIED_AMONG`.
        view: its number.
    """
    parameters = views.parameters(view, TRIED_AMONG[rows])
    partners = views.partners_in(parameters)
    assert partners is not None, "no partners are drawn"
    others = images[torch.from_numpy(np.searchsorted(TRIED_AMONG, partners))]
    return parameters, views.apply(images[torch.from_numpy(rows)], parameters, others)
