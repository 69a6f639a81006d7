"""Turning against torchvision and NumPy: quarters, small angles, borders."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as reference

from pipeline.config import Section, bind
from pipeline.errors import ConfigError
from pipeline.views import Operations, Views, ViewsConfig, build_views
from pipeline.views.operations import _affine, _sines


def views(**options: Any) -> Views:
    return build_views(ViewsConfig.model_validate({"operations": [{"name": "rotate", **options}], "seed": 2}))


def turned(images: Tensor, angle: int, **options: Any) -> Tensor:
    sines = np.stack([_sines.sines(np.array(angle)), _sines.cosines(np.array(angle))])
    return views(**options).apply(images, np.tile(sines.astype(np.int32), (len(images), 1)))


def noise(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("side", [1, 2, 17, 32])
def test_quarter_turns_are_numpy_s(side: int, interpolation: str) -> None:
    images = noise(2, 3, side, side)
    for quarters in range(-4, 5):
        pixels = turned(images, quarters * _sines.TURN // 4, interpolation=interpolation, fill=99)
        assert np.array_equal(pixels.numpy(), np.rot90(images.numpy(), quarters, (2, 3)))


@pytest.mark.parametrize("shape", [(64, 64), (48, 96), (224, 224)])
@pytest.mark.parametrize("angle", [1, 190, 2731, 8192, 12345, 20000, 40000, 65000])
def test_angles_are_torchvision_s(angle: int, shape: tuple[int, int]) -> None:
    images, degrees = noise(1, 3, *shape), angle * 360 / _sines.TURN
    for fill in (0, 130):
        apart = turned(images, angle, fill=fill).int() - reference.rotate(images, degrees, fill=[fill]).int()
        assert (apart != 0).float().mean() <= 0.001
    theirs = reference.rotate(images, degrees, InterpolationMode.BILINEAR)
    apart = turned(images, angle, interpolation="bilinear").int() - theirs.int()
    assert apart.abs().max() <= 1
    assert (apart != 0).float().mean() <= 0.01


def test_bilinear_borders_are_blended_once() -> None:
    # A flat image on a ground of its own level stays flat, wherever its border falls.
    flat = torch.full((1, 3, 21, 30), 180, dtype=torch.uint8)
    for angle in (500, 7000, 30000):
        assert torch.equal(turned(flat, angle, interpolation="bilinear", fill=180), flat)


def test_places_beyond_32_bits_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    images, matrix = noise(2, 3, 40, 30), torch.tensor([[900_000_000, -500_000_000, 0, 500_000_000, 10**9, 7]] * 2)
    for sampling in ("nearest", "bilinear"):
        small: Any = _affine.transform(images, matrix, sampling, 5)  # type: ignore[arg-type]
        with monkeypatch.context() as patch:
            patch.setattr(_affine, "_SMALL", 1)
            assert torch.equal(_affine.transform(images, matrix, sampling, 5), small)  # type: ignore[arg-type]


def test_shifts_by_half_a_pixel_are_means() -> None:
    images = noise(1, 1, 6, 8)
    half = torch.tensor([[_affine.ONE, 0, _affine.ONE // 2, 0, _affine.ONE, 0]])
    pixels = _affine.transform(images, half, "bilinear", 0)
    expected = torch.cat([images, torch.zeros(1, 1, 6, 1, dtype=torch.uint8)], 3).int()
    assert torch.equal(pixels.int(), (expected[..., :-1] + expected[..., 1:] + 1) // 2)
    # A half goes to the right.
    assert torch.equal(_affine.transform(images, half, "nearest", 0).int(), expected[..., 1:])


@pytest.mark.parametrize("probability", [0.0, 0.4, 1.0])
def test_angles_are_uniform(probability: float) -> None:
    N = 20_000
    sine, cosine = views(probability=probability, degrees=[-20, 60]).parameters(0, np.arange(N)).T.astype(np.float64)
    degrees = np.degrees(np.arctan2(sine, cosine))
    assert abs((degrees != 0).mean() - probability) <= 4.5 * np.sqrt(probability * (1 - probability) / N) + 1e-3
    some = np.sort(degrees[degrees != 0])
    if len(some):
        distance = np.abs((some + 20) / 80 - (np.arange(len(some)) + 0.5) / len(some)).max()
        assert distance < 2.7 / np.sqrt(len(some))


@pytest.mark.parametrize("degrees", [-1, 361, [10, 0], [0, 1, 2], "far", True])
def test_other_angles_are_refused_with_one_sentence(degrees: object) -> None:
    class Inputs(Section):
        operations: Operations = ()

    with pytest.raises(ConfigError) as error:
        bind({"operations": [{"name": "rotate", "degrees": degrees}]}, Inputs, ["operations"])
    (problem,) = error.value.problems
    assert problem.key == "operations.0.degrees"
