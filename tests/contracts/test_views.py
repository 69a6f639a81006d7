"""What every operation must keep, found by its file: a new one is tested here without a line of its own.

Operations that mix two images are tested in `test_mixing.py`.
"""

from __future__ import annotations

import inspect
import json
import pickle
from typing import Any, get_type_hints

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline import plugins
from pipeline.config import Section, bind, resolved
from pipeline.errors import ConfigError
from pipeline.views import MixingOperation, OperationOptions, Views, ViewsConfig, build_views, digest, sizes_of

PACKAGE = "pipeline.views.operations"
SIZE = (32, 40)
SAMPLES = np.array([7, 0, 3, 4, 5, 1_000_003, 8, 2], np.int64)


def options_of(name: str) -> type[OperationOptions]:
    options: type[OperationOptions] = plugins.load(PACKAGE, name, "name").Options
    return options


def mixes(name: str) -> bool:
    """Whether the operation mixes two images."""
    module = plugins.load(PACKAGE, name, "name")
    fields = module.Options.model_fields
    least = {key: field.examples[0] for key, field in fields.items() if field.is_required() and field.examples}
    return isinstance(module.build(module.Options.model_validate({"name": name, **least})), MixingOperation)


def cases(mixing: bool = False) -> list[Any]:
    """Every operation with the first example of each required option, then with each further example.

    mixing: those that mix two images; else all others.
    """
    found = []
    for name in plugins.names(PACKAGE):
        if mixes(name) != mixing:
            continue
        fields = options_of(name).model_fields
        base = {key: field.examples[0] for key, field in fields.items() if field.is_required() and field.examples}
        variants = [base]
        variants += [base | {key: value} for key, field in fields.items() for value in field.examples or ()]
        for i, variant in enumerate(variants):
            if variant not in variants[:i]:
                text = ",".join(f"{key}={value}" for key, value in variant.items())
                found.append(pytest.param({"name": name, **variant}, id=f"{name}({text})"))
    return found


@pytest.fixture(params=cases())
def operation(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = request.param
    return found


def config(operation: dict[str, Any], **changes: Any) -> ViewsConfig:
    return ViewsConfig.model_validate({"operations": [operation], "seed": 3, **changes})


def photographs(sizes: NDArray[np.int64] | None = None, channels: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    sizes = np.tile(np.array([SIZE]), (len(SAMPLES), 1)) if sizes is None else sizes
    return [torch.randint(0, 256, (channels, *s), dtype=torch.uint8, generator=generator) for s in sizes.tolist()]


def rendered(views: Views, images: Tensor, view: int = 0) -> tuple[NDArray[np.int32], Tensor]:
    parameters = views.parameters(view, SAMPLES)
    return parameters, views.apply(images, parameters)


def test_name_is_the_file(operation: dict[str, Any]) -> None:
    options = options_of(operation["name"])
    assert options.model_validate(operation).name == operation["name"]
    assert options.model_fields["name"].default == operation["name"]


def test_identity_survives_json(operation: dict[str, Any]) -> None:
    class Experiment(Section):
        views: ViewsConfig

    first = config(operation)
    text = json.dumps(resolved(first))
    again = bind({"views": json.loads(text)}, Experiment, ["views"]).views
    assert again == first
    assert type(again.operations[0]) is options_of(operation["name"])
    fields = options_of(operation["name"]).model_fields
    # A field that came later is left out at its default, so that older caches keep their identity.
    later = {key for key, field in fields.items() if field.exclude_if and field.exclude_if(field.get_default())}
    left_out = {key for key in later if getattr(first.operations[0], key) == fields[key].default}
    assert set(json.loads(text)["operations"][0]) == set(fields) - left_out
    identity = build_views(first, SIZE).identity()
    assert json.loads(json.dumps(identity)) == identity == build_views(again).identity()


def test_unknown_option_is_refused(operation: dict[str, Any]) -> None:
    class Experiment(Section):
        views: ViewsConfig

    with pytest.raises(ConfigError) as error:
        bind({"views": {"operations": [{**operation, "nonsense": 1}]}}, Experiment, ["views"])
    assert [problem.key for problem in error.value.problems] == ["views.operations.0.nonsense"]


def test_the_docstring_of_its_class_says_what_every_column_is(operation: dict[str, Any]) -> None:
    """It is what docs/cache-format.md says: `python docs/list_operations.py`."""
    built = plugins.load(PACKAGE, operation["name"], "name").build(config(operation).operations[0])
    said = inspect.getdoc(type(built)) or ""
    assert not said.startswith(f"{type(built).__name__}("), "a dataclass without a docstring"
    assert [name for name in built.parameter_names if f"`{name}`" not in said] == []
    assert get_type_hints(plugins.load(PACKAGE, operation["name"], "name").build)["return"] is type(built)


@pytest.mark.parametrize("channels", [1, 3])
def test_shape_dtype_and_honest_size(operation: dict[str, Any], channels: int) -> None:
    views = build_views(config(operation), SIZE)
    images = torch.stack(photographs(channels=channels))
    before = images.clone()
    parameters, pixels = rendered(views, images)
    assert parameters.dtype == np.int32
    assert parameters.shape == (len(SAMPLES), len(views.parameter_names))
    assert pixels.dtype == torch.uint8
    assert views.output_size is not None
    assert pixels.shape == (len(SAMPLES), channels, *views.output_size)
    assert torch.equal(images, before), "the images were changed in place"


def test_declarations_hold(operation: dict[str, Any]) -> None:
    built = plugins.load(PACKAGE, operation["name"], "name").build(config(operation).operations[0])
    assert built.fixes_size == (built.output_size(None) is not None)
    ranges = built.ranges(SIZE)
    assert len(ranges) == len(built.parameter_names) == len(set(built.parameter_names))
    words = np.random.default_rng(0).integers(0, 2**64, (500, built.words), np.uint64)
    words[0], words[1] = 0, 2**64 - 1
    sizes = np.tile(np.array([SIZE]), (500, 1))
    drawn = built.draw(words, sizes)
    for column, (low, high) in enumerate(ranges):
        assert low <= drawn[:, column].min()
        assert drawn[:, column].max() <= high
    if not built.needs_sizes:
        assert np.array_equal(built.draw(words, None), drawn)


def test_replay_depends_on_nothing_else(operation: dict[str, Any]) -> None:
    views = build_views(config(operation), SIZE)
    images = torch.stack(photographs())
    parameters, pixels = rendered(views, images)
    order = np.random.default_rng(2).permutation(len(SAMPLES))
    shuffled = build_views(config(operation), SIZE).parameters(0, SAMPLES[order])
    assert np.array_equal(shuffled, parameters[order])
    assert torch.equal(views.apply(images[order], shuffled), pixels[order])
    for i in range(len(SAMPLES)):
        alone = views.parameters(0, SAMPLES[i : i + 1])
        assert np.array_equal(alone[0], parameters[i])
        assert torch.equal(views.apply(images[i : i + 1], alone)[0], pixels[i])
    repeated = np.repeat(SAMPLES, 2)
    assert np.array_equal(views.parameters(0, repeated), np.repeat(parameters, 2, axis=0))


def test_threads_make_no_difference(operation: dict[str, Any]) -> None:
    views = build_views(config(operation), SIZE)
    images = torch.stack(photographs()).repeat(8, 1, 1, 1)
    parameters = views.parameters(0, np.arange(len(images)))
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(views.apply(images, parameters))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(results[0], result) for result in results)


def test_memory_layout_makes_no_difference(operation: dict[str, Any]) -> None:
    views = build_views(config(operation), SIZE)
    images = torch.stack(photographs())
    parameters, pixels = rendered(views, images)
    assert torch.equal(views.apply(images.contiguous(memory_format=torch.channels_last), parameters), pixels)
    wider = torch.cat([images, images], 3)[:, :, :, : SIZE[1]]
    assert torch.equal(views.apply(wider, torch.from_numpy(parameters)), pixels)
    assert torch.equal(views.apply(list(images), parameters), pixels)


def test_the_random_generators_are_left_alone(operation: dict[str, Any]) -> None:
    views = build_views(config(operation), SIZE)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"]  # noqa: NPY002
    rendered(views, torch.stack(photographs()))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state(legacy=False)["state"]["key"], numpy_state)  # noqa: NPY002


