"""Tries what every view operation must keep, on one operation that does not mix images."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline import plugins
from pipeline.config import Section, bind, resolved
from pipeline.contracts.checks import NotTried
from pipeline.errors import ConfigError
from pipeline.views import Views, ViewsConfig, build_views, digest, sizes_of
from pipeline.views.config import OPERATIONS

TRIED_SIZE = (32, 40)
"""Height and width of the images that operations are tried on."""

TRIED_SAMPLES = np.array([7, 0, 3, 4, 5, 1_000_003, 8, 2], np.int64)


class _Experiment(Section):
    views: ViewsConfig


def variants(name: str, given: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
    """Yield an operation with the first example of each required option, then with each further example.

    Args:
        name: of the operation, as in a configuration.
        given: options that are set in all of them.
    """
    options, given = plugins.load(OPERATIONS, name, "name").Options, given or {}
    fields = {key: field for key, field in options.model_fields.items() if key not in given}
    base = {key: field.examples[0] for key, field in fields.items() if field.is_required() and field.examples}
    found = [base, *({**base, key: value} for key, field in fields.items() for value in field.examples or ())]
    for place, variant in enumerate(found):
        if variant not in found[:place]:
            yield {"name": name, **given, **variant}


class OperationContract:
    """Holds the checks of one operation.

    Args:
        operation: `{name, **options}`.
    """

    def __init__(self, operation: Mapping[str, Any]) -> None:
        self._operation = dict(operation)
        self._module = plugins.load(OPERATIONS, self._operation["name"], "name")

    def _config(self, **changes: Any) -> ViewsConfig:
        return ViewsConfig.model_validate({"operations": [self._operation], "seed": 3, **changes})

    def _built(self) -> Any:
        return self._module.build(self._config().operations[0])

    def identity_survives_json(self) -> None:
        """Write the section and the identity as JSON, and read them back."""
        first = self._config()
        text = json.dumps(resolved(first))
        again = bind({"views": json.loads(text)}, _Experiment, ["views"]).views
        assert again == first, "options that are written and read again are others"
        assert type(again.operations[0]) is self._module.Options, "other options are read"
        fields = self._module.Options.model_fields
        # A field that came later is left out at its default, so that older caches keep their identity.
        later = {key for key, field in fields.items() if field.exclude_if and field.exclude_if(field.get_default())}
        left_out = {key for key in later if getattr(first.operations[0], key) == fields[key].default}
        written = set(json.loads(text)["operations"][0])
        assert written == set(fields) - left_out, "an option is missing in the identity"
        identity = build_views(first, TRIED_SIZE).identity()
        assert json.loads(json.dumps(identity)) == identity == build_views(again).identity(), "the identity changes"

    def unknown_options_are_refused(self) -> None:
        """Set an option that does not exist."""
        try:
            bind({"views": {"operations": [{**self._operation, "no_such_option": 1}]}}, _Experiment, ["views"])
        except ConfigError as error:
            keys = [problem.key for problem in error.problems]
        else:
            keys = []
        assert keys == ["views.operations.0.no_such_option"], "an unknown option is not refused"

    def shape_and_dtype_are_as_declared(self) -> None:
        """Render images of one and of three channels."""
        for channels in (1, 3):
            views = build_views(self._config(), TRIED_SIZE)
            images = torch.stack(tried_images(channels=channels))
            before = images.clone()
            parameters, pixels = rendered(views, images)
            assert parameters.dtype == np.int32, f"parameters are {parameters.dtype}, not int32"
            assert parameters.shape == (len(images), len(views.parameter_names)), "there is not a column for each name"
            assert pixels.dtype == torch.uint8, f"pixels are {pixels.dtype}, not uint8"
            assert views.output_size is not None, "output_size of one size is None"
            expected = (len(images), channels, *views.output_size)
            assert pixels.shape == expected, f"pixels are {list(pixels.shape)}, where output_size says {list(expected)}"
            assert torch.equal(images, before), "the images were changed in place"

    def parameters_are_within_their_ranges(self) -> None:
        """Draw from many random words, the least and the greatest too."""
        built = self._built()
        assert built.fixes_size == (built.output_size(None) is not None), "fixes_size is not what output_size says"
        ranges = built.ranges(TRIED_SIZE)
        assert len(ranges) == len(built.parameter_names), "there is not a range for each parameter"
        assert len(set(built.parameter_names)) == len(ranges), "two parameters have one name"
        words = np.random.default_rng(0).integers(0, 2**64, (500, built.words), np.uint64)
        words[0], words[1] = 0, 2**64 - 1
        drawn = built.draw(words, np.tile(np.array([TRIED_SIZE]), (500, 1)))
        for name, column, (low, high) in zip(built.parameter_names, drawn.T, ranges, strict=True):
            within = low <= column.min() and column.max() <= high
            assert within, f"{name} is {column.min()} to {column.max()}, and its range {low} to {high}"
        if not built.needs_sizes:
            assert np.array_equal(built.draw(words, None), drawn), "needs_sizes is False, and sizes matter"

    def a_view_does_not_depend_on_the_batch(self) -> None:
        """Render the samples in another order, alone, and repeated."""
        views, samples = build_views(self._config(), TRIED_SIZE), TRIED_SAMPLES
        images = torch.stack(tried_images())
        parameters, pixels = rendered(views, images)
        order = np.random.default_rng(2).permutation(len(samples))
        shuffled = build_views(self._config(), TRIED_SIZE).parameters(0, samples[order])
        assert np.array_equal(shuffled, parameters[order]), "parameters depend on the order of the batch"
        assert torch.equal(views.apply(images[order], shuffled), pixels[order]), "pixels depend on the order"
        for i in range(len(samples)):
            alone = views.parameters(0, samples[i : i + 1])
            assert np.array_equal(alone[0], parameters[i]), "parameters of a sample alone are others"
            assert torch.equal(views.apply(images[i : i + 1], alone)[0], pixels[i]), "pixels of one alone are others"
        repeated = views.parameters(0, np.repeat(samples, 2))
        assert np.array_equal(repeated, np.repeat(parameters, 2, axis=0)), "a sample that occurs twice differs"

    def threads_make_no_difference(self) -> None:
        """Render with one, two and three threads."""
        views = build_views(self._config(), TRIED_SIZE)
        images = torch.stack(tried_images()).repeat(8, 1, 1, 1)
        parameters = views.parameters(0, np.arange(len(images)))
        threads, results = torch.get_num_threads(), []
        try:
            for count in (1, 2, 3):
                torch.set_num_threads(count)
                results.append(views.apply(images, parameters))
        finally:
            torch.set_num_threads(threads)
        assert all(torch.equal(results[0], result) for result in results), "pixels depend on the number of threads"

    def memory_layout_makes_no_difference(self) -> None:
        """Render images whose channels are last, that are part of larger ones, and that are a list."""
        views = build_views(self._config(), TRIED_SIZE)
        images = torch.stack(tried_images())
        parameters, pixels = rendered(views, images)
        wide = images.contiguous(memory_format=torch.channels_last)
        assert torch.equal(views.apply(wide, parameters), pixels), "with the channels last, pixels are others"
        wider = torch.cat([images, images], 3)[:, :, :, : TRIED_SIZE[1]]
        assert torch.equal(views.apply(wider, torch.from_numpy(parameters)), pixels), "of a part, pixels are others"
        assert torch.equal(views.apply(list(images), parameters), pixels), "of a list, pixels are others"

    def random_generators_are_left_alone(self) -> None:
        """Compare the states of torch's and NumPy's generators before and after."""
        views = build_views(self._config(), TRIED_SIZE)
        before = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"]  # noqa: NPY002
        rendered(views, torch.stack(tried_images()))
        assert torch.equal(torch.get_rng_state(), before[0]), "torch's random generator was used"
        after = np.random.get_state(legacy=False)["state"]["key"]  # noqa: NPY002
        assert np.array_equal(after, before[1]), "NumPy's random generator was used"

    def images_of_differing_sizes_are_rendered_one_by_one(self) -> None:
        """Render images of six sizes, and each alone where its size was known before."""
        sizes = np.array([(32, 40), (57, 33), (29, 64), (32, 40), (40, 32), (100, 90), (31, 31), (32, 41)])
        images, built = tried_images(sizes), self._built()
        views = build_views(self._config())
        parameters = views.parameters(0, TRIED_SAMPLES, sizes_of(images))
        columns = torch.from_numpy(parameters)
        assert views.output_size == built.output_size(None), "output_size is another in a chain"
        for i, image in enumerate(images):
            size = (int(sizes[i, 0]), int(sizes[i, 1]))
            one = built.apply(image[None], columns[i : i + 1])
            assert tuple(one.shape[2:]) == built.output_size(size), f"output_size is not that of an image of {size}"
            known = build_views(self._config(), size).parameters(0, TRIED_SAMPLES[i : i + 1])
            assert np.array_equal(known, parameters[i : i + 1]), "parameters depend on when the size is known"
            if views.output_size is not None:
                assert torch.equal(views.apply(images, parameters)[i], one[0]), "pixels depend on other images"

    def seed_and_number_of_the_view_decide_what_is_drawn(self) -> None:
        """Draw another view, and with another seed."""
        views, samples = build_views(self._config(), TRIED_SIZE), np.arange(64)
        first, second = views.parameters(0, samples), views.parameters(1, samples)
        if np.ptp(first, axis=0).any():
            assert not np.array_equal(second, first), "every view draws the same"
            other = build_views(self._config(seed=4), TRIED_SIZE).parameters(0, samples)
            assert not np.array_equal(other, first), "every seed draws the same"
        else:
            assert np.array_equal(second, first), "parameters are alike for samples, and not for views"

    def it_survives_a_pickle(self) -> None:
        """Render with a copy, as the workers of loaders and clusters have it."""
        views = build_views(self._config(), TRIED_SIZE)
        images = torch.stack(tried_images())
        _, pixels = rendered(pickle.loads(pickle.dumps(views)), images)
        assert np.array_equal(digest(pixels), digest(rendered(views, images)[1])), "a copy renders other pixels"

    def a_gpu_makes_the_same_pixels(self) -> None:
        """Render on the GPU, if there is one."""
        if not torch.cuda.is_available():
            raise NotTried("there is no GPU")
        views = build_views(self._config(), TRIED_SIZE)
        images = torch.stack(tried_images())
        parameters, pixels = rendered(views, images)
        precision = torch.get_float32_matmul_precision()
        try:
            torch.set_float32_matmul_precision("high")
            for drawn in (parameters, torch.from_numpy(parameters).cuda()):
                same = torch.equal(views.apply(images.cuda(), drawn).cpu(), pixels)
                assert same or not views.exact, "the GPU makes other pixels: it is not exact"
        finally:
            torch.set_float32_matmul_precision(precision)


def tried_images(sizes: NDArray[np.int64] | None = None, channels: int = 3) -> list[Tensor]:
    """Return random images uint8 [C, H, W], one for each of `TRIED_SAMPLES`.

    Args:
        sizes: their heights and widths [8, 2]; None for `TRIED_SIZE`.
        channels: C.
    """
    generator = torch.Generator().manual_seed(1)
    sizes = np.tile(np.array([TRIED_SIZE]), (len(TRIED_SAMPLES), 1)) if sizes is None else sizes
    return [torch.randint(0, 256, (channels, *s), dtype=torch.uint8, generator=generator) for s in sizes.tolist()]


def rendered(views: Views, images: Tensor) -> tuple[NDArray[np.int32], Tensor]:
    """Return parameters and pixels of view 0 of `TRIED_SAMPLES`.

    Args:
        views: of the operation.
        images: uint8 [8, C, H, W].
    """
    parameters = views.parameters(0, TRIED_SAMPLES)
    return parameters, views.apply(images, parameters)
