"""Chains of operations: names, sizes, order, refusals, digests."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xxhash
from processes import output_of

from pipeline.config import Section, bind
from pipeline.errors import ConfigError, DataError
from pipeline.views import Operations, Views, ViewsConfig, build_views, digest, sizes_of

CHAIN: list[dict[str, Any]] = [
    {"name": "resize", "size": 40},
    {"name": "resized-crop", "size": 32},
    {"name": "pad-crop"},
    {"name": "horizontal-flip"},
    {"name": "pad-crop", "padding": 2},
    {"name": "center-crop", "size": 30},
]


def views(*operations: dict[str, Any], size: tuple[int, int] | None = None, **changes: Any) -> Views:
    return build_views(ViewsConfig.model_validate({"operations": list(operations), **changes}), size)


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_no_operations_are_the_identity() -> None:
    identity = views(size=(5, 6), count=3, first=2)
    images = noise(4, 3, 5, 6)
    parameters = identity.parameters(2, np.arange(4))
    assert identity.numbers == range(2, 5)
    assert parameters.shape == (4, 0)
    assert identity.parameter_names == ()
    assert identity.output_size == (5, 6)
    assert identity.exact
    assert torch.equal(identity.apply(images, parameters), images)
    assert identity.identity() == {"operations": [], "seed": 0}


def test_a_chain_is_its_operations_one_after_the_other() -> None:
    images = noise(6, 3, 60, 48)
    chain = views(*CHAIN, size=(60, 48))
    assert chain.output_size == (30, 30)
    assert chain.parameter_names == (
        *(f"resized-crop.{column}" for column in ("top", "left", "height", "width")),
        *("2.pad-crop.top", "2.pad-crop.left", "horizontal-flip.flip", "4.pad-crop.top", "4.pad-crop.left"),
    )
    parameters = chain.parameters(0, np.arange(6))
    # The crop is drawn inside the image that it sees: 60 x 48 resized to 50 x 40.
    assert (parameters[:, 0] + parameters[:, 2] <= 50).all()
    assert (parameters[:, 1] + parameters[:, 3] <= 40).all()
    step, at = images, 0
    for operation in CHAIN:
        one = views(operation)
        columns = parameters[:, at : at + len(one.parameter_names)]
        step, at = one.apply(step, columns), at + columns.shape[1]
    assert torch.equal(chain.apply(images, parameters), step)
    assert (chain.mixing, chain.partners_in(parameters)) == (None, None)
    assert chain.shares_in(parameters).tolist() == [1.0] * 6


def test_images_of_differing_sizes_come_out_as_they_do_alone() -> None:
    images = [noise(3, 60, 48), noise(3, 41, 97), noise(3, 60, 48), noise(3, 300, 200)]
    chain = views(*CHAIN)
    assert chain.needs_sizes
    assert not views(*CHAIN, size=(60, 48)).needs_sizes
    assert not views({"name": "resize", "size": [40, 40]}, *CHAIN[1:]).needs_sizes
    sizes = sizes_of(images)
    assert sizes.tolist() == [[60, 48], [41, 97], [60, 48], [300, 200]]
    parameters = chain.parameters(1, np.array([5, 2, 9, 1]), sizes)
    pixels = chain.apply(images, parameters)
    assert pixels.shape == (4, 3, 30, 30)
    for i, image in enumerate(images):
        alone = views(*CHAIN, size=(image.shape[1], image.shape[2]))
        drawn = alone.parameters(1, np.array([[5, 2, 9, 1][i]]))
        assert np.array_equal(drawn, parameters[i : i + 1])
        assert torch.equal(alone.apply(image[None], drawn), pixels[i : i + 1])


def test_sizes_that_are_needed_are_asked_for() -> None:
    with pytest.raises(DataError, match="without the sizes"):
        views(*CHAIN).parameters(0, np.arange(3))


def test_differing_shapes_at_the_end_are_refused() -> None:
    flips = views({"name": "horizontal-flip"})
    assert flips.output_size is None
    images = [noise(3, 5, 6), noise(3, 6, 5)]
    with pytest.raises(DataError, match="3x5x6 and 3x6x5") as error:
        flips.apply(images, flips.parameters(0, np.arange(2)))
    assert "resized-crop" in str(error.value)
    with pytest.raises(DataError, match="1x5x6 and 3x5x6"):
        flips.apply([noise(3, 5, 6), noise(1, 5, 6)], flips.parameters(0, np.arange(2)))


def test_parameters_of_other_views_are_refused() -> None:
    crops = views({"name": "pad-crop", "padding": 2})
    images = noise(3, 3, 8, 8)
    with pytest.raises(DataError, match=r"pad-crop\.left"):
        crops.apply(images, np.array([[0, 0], [4, 5], [1, 1]], np.int32))
    with pytest.raises(DataError, match="not the parameters"):
        crops.apply(images, np.zeros((3, 1), np.int32))
    frozen = np.zeros((3, 2), np.int32)
    frozen.flags.writeable = False
    assert crops.apply(images, frozen).shape == images.shape


class Evaluate(Section):
    operations: Operations = ()


class Experiment(Section):
    views: ViewsConfig = ViewsConfig()
    evaluate: Evaluate = Evaluate()


def problems(raw: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(ConfigError) as error:
        bind(raw, Experiment, ["views", "evaluate"])
    return {problem.key: str(problem) for problem in error.value.problems}


def test_every_problem_has_its_place_and_the_nearest_name() -> None:
    found = problems(
        {
            "views": {
                "count": 0,
                "operations": [
                    {"name": "pad_crop"},
                    {"padding": 3},
                    7,
                    {"name": "pad-crop", "paddin": 3},
                    {"name": "pad-crop", "padding": -1, "fill": 256},
                    {"name": "resize"},
                    {"name": "resized-crop", "size": 8, "scale": [1, 0.5], "ratio": [0, 1]},
                    {"name": "resized-crop", "size": 8, "scale": [0.5, 2]},
                ],
            },
            "evaluate": {"operations": [{"name": "center-crop", "size": [1, 2, 3]}, {"name": "nothing-like-it"}]},
        }
    )
    place = "views.operations"
    assert set(found) == {
        *("views.count", f"{place}.0.name", f"{place}.1.name", f"{place}.2", f"{place}.3.paddin"),
        *(f"{place}.4.padding", f"{place}.4.fill", f"{place}.5.size", f"{place}.6.scale", f"{place}.6.ratio"),
        *(f"{place}.7.scale", "evaluate.operations.0.size", "evaluate.operations.1.name"),
    }
    assert "did you mean 'pad-crop'?" in found[f"{place}.0.name"]
    assert "resized-crop" in found[f"{place}.0.name"]
    assert "horizontal-flip" in found[f"{place}.2"]
    assert "did you mean 'padding'?" in found[f"{place}.3.paddin"]
    assert "[height, width]" in found["evaluate.operations.0.size"]


@pytest.mark.parametrize("size", [0, -3, True, 2.5, "8", [8], [8, 0], None])
def test_what_is_no_size(size: Any) -> None:
    assert list(problems({"views": {"operations": [{"name": "resize", "size": size}]}})) == ["views.operations.0.size"]


def test_sections_keep_their_operations() -> None:
    raw = {"operations": [{"name": "resize", "size": [4, 5]}, {"name": "pad-crop"}]}
    section = bind({"evaluate": raw}, Experiment, ["views", "evaluate"]).evaluate
    dumped = section.model_dump(mode="json")
    assert dumped == {"operations": [{"name": "resize", "size": [4, 5]}, {"name": "pad-crop", "padding": 4, "fill": 0}]}
    assert Evaluate.model_validate(dumped) == section
    assert ViewsConfig(operations=section.operations).operations == section.operations


def test_problems_with_the_images_are_found_together() -> None:
    config = ViewsConfig.model_validate({"operations": [{"name": "center-crop", "size": s} for s in (9, 8, 99)]})
    with pytest.raises(ConfigError) as error:
        build_views(config, (8, 8), "evaluate")
    assert [problem.key for problem in error.value.problems] == [
        "evaluate.operations.0.size",
        "evaluate.operations.2.size",
    ]
    with pytest.raises(ConfigError) as error:
        build_views(config, (9, 9))
    assert [problem.key for problem in error.value.problems] == ["views.operations.2.size"]


def test_digest_is_xxh3_of_the_bytes_with_the_shape_as_seed() -> None:
    images = noise(5, 3, 6, 7)
    expected = [xxhash.xxh3_64(image.numpy().tobytes(), (3 << 48) + (6 << 24) + 7).intdigest() for image in images]
    assert digest(images).dtype == np.uint64
    assert digest(images).tolist() == expected
    assert digest(images.contiguous(memory_format=torch.channels_last)).tolist() == expected
    assert digest(images[1::2]).tolist() == expected[1::2]
    assert not set(digest(images.view(5, 3, 7, 6)).tolist()) & set(expected)
    changed = images.clone()
    changed[2, 1, 3, 3] ^= 1
    assert (digest(changed) != digest(images)).tolist() == [False, False, True, False, False]
    assert digest(images[:0]).shape == (0,)


def digests_without_instructions(config: str) -> None:
    """Print what computes here, told to use what every processor has, and the digests of two views of each image."""
    os.environ["ATEN_CPU_CAPABILITY"] = "default"  # is read when the first of torch's kernels is chosen
    print(json.dumps([torch.backends.cpu.get_cpu_capability(), digests(json.loads(config))]))


def digests(config: dict[str, Any]) -> list[list[int]]:
    made = build_views(ViewsConfig.model_validate(config), (60, 48))
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (40, 3, 60, 48), np.uint8))
    return [digest(made.apply(images, made.parameters(view, np.arange(40)))).tolist() for view in (0, 1)]


def test_the_processor_s_instructions_make_no_difference(tmp_path: Path) -> None:
    config = {"operations": CHAIN, "seed": 1}
    capability, found = json.loads(output_of(digests_without_instructions, json.dumps(config), log=tmp_path / "log"))
    assert capability == "DEFAULT"
    assert found == digests(config)