def test_differing_sizes_are_rendered_one_by_one(operation: dict[str, Any]) -> None:
    sizes = np.array([(32, 40), (57, 33), (29, 64), (32, 40), (40, 32), (100, 90), (31, 31), (32, 41)])
    images = photographs(sizes)
    built = plugins.load(PACKAGE, operation["name"], "name").build(config(operation).operations[0])
    views = build_views(config(operation))
    parameters = views.parameters(0, SAMPLES, sizes_of(images))
    columns = torch.from_numpy(parameters)
    assert views.output_size == built.output_size(None)
    for i, image in enumerate(images):
        one = built.apply(image[None], columns[i : i + 1])
        assert tuple(one.shape[2:]) == built.output_size((sizes[i, 0], sizes[i, 1]))
        known = build_views(config(operation), (int(sizes[i, 0]), int(sizes[i, 1])))
        assert np.array_equal(known.parameters(0, SAMPLES[i : i + 1]), parameters[i : i + 1])
        if views.output_size is not None:
            assert torch.equal(views.apply(images, parameters)[i], one[0])


def test_seed_and_view_matter_only_to_what_is_drawn(operation: dict[str, Any]) -> None:
    views = build_views(config(operation), SIZE)
    samples = np.arange(64)
    first = views.parameters(0, samples)
    if np.ptp(first, axis=0).any():
        assert not np.array_equal(views.parameters(1, samples), first)
        assert not np.array_equal(build_views(config(operation, seed=4), SIZE).parameters(0, samples), first)
    else:
        assert np.array_equal(views.parameters(1, samples), first)


def test_survives_a_pickle(operation: dict[str, Any]) -> None:
    views = build_views(config(operation), SIZE)
    images = torch.stack(photographs())
    _, pixels = rendered(pickle.loads(pickle.dumps(views)), images)
    assert np.array_equal(digest(pixels), digest(rendered(views, images)[1]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_makes_the_same_pixels(operation: dict[str, Any]) -> None:
    views = build_views(config(operation), SIZE)
    images = torch.stack(photographs())
    parameters, pixels = rendered(views, images)
    precision = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        for drawn in (parameters, torch.from_numpy(parameters).cuda()):
            assert torch.equal(views.apply(images.cuda(), drawn).cpu(), pixels) or not views.exact
    finally:
        torch.set_float32_matmul_precision(precision)
